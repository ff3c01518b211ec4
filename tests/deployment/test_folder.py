"""The folder that is handed over."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dfssd.deployment import infer
from dfssd.deployment.facts import facts
from dfssd.deployment.folder import handed_over, is_unchanged, write_deploy
from dfssd.deployment.networks import open_network
from tests.deployment.material import PHOTOS
from tests.deployment.test_predict import WITHOUT_TORCH
from tests.tiny_detection import NAMES

pytestmark = pytest.mark.train  # all need an exported network

ABOUT = facts(run="line 3", ultralytics="8.4.190", names=NAMES)
ONNX = {"format": "onnx", "file": "student.onnx", "size_mb": 1.0}


@pytest.fixture
def run(model: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for part, name in (("weights", "student.pt"), ("deploy", "student.onnx")):
        (folder / part).mkdir(parents=True)
        (folder / part / name).write_bytes(model.with_name(name).read_bytes())
    return folder


def test_manifest_has_the_digest_of_every_file(run: Path) -> None:
    folder = write_deploy(run, ABOUT, [ONNX], machine="a processor, 2 threads", detects=True)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    listed = {entry["file"]: entry["sha256"] for entry in manifest["files"]}
    assert set(listed) == {
        "README.md",
        "infer.py",
        "student.onnx",
        *(f"pytorch/student.{kind}" for kind in ("pt", "safetensors", "yaml")),
    }
    for name, digest in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    for kind in ("safetensors", "yaml"):  # where people look for them
        beside = run / "weights" / f"student.{kind}"
        assert beside.read_bytes() == (folder / "pytorch" / beside.name).read_bytes()
    assert manifest["formats"] == [{**ONNX, "machine": "a processor, 2 threads"}]
    assert manifest["names"] == list(NAMES) and manifest["license"] == "AGPL-3.0"
    assert len((folder / "README.md").read_text(encoding="utf-8").splitlines()) == 5
    assert str(run.parent) not in (folder / "manifest.json").read_text(encoding="utf-8")


def test_what_a_killed_export_has_left_is_not_handed_over(run: Path) -> None:
    (run / "deploy" / ".export-x1y2").mkdir()
    (run / "deploy" / ".export-x1y2" / "student.pt").write_bytes(b"half")
    folder = write_deploy(run, ABOUT, [ONNX], machine=None, detects=True)
    assert all("export" not in path.as_posix() for path in (p.relative_to(folder) for p in handed_over(folder)))
    assert "half" not in (folder / "manifest.json").read_text(encoding="utf-8") and len(handed_over(folder)) == 7


def test_run_of_before_there_was_this_folder_gets_its_onnx_file(run: Path) -> None:
    (run / "deploy" / "student.onnx").rename(run / "weights" / "student.onnx")
    folder = write_deploy(run, ABOUT, [], machine=None, detects=True)
    assert (folder / "student.onnx").read_bytes() == (run / "weights" / "student.onnx").read_bytes()


def test_files_of_earlier_exports_stay_listed_while_they_exist(run: Path) -> None:
    for name in ("student.torchscript", "student_int8.onnx"):
        (run / "deploy" / name).write_bytes(b"network")
    earlier = [
        {"format": "torchscript", "file": "student.torchscript"},
        {"format": "onnx", "file": "student_int8.onnx"},
    ]
    write_deploy(run, ABOUT, earlier, machine=None, detects=True)
    (run / "deploy" / "student.torchscript").unlink()
    folder = write_deploy(run, ABOUT, [ONNX], machine=None, detects=False)
    formats = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["formats"]
    assert [entry["file"] for entry in formats] == ["student.onnx", "student_int8.onnx"]


def test_a_new_export_beside_the_checkpoint_destroys_nothing(run: Path, capsys) -> None:
    """What the README of the folder proposes, with the option that removes the ONNX file that it has written."""
    from ultralytics import YOLO

    folder = write_deploy(run, ABOUT, [ONNX], machine=None, detects=True)
    assert is_unchanged(folder / "student.onnx") is True and is_unchanged(PHOTOS[0]) is None
    YOLO(folder / "pytorch" / "student.pt").export(format="onnx", imgsz=96, verbose=False)
    assert is_unchanged(folder / "student.onnx") is True
    (folder / "student.onnx").write_bytes((folder / "pytorch" / "student.onnx").read_bytes())
    assert is_unchanged(folder / "student.onnx") is False
    capsys.readouterr()
    open_network(run, None)
    assert "is not the file that was checked" in capsys.readouterr().out


def test_the_folder_runs_by_itself(run: Path, tmp_path: Path) -> None:
    """Copied to a machine without PyTorch, Ultralytics, and dfssd."""
    folder = write_deploy(run, ABOUT, [ONNX], machine=None, detects=True)
    code = f"{WITHOUT_TORCH}\nimport runpy\nsys.modules['dfssd'] = None\nsys.argv = ['infer.py', {str(PHOTOS[0])!r}]\n"
    code += f"runpy.run_path({str(folder / 'infer.py')!r}, run_name='__main__')\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    printed = json.loads(done.stdout)
    expected = infer.Detector(folder / "student.onnx")([infer.read(PHOTOS[0], 16)])[0]
    assert printed["verdict"] == "NG" and len(printed["boxes"]) == len(expected) > 0
    assert [box["score"] for box in printed["boxes"]] == pytest.approx(expected[:, 4].tolist(), abs=1e-6)
