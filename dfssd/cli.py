"""The command line: ``key=value`` arguments start a run, ``check key=value`` looks at its data; an error is one line.

Exit codes: 0 finished, 1 a bug (traceback), 2 bad input or a failed check, 130 interrupted (resumable).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dfssd import __version__, log
from dfssd.config import TERM_OPTIONS, Config, help_lines, parse_arguments
from dfssd.errors import UserError, report_problems


def print_help(program: str) -> None:
    """Show usage of ``program``, our keys with defaults and meaning, and the terms with their options."""
    from rich.console import Console
    from rich.table import Table

    from dfssd.distillation.terms import term_meanings, term_options

    console = Console()
    console.print(f"usage: {program} key=value ...   (or --key value; every Ultralytics training key works too)\n")
    console.print(
        f"  {program} data=demo labeled=20 teacher=yolov8s.yaml student=yolov8n.yaml epochs=10 imgsz=128", markup=False
    )
    console.print(f"  {program} data=CR7-DET.zip teacher=yolov8s.pt student=yolov8n.pt labeled=0.1", markup=False)
    console.print(f"  {program} check data=CR7-DET.zip out=seen   (what a run would read; nothing is trained)\n")
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


def command_line(program: str, values: Mapping[str, Any]) -> str:
    """The command line that sets these keys."""
    return f"{program} " + shlex.join(f"{key}={'none' if value is None else value}" for key, value in values.items())


def _run_steps(config: Config, program: str, command: str) -> int:
    """Run the class-incremental protocol; each of its runs is recorded as if it had been typed."""
    from dfssd.incremental.protocol import run_protocol
    from dfssd.pipeline import run
    from dfssd.runs.configure import configure

    def run_one(values: dict[str, Any]) -> None:
        run(configure(values), command=command_line(program, values))

    return 0 if run_protocol(config, command, run_one, configure) else 2


def _check(words: Sequence[str]) -> int:
    """Print what a run would read from its data; 2 if that would stop it."""
    from dfssd.data_check import check_data
    from dfssd.inspection.table import print_report

    report = check_data(parse_arguments(list(words)))
    print_report(report)
    return report_problems(UserError(*report.problems)) if report.problems else 0


@log.console()
def main(argv: Sequence[str] | None = None, program: str = "dfssd") -> int:
    """Run the command line and return the exit code.

    Args:
        argv: The arguments after the program name; None takes those of this process.
        program: What was typed before them, shown in the usage and recorded.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    checks = words[:1] == ["check"]
    given: dict[str, Any] = {}
    try:
        if not words or {"-h", "--help", "help"} & set(words):
            print_help(program)
            return 0
        if "--version" in words:
            print(f"dfssd {__version__}")
            return 0
        if checks:
            return _check(words[1:])
        given = parse_arguments(words)
        from dfssd.runs.configure import configure

        config = configure(given)
        command = f"{program} {shlex.join(words)}"
        from dfssd.pipeline import run

        if config["steps"] is not None:
            return _run_steps(config, program, command)
        return 0 if run(config, command=command) else 2
    except UserError as e:
        return report_problems(e)
    except KeyboardInterrupt:
        again = "" if checks or "steps" in given else " with resume=<run folder>"
        print(f"\ninterrupted; repeat the same line{again} to continue", file=sys.stderr)
        return 130
