"""Whole-file writing: complete or absent, whatever happens in between."""

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dfssd.errors import UserError
from dfssd.files import atomic_write, link_or_copy, load_yaml, locked, read_yaml, write_json, write_text


def test_content_appears_only_when_complete(tmp_path) -> None:
    target = tmp_path / "new" / "a.txt"
    with atomic_write(target) as temporary:
        temporary.write_text("half", encoding="utf-8")
        assert not target.exists()
        assert temporary.suffix == ".txt"
    assert target.read_text(encoding="utf-8") == "half"
    assert list(target.parent.iterdir()) == [target]


def test_failure_keeps_the_old_file_and_leaves_no_litter(tmp_path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"old": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(target, {"new": float("nan")})
    with pytest.raises(RuntimeError), atomic_write(target) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise RuntimeError("killed")
    assert target.read_text(encoding="utf-8") == '{\n "old": 1\n}\n'
    assert list(tmp_path.iterdir()) == [target]


def test_full_disk_is_reported_in_one_line(tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match="No space left on device; free some space"):
        write_text(tmp_path / "a.txt", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_a_second_name_and_a_copy_where_there_are_none(tmp_path, monkeypatch) -> None:
    source, linked, copied = (tmp_path / name for name in ("a.png", "linked.png", "copied.png"))
    source.write_bytes(b"pixels")
    link_or_copy(source, linked)
    assert linked.samefile(source)

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("dfssd.files.os.link", no_links)
    link_or_copy(source, copied)
    assert copied.read_bytes() == b"pixels" and not copied.samefile(source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "copied.png", "linked.png"]


def test_a_copy_that_fails_leaves_no_litter(tmp_path, monkeypatch) -> None:
    (tmp_path / "a.png").write_bytes(b"pixels")

    def half(_: object, target: Path) -> None:
        target.write_bytes(b"pix")
        raise OSError(errno.ENOSPC, "No space left on device")

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("dfssd.files.os.link", no_links)
    monkeypatch.setattr("dfssd.files.shutil.copyfile", half)
    with pytest.raises(OSError, match="No space left"):
        link_or_copy(tmp_path / "a.png", tmp_path / "b.png")
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_yaml_may_begin_with_a_byte_order_mark(tmp_path, encoding) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("names: [Öl]\n", encoding=encoding)
    assert load_yaml(file) == read_yaml(file) == {"names": ["Öl"]}


def test_what_is_no_yaml_mapping_is_named(tmp_path) -> None:
    file = tmp_path / "a.yaml"
    for text, message in (
        ("a: [1\nb: 2\n", r"a\.yaml:2: is not valid YAML \(.+\); correct it"),
        ("- 1\n", r"a\.yaml must hold 'key: value' lines"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            read_yaml(file)
    file.write_text("")
    assert read_yaml(file) == {}
    with pytest.raises(UserError, match=r"cannot read .*gone\.yaml"):
        read_yaml(tmp_path / "gone.yaml")


def test_lock_is_held_by_one_at_a_time(tmp_path) -> None:
    lock = tmp_path / "new" / "a.lock"
    with locked(lock) as mine:
        assert mine
        with locked(lock, wait=False) as also_mine:
            assert not also_mine
        with locked(tmp_path / "b.lock", wait=False) as other:
            assert other
    with locked(lock, wait=False) as mine:
        assert mine


def test_waiting_ends_when_the_lock_is_released(tmp_path) -> None:
    order = []

    def wait() -> None:
        with locked(tmp_path / "a.lock"):
            order.append("second")

    with locked(tmp_path / "a.lock"):
        second = threading.Thread(target=wait)
        second.start()
        second.join(0.3)
        order.append("first")
    second.join(20)
    assert order == ["first", "second"]


@pytest.mark.train
def test_lock_of_a_killed_process_is_free(tmp_path) -> None:
    root = Path(__file__).resolve().parents[1]
    hold = "import sys, time; from dfssd.files import locked\n"
    hold += "with locked(sys.argv[1]): print(1, flush=True); time.sleep(99)"
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path / "a")], cwd=root, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline().strip() == b"1"
        with locked(tmp_path / "a", wait=False) as mine:
            assert not mine
        other.kill()
    with locked(tmp_path / "a", wait=False) as mine:
        assert mine
