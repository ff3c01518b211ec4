"""Out to a tool, changed as a person would, and back: for every tool, and with a real Label Studio server."""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dfssd.cli import main
from dfssd.datasets.records import DetectionSet
from dfssd.detection.data import choose_split, copies_among, read_data
from dfssd.pseudo_labels.files import read_pseudo_labels
from dfssd.review import TOOLS
from dfssd.review.proposals import proposals
from dfssd.runs.key_names import configure_data
from tests.review import label_studio, people

LOWEST = 0.8
"""Score from which boxes are shown here, since networks without training find many."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are typed in another folder than that of the run."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def export(made: Path, out: Path, tool: str, n: int = 5) -> list[dict[str, str]]:
    """Export by the command; the rows of review.csv."""
    assert main(["review", "export", str(made), f"to={tool}", f"n={n}", f"out={out}", f"conf={LOWEST}"]) == 0
    with open(out / "review.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def next_run(file: Path, data_dir: Path) -> tuple[DetectionSet, dict[str, set[str]]]:
    """What a run with this data reads, and the names of the images in each list of its split."""
    config = configure_data({"data": str(file), "data_dir": str(data_dir)})
    dataset = read_data(config)
    split = choose_split(config, dataset, copies_among(config, dataset))
    lists = ("train_labeled", "train_unlabeled", "val", "test")
    return dataset, {name: {path.stem for path in getattr(split, name)} for name in lists}


def boxes_in(dataset: DetectionSet, image: str) -> np.ndarray:
    """Class ids and corners [px] of an image of 64 x 64 px."""
    [item] = [item for item in dataset.items if Path(item.source or item.image).stem == Path(image).stem]
    assert item.boxes is not None
    return corners(item.boxes)


def corners(rows: np.ndarray) -> np.ndarray:
    x, y, w, h = (64 * rows[:, column].astype(float) for column in range(1, 5))
    table = np.stack([rows[:, 0], x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
    return table


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two tables hold the same rows in some order, up to what the roughest format rounds."""
    apart = np.abs(a[:, None] - b[None]).max(2)
    return len(a) == len(b) and bool((apart.min(1) < 0.02).all() and (apart.min(0) < 0.02).all())


def proposed(made: Path, image: str) -> np.ndarray:
    """The boxes that were offered, as :func:`boxes_in` gives them."""
    [teacher] = [own for own in read_pseudo_labels(made / "pseudo") if str(own.image) == image]
    kept = next((made / "review").glob("student-*"))
    [student] = [own for own in read_pseudo_labels(kept) if str(own.image) == image]
    found = proposals(teacher, student).above(LOWEST)
    return corners(np.unique(np.concatenate([found.classes[:, None], found.boxes_xywhn], axis=1), axis=0))


def check_labels(made: Path, listed: list[dict[str, str]], file: Path, data_dir: Path) -> None:
    """The next run reads what the person has made of the first three images, and all else as the first run had it."""
    dataset, lists = next_run(file, data_dir)
    assert same(boxes_in(dataset, listed[0]["image"]), np.array(people.DRAWN))
    assert len(boxes_in(dataset, listed[1]["image"])) == 0
    agreed = proposed(made, listed[2]["image"])
    assert len(agreed) and same(boxes_in(dataset, listed[2]["image"]), agreed)
    before = {
        part: {Path(line).stem for line in (made / "splits" / f"{part}.txt").read_text().splitlines()} for part in lists
    }
    reviewed = {Path(row["image"]).stem for row in listed[:3]}
    assert lists["train_labeled"] == before["train_labeled"] | reviewed
    assert lists["train_unlabeled"] == before["train_unlabeled"] - reviewed
    assert (lists["val"], lists["test"]) == (before["val"], before["test"])


@pytest.mark.parametrize("tool", TOOLS)
def test_there_and_back(made: Path, tool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = export(made, tmp_path / "out", tool)
    assert [row["rank"] for row in listed] == ["1", "2", "3", "4", "5"] and all(row["reason"] for row in listed)
    images = tmp_path / "out" / ("data" if tool == "fiftyone" else "images")
    assert sorted(path.name for path in images.iterdir()) == [row["name"] for row in listed]
    for row in listed:
        assert (images / row["name"]).read_bytes() == Path(row["image"]).read_bytes()
        assert not (images / row["name"]).samefile(row["image"])  # tools may rewrite what they are given
    (tmp_path / "back").mkdir()
    file = people.WORK[tool](tmp_path / "out", tmp_path / "back")
    capsys.readouterr()
    assert main(["review", "import", str(file), f"data={made}", f"out={tmp_path / 'new'}"]) == 0
    shown = capsys.readouterr().out
    assert "     2  labeled" in shown and "     1  defect-free" in shown
    assert f"dfssd data={tmp_path / 'new' / 'data.yaml'} " in shown and " imgsz=64" in shown
    assert "labeled=" not in shown and "has a person looked" not in shown
    check_labels(made, listed, tmp_path / "new" / "data.yaml", tmp_path / "datasets")
    offered = [len(proposed(made, row["image"])) for row in listed[:3]]
    counts = re.search(r"in 3 images, .*: (\d+) kept, (\d+) moved, (\d+) relabeled, (\d+) added, (\d+) deleted", shown)
    assert counts
    kept, moved, relabeled, added, deleted = map(int, counts.groups())
    same = kept + moved + relabeled
    assert kept >= offered[2] and same + deleted <= sum(offered) and same + added == len(people.DRAWN) + offered[2]


def test_labels_that_the_run_hides_stay_hidden(made: Path, tmp_path: Path) -> None:
    """They are read again, to measure pseudo-labels, and never trained on."""
    export(made, tmp_path / "out", "coco")
    file = people.coco(tmp_path / "out", tmp_path)
    assert main(["review", "import", str(file), f"data={made}", f"out={tmp_path / 'new'}"]) == 0
    dataset, lists = next_run(tmp_path / "new" / "data.yaml", tmp_path / "datasets")
    hidden = [item for item in dataset.items if item.boxes is not None and item.split == "unlabeled"]
    assert hidden and all(item.image.stem in lists["train_unlabeled"] for item in hidden)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[label_studio.Server]:
    """A real server; images are served from ``tmp_path / "out"``."""
    if (program := label_studio.command()) is None:
        pytest.skip("Label Studio is not installed: set DFSSD_LABEL_STUDIO to its program (docs/review.md)")
    with (
        tempfile.TemporaryDirectory() as database,
        label_studio.running(program, Path(database), tmp_path / "out") as running,
    ):
        yield running


@pytest.mark.train
def test_there_and_back_by_a_real_label_studio(made: Path, tmp_path: Path, server: label_studio.Server) -> None:
    """The annotator draws into the first image, empties the second, submits the third as it is, skips the fourth."""
    listed = export(made, tmp_path / "out", "label-studio")
    project = server.project(tmp_path / "out")
    tasks = server.tasks(project)
    assert [Path(task["data"]["image"]).name for task in tasks] == [row["name"] for row in listed]
    assert all(task["predictions"][0]["result"] and not task["annotations"] for task in tasks)
    shown = server.fetch("GET", tasks[0]["data"]["image"])
    assert shown == (tmp_path / "out" / "images" / listed[0]["name"]).read_bytes()
    server.annotate(tasks[0]["id"], people.regions())
    server.annotate(tasks[1]["id"], [])
    server.annotate(tasks[2]["id"], tasks[2]["predictions"][0]["result"])
    server.annotate(tasks[3]["id"], [], skipped=True)
    file = tmp_path / "project.json"
    file.write_bytes(server.export(project))
    assert len(json.loads(file.read_bytes())) == 5
    assert main(["review", "import", str(file), f"data={made}", f"out={tmp_path / 'new'}"]) == 0
    check_labels(made, listed, tmp_path / "new" / "data.yaml", tmp_path / "datasets")
