"""``dfssd predict``: what it writes, in which environment it runs, and how it ends."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from PIL import Image

from dfssd import process
from dfssd.cli import main
from dfssd.datasets.images.pixels import read_pixels
from dfssd.datasets.preprocessing import Preprocess
from dfssd.deployment import infer
from dfssd.deployment.drawing import drawn
from dfssd.deployment.facts import KEY, facts, sign_onnx
from dfssd.deployment.infer import Detector
from dfssd.deployment.networks import facts_of
from dfssd.deployment.predict import predict
from dfssd.deployment.sources import Frame, Moving
from tests.deployment.material import PHOTOS, WITHOUT_TORCH
from tests.tiny_detection import NAMES

pytestmark = pytest.mark.train  # all need an exported network


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "line 2").mkdir(parents=True)
    shutil.copy(PHOTOS[0], folder / "bus.jpg")
    shutil.copy(PHOTOS[1], folder / "line 2" / "two.jpg")
    return folder


def answers(folder: Path) -> tuple[dict, list[dict]]:
    with open(folder / "predictions.csv", encoding="utf-8", newline="") as file:
        return json.loads((folder / "predictions.json").read_text(encoding="utf-8")), list(csv.DictReader(file))


def test_answers_are_written_in_three_forms(model: Path, photos: Path, tmp_path: Path, capsys) -> None:
    assert main(["predict", str(photos), f"model={model}", f"out={tmp_path / 'seen'}", "conf=0.5"]) == 0
    tree, rows = answers(tmp_path / "seen")
    detector = Detector(model)
    expected = [
        detector([infer.read(path, 16)], 0.5)[0] for path in (photos / "bus.jpg", photos / "line 2" / "two.jpg")
    ]
    assert [len(image["boxes"]) for image in tree["images"]] == [len(boxes) for boxes in expected]
    first, best = tree["images"][0], expected[0][0]
    assert first["image"] == "bus.jpg" and (first["width"], first["height"]) == Image.open(PHOTOS[0]).size
    assert first["boxes"][0]["score"] == pytest.approx(best[4], abs=1e-4)
    assert [first["boxes"][0][name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx(best[:4].tolist(), abs=0.01)
    assert tree["images"][1]["image"] == "line 2/two.jpg"
    assert tree["thresholds"] == dict.fromkeys(("scratch", "pit", "stain"), 0.5)
    assert len(rows) == sum(max(len(boxes), 1) for boxes in expected)
    assert rows[0]["class"] == first["boxes"][0]["class"] and float(rows[0]["x1"]) == first["boxes"][0]["x1"]
    assert tree["summary"]["images"] == 2 and tree["summary"]["ms_median"] > 0
    picture = np.asarray(Image.open(tmp_path / "seen" / "images" / "line 2" / "two.jpg"))
    original = np.asarray(Image.open(PHOTOS[1]))
    assert picture.shape == original.shape and abs(picture.astype(int) - original).max() > 60
    shown = capsys.readouterr().out
    assert shown.startswith("2 images: 0 OK, 2 NG, 0 unreadable; ") and f"written to {tmp_path / 'seen'}: " in shown


def test_images_larger_than_the_line_allows_are_not_read(model: Path, photos: Path, tmp_path: Path, capsys) -> None:
    Image.new("L", (2_000, 1_000)).save(photos / "large.png")
    words = ["predict", str(photos), f"model={model}", f"out={tmp_path / 'seen'}", "save=false"]
    assert main([*words, "limits.megapixels=1"]) == 2
    assert "unreadable: large.png (2 million px are too many, at most 1 are read)" in capsys.readouterr().out
    assert main([*words, "overwrite=true"]) == 0


def blind(model: Path, target: Path) -> Path:
    """The network with biases of the classes so low that it finds nothing."""
    network = onnx.load(str(model))
    for values in network.graph.initializer:
        if re.search(r"cv3\.\d\.2\.bias$", values.name):
            values.CopyFrom(
                onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(values) - np.float32(1e4), values.name)
            )
    onnx.save(network, str(target))
    return target


def test_an_image_without_boxes_is_ok(model: Path, photos: Path, tmp_path: Path) -> None:
    sees_nothing = blind(model, tmp_path / "blind.onnx")
    folder, summary = predict(str(photos), str(sees_nothing), out=str(tmp_path / "seen"), save=False)
    tree, rows = answers(folder)
    assert [image["verdict"] for image in tree["images"]] == ["OK", "OK"] and summary.verdicts == {"OK": 2}
    assert [(row["image"], row["verdict"], row["class"]) for row in rows] == [
        ("bus.jpg", "OK", ""),
        ("line 2/two.jpg", "OK", ""),
    ]
    assert not (folder / "images").exists()


def test_unreadable_images_are_named_and_the_others_done(model: Path, photos: Path, tmp_path: Path, capsys) -> None:
    (photos / "a.png").write_bytes(b"no image")
    assert main(["predict", f"source={photos}", f"model={model}", f"out={tmp_path / 'seen'}"]) == 2
    tree, rows = answers(tmp_path / "seen")
    assert [image["verdict"] for image in tree["images"]] == ["unreadable", "NG", "NG"]
    assert tree["images"][0]["problem"] and rows[0]["verdict"] == "unreadable"
    assert "unreadable: a.png (" in capsys.readouterr().out and tree["summary"]["unreadable"] == 1


def test_image_that_is_too_small_costs_only_itself(model: Path, photos: Path, tmp_path: Path) -> None:
    """Smaller than the crop of the training images."""
    own = tmp_path / "own.onnx"
    shutil.copy(model, own)
    steps = Preprocess(resize=None, normalize=False, clahe=False, crop=[0, 0, 200, 150], pad=False)
    sign_onnx(own, facts(run="a", ultralytics="8", names=NAMES, preprocess=asdict(steps)))
    Image.new("RGB", (90, 60)).save(photos / "a.png")
    assert main(["predict", f"source={photos}", f"model={own}", f"out={tmp_path / 'seen'}"]) == 2
    tree, _ = answers(tmp_path / "seen")
    first, *others = (image["verdict"] for image in tree["images"])
    assert first == "unreadable" and others and set(others) <= {"OK", "NG"}
    assert "does not lie inside an image of 90x60 px" in tree["images"][0]["problem"]


def test_drawings_of_an_earlier_call_are_neither_kept_nor_looked_at(model: Path, photos: Path) -> None:
    """In the folder that is looked at."""
    words = ["predict", str(photos), f"model={model}", f"out={photos / 'seen'}"]
    assert main(words) == 0
    first, (gone, *_) = answers(photos / "seen")[0], sorted(photos.glob("*.jpg"))
    gone.unlink()
    assert main([*words, "overwrite=true"]) == 0
    images = [image["image"] for image in answers(photos / "seen")[0]["images"]]
    assert len(images) == len(first["images"]) - 1 and not any(name.startswith("seen") for name in images)
    assert not (photos / "seen" / "images" / gone.name).exists()


def test_files_that_are_no_drawings_are_never_removed_or_replaced(model: Path, photos: Path, capsys) -> None:
    """Neither by a first call nor by one that overwrites, and drawings that were made stay as long."""
    seen, own = photos / "seen", photos / "seen" / "images" / "bus.jpg"
    words = ["predict", str(photos / "bus.jpg"), f"model={model}", f"out={seen}"]
    own.parent.mkdir(parents=True)
    own.write_text("of the user", encoding="utf-8")
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "which holds other files (bus.jpg); choose another" in error
    assert own.read_text(encoding="utf-8") == "of the user"
    own.rename(photos / "kept.txt")
    assert main(words) == 0 and own.is_file()
    (photos / "kept.txt").rename(other := own.with_name("kept.txt"))
    assert main([*words, "overwrite=true"]) == 2
    assert own.is_file()
    assert main([*words, "overwrite=true", "save=false"]) == 0
    assert list(own.parent.iterdir()) == [other] and other.read_text(encoding="utf-8") == "of the user"


def test_answers_that_others_have_changed_remove_nothing_elsewhere(model: Path, photos: Path) -> None:
    seen = photos / "seen"
    seen.mkdir()
    listed = [{"drawn": name} for name in ("images/../../bus.jpg", "../bus.jpg", str(photos / "bus.jpg"), None, 3)]
    (seen / "predictions.json").write_text(json.dumps({"images": [*listed, "bus.jpg"]}), encoding="utf-8")
    predict(str(photos), str(model), out=str(seen), overwrite=True)
    assert [one["drawn"] for one in answers(seen)[0]["images"]] == ["images/bus.jpg", "images/line 2/two.jpg"]
    assert all((seen / one["drawn"]).is_file() for one in answers(seen)[0]["images"])


@pytest.mark.parametrize("outs", [("../photos/seen", "../photos/seen"), (None, None), ("seen", None)])
def test_drawings_are_left_out_whatever_their_folder_is_called(
    model: Path, photos: Path, outs: tuple[str | None, str | None], monkeypatch, capsys
) -> None:
    monkeypatch.chdir(photos)
    for out in outs:
        folder, summary = predict(".", str(model), out=out, overwrite=True)
        assert summary.frames == 2 and len(list((folder / "images").rglob("*.jpg"))) == 2
    assert "drawings of earlier predictions, left out: 2" in capsys.readouterr().out


def test_facts_of_a_format_that_is_a_folder_are_in_its_metadata(tmp_path: Path) -> None:
    about = facts(run="a", ultralytics="8", names=NAMES, thresholds=dict.fromkeys(NAMES, 0.6))
    (tmp_path / "metadata.yaml").write_text(yaml.safe_dump({"names": {}, KEY: about}), encoding="utf-8")
    assert facts_of(tmp_path, None) == about
    assert facts_of(tmp_path / "none.torchscript", None) == {} and facts_of(tmp_path / "a.pt", {KEY: about}) == about


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupted_folder_says_so_by_its_exit_code(
    model: Path, photos: Path, tmp_path: Path, monkeypatch, name: str
) -> None:
    number = getattr(signal, name)

    def interrupted(self: object, bits: int, every: int):
        yield Frame("first.png", pixels=infer.read(PHOTOS[0], 16)[..., ::-1])
        signal.raise_signal(number)
        yield Frame("second.png", problem="comes too late")

    monkeypatch.setattr("dfssd.deployment.sources.ImageFile.frames", interrupted)
    # a process in the background of a shell ignores some of them, and so does what it starts
    before = signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    try:
        assert main(["predict", str(photos), f"model={model}", f"out={tmp_path / 'seen'}"]) == 128 + number
    finally:
        signal.signal(number, before)
    tree = answers(tmp_path / "seen")[0]
    assert len(tree["images"]) == 1 and tree["summary"]["interrupted"]


def test_earlier_answers_are_not_overwritten_unasked(model: Path, photos: Path, tmp_path: Path, monkeypatch) -> None:
    words = ["predict", str(photos / "bus.jpg"), f"model={model}", f"out={tmp_path / 'seen'}", "save=false"]
    assert main(words) == 0 == main([*words, "overwrite=true"])
    assert main(words) == 2
    monkeypatch.chdir(tmp_path)
    folders = [predict(str(photos / "bus.jpg"), str(model), save=False)[0] for _ in range(2)]
    assert folders == [Path("runs/predict"), Path("runs/predict2")]


def test_run_folders_and_pt_files_are_models(model: Path, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "weights").mkdir(parents=True)
    shutil.copy(model.with_name("student.pt"), run / "weights" / "student.pt")
    by_torch = answers(predict(str(photos), str(run), out=str(tmp_path / "torch"), save=False)[0])[0]
    shutil.copy(model, run / "weights" / "student.onnx")
    by_onnx = answers(predict(str(photos), str(run), out=str(tmp_path / "onnx"), save=False)[0])[0]
    # PyTorch sees the smallest rectangle around the image, ONNX a square
    counts = [[len(image["boxes"]) for image in tree["images"]] for tree in (by_torch, by_onnx)]
    assert all(count > 0 for both in counts for count in both)
    assert by_torch["thresholds"] == by_onnx["thresholds"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("gone.onnx", "model=gone.onnx: does not exist"),
        ("empty", "model=empty: is no run with a student"),
        ("text.onnx", "model=text.onnx: cannot be used"),
        ("text.pt", "model=text.pt: Ultralytics cannot read it"),
    ],
)
def test_models_that_are_none(photos: Path, tmp_path: Path, monkeypatch, capsys, model: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("text.onnx", "text.pt"):
        (tmp_path / name).write_text("no network")
    assert main(["predict", "photos", f"model={model}"]) == 2
    error = capsys.readouterr().err
    assert f"error: {message}" in error and error.count("error:") == 1
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_ends_a_stream_and_keeps_what_was_found(model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def frames(self: Moving, bits: int, every: int):
        photo = infer.read(PHOTOS[0], 16)[..., ::-1]
        yield Frame(self.name, 4, photo)
        yield Frame(self.name, 9, photo)
        raise KeyboardInterrupt

    monkeypatch.setattr(Moving, "frames", frames)
    assert main(["predict", "rtsp://me:pw@camera/a", f"model={model}", f"out={tmp_path / 'seen'}"]) == 0
    tree, _ = answers(tmp_path / "seen")
    assert tree["summary"]["interrupted"] and [image["frame"] for image in tree["images"]] == [4, 9]
    assert tree["images"][0]["image"] == tree["source"] == "rtsp://camera/a" and "pw" not in json.dumps(tree)
    assert sorted(path.name for path in (tmp_path / "seen" / "images").rglob("*.jpg")) == ["000004.jpg", "000009.jpg"]
    shown = capsys.readouterr().out
    assert "rtsp://camera/a, frame 4: NG" in shown and "interrupted; what was found until then is written" in shown


def test_photos_are_changed_as_the_training_images_were(model: Path, photos: Path, tmp_path: Path, capsys) -> None:
    """Cropped and reduced: the boxes are those of the changed photo, moved back into the original."""
    steps = Preprocess(resize=120, normalize=False, clahe=False, crop=[100, 50, 700, 450], pad=True)
    own = tmp_path / "own.onnx"
    shutil.copy(model, own)
    sign_onnx(own, facts(run="a", ultralytics="8", names=NAMES, preprocess=asdict(steps)))
    tree = answers(predict(str(photos / "bus.jpg"), str(own), out=str(tmp_path / "seen"), save=False)[0])[0]
    changed, _ = steps.apply(read_pixels(photos / "bus.jpg"), None)
    [expected] = Detector(own)([np.ascontiguousarray(changed[..., ::-1])])
    assert changed.shape == (120, 120, 3) and len(expected) == len(tree["images"][0]["boxes"]) > 0
    best = tree["images"][0]["boxes"][0]
    # 600x400 px become 120x80, 20 px below the upper edge
    x1, y1, x2, y2 = (expected[0, :4] - [0, 20, 0, 20]).clip(0, [120, 80, 120, 80]) * 5 + [100, 50, 100, 50]
    assert [best[name] for name in ("x1", "y1", "x2", "y2")] == pytest.approx([x1, y1, x2, y2], abs=0.01)
    with pytest.raises(SystemExit):
        infer.main([str(photos), "--model", str(own)])
    assert "use dfssd predict" in capsys.readouterr().err


def test_neither_torch_nor_ultralytics_is_needed(model: Path, photos: Path, tmp_path: Path) -> None:
    """Both ways, in a process in which they cannot be imported, give the same boxes."""
    words = ["predict", str(photos), f"model={model}", "out=seen"]
    code = f"{WITHOUT_TORCH}\nfrom dfssd.cli import main\ncode = main({words!r})\n"
    code += f"import runpy\nsys.argv = ['infer.py', {str(photos)!r}, '--model', {str(model)!r}]\n"
    code += f"sys.modules['dfssd'] = None\nassert code == 0\nrunpy.run_path({infer.__file__!r}, run_name='__main__')\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=process.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    tree, _ = answers(tmp_path / "seen")
    printed = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(printed) == len(tree["images"]) == 2
    for ours, theirs in zip(tree["images"], printed, strict=True):
        assert Path(theirs["image"]) == photos / ours["image"] and theirs["verdict"] == ours["verdict"] == "NG"
        assert [box["class"] for box in ours["boxes"]] == [box["class"] for box in theirs["boxes"]]
        scores = [[box["score"] for box in image["boxes"]] for image in (ours, theirs)]
        assert scores[0] == pytest.approx(scores[1], abs=2e-5)


def test_labels_of_neighbors_do_not_cover_each_other() -> None:
    boxes = np.array([[40, 120, 160, 180, 0.9, 0], [44, 124, 160, 184, 0.8, 1]], np.float32)
    empty, names = np.zeros((240, 320, 3), np.uint8), {0: "pit", 1: "stain"}
    both, *alone = (np.asarray(drawn(empty, own, names)).astype(int) for own in (boxes, boxes[:1], boxes[1:]))
    for picture, box in zip(alone, boxes, strict=True):
        color = picture[round(box[3]), round(box[0] + box[2]) // 2]  # of its frame
        own, kept = ((np.abs(x - color) < 12).all(2).sum() for x in (picture, both))
        frame = 2 * int(box[2] - box[0] + box[3] - box[1])
        assert color.any() and kept > 0.6 * (own - frame), "most of its label can be seen"
