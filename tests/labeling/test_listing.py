"""The list of the images, and its parts."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dfssd.errors import UserError
from dfssd.labeling.listing import Part, images_of, parts_of, root_of, write_listing, write_sample


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def listed(listing: Path) -> list[str]:
    return [name for part in parts_of(listing, 2) for name in part.names()]


def test_a_folder_is_listed_by_name_with_those_below_it(tmp_path: Path) -> None:
    names = ["b.png", "a/2.JPG", "a/1.tif", "a/b/ü x.bmp", "note.txt", ".hidden.png", ".cache/a.png", "c.heic"]
    source = touched(tmp_path / "in", *names)
    assert write_listing(source, tmp_path / "list") == 5
    assert listed(tmp_path / "list") == ["a/1.tif", "a/2.JPG", "a/b/ü x.bmp", "b.png", "c.heic"]
    assert root_of(source) == source


def test_linked_folders_are_followed_but_not_in_circles(tmp_path: Path, caplog) -> None:
    source = touched(tmp_path / "in", "a/1.png")
    touched(tmp_path / "elsewhere", "2.png")
    (source / "b").symlink_to(tmp_path / "elsewhere")
    (source / "a" / "round").symlink_to(source)
    assert write_listing(source, tmp_path / "list") == 2
    assert listed(tmp_path / "list") == ["a/1.png", "b/2.png"]
    assert "leads back to a folder that it lies in: left out" in caplog.text


def test_a_text_is_listed_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("in/b.png\n\n /somewhere/a.png \n", encoding="utf-8-sig")
    assert write_listing(tmp_path / "some.txt", tmp_path / "list") == 2
    assert listed(tmp_path / "list") == ["in/b.png", "/somewhere/a.png"]
    (part,) = parts_of(tmp_path / "list", 5)
    assert images_of(part, root_of(tmp_path / "some.txt")) == [tmp_path / "in/b.png", Path("/somewhere/a.png")]


def test_parts_cover_the_list_and_are_read_on_their_own(tmp_path: Path) -> None:
    names = [f"{'ü' * (n % 3)}{n}.png" for n in range(7)]
    source = touched(tmp_path / "in", *names)
    write_listing(source, tmp_path / "list")
    for size, counts in {3: [3, 3, 1], 7: [7], 100: [7], 1: [1] * 7}.items():
        parts = parts_of(tmp_path / "list", size)
        assert [part.count for part in parts] == counts and [part.number for part in parts] == list(range(len(counts)))
        assert [name for part in reversed(parts) for name in reversed(part.names())][::-1] == sorted(names)


def test_a_sample_is_drawn_from_all_in_their_order(tmp_path: Path) -> None:
    source = touched(tmp_path / "in", *(f"{n:03}.png" for n in range(100)))
    total = write_listing(source, tmp_path / "list")
    draws = []
    for seed in (0, 0, 1):
        assert write_sample(tmp_path / "list", total, 30, seed, tmp_path / "sample") == 30
        draws.append(listed(tmp_path / "sample"))
        assert draws[-1] == sorted(set(draws[-1]))
    assert draws[0] == draws[1] != draws[2] and draws[0] != [f"{n:03}.png" for n in range(30)]
    assert write_sample(tmp_path / "list", total, 1000, 0, tmp_path / "sample") == 100


def test_bad_sources_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"\xe4.png\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "null.txt").write_text("a\0.png\n")
    touched(tmp_path / "none", "a.txt")
    touched(tmp_path, "one.png")
    for name, problem in {
        "missing": "does not exist", "none": "no image there", "empty.txt": "no image there",
        "latin.txt": "is no text in UTF-8", "null.txt": "is no text: it holds a NUL",
        "one.png": "give a folder, or a .txt file",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=f"images=.*{name}: {problem}"):
            write_listing(tmp_path / name, tmp_path / "list")
        assert not (tmp_path / "list").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_are_left_out_with_a_warning(tmp_path: Path, caplog) -> None:
    source = touched(tmp_path / "in", "a.png")
    (Path(os.fsdecode(os.fsencode(source) + b"/\xff.png"))).touch()
    assert write_listing(source, tmp_path / "list") == 1
    assert "1 image with names that are no UTF-8 left out" in caplog.text


def test_a_part_is_read_from_its_place(tmp_path: Path) -> None:
    (tmp_path / "list").write_text('"a"\n"b"\n"c"\n')
    assert Part(tmp_path / "list", 1, 4, 2).names() == ["b", "c"]
