"""scripts/check.py: all checks run, one line each, exit codes; and what the spelling check finds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOOD = (["typos", "--version"], None)
BAD = (["typos", "--no-such-option"], "leave it out")


@pytest.fixture
def check(monkeypatch) -> ModuleType:
    """The script, in the environment that runs the tests."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    for name in ("check", "environment"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import check as module

    monkeypatch.setattr(module.environment, "prepare", lambda: Path(sys.executable))
    monkeypatch.setattr(module, "CHECKS", {"first": GOOD, "second": GOOD})
    return module


@pytest.mark.train
def test_all_passed(check, capsys):
    assert check.main([]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"first +passed +\d+\.\d s", first)
    assert re.fullmatch(r"second +passed +\d+\.\d s", second)


@pytest.mark.train
def test_a_failed_check_shows_its_output_and_the_rest_still_runs(check, capsys, monkeypatch):
    monkeypatch.setattr(check, "CHECKS", {"first": BAD, "second": GOOD})
    assert check.main([]) == 1
    first, *output, fix, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"first +FAILED +\d+\.\d s", first)
    assert any("unexpected argument '--no-such-option'" in line for line in output)
    assert fix.strip() == "to fix what can be fixed automatically: leave it out"
    assert re.fullmatch(r"second +passed +\d+\.\d s", second)


@pytest.mark.train
def test_fast_adds_the_tests(check, capsys, monkeypatch):
    monkeypatch.setattr(check, "FAST_TESTS", {"tests": GOOD})
    for words, names in (([], ["first", "second"]), (["--fast"], ["first", "second", "tests"])):
        assert check.main(words) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names


@pytest.mark.parametrize("words", [["--slow"], ["--fast", "tests/test_cli.py"]])
def test_unknown_argument(check, capsys, words):
    assert check.main(words) == 2
    assert capsys.readouterr().err == f"error: unknown argument '{words[-1]}': python scripts/check.py [--fast]\n"


@pytest.mark.train
def test_tool_that_is_not_installed(check, capsys, monkeypatch):
    monkeypatch.setattr(check, "CHECKS", {"first": (["no-such-tool"], None), "second": GOOD})
    assert check.main([]) == 1
    assert "pip install --requirement requirements.txt" in capsys.readouterr().out


@pytest.mark.train
@pytest.mark.parametrize(
    ("line", "correction"),
    [
        ("the behavi|our of a run", "behavior"),
        ("def initial|ise_weights(): ...", "initialize"),
        ("t|eh run", "the"),
        ("the behavior of a run", None),
    ],
)
def test_spelling_is_american_in_prose_and_names(tmp_path, line, correction):
    """Words that the allow-list of pyproject.toml will never hold; the bar hides them from the check of this file."""
    (tmp_path / "text.py").write_text(line.replace("|", "") + "\n", encoding="utf-8")
    typos = Path(sys.executable).with_name("typos")
    command = [typos, "--config", ROOT / "pyproject.toml", "--format", "brief", tmp_path / "text.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if correction else 0)
    assert (correction or "") in done.stdout
