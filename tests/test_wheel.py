"""The wheel, built from the sdist as for a release, installed into a fresh folder and used from there.

Nothing is downloaded: the build backend is pinned in requirements.txt, and the dependencies are those of this Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import dfssd

pytestmark = pytest.mark.train
ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]

pytestmark = pytest.mark.train


def call(*command: str | Path, cwd: Path) -> str:
    """Run a command to its end; return its output."""
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Folder with the sdist and the wheel that was built from it."""
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", out, cwd=ROOT)
    [sdist] = out.iterdir()
    call(*PIP, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", out, sdist, cwd=out)
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory) -> Path:
    """Folder that holds the installed wheel and nothing else."""
    [wheel] = built.glob("*.whl")
    target = tmp_path_factory.mktemp("installed")
    call(*PIP, "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=target)
    return target


@pytest.fixture
def python(installed: Path, tmp_path: Path, monkeypatch) -> list[str]:
    """Starts Python in a fresh working directory, from which the installed package is found and the checkout is not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    return [sys.executable]


def test_one_top_level_package_with_its_data_files(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"dfssd", f"dfssd-{dfssd.__version__}.dist-info"}
    data = {f"cfg/{path.relative_to(ROOT / 'cfg').as_posix()}" for path in (ROOT / "cfg").rglob("*.yaml")}
    data |= {f"data/{path.name}" for path in (ROOT / "data").glob("*.yaml")}
    assert len(data) >= 18
    data |= {f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("*.yaml")}
    data |= {f"benchmarks/splits/neu-det/{path.name}" for path in (ROOT / "benchmarks/splits/neu-det").iterdir()}
    kinds = ("*.py", "*.j2", "*.html")
    code = {path.relative_to(ROOT).as_posix() for kind in kinds for path in (ROOT / "dfssd").rglob(kind)}
    inside = {name for name in names if name.startswith("dfssd/")}
    assert inside == code | {"dfssd/py.typed"} | {f"dfssd/_resources/{name}" for name in data}


def test_what_lies_around_in_the_checkout_does_not_travel(tmp_path: Path) -> None:
    """Data sets, weights and runs in the folder where it is built."""
    tree = tmp_path / "tree"
    for path in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "dfssd/__init__.py",
        "cfg/default.yaml",
        "data/NEU-DET.yaml",
    ):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes((ROOT / path).read_bytes())
    for path in (
        "data/NEU-DET/a.jpg",
        "data/sets/mine.yaml",
        "data/b.png",
        "cfg/notes.txt",
        "dfssd/c.pt",
        "my runs/d.csv",
    ):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).touch()
    call(sys.executable, "-m", "hatchling", "build", "-d", tmp_path / "dist", cwd=tree)
    [sdist] = (tmp_path / "dist").glob("*.tar.gz")
    [wheel] = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert sorted(name for name in names if "dist-info" not in name) == [
        "dfssd/__init__.py",
        "dfssd/_resources/cfg/default.yaml",
        "dfssd/_resources/data/NEU-DET.yaml",
    ]
    packed = call(sys.executable, "-m", "tarfile", "-l", sdist, cwd=tmp_path)
    assert "NEU-DET.yaml" in packed
    assert not any(stray in packed for stray in ("a.jpg", "mine.yaml", "b.png", "notes.txt", "c.pt", "d.csv"))


def test_command_and_module_say_version_and_usage(python: list[str], installed: Path, tmp_path: Path) -> None:
    [script] = [path for path in (installed / "bin").iterdir() if path.stem == "dfssd"]
    assert call(*python, script, "--version", cwd=tmp_path) == f"dfssd {dfssd.__version__}\n"
    assert call(*python, "-m", "dfssd", "--version", cwd=tmp_path) == f"dfssd {dfssd.__version__}\n"
    assert call(*python, script, "--help", cwd=tmp_path).startswith("usage: dfssd [command] key=value")
    shown = call(*python, script, "train", "--help", cwd=tmp_path)
    for expected in ("unlabeled_ratio", "hwjs.tau", "pseudo.tau0"):  # the first is read from cfg/default.yaml
        assert expected in shown
    (tmp_path / "photos").mkdir()
    words = ["benchmark", "neu-det", "data=photos", "table=only"]
    done = subprocess.run([*python, script, *words], cwd=tmp_path, capture_output=True, text=True)
    folder = Path("runs", "neu-det")
    assert done.returncode == 2 and f"table=only: no finished run of neu-det in {folder}" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"photos"}


def test_extra_that_a_message_names_is_there(installed: Path) -> None:
    [metadata] = installed.glob("*.dist-info/METADATA")
    text = metadata.read_text(encoding="utf-8")
    assert "\nProvides-Extra: baselines\n" in text
    assert "\nRequires-Dist: segmentation-models-pytorch" in text
    code = (installed / "dfssd" / "segmentation" / "model.py").read_text(encoding="utf-8")
    assert "pip install 'dfssd[baselines]'" in code


def test_demo_is_prepared_without_the_checkout(python: list[str], installed: Path, tmp_path: Path) -> None:
    """The run is killed once its first stage is recorded; Python's own list shows which files were imported."""
    words = [
        "data=demo",
        "recipe=baseline",
        "teacher=none",
        "student=yolov8n.yaml",
        "device=cpu",
        "imgsz=64",
        "workers=0",
    ]
    record = tmp_path / "runs" / "baseline" / "results.json"
    log = tmp_path / "imported.txt"
    with open(log, "wb") as output:
        process = subprocess.Popen([*python, "-v", "-m", "dfssd", *words], stdout=subprocess.PIPE, stderr=output)
        try:
            deadline = time.monotonic() + 300
            while not stages(record) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            process.kill()
            process.communicate()
    imported = log.read_text(encoding="utf-8", errors="replace")
    assert stages(record)[:1] == [("prepare", "done")], imported[-2000:]
    results = json.loads(record.read_text(encoding="utf-8"))
    assert results["data"]["train_labeled"] > 0 and results["run"]["git"] is None
    assert results["run"]["command"].startswith("python -m dfssd data=demo recipe=baseline")
    assert f"{installed / 'dfssd' / 'pipeline.py'}" in imported
    assert f"{ROOT / 'dfssd'}{os.sep}" not in imported


def stages(record: Path) -> list[tuple[str, str]]:
    """Name and status of the stages that a run has recorded."""
    if not record.is_file():
        return []
    return [
        (stage["name"], stage["status"]) for stage in json.loads(record.read_text(encoding="utf-8")).get("stages", [])
    ]
