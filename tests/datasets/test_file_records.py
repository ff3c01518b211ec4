"""The record of the files of a run: names of all kinds survive, damage is reported with its line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dfssd.datasets.data_state import check_state, write_state
from dfssd.datasets.file_records import FILES, in_parallel, read_rows
from dfssd.datasets.records import DetectionSet, Item
from dfssd.datasets.split_files import read_split
from dfssd.datasets.splits import LISTS, Split
from dfssd.errors import UserError
from tests.datasets.recorded_data import NAMES, recorded


@pytest.mark.parametrize("row", ["test,/a.png,,many,0,0,,", "test,/a.png", '"test'])
def test_damaged_record_is_reported_with_its_line(tmp_path: Path, row: str) -> None:
    place = recorded(tmp_path)
    file = place.splits / FILES
    file.write_text(file.read_text() + row)
    lines = file.read_text().count("\n") + 1
    for check in (lambda: check_state(place.splits, "resume=x"), lambda: read_split(place.splits, place.read())):
        with pytest.raises(UserError, match=rf"files\.csv:{lines}: is damaged; restore it, or remove it"):
            check()


def test_names_that_are_not_text_survive(tmp_path: Path) -> None:
    names = [b"\xff.png", b"two\nlines.png", b'quote",.png', "缺陷.png".encode()]
    images = [Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)) for name in names]
    for image in images:
        image.write_bytes(b"pixels")
    dataset = DetectionSet("set", NAMES, tuple(Item(image, None, None) for image in images))
    write_state(tmp_path / "splits", Split(*((image,) for image in images)), dataset)
    assert [row.path for row in read_rows(tmp_path / "splits") if row.role in LISTS] == [str(i) for i in images]
    check_state(tmp_path / "splits", "resume=x")
    images[1].unlink()
    with pytest.raises(UserError, match="1 file vanished"):
        check_state(tmp_path / "splits", "resume=x")


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 5000])
def test_results_come_in_order_and_few_jobs_are_taken_ahead(count: int) -> None:
    taken = []

    def jobs():
        for number in range(count):
            taken.append(number)
            yield number

    done = 0
    for job, result in in_parallel(lambda n: n * n, jobs()):
        assert (job, result) == (done, done * done)
        done += 1
        assert len(taken) - done <= 1024
    assert done == count


def test_an_error_of_a_thread_is_raised() -> None:
    def fail(number: int) -> int:
        raise UserError(f"{number} is unlucky")

    with pytest.raises(UserError, match="0 is unlucky"):
        list(in_parallel(fail, range(200)))
