"""Completion of the command line, in the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dfssd.cli import main
from dfssd.commands import COMMANDS
from dfssd.commands.completion import SHELLS, WRITERS, Values, tables, values_of
from dfssd.config import KEYS
from dfssd.config.values import BOOLEAN, TEXT, Number, OneOf, Or, optional

LINES = [
    ("dfssd ch", {"check", "channels_last="}),
    ("dfssd check lab", {"labeled=", "labels=", "labels_last="}),
    ("dfssd completion ", {"shell="}),
    ("dfssd completion shell=z", {"zsh"}),
    ("dfssd benchmark cr7-det ta", {"table=", "task="}),
    ("dfssd benchmark cr7-det optimizer=Mu", {"MuSGD"}),
    ("dfssd data=demo tas", {"task="}),
    ("dfssd data=demo task=", {"detect", "semantic"}),
    ("dfssd train hwjs.wei", {"hwjs.weight=", "hwjs.weights="}),
    ("dfssd hwjs.weights=u", {"uniform"}),
    ("dfssd epochs=1 val_every=", {"auto"}),
    ("dfssd recipe=tsk", {"tskd", "tskd-paper"}),
    ("dfssd epochs=", set()),
    ("dfssd data=my", {"my_parts", "my_data.yaml"}),
    ("dfssd student=my_parts/be", {"my_parts/best.pt"}),
    ("dfssd optimizer=Mu", {"MuSGD"}),
]
"""What is typed, and what is offered."""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory) -> Path:
    """A folder with the script of each shell, and some files."""
    folder = tmp_path_factory.mktemp("completion")
    found = tables()
    for shell in SHELLS:
        (folder / f"dfssd.{shell}").write_text(WRITERS[shell](found), encoding="utf-8")
    (folder / "my_parts").mkdir()
    for file in ("my_parts/best.pt", "my_data.yaml"):
        (folder / file).touch()
    return folder


def output_of(shell: str, code: str, folder: Path) -> str:
    """What a shell without any settings prints when it runs ``code``."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    plain = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    done = subprocess.run(
        [program, *plain, "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **home},
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


@pytest.mark.train
@pytest.mark.parametrize("breaks", [" \t\n=:", " \t\n"], ids=["as bash is", "without ="])
def test_bash(scripts: Path, breaks: str) -> None:
    """Where ``=`` ends a word, bash replaces what stands behind it only."""
    calls = "".join(f"COMPREPLY=(); COMP_LINE={line!r}; COMP_POINT={len(line)}; _dfssd; show\n" for line, _ in LINES)
    code = f"COMP_WORDBREAKS={breaks!r}\nCOMP_WORDBREAKS=${{COMP_WORDBREAKS//\\\\n/ }}\n. ./dfssd.bash\n"
    code += f'show() {{ printf "%s\\n" "${{COMPREPLY[@]}}" --; }}\n{calls}'
    answers = [set(answer.split("\n")) - {""} for answer in output_of("bash", code, scripts).split("--\n")[:-1]]
    for (line, expected), found in zip(LINES, answers, strict=True):
        key, sign, _ = line.rpartition(" ")[2].partition("=")
        kept = "" if "=" in breaks or not sign else f"{key}="
        assert found == {f"{kept}{word}" for word in expected}, line


ZSH = """
compadd() { local word; for word in "$@"; do [[ $word == -* || -z $word ]] || print -r -- "$word"; done }
compset() { : }
compdef() { : }
_files() { : }
source ./dfssd.zsh
"""
"""The builtins of zsh's completion work within its line editor only."""


@pytest.mark.train
@pytest.mark.parametrize(("line", "expected"), [one for one in LINES if "=my" not in one[0]][:9])
def test_zsh(scripts: Path, line: str, expected: set[str]) -> None:
    words = line.split(" ")
    code = f"{ZSH}words=({' '.join(map(repr, words))})\nCURRENT={len(words)}\n_dfssd\n"
    assert expected <= set(output_of("zsh", code, scripts).splitlines())


@pytest.mark.train
@pytest.mark.parametrize(("line", "expected"), LINES)
def test_fish(scripts: Path, line: str, expected: set[str]) -> None:
    found = output_of("fish", f"source ./dfssd.fish; complete -C {line!r}", scripts)
    key, sign, _ = line.rpartition(" ")[2].partition("=")
    offered = {one.split("\t")[0].rstrip("/") for one in found.splitlines()}
    assert {f"{key}=" * bool(sign) + word for word in expected} <= offered


def test_every_command_and_key_is_in_every_script(scripts: Path) -> None:
    table = tables()
    assert set(table) == set(COMMANDS) and set(KEYS) <= set(table["train"]) and "out" in table["check"]
    assert {"to", "order"} <= set(table["review"]) and "epochs" not in table["review"]
    for shell in SHELLS:
        text = (scripts / f"dfssd.{shell}").read_text(encoding="utf-8")
        assert not [key for keys in table.values() for key in keys if f"{key}=" not in text and f":{key}" not in text]


def test_values_follow_from_the_range() -> None:
    assert values_of(BOOLEAN) == Values(("true", "false"), False)
    assert values_of(Number(0)) == Values((), False)
    assert values_of(optional(TEXT)) == Values(("none",), True)
    assert values_of(Or((True, False), TEXT)) == Values(("true", "false"), True)
    assert values_of(OneOf(("a", "b"))) == Values(("a", "b"), False)


def test_command_prints_the_script_and_refuses_other_shells(scripts: Path, capsys) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == (scripts / "dfssd.bash").read_text(encoding="utf-8")
    assert main(["completion", "tcsh"]) == 2
    assert "shell=tcsh: must be one of: bash, zsh, fish" in capsys.readouterr().err
