"""The programs in examples/ find what ``dfssd predict`` finds; each is skipped where its tools are not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfssd.cli import main
from dfssd.deployment import infer
from dfssd.deployment.facts import facts, sign_folder, sign_onnx
from dfssd.evaluation.exporter import export
from tests.deployment.material import PHOTOS, SIZE
from tests.tiny_detection import NAMES

pytestmark = pytest.mark.train

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
ABOUT = facts(run="run", ultralytics="8", names=NAMES, thresholds={NAMES[0]: 0.5, **dict.fromkeys(NAMES[1:], 0.3)})


@pytest.fixture(scope="module")
def signed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``deploy/`` with an ONNX file that has thresholds, and ``infer.py``."""
    folder = tmp_path_factory.mktemp("run") / "deploy"
    folder.mkdir()
    file = Path(shutil.copy(model, folder / "student.onnx"))
    sign_onnx(file, ABOUT)
    shutil.copy(infer.__file__, folder / "infer.py")
    return file


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photographs without loss, so that all decoders read the same values, a gray one, and one of 16 bits."""
    folder = tmp_path_factory.mktemp("photos")
    for path in PHOTOS:
        with Image.open(path) as photo:
            small = photo.convert("RGB").resize((photo.width // 3, photo.height // 3))
            small.save(folder / f"{path.stem}.png")
    small.convert("L").save(folder / "gray.png")
    Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257).save(folder / "deep.png")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def expected(signed: Path, photos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """Name of an image -> boxes, by ``dfssd predict``."""
    out = tmp_path_factory.mktemp("predicted") / "out"
    assert main(["predict", str(photos[0].parent), f"model={signed}", f"out={out}", "save=false"]) == 0
    found = json.loads((out / "predictions.json").read_text(encoding="utf-8"))
    corners = ("x1", "y1", "x2", "y2")
    return {
        Path(one["image"]).name: [{**box, "box": [box[corner] for corner in corners]} for box in one["boxes"]]
        for one in found["images"]
    }


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ program, compiled; its library is that of the Python package."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    import onnxruntime

    folder = tmp_path_factory.mktemp("cpp")
    libraries = list((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("this package of onnxruntime has no library for other programs")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(libraries[0])
    given = [f"-DONNXRUNTIME_LIBRARY={folder / 'libonnxruntime.so'}"]
    given += [f"-DONNXRUNTIME_ROOT={root}"] if (root := os.environ.get("ONNXRUNTIME_ROOT")) else []
    build = ["cmake", "-S", str(EXAMPLES / "cpp"), "-B", str(folder / "build"), "-DCMAKE_BUILD_TYPE=Debug", *given]
    configured = subprocess.run(build, capture_output=True, text=True)
    if "Could not find" in configured.stderr:
        missing = next(line.strip() for line in configured.stderr.splitlines() if "Could not find" in line)
        pytest.skip(f"headers are not installed: {missing}")
    assert configured.returncode == 0, configured.stderr
    made = subprocess.run(["cmake", "--build", str(folder / "build")], capture_output=True, text=True)
    assert made.returncode == 0 and "warning" not in made.stderr, made.stderr
    return folder / "build" / "find_defects"


def lines_of(*command: str | Path) -> dict[str, dict]:
    """Name of an image -> the line of JSON that a program prints for it."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {Path(one["image"]).name: one for one in map(json.loads, done.stdout.splitlines())}


def test_cpp_finds_the_same(program: Path, signed: Path, photos: list[Path], expected: dict) -> None:
    found = lines_of(program, signed, *photos)
    assert found.keys() == expected.keys() and sum(map(len, expected.values())) > 10
    for name, boxes in expected.items():
        own = found[name]["boxes"]
        assert [one["class"] for one in own] == [one["class"] for one in boxes], name
        assert np.allclose([one["score"] for one in own], [one["score"] for one in boxes], atol=1e-4)
        assert np.allclose([one["box"] for one in own], [one["box"] for one in boxes], atol=0.02)
        assert found[name]["verdict"] == ("NG" if boxes else "OK")


def test_cpp_refuses_in_one_line(program: Path, signed: Path, model: Path, photos: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    for words, message in (
        ([signed], "usage"),
        ([signed, broken, photos[0]], "broken.png cannot be read"),
        ([model, photos[0]], "no metadata 'dfssd'"),
        ([broken, photos[0]], "broken.png"),
    ):
        done = subprocess.run([program, *words], capture_output=True, text=True)
        assert done.returncode == 2 and message in done.stderr and done.stderr.startswith("error: ")
        assert len(done.stdout.splitlines()) == (len(words) == 3), "the image after a broken one is looked at"


def test_openvino_finds_the_same(signed: Path, model: Path, photos: list[Path], expected: dict, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    folder = export(Path(shutil.copy(model.with_suffix(".pt"), tmp_path)), "openvino", task="detect", imgsz=SIZE)
    sign_folder(folder, ABOUT)
    shutil.copy(infer.__file__, tmp_path / "infer.py")
    script = EXAMPLES / "openvino" / "find_defects.py"
    found = lines_of(sys.executable, script, folder, photos[0].parent, "--exact")
    rows, others = ([(k, b) for k, boxes in one.items() for b in boxes] for one in (expected, of_lines(found)))
    assert shared(rows, others) > 0.9 and shared(others, rows) > 0.9
    assert shared(rows, [(name, {**box, "class": "none"}) for name, box in others]) == 0
    (damaged := tmp_path / "damaged").mkdir()
    for words, message in (
        ([damaged], f"there are no images in {damaged}"),
        ([damaged, "--conf", "1.5"], f"error: {damaged / 'a.png'}: "),
    ):
        done = subprocess.run([sys.executable, script, folder, *words], capture_output=True, text=True)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
        assert [json.loads(line)["verdict"] for line in done.stdout.splitlines()] == ["OK"] * ("--conf" in words)
        Image.new("1", (20_000, 20_000)).save(damaged / "a.png")  # Pillow calls it a bomb, which is no OSError
        shutil.copy(photos[0], damaged / "b.png")


def of_lines(found: dict[str, dict]) -> dict[str, list[dict]]:
    return {name: one["boxes"] for name, one in found.items()}


def shared(rows: list[tuple[str, dict]], others: list[tuple[str, dict]]) -> float:
    """Share of the boxes that are among the others: the network of the test is equally sure of boxes that overlap,
    so that its last bits decide which of them stay."""

    def same(a: dict, b: dict) -> bool:
        near = np.abs(np.subtract(a["box"], b["box"])).max() < 0.05 and abs(a["score"] - b["score"]) < 1e-3
        return a["class"] == b["class"] and bool(near)

    return float(np.mean([any(name == other and same(a, b) for other, b in others) for name, a in rows]))
