"""Whole-file writing: complete or absent, whatever happens in between."""

import errno
from pathlib import Path

import pytest

from dfssd.errors import UserError
from dfssd.files import atomic_write, link_or_copy, load_yaml, read_yaml, write_json, write_text


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
