"""Stages read the images and labels that were prepared, or stop by name, or leave them out with the counts right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfssd.datasets.listed_files import read_list
from dfssd.errors import UserError
from dfssd.results.sections import BoxData, Status
from dfssd.runs.configure import configure
from dfssd.runs.folder import RunFolder
from dfssd.runs.inputs import READS, Inputs
from dfssd.tasks import TASKS
from tests.datasets.recorded_data import LISTED, NAMES, Place, recorded, rewrite


def of_run(tmp_path: Path, **options: Any) -> tuple[Inputs, Place]:
    """The inputs of a run whose data is that of :func:`recorded`."""
    place = recorded(tmp_path)
    folder = RunFolder.create(configure({"project": str(tmp_path / "runs"), "name": "x"}), "the line")
    place.splits.rename(folder.path / "splits")
    counts = {part: len(images) for part, images in LISTED.items()}
    folder.record.data = BoxData(name="set", classes=NAMES, images=9, duplicates=0, torn_duplicates=0, **counts)
    return Inputs(folder, **{"skip_bad": False, **options}), place


def done() -> Status:
    return "done"


def never() -> Status:
    raise AssertionError("the stage must not begin")


def test_lists_are_those_of_stages() -> None:
    names = {name for task in TASKS.values() for name in task.run.STAGES}
    assert set(READS) == names - {"prepare", "report"}


@pytest.mark.parametrize(("stage", "number"), [("teacher", 0), ("student", 4), ("pseudo-label", 6), ("test", 7)])
@pytest.mark.parametrize("part", ["images", "labels"])
def test_stage_that_needs_a_lost_file_does_not_begin(tmp_path: Path, stage: str, number: int, part: str) -> None:
    inputs, place = of_run(tmp_path)
    file = place.imported / part / f"{number}.{'png' if part == 'images' else 'txt'}"
    if stage == "student" and part == "labels":
        file.write_text("0 0.5 0.5 0.5 0.5\n")
    else:
        file.unlink()
    with pytest.raises(
        UserError, match=f"^1 file of the data .* since the run was started: {file}; restore .* resume="
    ):
        inputs.watch(stage, never)
    assert inputs.watch("teacher" if number in {4, 7} else "export", done) == "done"


def test_file_that_is_lost_while_a_stage_reads_it_is_named(tmp_path: Path) -> None:
    inputs, place = of_run(tmp_path)
    image = place.imported / "images" / "2.png"

    def fail() -> Status:
        image.unlink()
        raise FileNotFoundError("Image Not Found")

    with pytest.raises(UserError, match=f"1 file of the data vanished while the stage teacher read them: {image};"):
        inputs.watch("teacher", fail)
    image.write_bytes(b"pixels 2")

    def overlook() -> Status:
        rewrite(image, b"pixels x")
        trained = inputs.folder.path / "train" / "teacher" / "weights"
        trained.mkdir(parents=True)
        (trained / "last.pt").write_bytes(b"learned from it")
        return "done"

    told = f"1 file of the data changed while .* read them: {image}; restore the data, remove train/teacher,"
    with pytest.raises(UserError, match=told):
        inputs.watch("teacher", overlook)


def test_bug_stays_one_and_stages_without_images_are_not_watched(tmp_path: Path) -> None:
    inputs, place = of_run(tmp_path)

    def fail() -> Status:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        inputs.watch("teacher", fail)
    (place.imported / "images" / "7.png").unlink()
    assert inputs.watch("report", done) == "done"


def lose(place: Place, number: int) -> Path:
    image = place.imported / "images" / f"{number}.png"
    image.unlink()
    return image


CHECKS: dict[str, tuple[int, str, str]] = {
    "labeled": (2, "teacher", "train_labeled"),
    "unlabeled": (4, "pseudo-label", "train_unlabeled"),
}


@pytest.mark.parametrize("case", CHECKS)
def test_skip_bad_leaves_out_what_no_stage_has_read_and_corrects_the_counts(
    tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    number, stage, part = CHECKS[case]
    inputs, place = of_run(tmp_path, skip_bad=True)
    image = lose(place, number)
    assert inputs.watch(stage, done) == "done"
    record = json.loads((inputs.folder.path / "results.json").read_text(encoding="utf-8"))["data"]
    assert record[part] == len(LISTED[part]) - 1 == len(read_list(inputs.folder.path / "splits", part))
    assert record["skipped"] == [[str(image), "the image vanished after the data had been prepared"]]
    assert part in record["lists_read"] and f"{image} is left out of {part}" in caplog.text


def test_networks_are_not_trained_on_different_images_with_skip_bad(tmp_path: Path) -> None:
    inputs, place = of_run(tmp_path, skip_bad=True)
    inputs.watch("teacher", done)
    image = lose(place, 2)
    with pytest.raises(UserError, match=f"vanished since the run was started: {image};"):
        inputs.watch("student", never)


@pytest.mark.parametrize(("status", "reads"), [("skipped", False), ("done", True)])
def test_stage_that_is_skipped_has_read_nothing(tmp_path: Path, status: Status, reads: bool) -> None:
    inputs, _ = of_run(tmp_path)
    work: Callable[[], Status] = lambda: status  # noqa: E731
    inputs.watch("self-train", work)
    assert inputs.folder.record.data and bool(inputs.folder.record.data.lists_read) is reads
