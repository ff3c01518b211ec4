"""Commands: which one a line means, and the options of those that do not train."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from dfssd.cli import main
from dfssd.commands import COMMANDS, split_words
from dfssd.commands.options import Option, Usage, command_line
from dfssd.config import KEYS
from dfssd.config.values import TEXT, TEXTS, UNIT, Number, optional
from dfssd.errors import UserError

USAGE = Usage(
    (
        Option("source", TEXTS, "what to look at", required=True),
        Option("conf", UNIT, "lowest score", default=0.25),
        Option("n", Number(1, integer=True), "how many", default=4),
        Option("out", optional(TEXT), "a folder"),
    ),
    positional=("source",),
    examples=(("photos", "all photos"),),
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_that_starts_with_its_usage(capsys, name: str) -> None:
    assert main([name, "--help"], "dfssd") == 0
    assert re.match(rf"usage: dfssd( {name})? ", capsys.readouterr().out)


def usages() -> Iterator[tuple[str, Usage]]:
    """The line and the usage of every command that has one; ``review`` has two."""
    for name, command in COMMANDS.items():
        module = import_module(command.module)
        if isinstance(usage := getattr(module, "USAGE", None), Usage):
            yield name, usage
        for part, own in getattr(module, "PARTS", {}).items():
            yield f"{name} {part}", own.usage


def test_every_command_describes_its_options() -> None:
    assert {line.split()[0] for line, _ in usages()} == set(COMMANDS) - {"train", "check"}


@pytest.mark.parametrize("line", ["train", "check", *(line for line, usage in usages() if not usage.others)])
def test_no_command_takes_a_key_that_it_does_not_know(capsys, line: str) -> None:
    assert main([*line.split(), "frobnicate=1"]) == 2
    assert "error: unknown key 'frobnicate' (see --help)\n" in capsys.readouterr().err
    known = [option.name for option in dict(usages())[line].options] if line in dict(usages()) else ["labeled", "data"]
    for name in known:
        if len(name) > 1:
            assert main([*line.split(), f"{name}x=1"]) == 2
            assert f"unknown key '{name}x'; did you mean '{name}'?" in capsys.readouterr().err


@pytest.mark.parametrize(("line", "usage"), list(usages()), ids=lambda v: v if isinstance(v, str) else "")
def test_every_option_of_a_command_is_read(line: str, usage: Usage) -> None:
    """By its name in the module of the command, or as an argument there."""
    module = import_module(COMMANDS[line.split()[0]].module)
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    described = {
        id(node.args[0]) for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args
        if isinstance(node.func, ast.Name) and node.func.id == "Option"
    }  # fmt: skip
    read = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in described}
    limited = {option.name for option in usage.options if option.name.startswith("limits.")}
    if any(isinstance(node, ast.Call) and getattr(node.func, "id", "") == "limit_files" for node in ast.walk(tree)):
        read |= limited
    if line == "label":  # takes those of its rule from the table of keys, and tests/labeling shows that they act
        read |= {name for name, key in KEYS.items() if key.labels_folders}
    if line == "predict":
        from dfssd.deployment.predict import predict

        taken = {*inspect.signature(predict).parameters, "trust", *limited}
        assert taken == {option.name for option in usage.options} and {"trust", *limited} <= read
    else:
        assert {option.name for option in usage.options} <= read


@pytest.mark.parametrize(("line", "usage"), list(usages()), ids=lambda v: v if isinstance(v, str) else "")
def test_values_that_an_option_does_not_take_are_refused_by_name(line: str, usage: Usage) -> None:
    for option in usage.options:
        for value in option.check.wrong():
            if type(value) in {int, float} and option.check.problem(str(value)) is None:
                continue  # a number that is a name
            with pytest.raises(UserError) as refused:
                usage.check({option.name: value})
            assert any(problem.startswith(f"{option.name}=") for problem in refused.value.problems), value


def test_numbers_are_names_where_names_are_taken() -> None:
    values = dict(usages())["export"].check({"run": 17, "device": 0, "batch": 2})
    assert (values["run"], values["device"], values["batch"]) == ("17", "0", 2)


@pytest.mark.parametrize("columns", [80, 120])
def test_help_lists_the_commands(capsys, monkeypatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name}( |$)", shown, re.MULTILINE), name
        assert command.summary in " ".join(shown.split())


@pytest.mark.parametrize(
    ("words", "name", "own"), [([], "train", []), (["a=1"], "train", ["a=1"]), (["--a", "1"], "train", ["--a", "1"])]
)
def test_line_without_a_command_trains(words: list[str], name: str, own: list[str]) -> None:
    command, rest = split_words(words)
    assert command is COMMANDS[name] and list(rest) == own


@pytest.mark.parametrize("name", COMMANDS)
def test_first_word_names_the_command(name: str) -> None:
    assert split_words([name, "a=1"]) == (COMMANDS[name], ["a=1"])


@pytest.mark.parametrize(("word", "hint"), [("checks", "did you mean 'check'?"), ("xyz", "train, check")])
def test_word_that_is_no_command(capsys, word: str, hint: str) -> None:
    assert main([word, "data=demo"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: '{word}' is neither") and hint in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["source=a"], {"source": "a", "conf": 0.25, "n": 4, "out": None}),
        (["a"], {"source": "a", "conf": 0.25, "n": 4, "out": None}),
        (["a", "b c", "n=7"], {"source": ["a", "b c"], "conf": 0.25, "n": 7, "out": None}),
        (["--conf", "0.5", "a"], {"source": "a", "conf": 0.5, "n": 4, "out": None}),
        (["a", "out=none"], {"source": "a", "conf": 0.25, "n": 4, "out": None}),
        (["a,b.jpg", "2024"], {"source": ["a,b.jpg", "2024"], "conf": 0.25, "n": 4, "out": None}),
        (["2024"], {"source": "2024", "conf": 0.25, "n": 4, "out": None}),
    ],
)
def test_options_with_and_without_their_names(words: list[str], expected: dict) -> None:
    assert USAGE.read(words) == expected


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        ([], ["source is missing: what to look at"]),
        (["a", "cnf=1"], ["unknown key 'cnf'; did you mean 'conf'?"]),
        (["a", "conf=2"], ["conf=2: must be a number >= 0 and <= 1"]),
        (["conf=x", "n=0"], ["source is missing: what to look at", "conf=x: must be", "n=0: must be"]),
        (["a", "source=b"], ["source is given twice: keep one"]),
    ],
)
def test_wrong_options_are_named_together(words: list[str], problems: list[str]) -> None:
    with pytest.raises(UserError) as found:
        USAGE.read(words)
    assert len(found.value.problems) == len(problems)
    assert all(a.startswith(b) for a, b in zip(found.value.problems, problems, strict=True))


def test_help_of_options(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    USAGE.show("dfssd look", "Look at photos.")
    shown = capsys.readouterr().out
    assert shown.startswith("usage: dfssd look SOURCE key=value ...\n\nLook at photos.\n")
    lines = [line.strip() for line in shown.splitlines()]
    conf = next(i for i, line in enumerate(lines) if line.startswith("conf=0.25 "))
    assert "a number >= 0 and <= 1" in lines[conf] and lines[conf + 1] == "lowest score"
    assert any(line.startswith("out=none ") for line in lines)
    assert "  dfssd look photos\n      all photos" in shown


def test_command_line_can_be_typed() -> None:
    assert command_line("dfssd", {"data": "a b", "x": None}) == "dfssd 'data=a b' x=none"
