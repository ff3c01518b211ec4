"""What becomes of each annotation, and the data set that is written."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dfssd.cli import main
from dfssd.datasets.annotations import Annotation
from dfssd.datasets.images.facts import FactStore, probe_files
from dfssd.datasets.records import DetectionSet, Item
from dfssd.errors import UserError
from dfssd.review import merging
from dfssd.review.incoming import Incoming, read_incoming
from dfssd.review.merging import Merged, check_outcomes, merge, write_data_set
from tests.conftest import NAMES, write_images

BOX = (1, 0.5, 0.5, 0.25, 0.25)
"""24 24 40 40 in an image of 64 x 64 px."""


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return write_images(tmp_path / "set", 5, seed=7, labels=False)


@pytest.fixture
def dataset(images: list[Path]) -> DetectionSet:
    """Images labeled for train and val, one whose labels are hidden, two without; ``im_7_0`` to ``im_7_4``."""
    box = np.array([BOX], dtype=np.float32)
    labels = [(box, "train"), (box, "val"), (box, "unlabeled"), (None, "unlabeled"), (None, "unlabeled")]
    items = (Item(image, *known) for image, known in zip(images, labels, strict=True))
    return DetectionSet("set", tuple(NAMES), tuple(items))


def said(image: str, *boxes: Sequence[float], names: Sequence[str] = (), **more: Any) -> Annotation:
    """An annotation with boxes x1 y1 x2 y2 [px], of the class bright unless named."""
    labels = tuple(names) or ("bright",) * len(boxes)
    return Annotation(Path("job.json"), image, labels, np.array(boxes, dtype=float).reshape(-1, 4), **more)


def merged(dataset: DetectionSet, *annotations: Annotation, **options: Any) -> Merged:
    def facts(images: Sequence[Path]) -> dict:
        return dict(zip(images, probe_files(FactStore(None), images), strict=True))

    return merge(dataset, Incoming(list(annotations)), facts, **options)


def test_new_labels_and_none_on_purpose(dataset: DetectionSet) -> None:
    """Hidden labels are no labels: an image with some is labeled by the review, and not in conflict with it."""
    done = merged(
        dataset, said("im_7_3.png", (0, 0, 32, 16)), said("0002-im_7_4.png"), said("im_7_2.png", (0, 0, 8, 8))
    )
    assert done.counts == {merging.LABELED: 2, merging.DEFECT_FREE: 1}
    assert done.reviewed[dataset.items[3].image].tolist() == [[1, 0.25, 0.125, 0.5, 0.25]]
    assert done.parts == {"train": 4, "val": 1, "unlabeled": 0}
    check_outcomes(done, skip_bad=False)


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (said("im_7_3.png", (0, 0, 8, 8), names=["dent"]), "class 'dent' is not among the names (dark, bright)"),
        (said("im_7_3.png", (0, 0, 80, 8)), "reaches outside the image"),
        (
            said("im_7_3.png", (0, 0, 8, 8), size=(128, 128)),
            "an image of 128x128 px, but the image has 64x64 px",
        ),
        (said("im_7_3.png", problem="its box has no area"), "its box has no area"),
        (said("other.png", (0, 0, 8, 8)), "there is no image 'other.png' in the data"),
    ],
)
def test_what_cannot_be_used_is_named(dataset: DetectionSet, annotation: Annotation, reason: str) -> None:
    good = said("im_7_4.png")
    done = merged(dataset, annotation, good)
    with pytest.raises(UserError) as found:
        check_outcomes(done, skip_bad=False)
    assert reason in found.value.problems[0] and "skip_bad=true" in found.value.problems[-1]
    check_outcomes(done, skip_bad=True)
    assert done.counts == {merging.LEFT_OUT: 1, merging.DEFECT_FREE: 1}
    assert done.parts["unlabeled"] == 2  # an image whose annotation cannot be used stays unlabeled


def test_two_annotators_agree_or_are_named(dataset: DetectionSet) -> None:
    alike = merged(dataset, said("im_7_3.png", (0, 0, 8, 8)), said("im_7_3.png", (0, 0, 8.5, 8)))
    assert alike.counts == {merging.LABELED: 1}
    apart = merged(dataset, said("im_7_3.png", (0, 0, 8, 8)), said("im_7_3.png", (0, 0, 20, 8), place=":7"))
    assert apart.counts == {merging.LEFT_OUT: 1} and not apart.reviewed
    assert apart.outcomes[0].reason == "job.json:7 has other boxes; keep one of them"


@pytest.mark.parametrize(("image", "part"), [("im_7_0.png", "train"), ("im_7_1.png", "val")])
def test_labels_that_there_are_stay_unless_told(dataset: DetectionSet, image: str, part: str) -> None:
    same = merged(dataset, said(image, (24, 24, 40, 40)))
    assert same.counts == {merging.ALIKE: 1}
    other = merged(dataset, said(image, (0, 0, 8, 8)))
    assert other.counts == {merging.KEPT: 1} and not other.reviewed
    assert other.outcomes[0].reason == f"the image is labeled already ({part}, 1 box)"
    new = merged(dataset, said(image, (0, 0, 8, 8)), overwrite=True)
    assert new.counts == {merging.REPLACED: 1} and new.parts == {"train": 1, "val": 1, "unlabeled": 3}


def test_nothing_new_is_an_error(dataset: DetectionSet) -> None:
    with pytest.raises(UserError, match="nothing new to learn from: 1 kept; nothing was written"):
        check_outcomes(merged(dataset, said("im_7_0.png", (0, 0, 8, 8))), skip_bad=True)


def test_only_the_first_images_were_reviewed(dataset: DetectionSet) -> None:
    done = merged(dataset, said("0001-im_7_3.png"), said("0002-im_7_4.png"), first=1)
    assert done.counts == {merging.DEFECT_FREE: 1, merging.LATER: 1}


def test_an_image_that_the_run_left_out_is_told(dataset: DetectionSet) -> None:
    copy = Path("/photos/copy.png")
    done = merged(dataset, said("0001-copy.png"), left_out=[copy])
    assert done.outcomes[0].reason.startswith(f"{copy} is not used by the run: a copy")


def test_the_written_data_set(dataset: DetectionSet, tmp_path: Path) -> None:
    done = merged(dataset, said("im_7_3.png", (0, 0, 32, 16)), said("im_7_9.png"))
    file = write_data_set(done, tmp_path / "out")
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert tree == {
        "train": "images/train",
        "val": "images/val",
        "unlabeled": "unlabeled.txt",
        "names": dict(enumerate(NAMES)),
    }
    out = file.parent
    assert sorted(path.name for path in (out / "images" / "train").iterdir()) == ["im 7_0.png", "im 7_3.png"]
    assert (out / "labels" / "train" / "im 7_3.txt").read_text(encoding="utf-8") == "1 0.25 0.125 0.5 0.25\n"
    listed = (out / "unlabeled.txt").read_text(encoding="utf-8").splitlines()
    assert listed == [str(dataset.items[2].image), str(dataset.items[4].image)]
    with open(out / "reviewed.csv", encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    assert [(Path(row["image"]).name, row["what"], row["boxes"]) for row in rows] == [
        ("", "left out", ""),
        ("im 7_3.png", "labeled", "1"),
    ]
    with pytest.raises(UserError, match="exists and is not empty"):
        write_data_set(done, out)
    assert not list(tmp_path.glob(".*.part"))


def test_a_data_set_without_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """data= and unlabeled= as of a run: the next one divides all labeled images anew."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "set", 6, seed=1)
    (tmp_path / "set" / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    write_images(tmp_path / "more", 3, seed=2, labels=False)
    tree = {
        "images": [{"id": 1, "file_name": "im 2_0.png", "width": 64, "height": 64}],
        "annotations": [],
        "categories": [{"id": 1, "name": "dark"}],
    }
    Path("job.json").write_text(json.dumps(tree), encoding="utf-8")
    assert main(["review", "import", "job.json", "data=set", "unlabeled=more", "out=new"]) == 0
    shown = capsys.readouterr().out
    assert "new/data.yaml: images: 7 train, 2 unlabeled;" in shown and "next: dfssd data=new/data.yaml\n" in shown
    assert main(["check", "data=new/data.yaml"]) == 0
    assert "new: 9 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "does not exist"),
        ({"job/labels/a.txt": "0 0.5 0.5 0.1 0.1"}, "there is no list of their names; put the classes.txt"),
        ({"job/a.json": '[{"data": {"image": "a.png"}, "annotations": []}]'}, "its 1 task has no annotation"),
        ({"job/a.json": "{"}, None),
    ],
)
def test_files_that_hold_no_review(tmp_path: Path, files: dict[str, str], message: str | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    if message is None:
        assert [where for where, _ in read_incoming([tmp_path / "job"]).problems] == [str(tmp_path / "job" / "a.json")]
    else:
        with pytest.raises(UserError, match=message):
            read_incoming([tmp_path / "job"])


def test_ids_beyond_the_list_of_names_are_a_problem_of_their_image(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("bright\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("1 0.5 0.5 0.1 0.1\n", encoding="utf-8")
    a, b = read_incoming([tmp_path]).annotations
    assert (a.image, a.labels, a.problem) == ("a", ("bright",), None)
    assert b.image == "b" and "class id 1 is out of range" in (b.problem or "")
