"""Files that are small and ask for much are refused in one line, before they get it."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml
from PIL import Image

from dfssd.cli import main
from dfssd.config import defaults
from dfssd.datasets.archives import unpack
from dfssd.datasets.images.files import open_image
from dfssd.datasets.readers.json_files import read_json
from dfssd.errors import UserError
from dfssd.files import load_yaml
from dfssd.trust.limits import Limits, json_problem, limits, set_limits
from tests.conftest import write_squares
from tests.tiny_detection import TINY


def chosen(**changes: float) -> None:
    set_limits(replace(limits(), **changes))


def png(width: int, height: int) -> bytes:
    """A black image of one bit a pixel, whose rows are compressed to next to nothing."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\1\0\0\0\0"
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (width // 8 + 1)) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


BILLIONS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefghij", "bcdefghijk")
)
"""Ten levels, each ten times the one before."""

MERGED = "a0: &a0 {x: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}]}}\n" for n in range(40))
"""Two to the power of forty pairs, which a parser would write out one by one."""


def test_the_limits_are_those_of_the_yaml_unless_a_run_sets_others() -> None:
    assert limits() == Limits(**{k.partition(".")[2]: v for k, v in defaults().items() if k.startswith("limits.")})
    chosen(megapixels=1)
    assert limits().megapixels == 1


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The line that a run or a check of the data ends with, which takes little memory."""
    before = psutil.Process().memory_info().rss
    assert main(list(words)) == 2
    assert psutil.Process().memory_info().rss - before < 400_000_000
    errors = capsys.readouterr().err
    assert errors.count("error: ") == len(errors.splitlines()) == 1
    return errors


def test_pixels(tmp_path: Path, capsys) -> None:
    data = write_squares(tmp_path / "set", train=3, val=1, test=1, plain=1)
    bomb = sorted((tmp_path / "set" / "train" / "images").iterdir())[0]
    bomb.write_bytes(png(20_000, 20_000))
    line = refused(capsys, "check", f"data={data}", f"data_dir={tmp_path / 'd'}")
    assert f"{bomb.name}" in line and "400 million px are too many, at most 178 are read" in line
    with pytest.raises(OSError, match="400 million px"):
        open_image(bomb)
    bomb.write_bytes(png(2_000, 2_000))
    line = refused(capsys, "check", f"data={data}", f"data_dir={tmp_path / 'd'}", "limits.megapixels=3")
    assert "4 million px are too many, at most 3 are read" in line


def test_images_that_were_accepted_before_are_held_to_a_lower_limit(tmp_path: Path, capsys) -> None:
    data = write_squares(tmp_path / "set", train=3, val=1, test=1, plain=1)
    Image.new("L", (2_000, 1_000)).save(sorted((tmp_path / "set" / "train" / "images").iterdir())[0])
    words = ["check", f"data={data}", f"data_dir={tmp_path / 'd'}"]
    assert main(words) == 0
    capsys.readouterr()
    assert "2 million px are too many, at most 1 are read" in refused(capsys, *words, "limits.megapixels=1")


def test_archives(tmp_path: Path, capsys) -> None:
    bomb = tmp_path / "bomb.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"images/{number}.bmp", bytes(30_000_000))
    line = refused(capsys, "check", f"data={bomb}", f"data_dir={tmp_path / 'd'}")
    assert "would unpack to" in line and "times its size, more than limits.archive_ratio=100" in line
    assert not list((tmp_path / "d").rglob("*.bmp"))
    chosen(archive_gb=0.1, archive_ratio=1e6)
    with pytest.raises(UserError, match=r"would unpack to 0\.1 GB, more than limits\.archive_gb=0\.1; raise that"):
        unpack(bomb, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_comes_back_from_a_review_is_held_to_the_limits_of_its_line(tmp_path: Path, monkeypatch, capsys) -> None:
    """Those of the files of the tool, and of the data that they belong to."""
    monkeypatch.chdir(tmp_path)
    data = write_squares(tmp_path / "set", train=3, val=1, test=1, plain=1)
    Image.new("L", (2_000, 1_000)).save(sorted((tmp_path / "set" / "train" / "images").iterdir())[0])
    with zipfile.ZipFile("bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.json", bytes(120_000_000))
    (tmp_path / "deep.json").write_text("[[[[]]]]", encoding="utf-8")
    tree = {
        "images": [{"id": 1, "file_name": "new.png", "width": 64, "height": 64}],
        "annotations": [],
        "categories": [],
    }
    (tmp_path / "job.json").write_text(json.dumps(tree), encoding="utf-8")
    words = ["review", "import", f"data={data}", "out=new"]
    for word, limit, why in (
        ("bomb.zip", "archive_ratio=100", "times its size, more than limits.archive_ratio=100"),
        ("bomb.zip", "archive_gb=0.1", "more than limits.archive_gb=0.1"),
        ("deep.json", "json_depth=3", "more than limits.json_depth=3 deep"),
        ("job.json", "megapixels=1", "2 million px are too many, at most 1"),
    ):
        assert main([*words, word, f"limits.{limit}"]) == 2
        assert why in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_archive_cannot_hide_its_size(tmp_path: Path) -> None:
    """A file that is longer than its entry says ends the unpacking."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.bmp", bytes(5_000_000))
    data = content.getvalue().replace((5_000_000).to_bytes(4, "little"), (5).to_bytes(4, "little"))
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"is damaged at 'a\.bmp'"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert sum(file.stat().st_size for file in (tmp_path / "out").rglob("*")) < 1_000_000


@pytest.mark.parametrize("text", [BILLIONS, MERGED, "a: &a [*a]\n", "a: &a {b: *a}\n"])
def test_aliases_of_yaml(text: str, tmp_path: Path, capsys) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text + "train: images\nnames: [a, b]\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"data\.yaml: its aliases make more than limits\.yaml_nodes=10000000 values"):
        load_yaml(file)
    assert "limits.yaml_nodes" in refused(capsys, "check", f"data={file}")
    description = tmp_path / "yolov8n-bomb.yaml"
    description.write_text(Path(TINY).read_text(encoding="utf-8") + text, encoding="utf-8")
    assert "limits.yaml_nodes" in refused(capsys, "data=demo", f"student={description}", "recipe=baseline")


def test_usual_aliases_of_yaml_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, y: [*a, *a]}\n", encoding="utf-8")
    tree = load_yaml(tmp_path / "x.yaml")
    assert tree == yaml.safe_load((tmp_path / "x.yaml").read_text(encoding="utf-8"))
    assert tree == {"a": {"x": 1}, "b": {"x": 1, "y": [{"x": 1}, {"x": 1}]}}


def test_json(tmp_path: Path) -> None:
    def problem(text: str) -> str:
        (tmp_path / "x.json").write_text(text, encoding="utf-8")
        return str(getattr(read_json(tmp_path / "x.json"), "problem", ""))

    for deep in ("[" * 200_000, "[" * 101 + "]" * 101, '{"a":' * 101 + "1" + "}" * 101):
        assert problem(deep).startswith("is nested more than limits.json_depth=100 deep; raise that")
    assert not problem("[" * 99 + "]" * 99) and not problem(json.dumps({"text": "[" * 500}))
    assert not problem(json.dumps([[1, 2]] * 500 + ['\\"[[['] * 200))
    chosen(json_mb=0.001)
    assert problem(json.dumps(list(range(1000)))).startswith("has 0 MB, more than limits.json_mb=0.001")
    assert json_problem(b"[]") is None
