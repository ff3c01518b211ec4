"""The options of a command other than ``train``: described once, for its values, its defaults, and its help."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dfssd.config import nearest, parse_arguments
from dfssd.config.values import Check
from dfssd.errors import UserError


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


@dataclass(frozen=True)
class Usage:
    """How a command is used.

    Attributes:
        options: What it takes.
        positional: Options whose values may be written without their names, in this order; the last one may take
            several.
        examples: Lines of arguments, each with what it does.
    """

    options: Sequence[Option]
    positional: Sequence[str] = ()
    examples: Sequence[tuple[str, str]] = ()

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """The values of all options: those given, else the defaults.

        Raises:
            UserError: Unknown or missing options, or values out of range; all problems at once.
        """
        given = parse_arguments(self._named(words))
        known = {option.name: option for option in self.options}
        problems = [f"unknown key '{key}'{nearest(key, known)}" for key in given if key not in known]
        for name, option in known.items():
            if name not in given and option.required:
                problems.append(f"{name} is missing: {option.meaning}")
            elif name in given and (problem := option.check.problem(given[name])):
                problems.append(f"{name}={given[name]}: {problem}")
        if problems:
            raise UserError(*problems)
        return {name: given.get(name, option.default) for name, option in known.items()}

    def _named(self, words: Sequence[str]) -> list[str]:
        """The words with the names of positional options before their values."""
        plain: list[str] = []
        named: list[str] = []
        follows = False  # the value of --key value
        for word in words:
            bare = not follows and "=" not in word and not word.startswith("-")
            (plain if bare and self.positional else named).append(word)
            follows = word.startswith("--") and "=" not in word
        names = list(self.positional)
        while plain and names:
            name = names.pop(0)
            values = [plain.pop(0)] if names else plain
            named.append(f"{name}={values[0]}" if len(values) == 1 else f"{name}=[{','.join(values)}]")
            if not names:
                break
        return named

    def show(self, line: str, summary: str) -> None:
        """Print the help: usage, options with defaults and meanings, examples.

        Args:
            line: Program and command, as typed.
            summary: What the command does.
        """
        from rich.console import Console
        from rich.table import Table

        console = Console()
        required = [option.name for option in self.options if option.required]
        words = [name.upper() if name in self.positional else f"{name}=..." for name in required]
        console.print(f"usage: {' '.join([line, *words])} key=value ...\n\n{summary}\n", markup=False, highlight=False)
        table = Table("key", "default", "meaning", box=None, pad_edge=False)
        for option in self.options:
            table.add_row(option.name, "" if option.required else shown(option.default), option.meaning)
        console.print(table, markup=False)
        for example, meaning in self.examples:
            console.print(f"\n  {line} {example}\n      {meaning}", markup=False, highlight=False)


def shown(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return f"[{','.join(map(shown, value))}]" if isinstance(value, list) else str(value)


def command_line(program: str, values: Mapping[str, Any]) -> str:
    """The command line that sets these keys."""
    import shlex

    return f"{program} " + shlex.join(f"{key}={'none' if value is None else value}" for key, value in values.items())
