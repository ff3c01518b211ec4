"""The command lines and the keys that the Markdown files show exist and are accepted."""

from __future__ import annotations

import re
import shlex
from importlib import import_module

import pytest
from ultralytics.utils import DEFAULT_CFG_DICT

from dfssd.commands import COMMANDS
from dfssd.commands.options import Usage
from dfssd.commands.review import PARTS
from dfssd.config import ALIASES, KEYS, TERM_OPTIONS, parse_arguments
from dfssd.distillation.terms import term_options
from dfssd.errors import UserError
from dfssd.runs.configure import configure
from dfssd.runs.key_names import configure_data
from tests.docs.test_links import PAGES, ROOT

OF_SCRIPTS = {"only", "seeds", "table", "out", "pictures", "rounds", "repeats", "threads", "images", "role"}
OF_SCRIPTS |= {"clients", "seconds", "photos"}
"""Arguments of the benchmark scripts, load_test.py, run_plan.py, boundary.py, ``check`` and ``compare`` alone."""

NO_KEYS = {"key", "strict", "distills", "at.weight", "foreach", "annotated"}
"""The placeholder, arguments in Python and of a request, and the option of a term that is an example."""

FORMER = {"teacher_min_steps"}
"""Keys of runs in EXPERIMENTS.md that have another name today."""


def commands(text: str) -> list[str]:
    """Lines of code that start a run, without comments; without those that have an ellipsis or a placeholder."""
    lines = re.findall(r"^    (?:dfssd|python train\.py) (.+?)(?:  +# .*)?$", text, re.M)
    return [line for line in lines if not re.search(r"(^| )\.\.\.|=\.\.\.|<\w+>", line)]


USAGES: dict[str, Usage] = {
    name: module.USAGE
    for name, command in COMMANDS.items()
    if hasattr(module := import_module(command.module), "USAGE")
}
"""Commands with options of their own."""
USAGES |= {f"review {name}": part.usage for name, part in PARTS.items()}

SHOWN = [(page.name, line) for page in PAGES for line in commands(page.read_text(encoding="utf-8"))]


def test_finds_the_commands() -> None:
    assert len(SHOWN) >= 12
    assert commands("x\n\n    dfssd a=1 b=[c,d]  # why\n    python train.py ...\n    dfssd a=... b=1\n") == [
        "a=1 b=[c,d]"
    ]


@pytest.mark.parametrize(("page", "line"), SHOWN)
def test_commands_are_accepted(page: str, line: str) -> None:
    if line == "--help":
        return
    command, *words = shlex.split(line)
    if command == "review":
        command, words = f"review {words[0]}", words[1:]
    if command in USAGES and USAGES[command].others:
        _, given = USAGES[command].read_and_pass_on(words, {*KEYS, *DEFAULT_CFG_DICT})
        configure(given)
    elif command in USAGES:
        USAGES[command].read(words)
    elif command == "check":
        given = parse_arguments(words)
        given.pop("out", None)
        configure_data(given)
    else:
        configure(parse_arguments([command, *words]))


def test_a_wrong_command_is_not_accepted() -> None:
    with pytest.raises(UserError, match="epoch"):
        configure(parse_arguments(["data=demo", "epoch=3"]))


def keys_of(text: str) -> set[str]:
    """Keys that the code in a page sets, but for that of other languages: ``key=value`` and ``key=``."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    code = [a or b for a, b in re.findall(r"`([^`]+)`|^    ((?:dfssd|python|\.\.\.) .*)$", text, re.M)]
    return set(re.findall(r"(?<![\w./=\[-])([a-z]\w*(?:\.\w+)?)=", "\n".join(code)))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_keys_exist(page) -> None:
    known = {*KEYS, *DEFAULT_CFG_DICT, *ALIASES, *OF_SCRIPTS, *FORMER, *NO_KEYS}
    known |= {option.name for usage in USAGES.values() for option in usage.options}
    known |= {f"{term}.{option}" for term, own in term_options().items() for option in {*own, *TERM_OPTIONS}}
    assert sorted(keys_of(page.read_text(encoding="utf-8")) - known) == []


def test_an_unknown_key_is_noticed() -> None:
    assert keys_of("a `wrong=0.1` b `pseudo.tau=1`\n\n    dfssd recip=x\n") == {"wrong", "pseudo.tau", "recip"}
