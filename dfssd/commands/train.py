"""``dfssd train``, the command of a line that names none: run a recipe, or the class-incremental protocol."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from dfssd.commands.help_page import entry, heading, paragraph, show
from dfssd.commands.options import command_line, shown
from dfssd.config import KEYS, TERM_OPTIONS, Config, defaults, help_lines, parse_arguments, parse_value, read_recipe
from dfssd.config.arguments import argument
from dfssd.config.schema import TERM_CHECKS, TERM_MEANINGS
from dfssd.config.values import allowed
from dfssd.distributed.place import place
from dfssd.files import from_here

EXAMPLES = (
    "data=demo labeled=20 teacher=yolov8s.yaml student=yolov8n.yaml epochs=10 imgsz=128",
    "data=my_data.yaml teacher=yolov8s.pt student=yolov8n.pt epochs=100 imgsz=640 device=0",
    "resume=runs/dfssd",
)
"""Lines of arguments: a trial, a run, and how it goes on after an interruption."""


def run(words: Sequence[str], program: str) -> int:
    """Run or resume the recipe; 2 if a check of the exported files has failed.

    Args:
        words: Arguments ``key=value``.
        program: What was typed before them, for the record.
    """
    if place().world == 1:
        return _run(words, program)
    from dfssd.distributed import crew

    if crew.is_member():
        return crew.serve()[0]
    with crew.led():
        return _run(words, program)


def _run(words: Sequence[str], program: str) -> int:
    from dfssd.runs.configure import configure

    config = configure(parse_arguments(list(words)))
    command = f"{program} {shlex.join(words)}"
    from dfssd.pipeline import open_run, processes_to_start, run_stages

    if (processes := processes_to_start(config)) > 1:
        from dfssd.distributed.launch import launch

        return launch(words, processes)
    if config["steps"] is not None:
        return _run_steps(config, program, command)
    opened = open_run(config, command)
    passed = run_stages(opened)
    if line := next_line(opened.folder.path, program):
        print(f"next     {line}")
    return 0 if passed else 2


def next_line(run: Path, program: str) -> str | None:
    """The command that shows what the student of a finished run finds in other photos; None if it has no student."""
    if not (run / "weights" / "student.pt").exists():
        return None
    return f"{program} predict FOLDER_OF_PHOTOS {shlex.quote(f'model={from_here(run)}')}"


def _run_steps(config: Config, program: str, command: str) -> int:
    """Run the class-incremental protocol; each of its runs is recorded as if it had been typed."""
    from dfssd.incremental.protocol import run_protocol
    from dfssd.pipeline import run
    from dfssd.runs.configure import configure

    def run_one(values: dict[str, Any]) -> None:
        run(configure(values), command=command_line(program, values))

    return 0 if run_protocol(config, command, run_one, configure) else 2


def show_help(words: Sequence[str], program: str) -> None:
    """Show how ``program`` is used: our keys in groups, the terms with their options, and Ultralytics' keys.

    Args:
        words: Arguments of a run; the defaults are those of their recipe.
        program: What was typed before them.

    Raises:
        UserError: There is no such recipe, or the words are no arguments.
    """
    show(help_page(program, RecipeDefaults.of(parse_arguments(list(words)).get("recipe"))))


@dataclass(frozen=True)
class RecipeDefaults:
    """What a recipe changes in the defaults.

    Attributes:
        recipe: Its name.
        values: Keys, options of terms, and Ultralytics' arguments -> the values that it sets.
        terms: Names of the terms that it sets options of.
    """

    recipe: str
    values: Mapping[str, Any]
    terms: Sequence[str]

    @classmethod
    def of(cls, recipe: str | None = None) -> RecipeDefaults:
        """Those of a recipe by name or path; None: the recipe of a line that names none.

        Raises:
            UserError: There is no such recipe, or it is broken.
        """
        name = str(recipe or defaults()["recipe"])
        keys, terms = read_recipe(name)
        return cls(
            name, {"recipe": name, **keys, **terms}, list(dict.fromkeys(key.rpartition(".")[0] for key in terms))
        )

    def effective(self, key: str, usual: str) -> tuple[str, str]:
        """The default of a key with this recipe as it is typed, and where it comes from if it is not the usual one.

        Args:
            key: Its name.
            usual: Its default without the recipe, as it is typed.
        """
        value = shown(self.values[key]) if key in self.values else usual
        same = key not in self.values or parse_value(value) == parse_value(usual)
        return (usual, "") if same else (value, f"recipe {self.recipe}; otherwise {usual}")


def help_page(program: str, chosen: RecipeDefaults) -> Iterator[str]:
    """The lines of the help."""
    yield paragraph(f"usage: {program} key=value ...   (or --key value)")
    yield ""
    for example in EXAMPLES:
        yield paragraph(f"{program} {example}", 2)
    yield from (
        "",
        paragraph(
            f"The defaults below are those of recipe={chosen.recipe}; {program} recipe=NAME --help shows those of "
            "another. Where a recipe has changed one, its name and the usual value follow in brackets."
        ),
    )
    for group, keys in key_groups(chosen):
        yield from ("", heading(group))
        for key in keys:
            yield from entry(key.name, key.default, key.allowed, key.described)
    yield from _terms_page(chosen)
    yield from _ultralytics_page(chosen)


@dataclass(frozen=True)
class DescribedKey:
    """A key of a run, as the help describes it.

    Attributes:
        name: Its dotted name.
        default: Its default as it is typed.
        origin: Where that comes from; empty: from ``cfg/default.yaml`` or the code of a term.
        allowed: Its values, in words.
        meaning: What it does.
    """

    name: str
    default: str
    origin: str
    allowed: str
    meaning: str

    @property
    def described(self) -> str:
        """What it does, and where its default comes from."""
        return " ".join([self.meaning, *([f"[{self.origin}]"] if self.origin else [])])


def key_groups(chosen: RecipeDefaults) -> Iterator[tuple[str, list[DescribedKey]]]:
    """Our keys, in the groups of ``cfg/default.yaml``: heading and keys of each, with the defaults of a recipe."""
    for group, lines in groupby(help_lines(), key=lambda line: line.group):
        keys = []
        for line in lines:
            kind, _, meaning = line.meaning.partition(") ")
            check = KEYS.get(line.key)
            usual = {"null": "none", "{}": ""}.get(line.default, line.default.replace(", ", ","))
            default, origin = chosen.effective(line.key, usual)
            values = allowed(check.check) if check else kind.lstrip("(")
            keys.append(DescribedKey(line.key, default, "" if line.key == "recipe" else origin, values, meaning))
        yield group, keys


def _terms_page(chosen: RecipeDefaults) -> Iterator[str]:
    """The distillation terms: what all of them take, and the options of each."""
    from dfssd.distillation.schedules import SCHEDULES
    from dfssd.distillation.terms import described_options, find_term, installed_terms, term_meanings

    yield from ("", heading("distillation terms: <term>.<option>=, and for each of them"))
    ranges = {option: allowed(check) for option, check in TERM_CHECKS.items()}
    for option, default in TERM_OPTIONS.items():
        yield from entry(
            f"<term>.{option}", str(default), ranges.get(option, " | ".join(SCHEDULES)), TERM_MEANINGS[option]
        )
    for name, meaning in term_meanings(
        {**installed_terms(), **{name: find_term(name) for name in chosen.terms}}
    ).items():
        yield from ("", paragraph(f"{name}: {meaning}", 2))
        for option, usual in TERM_OPTIONS.items():
            default, origin = chosen.effective(f"{name}.{option}", shown(usual))
            if origin:
                yield from entry(f"{name}.{option}", default, ranges.get(option, " | ".join(SCHEDULES)), f"[{origin}]")
        for option, found in described_options(name).items():
            default, origin = chosen.effective(f"{name}.{option}", shown(found.default))
            own = DescribedKey(f"{name}.{option}", default, origin, found.allowed, found.meaning)
            yield from entry(own.name, own.default, own.allowed, own.described)


def _ultralytics_page(chosen: RecipeDefaults) -> Iterator[str]:
    """The arguments of Ultralytics that a training takes."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    def written(name: str) -> str:
        default, origin = chosen.effective(name, shown(DEFAULT_CFG_DICT[name]))
        return f"{name}={default}" + (f" [{origin}]" if origin else "")

    taken = [name for name in DEFAULT_CFG_DICT if not argument(name).refused and name not in KEYS]
    yield from ("", heading("Ultralytics' arguments, passed to every training (docs.ultralytics.com/usage/cfg)"))
    yield paragraph(", ".join(map(written, taken)), 2)
    yield from (
        "",
        paragraph("verbose=true shows Ultralytics' output on the terminal, too; it is in log.txt anyway.", 2),
    )
