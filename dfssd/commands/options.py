"""The options of a command other than ``train``: described once, for its values, its defaults, and its help."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dfssd.commands.help_page import entry, paragraph
from dfssd.commands.help_page import show as print_page
from dfssd.config import KEYS, defaults, help_lines, nearest, parse_arguments
from dfssd.config.resolution import HelpLine
from dfssd.config.values import BOOLEAN, Check, allowed
from dfssd.errors import UserError
from dfssd.trust.limits import Limits, set_limits


@dataclass(frozen=True)
class Option:
    """An option ``name=value`` of a command.

    Attributes:
        name: Its name.
        check: Which values it takes.
        meaning: What it does, for the help.
        default: Its value if it is not given.
        required: It must be given.
    """

    name: str
    check: Check
    meaning: str
    default: Any = None
    required: bool = False


TRUSTING = Option("trust", BOOLEAN, "load .pt files whatever they hold, which can run any program", default=False)
"""Of every command that loads networks, besides those that take the keys of a run."""

_LIMITS = "limits."
"""How the keys begin that say what a file may ask for."""


def as_options(lines: Iterable[HelpLine]) -> list[Option]:
    """Keys of a run as options of another command, with their values, meanings, and defaults."""
    usual = defaults()
    return [
        Option(line.key, KEYS[line.key].check, line.meaning.partition(") ")[2], default=usual[line.key])
        for line in lines
    ]


def limiting(*names: str) -> list[Option]:
    """The keys ``limits.*`` of a run as options of a command that reads the files of others.

    Args:
        names: Those that concern its files, without their section; none: all.
    """
    own = (line for line in help_lines() if line.key.startswith(_LIMITS))
    return as_options(line for line in own if not names or line.key.removeprefix(_LIMITS) in names)


def limit_files(values: Mapping[str, Any]) -> dict[str, Any]:
    """Hold the files that this process reads to the limits among the values of a command; the other values."""
    given = {key: value for key, value in {**defaults(), **values}.items() if key.startswith(_LIMITS)}
    set_limits(Limits(**{key.removeprefix(_LIMITS): value for key, value in given.items()}))
    return {key: value for key, value in values.items() if key not in given}


@dataclass(frozen=True)
class Usage:
    """How a command is used.

    Attributes:
        options: What it takes.
        positional: Options whose values may be written without their names, in this order; the last one may take
            several.
        examples: Lines of arguments, each with what it does.
        others: What keys are that it does not know and passes on; empty: there are none.
    """

    options: Sequence[Option]
    positional: Sequence[str] = ()
    examples: Sequence[tuple[str, str]] = ()
    others: str = ""

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """The values of all options: those given, else the defaults.

        Raises:
            UserError: Unknown or missing options, or values out of range; all problems at once.
        """
        return self.check(self._given(words))

    def read_and_pass_on(self, words: Sequence[str], known: Collection[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values of all options, and those of the keys that are passed on (:attr:`others`).

        Args:
            words: What was typed.
            known: Names of the keys that may be passed on, besides those with a dot, which whoever gets them checks.

        Raises:
            UserError: As :meth:`read`.
        """
        given = self._given(words)
        own = {option.name for option in self.options}
        passed = {name: value for name, value in given.items() if name not in own and (name in known or "." in name)}
        return self.check({k: v for k, v in given.items() if k not in passed}, known), passed

    def _given(self, words: Sequence[str]) -> dict[str, Any]:
        """What was typed, by name."""
        named, plain = self._split(words)
        given = parse_arguments(named)
        if twice := [name for name in plain if name in given]:
            raise UserError(*(f"{name} is given twice: keep one" for name in twice))
        return {**given, **plain}

    def check(self, given: Mapping[str, Any], others: Collection[str] = ()) -> dict[str, Any]:
        """The values of all options, of which some are given by name; raises as :meth:`read`.

        Args:
            given: Name -> value.
            others: Names that an unknown one may have been meant for, too.
        """
        known = {option.name: option for option in self.options}
        given = {name: _as_text(known[name].check, value) if name in known else value for name, value in given.items()}
        problems = [f"unknown key '{key}'{nearest(key, {*known, *others})}" for key in given if key not in known]
        for name, option in known.items():
            if name not in given and option.required:
                problems.append(f"{name} is missing: {option.meaning}")
            elif name in given and (problem := option.check.problem(given[name])):
                problems.append(f"{name}={given[name]}: {problem}")
        if problems:
            raise UserError(*problems)
        return {name: given.get(name, option.default) for name, option in known.items()}

    def _split(self, words: Sequence[str]) -> tuple[list[str], dict[str, str | list[str]]]:
        """The words that have a name, and the values of positional options, which are texts as they were typed."""
        plain: list[str] = []
        named: list[str] = []
        follows = False  # the value of --key value
        for word in words:
            bare = not follows and "=" not in word and not word.startswith("-")
            (plain if bare and self.positional else named).append(word)
            follows = word.startswith("--") and "=" not in word
        values: dict[str, str | list[str]] = {}
        *first, last = self.positional or ("",)
        for name in first:
            if plain:
                values[name] = plain.pop(0)
        if plain:
            values[last] = plain[0] if len(plain) == 1 else plain
        return named, values

    def show(self, line: str, summary: str) -> None:
        """Print the help: usage, options with defaults and meanings, examples.

        Args:
            line: Program and command, as typed.
            summary: What the command does.
        """
        required = [option.name for option in self.options if option.required]
        words = [name.upper() if name in self.positional else f"{name}=..." for name in required]
        page = [paragraph(f"usage: {' '.join([line, *words])} key=value ..."), "", paragraph(summary), ""]
        for option in self.options:
            default = None if option.required else shown(option.default)
            page += entry(option.name, default, allowed(option.check), option.meaning)
        page += entry("...", None, "", self.others) if self.others else []
        for example, meaning in self.examples:
            page += ["", paragraph(f"{line} {example}", 2), paragraph(meaning, 6)]
        print_page(page)


def _as_text(check: Check, value: Any) -> Any:
    """A number as a text where only that is allowed: ``device=0``, ``out=17``."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return str(value) if number and check.problem(value) and not check.problem(str(value)) else value


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"[{','.join(map(shown, value))}]" if isinstance(value, list) else str(value)


def command_line(program: str, values: Mapping[str, Any]) -> str:
    """The command line that sets these keys."""
    import shlex

    return f"{program} " + shlex.join(f"{key}={'none' if value is None else value}" for key, value in values.items())
