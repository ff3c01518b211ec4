"""Every file of a source once, in an order that does not depend on the file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dfssd.datasets.inventory import list_folder, take_inventory
from dfssd.errors import UserError


def put(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")


def names(root: Path, **kw: object) -> list[str]:
    return [file.path.relative_to(root).as_posix() for file in take_inventory(root, **kw).files]


def test_files_in_path_order_with_size_and_time(tmp_path: Path) -> None:
    put(tmp_path / "b" / "2.png", tmp_path / "b" / "10.png", tmp_path / "a.txt", tmp_path / "b c" / "1.png")
    assert names(tmp_path) == ["a.txt", "b/10.png", "b/2.png", "b c/1.png"]
    first = take_inventory(tmp_path).files[0]
    assert (first.size, first.mtime_ns) == (1, (tmp_path / "a.txt").stat().st_mtime_ns)


def test_the_order_of_the_file_system_has_no_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(*(tmp_path / f"{folder}/{i}.png" for folder in "cab" for i in range(3)))
    before = take_inventory(tmp_path)
    scandir = os.scandir

    class Backwards(list[os.DirEntry[str]]):
        def __enter__(self) -> Backwards:
            return self

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(os, "scandir", lambda p: Backwards(sorted(scandir(p), key=lambda e: e.name, reverse=True)))
    assert take_inventory(tmp_path) == before


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (".hidden/a.png", "hidden"),
        ("images/._a.png", "hidden"),
        ("images/.DS_Store", "hidden"),
        ("images/@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "thumbnails"),
        ("images/Thumbs.db", "thumbnails"),
        ("#recycle/a.png", "thumbnails"),
        ("__MACOSX/images/a.png", "system folders"),
        ("$RECYCLE.BIN/a.png", "system folders"),
        ("labels.cache", "caches"),
        ("images/a.cache.npy", "caches"),
    ],
)
def test_what_never_belongs_to_a_source_is_counted_only(tmp_path: Path, path: str, kind: str) -> None:
    put(tmp_path / "images" / "a.png", tmp_path / path)
    assert names(tmp_path) == ["images/a.png"]
    assert take_inventory(tmp_path).outside == {kind: 1}


def test_a_source_may_lie_in_a_hidden_folder(tmp_path: Path) -> None:
    put(tmp_path / ".data" / "a.png")
    assert names(tmp_path / ".data") == ["a.png"]


@pytest.mark.parametrize(
    "files",
    [
        ("dataset.json", "images/p.png"),
        ("run.yaml", "results.json", "plots/p.png"),
        ("protocol.yaml", "incremental.json", "p.png"),
        ("args.yaml", "weights/best.pt", "train_batch0.jpg"),
    ],
)
def test_imports_and_runs_are_no_data(tmp_path: Path, files: tuple[str, ...]) -> None:
    put(tmp_path / "a.png", *(tmp_path / "some" / "where" / name for name in files))
    assert names(tmp_path) == ["a.png"]
    assert take_inventory(tmp_path).outside == {"of earlier runs and imports": len(files)}
    inside = tmp_path / "some" / "where"
    assert len(names(inside)) == len(files), "the user has named it"


def test_a_mark_alone_is_a_file_of_the_user(tmp_path: Path) -> None:
    put(tmp_path / "set" / "dataset.json", tmp_path / "set" / "a.png")
    assert names(tmp_path) == ["set/a.png", "set/dataset.json"]


def test_excluded_folders_unless_the_source_lies_in_one(tmp_path: Path) -> None:
    put(tmp_path / "a.png", tmp_path / "runs" / "b.png", tmp_path / "datasets" / "x" / "c.png")
    exclude = [tmp_path / "runs", tmp_path / "datasets"]
    assert names(tmp_path, exclude=exclude) == ["a.png"]
    assert names(tmp_path / "datasets" / "x", exclude=exclude) == ["c.png"]
    assert names(tmp_path / "runs", exclude=exclude) == ["b.png"]


def test_links_to_folders_are_followed_and_circles_end(tmp_path: Path) -> None:
    put(tmp_path / "set" / "a.png", tmp_path / "disk" / "b.png")
    try:
        os.symlink(tmp_path / "disk", tmp_path / "set" / "line_b")
        os.symlink(tmp_path / "set", tmp_path / "disk" / "back")
        os.symlink(tmp_path / "nowhere", tmp_path / "set" / "gone.png")
    except OSError:
        pytest.skip("no links on this system")
    assert names(tmp_path / "set") == ["a.png", "line_b/b.png"]
    assert take_inventory(tmp_path / "set").outside == {"broken links": 1}


def test_a_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: cannot be listed"):
        take_inventory(tmp_path / "nowhere")


def test_the_files_of_one_folder(tmp_path: Path) -> None:
    put(tmp_path / "b.txt", tmp_path / "a.txt", tmp_path / ".c.txt", tmp_path / "deep" / "d.txt")
    assert list_folder(tmp_path) == [tmp_path / "a.txt", tmp_path / "b.txt"]
    assert list_folder(tmp_path / "nowhere") == []
