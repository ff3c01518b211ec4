"""The files of the pseudo-label stage."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from dfssd.errors import UserError
from dfssd.pseudo_labels.files import (
    label_stems,
    read_pseudo_labels,
    read_thresholds,
    write_pseudo_labels,
)
from dfssd.pseudo_labels.records import ImagePrediction
from tests.thresholds import class_thresholds

NAMES = ["oil spots", "pits"]


def prediction(image: str | Path, *rows: tuple[int, float]) -> ImagePrediction:
    """Prediction with one box per (class, score); box i is centered at 0.2 + 0.1 i."""
    boxes = [[0.2 + 0.1 * i, 0.5, 0.1, 1 / 3] for i in range(len(rows))]
    return ImagePrediction(
        image=Path(image),
        width=400,
        height=300,
        classes=np.array([c for c, _ in rows], dtype=np.int64),
        scores=np.array([s for _, s in rows], dtype=np.float64),
        boxes_xywhn=np.array(boxes, dtype=np.float64).reshape(-1, 4),
    )


@pytest.fixture
def predictions() -> list[ImagePrediction]:
    return [
        prediction("/data/a/x 1.jpg", (0, 0.9), (1, 0.3), (1, 0.05)),
        prediction("/data/b/x 1.jpg", (1, 0.5)),
        prediction("/data/a/y.jpg", (0, 0.4)),
        prediction("/data/a/zähler.jpg"),
    ]


def test_files_and_section(tmp_path, predictions):
    section = write_pseudo_labels(tmp_path / "pseudo", predictions, class_thresholds(2), NAMES)
    assert section == {
        "images": 4,
        "boxes": 5,
        "accepted": 2,
        "ignored": 2,
        "background": 1,
        "per_class": {"oil spots": {"accepted": 1, "ignored": 1}, "pits": {"accepted": 1, "ignored": 1}},
        "starved": [],
        "mean_score": 0.7,
        "images_without_accepted": 2,
        "thresholds": {"oil spots": 0.5, "pits": 0.5},
        "quality": None,
    }
    assert [p.name for p in tmp_path.iterdir()] == ["pseudo"]
    assert sorted(p.name for p in (tmp_path / "pseudo").iterdir()) == ["labels", "predictions.json"]
    texts = [p.read_text() for p in (tmp_path / "pseudo" / "labels").iterdir()]
    assert sorted(texts) == ["0 0.200000 0.500000 0.100000 0.333333\n", "1 0.200000 0.500000 0.100000 0.333333\n"]


def test_json_layout(tmp_path, predictions):
    write_pseudo_labels(tmp_path / "pseudo", predictions, class_thresholds(2), NAMES)
    tree = json.loads((tmp_path / "pseudo" / "predictions.json").read_text(encoding="utf-8"))
    assert list(tree) == ["names", "thresholds", "rule", "state", "images"]
    assert tree["names"] == NAMES
    assert tree["rule"] == {"tau_low": 0.1, "tau0": 0.5, "tau_max": 0.9, "ema_decay": 0.99}
    first, _, no_accepted, empty = tree["images"]
    assert (first["image"], first["width"], first["height"]) == (str(Path("/data/a/x 1.jpg")), 400, 300)
    assert [b["zone"] for b in first["boxes"]] == ["accept", "ignore", "background"]
    assert first["boxes"][0] == {"cls": 0, "score": 0.9, "xywhn": [0.2, 0.5, 0.1, 0.333333], "zone": "accept"}
    assert no_accepted["label"] is None and empty["label"] is None and empty["boxes"] == []


def test_round_trip(tmp_path, predictions):
    thresholds = class_thresholds(2)
    write_pseudo_labels(tmp_path / "pseudo", predictions, thresholds, NAMES)
    images = read_pseudo_labels(tmp_path / "pseudo")
    assert [i.image for i in images] == [p.image for p in predictions]
    for image, original in zip(images, predictions, strict=True):
        assert (image.width, image.height) == (400, 300)
        assert image.classes.tolist() == original.classes.tolist()
        assert np.allclose(image.scores, original.scores, atol=1e-6)
        assert np.allclose(image.boxes_xywhn, original.boxes_xywhn, atol=1e-6) and image.boxes_xywhn.shape[1:] == (4,)
        assert image.zones.tolist() == thresholds.zone(original.classes, original.scores).tolist()
        assert (image.label is not None) == (image.zones == "accept").any()
    assert images[0].label.read_text().count("\n") == 1
    assert images[0].label != images[1].label


def test_no_images_at_all(tmp_path):
    section = write_pseudo_labels(tmp_path / "pseudo", [], class_thresholds(2), NAMES)
    assert section["images"] == section["boxes"] == 0
    assert section["mean_score"] is None and section["starved"] == NAMES
    assert read_pseudo_labels(tmp_path / "pseudo") == []


def test_label_stems_are_unique_without_regard_to_case():
    paths = [Path(p) for p in ("/a/img.jpg", "/b/img.jpg", "/a/img.png", "/a/IMG.jpg", "/a/other.jpg")]
    stems = label_stems(paths)
    assert len({s.casefold() for s in stems}) == 5
    assert stems[4] == "other" and all(s.casefold().startswith("img-") for s in stems[:4])
    assert label_stems(paths) == stems
    with pytest.raises(ValueError, match="listed 2 times"):
        label_stems([*paths, paths[0]])


def test_final_thresholds_zone_all_predictions(tmp_path):
    thresholds = class_thresholds(1, decay=0.5)
    parts = [prediction("/d/a.jpg", (0, 0.6)), prediction("/d/b.jpg", (0, 0.9))]
    for part in parts:
        thresholds.update(part.classes, part.scores)
    section = write_pseudo_labels(tmp_path / "pseudo", parts, thresholds, ["pits"])
    assert section["thresholds"] == {"pits": pytest.approx(0.8)}
    assert [i.zones.tolist() for i in read_pseudo_labels(tmp_path / "pseudo")] == [["ignore"], ["accept"]]


def test_classes_without_accepted_boxes_are_named(tmp_path, predictions):
    section = write_pseudo_labels(tmp_path / "pseudo", predictions[2:], class_thresholds(2), NAMES)
    assert section["starved"] == ["oil spots", "pits"] and section["mean_score"] is None
    low = class_thresholds(2, fixed=np.array([0.3, np.nan]))
    section = write_pseudo_labels(tmp_path / "pseudo", predictions[2:], low, NAMES)
    assert section["starved"] == ["pits"] and section["mean_score"] == 0.4


def test_thresholds_are_read_back_and_continue(tmp_path, predictions):
    thresholds = class_thresholds(2, decay=0.9, fixed=np.array([0.25, np.nan]))
    thresholds.update(np.array([0, 1]), np.array([0.7, 0.6]))
    write_pseudo_labels(tmp_path / "pseudo", predictions, thresholds, NAMES)
    again = read_thresholds(tmp_path / "pseudo")
    assert again.state_dict() == thresholds.state_dict()
    assert again.thresholds().tolist() == thresholds.thresholds().tolist()


def test_thresholds_that_cannot_be_read_are_reported(tmp_path, predictions):
    folder = tmp_path / "pseudo"
    with pytest.raises(UserError, match="has not finished; resume the run"):
        read_thresholds(folder)
    write_pseudo_labels(folder, predictions, class_thresholds(2), NAMES)
    path = folder / "predictions.json"
    tree = json.loads(path.read_text(encoding="utf-8"))
    for state in (None, {}, {**tree["state"], "rule": {}}, {**tree["state"], "ema": [0.0]}):
        path.write_text(json.dumps({**tree, "state": state}), encoding="utf-8")
        with pytest.raises(UserError, match=r"predictions\.json cannot be read"):
            read_thresholds(folder)


def test_quality_is_reported_where_the_truth_is_given(tmp_path, predictions):
    truth = {predictions[0].image: np.array([[0, 0.2, 0.5, 0.1, 1 / 3]])}
    section = write_pseudo_labels(tmp_path / "pseudo", predictions, class_thresholds(2), NAMES, truth)
    assert (section["quality"]["images"], section["quality"]["precision"]) == (1, 1.0)


def test_rewriting_replaces_the_folder(tmp_path, predictions):
    folder = tmp_path / "pseudo"
    write_pseudo_labels(folder, predictions, class_thresholds(2), NAMES)
    (tmp_path / ".pseudo.building" / "labels").mkdir(parents=True)  # as a killed process leaves them
    (tmp_path / ".pseudo.old").mkdir()
    write_pseudo_labels(folder, predictions[2:], class_thresholds(2), NAMES)
    assert len(read_pseudo_labels(folder)) == 2
    assert not list((folder / "labels").iterdir())
    assert [p.name for p in tmp_path.iterdir()] == ["pseudo"]


def test_full_disk_leaves_the_folder_as_it_was(tmp_path, predictions, monkeypatch):
    folder = tmp_path / "pseudo"
    write_pseudo_labels(folder, predictions[:1], class_thresholds(2), NAMES)
    write_text = Path.write_text

    def full(path: Path, *args, **kwargs):
        if path.suffix == ".txt":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="No space left on device; free some space"):
        write_pseudo_labels(folder, predictions, class_thresholds(2), NAMES)
    assert len(read_pseudo_labels(folder)) == 1


def test_a_process_that_dies_while_writing_leaves_nothing(tmp_path, predictions, monkeypatch):
    def die(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("dfssd.pseudo_labels.files.os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        write_pseudo_labels(tmp_path / "pseudo", predictions, class_thresholds(2), NAMES)
    assert not (tmp_path / "pseudo").exists()


def test_missing_or_broken_files_are_reported(tmp_path, predictions):
    folder = tmp_path / "pseudo"
    with pytest.raises(UserError, match="has not finished; resume the run"):
        read_pseudo_labels(folder)
    write_pseudo_labels(folder, predictions, class_thresholds(2), NAMES)
    path = folder / "predictions.json"
    for text in (path.read_text(encoding="utf-8")[:-30], "{}", "[]", '{"images": [{}]}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=r"predictions\.json cannot be read"):
            read_pseudo_labels(folder)


def test_names_must_fit_the_thresholds(tmp_path):
    with pytest.raises(ValueError, match="1 class name, but thresholds for 2 classes"):
        write_pseudo_labels(tmp_path, [], class_thresholds(2), ["pits"])


def test_arrays_that_do_not_fit_are_reported():
    with pytest.raises(ValueError, match="must match"):
        ImagePrediction(Path("a.jpg"), 4, 4, np.zeros(2, dtype=int), np.zeros(1), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="normalized to 0-1"):
        ImagePrediction(Path("a.jpg"), 4, 4, np.zeros(1, dtype=int), np.zeros(1), np.array([[5, 5, 2, 2.0]]))
