"""``dfssd train``, the command of a line that names none: run a recipe, or the class-incremental protocol."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from dfssd.commands.help_page import entry, heading, paragraph, show
from dfssd.commands.options import command_line, shown
from dfssd.config import KEYS, TERM_OPTIONS, Config, help_lines, parse_arguments
from dfssd.config.arguments import argument
from dfssd.config.schema import TERM_CHECKS, TERM_MEANINGS
from dfssd.config.values import allowed
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
    from dfssd.runs.configure import configure

    config = configure(parse_arguments(list(words)))
    command = f"{program} {shlex.join(words)}"
    from dfssd.pipeline import open_run, run_stages

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


def show_help(program: str) -> None:
    """Show how ``program`` is used: our keys in groups, the terms with their options, and Ultralytics' keys."""
    show(help_page(program))


def help_page(program: str) -> Iterator[str]:
    """The lines of the help."""
    yield paragraph(f"usage: {program} key=value ...   (or --key value)")
    yield ""
    for example in EXAMPLES:
        yield paragraph(f"{program} {example}", 2)
    for group, keys in key_groups():
        yield from ("", heading(group))
        for key in keys:
            yield from entry(key.name, key.default, key.allowed, key.meaning)
    yield from _terms_page()
    yield from _ultralytics_page()


@dataclass(frozen=True)
class DescribedKey:
    """A key of a run, as the help describes it.

    Attributes:
        name: Its dotted name.
        default: Its default as it is typed.
        allowed: Its values, in words.
        meaning: What it does.
    """

    name: str
    default: str
    allowed: str
    meaning: str


def key_groups() -> Iterator[tuple[str, list[DescribedKey]]]:
    """Our keys, in the groups of ``cfg/default.yaml``: heading and keys of each."""
    for group, lines in groupby(help_lines(), key=lambda line: line.group):
        keys = []
        for line in lines:
            kind, _, meaning = line.meaning.partition(") ")
            check = KEYS.get(line.key)
            default = {"null": "none", "{}": ""}.get(line.default, line.default.replace(", ", ","))
            keys.append(DescribedKey(line.key, default, allowed(check.check) if check else kind.lstrip("("), meaning))
        yield group, keys


def _terms_page() -> Iterator[str]:
    """The distillation terms: what all of them take, and the options of each."""
    from dfssd.distillation.schedules import SCHEDULES
    from dfssd.distillation.terms import described_options, installed_terms, term_meanings

    yield from ("", heading("distillation terms: <term>.<option>=, and for each of them"))
    for option, default in TERM_OPTIONS.items():
        check = TERM_CHECKS.get(option)
        yield from entry(
            f"<term>.{option}", str(default), allowed(check) if check else " | ".join(SCHEDULES), TERM_MEANINGS[option]
        )
    for name, meaning in term_meanings(installed_terms()).items():
        yield from ("", paragraph(f"{name}: {meaning}", 2))
        for option, found in described_options(name).items():
            yield from entry(f"{name}.{option}", shown(found.default), found.allowed, found.meaning)


def _ultralytics_page() -> Iterator[str]:
    """The arguments of Ultralytics that a training takes."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    taken = [name for name in DEFAULT_CFG_DICT if not argument(name).refused and name not in KEYS]
    yield from ("", heading("Ultralytics' arguments, passed to every training (docs.ultralytics.com/usage/cfg)"))
    yield paragraph(", ".join(f"{name}={shown(DEFAULT_CFG_DICT[name])}" for name in taken), 2)
    yield from (
        "",
        paragraph("verbose=true shows Ultralytics' output on the terminal, too; it is in log.txt anyway.", 2),
    )
