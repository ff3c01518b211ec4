"""``dfssd train``, the command of a line that names none: run a recipe, or the class-incremental protocol."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from dfssd.commands.options import command_line
from dfssd.config import TERM_OPTIONS, Config, help_lines, parse_arguments


def run(words: Sequence[str], program: str) -> int:
    """Run or resume the recipe; 2 if a check of the exported files has failed.

    Args:
        words: Arguments ``key=value``.
        program: What was typed before them, for the record.
    """
    from dfssd.runs.configure import configure

    config = configure(parse_arguments(list(words)))
    command = f"{program} {shlex.join(words)}"
    from dfssd.pipeline import run as run_stages

    if config["steps"] is not None:
        return _run_steps(config, program, command)
    return 0 if run_stages(config, command=command) else 2


def _run_steps(config: Config, program: str, command: str) -> int:
    """Run the class-incremental protocol; each of its runs is recorded as if it had been typed."""
    from dfssd.incremental.protocol import run_protocol
    from dfssd.pipeline import run
    from dfssd.runs.configure import configure

    def run_one(values: dict[str, Any]) -> None:
        run(configure(values), command=command_line(program, values))

    return 0 if run_protocol(config, command, run_one, configure) else 2


def show_help(program: str) -> None:
    """Show usage of ``program``, our keys with defaults and meaning, and the terms with their options."""
    from rich.console import Console
    from rich.table import Table

    from dfssd.distillation.terms import term_meanings, term_options

    console = Console()
    console.print(f"usage: {program} key=value ...   (or --key value; every Ultralytics training key works too)\n")
    console.print(
        f"  {program} data=demo labeled=20 teacher=yolov8s.yaml student=yolov8n.yaml epochs=10 imgsz=128", markup=False
    )
    console.print(f"  {program} data=CR7-DET.zip teacher=yolov8s.pt student=yolov8n.pt labeled=0.1\n", markup=False)
    keys = Table("key", "default", "meaning", box=None, pad_edge=False)
    for row in help_lines():
        keys.add_row(*row)
    console.print(keys, markup=False)
    terms = Table("term", "option", "default", "meaning", box=None, pad_edge=False)
    meanings = term_meanings()
    for name, options in term_options().items():
        terms.add_row(name, ", ".join(TERM_OPTIONS), ", ".join(map(str, TERM_OPTIONS.values())), meanings[name])
        for option, default in options.items():
            terms.add_row("", f"{name}.{option}", str(default), "")
    console.print("\n", terms)
    console.print(f"\nOptions of every term: {', '.join(TERM_OPTIONS)}. Results are documented in docs/results.md.")
