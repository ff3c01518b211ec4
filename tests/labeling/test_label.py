"""``dfssd label``: what it writes, that it goes on, and that it does not matter who makes which shard."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
import torch

from dfssd.cli import main
from dfssd.deployment.tensors import write_tensors
from dfssd.labeling.engines import Serial
from dfssd.pseudo_labels.files import read_pseudo_labels
from dfssd.pseudo_labels.labeling import label_images
from dfssd.runs.ownership import Ownership
from tests.configured import DEFAULTS
from tests.processes import PROCESSES, command_line
from tests.tiny_detection import NAMES, save_detector, write_images

pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install 'dfssd[parquet]'")
pytestmark = pytest.mark.train
RULE = {"pseudo.tau_low": 0.05, "pseudo.tau0": 0.1, "pseudo.tau_max": 0.9}
KEYS = {"imgsz": 64, "batch": 2, "shard": 4, "device": "cpu", **RULE}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_detector(tmp_path_factory.mktemp("model") / "model.pt")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Eleven images in two folders, of several shapes."""
    folder, random = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    (folder / "line 2").mkdir(parents=True)
    for number in range(11):
        height, width = 40 + 8 * (number % 3), 56 + 4 * (number % 2)
        pixels = cv2.resize(random.integers(0, 255, (6, 8, 3), dtype=np.uint8), (width, height))
        name = f"{'line 2/' if number % 2 else ''}{number:02}.png"
        (folder / name).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return folder


def labeled(*words: str, code: int = 0, **keys: object) -> int:
    found = main(["label", *words, *(f"{key}={value}" for key, value in (KEYS | keys).items())])
    assert found == code
    return found


def rows(out: Path) -> list[dict]:
    return [row for file in sorted((out / "shards").iterdir()) for row in pq.read_table(file).to_pylist()]


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (*(out / "shards").iterdir(), out / "manifest.json")}


@pytest.fixture(scope="module")
def whole(model: Path, photos: Path, tmp_path_factory) -> Path:
    """All labels, made in one pass."""
    out = tmp_path_factory.mktemp("labels") / "whole"
    labeled(str(photos), model=model, out=out)
    return out


def test_labels_are_those_of_a_run_with_the_same_thresholds(whole: Path, model: Path, photos: Path, tmp_path: Path):
    """With a sample of all images, that is ``pseudo=offline``: boxes, zones, thresholds."""
    found = rows(whole)
    files = [photos / row["image"] for row in found]
    assert len(files) == 11 and files == sorted(files, key=lambda file: file.relative_to(photos).as_posix())
    rule = dataclasses.replace(DEFAULTS.pseudo, **{key.partition(".")[2]: value for key, value in RULE.items()})
    section = label_images(model, files, tmp_path / "run", names=NAMES, imgsz=64, batch=2, device="cpu", rule=rule)
    for row, theirs in zip(found, read_pseudo_labels(tmp_path / "run"), strict=True):
        assert (row["width"], row["height"]) == (theirs.width, theirs.height)
        assert [box["class_id"] for box in row["boxes"]] == theirs.classes.tolist()
        assert [box["accepted"] for box in row["boxes"]] == (theirs.zones == "accept").tolist()
        ours = np.array([[box[k] for k in ("score", *"xywh")] for box in row["boxes"]]).reshape(-1, 5)
        assert ours == pytest.approx(np.column_stack([theirs.scores, theirs.boxes_xywhn]).reshape(-1, 5), abs=2e-6)
    manifest = json.loads((whole / "manifest.json").read_text())
    assert manifest["thresholds"] == pytest.approx(section["thresholds"])
    assert sum(manifest["accepted"].values()) == section["accepted"] > 0
    assert sum(manifest["ignored"].values()) == section["ignored"] > 0
    assert [shard["images"] for shard in manifest["shards"]] == [4, 4, 3] and manifest["images"] == 11
    assert manifest["sample"]["images"] == 11 and manifest["unreadable"] == 0


def test_the_same_line_changes_nothing(whole: Path, model: Path, photos: Path, capsys) -> None:
    before, times = contents(whole), [file.stat().st_mtime_ns for file in (whole / "shards").iterdir()]
    labeled(str(photos), model=model, out=whole)
    assert "all images have been labeled before" in capsys.readouterr().out
    assert contents(whole) == before and [f.stat().st_mtime_ns for f in (whole / "shards").iterdir()] == times


def test_what_is_missing_or_damaged_is_made_again(whole: Path, model: Path, photos: Path, tmp_path: Path, capsys):
    shutil.copytree(whole, tmp_path / "out")
    first, second, third = sorted((tmp_path / "out" / "shards").iterdir())
    kept = third.stat().st_mtime_ns
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    (tmp_path / "out" / "manifest.json").unlink()
    labeled(str(photos), model=model, out=tmp_path / "out")
    assert "labeled 8 images" in capsys.readouterr().out
    assert contents(tmp_path / "out") == contents(whole) and third.stat().st_mtime_ns == kept


def test_a_sample_fixes_the_thresholds(model: Path, photos: Path, whole: Path, tmp_path: Path, capsys) -> None:
    labeled(str(photos), model=model, out=tmp_path / "out", sample=3, seed=1)
    assert "11 images; thresholds from 3 of them ..." in capsys.readouterr().out
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["sample"]["images"] == 3 and plan["state"]["batches"] != [0] * 3
    assert plan["thresholds"] != json.loads((whole / "plan.json").read_text())["thresholds"]
    assert len(rows(tmp_path / "out")) == 11


def test_images_that_cannot_be_read_are_rows_with_a_reason(model: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "good.png"), np.full((40, 40, 3), 90, np.uint8))
    (tmp_path / "in" / "broken.jpg").write_bytes(b"\xff\xd8 cut")
    (tmp_path / "in" / "phone.heic").write_bytes(b"0")
    cv2.imwrite(str(tmp_path / "in" / "large.png"), np.zeros((1000, 2000), np.uint8))
    labeled(str(tmp_path / "in"), "limits.megapixels=1", model=model, out=tmp_path / "out", code=2)
    assert "3 images of 4 cannot be read" in capsys.readouterr().out
    problems = {row["image"]: row["problem"] for row in rows(tmp_path / "out")}
    assert problems["good.png"] is None and "cannot be decoded" in problems["broken.jpg"]
    assert problems["phone.heic"] == "not read: convert it to .png or .jpg"
    assert problems["large.png"] == "2 million px are too many, at most 1 are read"


def test_images_are_changed_as_those_of_the_training_and_boxes_moved_back(model: Path, tmp_path: Path) -> None:
    """A cropped network finds in the whole image what it finds in its part, moved by the corner of the crop."""
    content = torch.load(model, weights_only=False)
    change = {"resize": None, "normalize": False, "clahe": False, "crop": [16, 8, 80, 72], "pad": False}
    torch.save({**content, "dfssd": {"preprocess": change}}, tmp_path / "cropped.pt")
    pixels = cv2.resize(np.random.default_rng(1).integers(0, 255, (6, 8, 3), dtype=np.uint8), (96, 80))
    for name, part in {"whole": pixels, "part": pixels[8:72, 16:80]}.items():
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "1.png"), part)
    labeled(str(tmp_path / "whole"), model=tmp_path / "cropped.pt", out=tmp_path / "a")
    labeled(str(tmp_path / "part"), model=model, out=tmp_path / "b")
    (inside,), (alone,) = rows(tmp_path / "a"), rows(tmp_path / "b")
    assert (inside["width"], inside["height"]) == (96, 80) and len(alone["boxes"]) > 0
    for ours, theirs in zip(inside["boxes"], alone["boxes"], strict=True):
        assert ours["score"] == theirs["score"]
        assert [ours["x"] * 96 - 16, ours["y"] * 80 - 8, ours["w"] * 96, ours["h"] * 80] == pytest.approx(
            [theirs["x"] * 64, theirs["y"] * 64, theirs["w"] * 64, theirs["h"] * 64], abs=1e-3
        )


def test_precision_on_labeled_images_sets_the_thresholds(model: Path, photos: Path, tmp_path: Path, capsys) -> None:
    data = write_images(tmp_path / "data", count=6, size=(60, 48))
    words = {"val": data.parent / "test.txt", "pseudo.precision": 0.5, "pseudo.tau_low": 0.01}
    labeled(str(photos), model=model, out=tmp_path / "out", **words)
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert any(threshold is not None for threshold in plan["state"]["fixed"])
    labeled(str(photos), model=model, out=tmp_path / "b", val=data.parent / "test.txt", code=2)
    assert "pseudo.precision and val belong together" in capsys.readouterr().err


def test_several_models_and_safetensors(model: Path, photos: Path, tmp_path: Path) -> None:
    """Two copies of a network, one of them without a pickle, find what one finds, fused."""
    write_tensors(model, tmp_path / "same.safetensors")
    labeled(str(photos), model=f"[{model},{tmp_path / 'same.safetensors'}]", out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "models").iterdir()) == ["model-0.pt", "model-1.pt"]
    assert sum(len(row["boxes"]) for row in rows(tmp_path / "out")) > 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({"pseudo.tau0": 0.2}, r"was begun with other settings \(pseudo.tau0=0.1, now 0.2\): give the same"),
        ({"shard": 5, "imgsz": 96}, r"other settings \(imgsz=64, now 96, shard=4, now 5\)"),
        ({"workers": 2}, "workers, cpus, and gpus are those of Ray's actors: add engine=ray"),
        ({"engine": "ray"}, "device=cpu: an actor of Ray computes on what gpus= gives it"),
        ({"imgsz": 320_000}, "imgsz=320000: must be"),
        ({"val": "nowhere.txt", "pseudo.precision": 0.9}, "val=nowhere.txt: does not exist; give a folder"),
        ({"imgsz": 100}, "imgsz=100: must be a multiple of 32"),
        ({"pseudo.tau_low": 0.2}, "pseudo.tau_low=0.2 <= pseudo.tau0=0.1 <= pseudo.tau_max=0.9 must hold"),
        ({"model": "nothing.pt"}, "model=nothing.pt: no such file; give the path of a .pt$"),
        ({"model": "student.onnx"}, "model=student.onnx: images are labeled by a .pt, a .safetensors, or the student"),
    ],
)
def test_what_does_not_fit_is_refused(words, problem, whole: Path, model: Path, photos: Path, capsys) -> None:
    before = contents(whole)
    labeled(str(photos), **{"model": model, "out": whole, **words}, code=2)
    error = capsys.readouterr().err
    assert re.search(problem, error, re.MULTILINE) and error.count("\n") == 1
    assert contents(whole) == before


def test_other_folders_and_processes_are_refused(
    model: Path, photos: Path, whole: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    labeled(str(photos), model=model, out=tmp_path / "mine", code=2)
    assert "holds thesis.txt, and is no folder of labels: name a new one" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    labeled(str(photos), model=tmp_path / "run", out=tmp_path / "out", code=2)
    assert "is no run with a student of boxes" in capsys.readouterr().err
    held = Ownership(whole)
    labeled(str(photos), model=model, out=whole, code=2)
    assert "is in use by process" in capsys.readouterr().err
    held.release()
    for name, old, new in (
        ("images.jsonl", "00.png", "01.png"),
        ("plan.json", '"state"', '"stale"'),
        ("plan.json", '"settings": {', '"settings": [{'),
    ):
        text = (whole / name).read_text()
        (whole / name).write_text(text.replace(old, new))
        labeled(str(photos), model=model, out=whole, code=2)
        assert f"{name} is damaged: restore it, or remove" in capsys.readouterr().err
        (whole / name).write_text(text)


def test_a_folder_that_has_changed_is_told(model: Path, photos: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(photos, tmp_path / "in")
    labeled(str(tmp_path / "in"), model=model, out=tmp_path / "out")
    (tmp_path / "in" / "00.png").rename(tmp_path / "in" / "99.png")
    labeled(str(tmp_path / "in"), model=model, out=tmp_path / "out")
    assert "has changed since the labels were begun (11 images then, 11 now)" in capsys.readouterr().out
    assert len(rows(tmp_path / "out")) == 11


def test_labels_of_other_images_are_not_mixed_in(
    model: Path, photos: Path, whole: Path, tmp_path: Path, capsys
) -> None:
    """Another folder has other images, even under the same names."""
    shutil.copytree(photos, tmp_path / "in")
    labeled(str(tmp_path / "in"), model=model, out=whole, code=2)
    assert "was begun with other settings (images=" in capsys.readouterr().err


def test_an_image_that_is_listed_twice_has_two_rows(model: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{photos / '00.png'}\n{photos}/./00.png\n")
    labeled(str(tmp_path / "list.txt"), model=model, out=tmp_path / "out")
    first, second = rows(tmp_path / "out")
    assert first["boxes"] == second["boxes"] != [] and first["width"] == second["width"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
def test_pipes_and_devices_are_no_images(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / "pipe.png")
    (tmp_path / "in" / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    labeled(str(tmp_path / "in"), model=model, out=tmp_path / "out", code=2)
    problems = {row["image"]: row["problem"] for row in rows(tmp_path / "out")}
    odd = "is no regular file"
    assert problems == {"gone.png": "does not exist", "pipe.png": odd, "zero.png": odd}


def test_val_without_labels_is_refused(model: Path, photos: Path, tmp_path: Path, capsys) -> None:
    labeled(str(photos), model=model, out=tmp_path / "out", val=photos, code=2, **{"pseudo.precision": 0.9})
    assert "none of its images has a label file" in capsys.readouterr().err


def odd_model(model: Path, target: Path, **changes: object) -> Path:
    content = torch.load(model, weights_only=False)
    for key, value in changes.items():
        if key in {"names", "weights"}:
            network = content.get("ema") or content["model"]
            if key == "names":
                network.names = value
            else:
                network.model[0].conv.weight.data[:] = value
        else:
            content[key] = value
    torch.save(content, target)
    return target


CROP = {"resize": None, "normalize": False, "clahe": False, "crop": None, "pad": False}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"weights": float("nan")}, r"holds weights that are no numbers \(NaN or infinite\): train it again"),
        ({"names": {0: "a", 1: "a", 2: "b"}}, "finds 3 classes, but has 2 names for them"),
        ({"names": {0: "a", 1: "b"}}, "finds 3 classes, but has 2 names for them"),
        ({"dfssd": "mine"}, r"what it says of its training \(dfssd\) is damaged"),
        ({"dfssd": {"bits": 99}}, "is damaged"),
        ({"dfssd": {"bits": "x"}}, "is damaged"),
        ({"dfssd": {"preprocess": "crop"}}, "is damaged"),
        ({"dfssd": {"preprocess": {**CROP, "turn": 90}}}, "is damaged"),
        ({"dfssd": {"preprocess": {**CROP, "crop": [5, 5]}}}, "is damaged"),
        ({"dfssd": {"thresholds": [1]}}, "is damaged"),
    ],
)
def test_odd_models_are_refused(changes, problem, model: Path, photos: Path, tmp_path: Path, capsys) -> None:
    odd = odd_model(model, tmp_path / "odd.pt", **changes)
    labeled(str(photos), model=odd, out=tmp_path / "out", code=2)
    error = capsys.readouterr().err
    assert re.search(problem, error) and error.count("\n") == 1


@pytest.mark.parametrize("side", [0, -5, 10_000_000, "wide", None, True])
def test_an_odd_size_in_a_checkpoint_is_not_taken(side, model: Path, photos: Path, tmp_path: Path) -> None:
    odd, shown = odd_model(model, tmp_path / "odd.pt", train_args={"imgsz": side}), tmp_path / "out" / "plan.json"
    labeled(str(photos / "line 2"), model=odd, out=tmp_path / "out", imgsz="none")
    assert json.loads(shown.read_text())["settings"]["imgsz"] == 640


def test_names_of_folders_may_be_any(model: Path, photos: Path, tmp_path: Path, monkeypatch) -> None:
    """An apostrophe, which Ultralytics takes out of paths, then asking GitHub for the file; and a number."""

    def asked(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"asks for {args}")

    monkeypatch.setattr("ultralytics.utils.downloads.safe_download", asked)
    monkeypatch.setattr("ultralytics.utils.downloads.get_github_assets", asked)
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "it's here" / "student.pt"
    own.parent.mkdir()
    shutil.copy(model, own)
    labeled(str(photos), model=own, out="o's")
    labeled(str(photos), model=own, out=17)
    assert contents(tmp_path / "17").keys() == contents(tmp_path / "o's").keys()


@pytest.mark.parametrize("out", ["/proc/labels", "/dev/null/labels"])
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="has no such places")
def test_places_without_folders_are_refused(out: str, model: Path, photos: Path, capsys) -> None:
    labeled(str(photos), model=model, out=out, code=2)
    error = capsys.readouterr().err
    assert f"error: out={out}: no folder can be made there" in error and error.count("\n") == 1


def test_a_full_disk_is_named(model: Path, photos: Path, small_disk: Path, capsys) -> None:
    (small_disk / "fill").write_bytes(b"0" * (64 * 2**20 - 300_000))
    labeled(str(photos), model=model, out=small_disk / "out", code=2)
    error = capsys.readouterr().err
    assert str(small_disk) in error and ("full" in error or "No space left" in error) and error.count("\n") == 1
    (small_disk / "fill").unlink()
    labeled(str(photos), model=model, out=small_disk / "out")


def test_a_cluster_that_does_not_answer_is_named(
    model: Path, photos: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'dfssd[ray]'")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    labeled(str(photos), model=model, out=tmp_path / "out", engine="ray", device="none", code=2)
    assert "engine=ray: nobody answers at RAY_ADDRESS=127.0.0.1:1" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_finished(model: Path, photos: Path, whole: Path, tmp_path: Path, monkeypatch, capsys):
    work = Serial.work

    def stops(self, job, task, parts):
        for number, found in enumerate(work(self, job, task, parts)):
            if task == "label" and number == 2:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(Serial, "work", stops)
    labeled(str(photos), model=model, out=tmp_path / "out", code=130)
    assert "interrupted; the same line goes on" in capsys.readouterr().err
    monkeypatch.undo()
    labeled(str(photos), model=model, out=tmp_path / "out")
    assert contents(tmp_path / "out") == contents(whole)


def shards_in(out: Path) -> list[Path]:
    return list((out / "shards").glob("[!.]*.parquet"))


def actors_of(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if "MapWorker" in "".join(child.cmdline()[:1])]


def kill_an_actor(out: Path, when: int, killed: list[int]) -> None:
    """Kill an actor of this process once there are ``when`` shards."""
    deadline = time.monotonic() + 300
    while len(shards_in(out)) < when and time.monotonic() < deadline:
        time.sleep(0.01)
    actor = actors_of(psutil.Process())[0]
    actor.kill()
    killed.append(actor.pid)


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'dfssd[ray]'")
def test_killed_drivers_and_actors_change_nothing(model: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """Two actors of Ray make what one pass makes, bit for bit, though the driver and then an actor are killed."""
    import ray

    (tmp_path / "in").mkdir()
    for number in range(150):
        pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "in" / f"{number:03}.png"), cv2.resize(pixels, (64, 48)))
    out, keys = tmp_path / "out", {**KEYS, "shard": 1, "sample": 20, "model": model}
    labeled(str(tmp_path / "in"), **keys, out=tmp_path / "serial")
    del keys["device"]
    line = ["label", str(tmp_path / "in"), f"out={out}", *(f"{key}={value}" for key, value in keys.items())]
    line += ["engine=ray", "workers=2"]
    driver = PROCESSES.Process(target=command_line, args=(line,))
    driver.start()
    deadline = time.monotonic() + 300
    while len(shards_in(out)) < 2:
        assert driver.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    actors = actors_of(psutil.Process(driver.pid))
    driver.kill()
    driver.join()
    assert len(actors) == 2
    while any(actor.is_running() and actor.status() != psutil.STATUS_ZOMBIE for actor in actors):
        assert time.monotonic() < deadline, "the actors outlive their driver"
        time.sleep(0.1)
    made = {file: file.stat().st_mtime_ns for file in shards_in(out)}
    assert 2 <= len(made) < 150
    capsys.readouterr()
    killed: list[int] = []
    monkeypatch.setenv("RAY_worker_niceness", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        killer = threading.Thread(target=kill_an_actor, args=(out, len(made) + 2, killed))
        killer.start()
        assert main(line) == 0
        killer.join()
    finally:
        ray.shutdown()
    assert killed and f"labeled {150 - len(made)} images" in capsys.readouterr().out
    assert all(file.stat().st_mtime_ns == then for file, then in made.items())
    assert contents(out) == contents(tmp_path / "serial")
