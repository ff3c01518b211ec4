"""The Python interface that docs/guide.md shows works as shown."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import dfssd
from dfssd import pipeline
from dfssd.commands.export import USAGE
from dfssd.config import Config
from dfssd.errors import UserError
from dfssd.results.sections import OtherFormat
from tests.detection.recorded_run import results, write_run
from tests.docs.test_links import ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "guide.md").read_text(encoding="utf-8"), re.S)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """``runs/dfssd`` holds a finished run, which every opened run becomes; the configurations that were opened.

    ``runs/labels`` holds another one.
    """
    write_run(tmp_path / "runs" / "labels", results(student=0.38))
    folder = write_run(tmp_path / "runs" / "dfssd", results(student=0.412))
    seen: list[Config] = []

    def open_run(config: Config, _command: str) -> SimpleNamespace:
        seen.append(config)
        return SimpleNamespace(folder=SimpleNamespace(path=folder))

    monkeypatch.setattr(pipeline, "open_run", open_run)
    monkeypatch.setattr(pipeline, "run_stages", lambda run: True)
    monkeypatch.chdir(tmp_path)
    return seen


def test_both_examples_run(opened: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, read, _ = BLOCKS
    exec(compile(train, "docs/guide.md", "exec"), {})
    assert capsys.readouterr().out == f"{tmp_path / 'runs' / 'dfssd' / 'weights' / 'student.pt'} 0.412\n"
    assert opened[0]["data"] == "demo" and opened[0]["pseudo.mode"] == "online" and opened[0].train["epochs"] == 10
    exec(compile(read, "docs/guide.md", "exec"), {})
    first, *table = capsys.readouterr().out.splitlines()
    assert first == f"weights/student.onnx {tmp_path / 'runs' / 'dfssd' / 'report.html'}"
    assert (tmp_path / "runs" / "dfssd" / "report.html").is_file()
    assert [row.split(" | ")[0] for row in table[2:4]] == ["| dfssd", "| labels"]


def test_export_has_the_options_and_the_fields_that_the_page_shows() -> None:
    code = ast.parse(BLOCKS[2])
    [call] = [
        node
        for node in ast.walk(code)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "export"
    ]
    given = {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg}
    assert USAGE.check({"run": "runs/dfssd", "format": ast.literal_eval(call.args[0]), **given})["int8"] is True
    fields = {
        node.attr
        for node in ast.walk(code)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "one"
    }
    assert len(fields) > 3 and fields <= set(OtherFormat.model_fields)


def test_invalid_input_raises_what_the_page_says(opened: list[Config]) -> None:
    with pytest.raises(UserError, match="epochs"):
        dfssd.train(data="demo", epoch=3)
    assert opened == []
