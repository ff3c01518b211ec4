"""The Python interface that docs/guide.md shows works as shown."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import dfssd
from dfssd import pipeline
from dfssd.config import Config
from dfssd.errors import UserError
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
    train, read = BLOCKS
    exec(compile(train, "docs/guide.md", "exec"), {})
    assert capsys.readouterr().out == f"{tmp_path / 'runs' / 'dfssd' / 'weights' / 'student.pt'} 0.412\n"
    assert opened[0]["data"] == "demo" and opened[0]["pseudo.mode"] == "online" and opened[0].train["epochs"] == 10
    exec(compile(read, "docs/guide.md", "exec"), {})
    first, *table = capsys.readouterr().out.splitlines()
    assert first == f"weights/student.onnx {tmp_path / 'runs' / 'dfssd' / 'report.html'}"
    assert (tmp_path / "runs" / "dfssd" / "report.html").is_file()
    assert [row.split(" | ")[0] for row in table[2:4]] == ["| dfssd", "| labels"]


def test_invalid_input_raises_what_the_page_says(opened: list[Config]) -> None:
    with pytest.raises(UserError, match="epochs"):
        dfssd.train(data="demo", epoch=3)
    assert opened == []
