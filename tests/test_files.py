"""Whole-file writing: complete or absent, whatever happens in between."""

import errno

import pytest

from dfssd.errors import UserError
from dfssd.files import whole_file, write_json, write_text


def test_content_appears_only_when_complete(tmp_path) -> None:
    target = tmp_path / "new" / "a.txt"
    with whole_file(target) as temporary:
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
    with pytest.raises(RuntimeError), whole_file(target) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise RuntimeError("killed")
    assert target.read_text(encoding="utf-8") == '{\n "old": 1\n}\n'
    assert list(tmp_path.iterdir()) == [target]


def test_full_disk_is_told_in_one_line(tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match="No space left on device; free some space"):
        write_text(tmp_path / "a.txt", "x")
    assert list(tmp_path.iterdir()) == []
