"""Files of a split that break, change, or vanish are found by name; others are not read again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dfssd.datasets.data_state import check_state
from dfssd.datasets.file_records import Stamp
from dfssd.datasets.listed_files import leave_out, lost_files, read_list
from dfssd.datasets.splits import LISTS
from dfssd.errors import UserError
from dfssd.files import file_digest
from tests.datasets.recorded_data import Place, recorded, rewrite, set_back


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return recorded(tmp_path)


def imported(place: Place, number: int, part: str = "images", suffix: str = "png") -> Path:
    return place.imported / part / f"{number}.{suffix}"


LOSSES: dict[str, tuple[Callable[[Place], object], str, int, str]] = {
    "image cut": (lambda p: rewrite(imported(p, 7), b"pix"), "test", 7, "the image changed"),
    "other image": (lambda p: set_back(imported(p, 2), b"pixels x"), "train_labeled", 2, "the image changed"),
    "image gone": (lambda p: imported(p, 4).unlink(), "train_unlabeled", 4, "the image vanished"),
    "label edited": (
        lambda p: imported(p, 6, "labels", "txt").write_text("9 0.5 0.5 0.25 0.25\n"), "val", 6, "its labels changed"
    ),
    "label gone": (lambda p: imported(p, 0, "labels", "txt").unlink(), "train_labeled", 0, "its labels vanished"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOSSES)
def test_lost_file_is_found_in_its_list_alone(place: Place, case: str) -> None:
    lose, part, number, reason = LOSSES[case]
    assert lost_files(place.splits, LISTS, {}) == []
    lose(place)
    [lost] = lost_files(place.splits, LISTS, {})
    assert (lost.part, lost.image) == (part, str(imported(place, number)))
    assert lost.reason == f"{reason} after the data had been prepared"
    assert lost_files(place.splits, [other for other in LISTS if other != part], {}) == []


@pytest.mark.parametrize("case", LOSSES)
def test_image_that_is_left_out_is_missed_no_more(place: Place, case: str) -> None:
    lose, part, number, _ = LOSSES[case]
    lose(place)
    lost = lost_files(place.splits, LISTS, {})
    if part in {"test", "val"}:  # their only image
        with pytest.raises(UserError, match=f"{part}.txt: all its images changed or vanished"):
            leave_out(place.splits, lost)
        assert len(read_list(place.splits, part)) == 1
        return
    before = {name: read_list(place.splits, name) for name in LISTS}
    assert leave_out(place.splits, lost) == {part: len(before[part]) - 1}
    for name in LISTS:
        assert read_list(place.splits, name) == [path for path in before[name] if path != imported(place, number)]
    assert lost_files(place.splits, LISTS, {}) == []
    if number != 2:  # the pixels of the user are the same file
        check_state(place.splits, "resume=x")


def test_touched_files_are_read_once(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noting(path: str) -> str:
        read.append(str(path))
        return file_digest(path)

    monkeypatch.setattr("dfssd.datasets.data_state.file_digest", noting)
    imported(place, 7).touch()
    seen: dict[str, Stamp] = {}
    assert lost_files(place.splits, ["test"], seen) == [] == lost_files(place.splits, ["test"], seen)
    assert read == [str(imported(place, 7))]
    rewrite(imported(place, 7), b"pixels x")
    assert [lost.state for lost in lost_files(place.splits, ["test"], seen)] == ["changed"]


def test_split_without_a_record_passes_and_a_missing_list_is_named(place: Place) -> None:
    imported(place, 7).unlink()
    (place.splits / "files.csv").unlink()
    assert lost_files(place.splits, LISTS, {}) == []
    (place.splits / "val.txt").unlink()
    with pytest.raises(UserError, match=r"val\.txt cannot be read"):
        read_list(place.splits, "val")
