"""The command line: the name of a command, or none for ``train``, then ``key=value`` arguments; an error is one line.

Exit codes: 0 finished, 1 a bug (traceback), 2 bad input or a failed check, 130 interrupted (resumable), 143 and 129 the
same by SIGTERM and SIGHUP.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from dfssd import __version__, log
from dfssd.commands import COMMANDS, TRAIN, split_words
from dfssd.commands.help_page import entry, heading, paragraph, show
from dfssd.distributed.place import place, take_place
from dfssd.errors import Interrupted, UserError, report_problems
from dfssd.files import from_here
from dfssd.interrupts import exit_code, stopped_by_signals
from dfssd.remedies import explain_storage

HELP = {"-h", "--help", "help"}

PURPOSE = (
    "From a few labeled and many unlabeled photos to a small, ordinary YOLO file: a teacher is trained on the labels, "
    "and a student on the labels, on the teacher's labels of the other photos, and by distillation."
)

EXAMPLES = (
    ("check data=my_parts out=seen", "what is read from the data; nothing is trained"),
    ("data=my_parts epochs=100 imgsz=640 device=0", "train on it"),
    ("resume=runs/dfssd", "go on with a run that was interrupted"),
)
"""Lines of arguments, each with what it does."""


@log.console()
def main(argv: Sequence[str] | None = None, program: str = "dfssd") -> int:
    """Run the command line and return the exit code.

    Args:
        argv: The arguments after the program name; None takes those of this process.
        program: What was typed before them, shown in the usage and recorded.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command = COMMANDS[TRAIN]
    try:
        take_place()
        asked = [word for word in words if word not in HELP]
        if not asked:
            show_commands(program)
            return 0
        if "--version" in words:
            print(f"dfssd {__version__}")
            return 0
        command, own = split_words(asked)
        if asked != words:
            command.show_help(own, program)
            return 0
        if command is not COMMANDS[TRAIN] and place().world > 1:
            if place().rank:
                return 2
            raise UserError("only a run is shared by several processes: start this command without torchrun")
        with stopped_by_signals(), explain_storage():
            return command.run(own, program)
    except UserError as e:
        return report_problems(e)
    except ModuleNotFoundError as e:
        if e.name is None or e.name.partition(".")[0] == "dfssd":  # a bug
            raise
        return report_problems(UserError(missing(e.name)))
    except KeyboardInterrupt as e:
        print(f"\n{_how_to_go_on(program, words, e)}", file=sys.stderr)
        return exit_code(e)


def missing(package: str) -> str:
    """What is wrong in an environment without all that dfssd needs, such as one that only predicts."""
    return (
        f"this needs {package.partition('.')[0]}, which is not installed in this Python: install dfssd with its "
        "dependencies (pip install . in a checkout, or pip install dfssd-*.whl)"
    )


def _how_to_go_on(program: str, words: Sequence[str], stopped: KeyboardInterrupt) -> str:
    """What the user has to type after an interruption."""
    if isinstance(stopped, Interrupted) and not _is_protocol(words):
        again = shlex.quote(f"resume={from_here(stopped.folder)}")
        return f"interrupted; what is finished is kept, and this line goes on:\n\n    {program} {again}"
    goes = "goes on" if _is_protocol(words) or split_words(words)[0].continues else "begins anew"
    return f"interrupted; the same line {goes}:\n\n    {program} {shlex.join(words)}"


def _is_protocol(words: Sequence[str]) -> bool:
    """Whether a line runs the class-incremental protocol, which is resumed by the same line."""
    return any(word.lstrip("-").startswith("steps=") or word == "--steps" for word in words)


def show_commands(program: str) -> None:
    """Print what the program is for, its commands, and where to read on."""
    show(
        [
            f"usage: {program} [command] key=value ...",
            "",
            paragraph(PURPOSE),
            "",
            heading("commands"),
            *(line for name, command in COMMANDS.items() for line in entry(name, None, command.summary, "")),
            "",
            heading("examples"),
            *(line for words, does in EXAMPLES for line in entry(f"{program} {words}", None, "", does)),
            "",
            heading("more"),
            *entry(f"{program} {TRAIN} --help", None, "", "all keys of a run, with their ranges and meanings"),
            *entry(f"{program} recipe=NAME --help", None, "", "the same, with the defaults of another recipe"),
            *entry(f"{program} COMMAND --help", None, "", "how another command is used"),
            *entry("docs/guide.md", None, "", "first run, stages, results, Python interface"),
        ]
    )


if __name__ == "__main__":
    from dfssd.process import prepare_process

    prepare_process()
    sys.exit(main(program="python -m dfssd.cli"))
