import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dfssd.datasets.images import facts
from dfssd.datasets.images.facts import CACHE, FactStore, probe_files
from dfssd.datasets.images.pixels import ImageFacts
from dfssd.files import file_digest
from tests.datasets.material import write_picture

LONG_AGO = 1_600_000_000_000_000_000


class Counted:
    """Reads a file and remembers how often."""

    def __init__(self):
        self.calls: list[str] = []

    def __call__(self, path: Path) -> str:
        self.calls.append(path.name)
        return path.read_bytes().decode()

    def take(self) -> list[str]:
        taken, self.calls = sorted(self.calls), []
        return taken


@pytest.fixture
def function():
    return Counted()


@pytest.fixture
def store(tmp_path):
    return FactStore(tmp_path / "cache" / CACHE)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    made = []
    for i in range(5):
        made.append(folder / f"{i}.txt")
        made[-1].write_text(f"content {i}")
    return made


@pytest.fixture
def settled(monkeypatch):
    """No file counts as changed just now."""
    monkeypatch.setattr(facts, "_DOUBT", 0)
    time.sleep(0.02)  # a tick of the clock of the file system


def found(store, function, files, kind="text/1"):
    return store.map(kind, function, files, "reading", lambda value: value, lambda text: text)


def hashed(monkeypatch):
    """The files whose digests are computed from now on."""
    seen: list[str] = []

    def digest(path):
        seen.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(facts, "file_digest", digest)
    return seen


def test_only_what_is_new_is_computed(store, function, files):
    wanted = [f"content {i}" for i in range(5)]
    assert found(store, function, files[:3]) == wanted[:3]
    assert function.take() == ["0.txt", "1.txt", "2.txt"]
    assert found(store, function, files[::-1]) == wanted[::-1]
    assert function.take() == ["3.txt", "4.txt"]
    assert found(store, function, files) == wanted
    assert function.take() == []


def test_another_kind_is_computed(store, function, files):
    found(store, function, files)
    function.take()
    assert found(store, function, files, "text/2") == [f"content {i}" for i in range(5)]
    assert len(function.take()) == 5


def test_an_unchanged_file_is_not_even_read(store, function, files, settled, monkeypatch):
    found(store, function, files)
    seen = hashed(monkeypatch)
    found(store, function, files)
    assert seen == []


def test_a_change_that_hides_is_noticed(store, function, files, settled):
    found(store, function, files)
    before = files[1].stat()
    files[1].write_text("CONTENT 1")
    os.utime(files[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    after = files[1].stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert found(store, function, files)[1] == "CONTENT 1"
    assert function.take().count("1.txt") == 2
    files[1].write_text("content 1")  # and back again: known
    assert found(store, function, files)[1] == "content 1"
    assert function.take() == []


def test_a_replaced_file_is_noticed(store, function, files, settled):
    found(store, function, files)
    other = files[0].with_name("other")
    other.write_text("CONTENT 0")
    os.utime(other, ns=(LONG_AGO, files[0].stat().st_mtime_ns))
    os.replace(other, files[0])
    assert found(store, function, files)[0] == "CONTENT 0"


def test_a_fresh_file_is_in_doubt_until_it_has_been_read_again(store, function, files, monkeypatch):
    monkeypatch.setattr(facts, "_DOUBT", 3600 * 10**9)
    seen = hashed(monkeypatch)
    found(store, function, files)
    for _ in range(2):
        seen.clear()
        found(store, function, files)
        assert sorted(seen) == [f"{i}.txt" for i in range(5)]  # all are fresh
    monkeypatch.setattr(facts, "_DOUBT", 0)
    found(store, function, files)
    seen.clear()
    found(store, function, files)
    assert seen == []
    assert len(function.take()) == 5


def test_a_file_that_changes_in_the_same_tick_is_noticed(store, function, files, monkeypatch):
    """As if the clock stood still: nothing but the content tells the two apart."""
    stat = files[0].stat()
    monkeypatch.setattr(facts, "_state", lambda path: ("the same", stat.st_ctime_ns))
    assert found(store, function, files[:1]) == ["content 0"]
    files[0].write_text("CONTENT 0")
    assert found(store, function, files[:1]) == ["CONTENT 0"]


def test_a_file_that_changes_while_it_is_looked_at_is_not_kept(store, files):
    def changing(path):
        text = path.read_text()
        path.write_text("later")
        return text

    assert found(store, changing, files[:1]) == ["content 0"]
    assert found(store, changing, files[:1]) == ["later"]
    files[0].write_text("content 0")
    assert found(store, lambda path: "computed again", files[:1]) == ["computed again"]


def test_a_link_is_verified_once(store, function, files, settled, monkeypatch):
    found(store, function, files)
    function.take()
    link = files[0].with_name("link")
    os.link(files[0], link)
    seen = hashed(monkeypatch)
    assert found(store, function, [*files, link])[-1] == "content 0"
    assert sorted(seen) == ["0.txt", "link"]  # the link has changed a time of the file
    time.sleep(0.02)
    found(store, function, [*files, link])
    seen.clear()
    found(store, function, [*files, link])
    assert seen == [] and function.take() == []


def test_a_moved_file_is_known(store, function, files):
    found(store, function, files)
    function.take()
    moved = files[0].with_name("moved")
    os.rename(files[0], moved)
    assert found(store, function, [moved]) == ["content 0"]
    assert function.take() == []


def test_digests(store, files, settled, monkeypatch):
    missing = files[0].with_name("missing")
    wanted = [file_digest(file) for file in files]
    assert store.digests([*files, missing], "reading") == [*wanted, None]
    seen = hashed(monkeypatch)
    assert store.digests([*files, missing], "reading") == [*wanted, None]
    assert seen == []
    assert FactStore(None).digests(files, "reading") == wanted


def test_files_that_cannot_be_read_are_left_to_the_function(store, files):
    missing = files[0].with_name("missing")
    for reason in ("no such file", "another reason"):
        assert found(store, lambda path: reason, [missing]) == [reason]  # noqa: B023


def test_what_is_not_encoded_is_not_kept(store, function, files):
    for _ in range(2):
        store.map("text/1", function, files[:1], "reading", lambda value: None, str)
    assert function.take() == ["0.txt", "0.txt"]


def test_what_cannot_be_decoded_is_computed_again(store, function, files):
    found(store, function, files[:2])
    function.take()
    assert store.map("text/1", function, files[:2], "reading", str, int) == ["content 0", "content 1"]
    assert function.take() == ["0.txt", "1.txt"]


def test_an_interrupted_run_keeps_what_it_has(store, function, tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "_BATCH", 10)
    files = [tmp_path / f"{i:02}" for i in range(50)]
    for file in files:
        file.write_text(file.name)

    def interrupted(path):
        if path.name == "25":
            raise KeyboardInterrupt
        return path.read_text()

    with pytest.raises(KeyboardInterrupt):
        found(store, interrupted, files)
    assert found(store, function, files) == [file.name for file in files]
    computed = function.take()
    assert set(computed) <= {file.name for file in files[25:]} and len(computed) >= 25


def test_memory_holds_one_batch(store, tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "_BATCH", 10)
    files = [tmp_path / f"{i:03}" for i in range(200)]
    for file in files:
        file.write_text(file.name)
    ahead, most = 0, 0
    lock = threading.Lock()

    def counted(path):
        nonlocal ahead, most
        with lock:
            ahead += 1
            most = max(most, ahead)
        return path.read_text()

    def decode(text):
        return text

    for _ in store._stream("text/1", counted, files, decode, decode):
        with lock:
            ahead -= 1
    assert 1 <= most <= 10


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + bytes(range(256)) * 16])
def test_a_damaged_cache_is_left_alone(tmp_path, function, files, caplog, content):
    cache = tmp_path / CACHE
    cache.write_bytes(content)
    for _ in range(2):
        assert found(FactStore(cache), function, files[:1]) == ["content 0"]
    assert function.take() == ["0.txt", "0.txt"]
    assert cache.read_bytes() == content
    assert f"{cache} is not used" in caplog.text and "delete it" in caplog.text


def test_a_database_of_another_program_is_left_alone(tmp_path, function, files, caplog):
    cache = tmp_path / CACHE
    with sqlite3.connect(cache) as connection:
        connection.execute("CREATE TABLE files (theirs)")
    connection.close()
    before = cache.read_bytes()
    assert found(FactStore(cache), function, files) == [f"content {i}" for i in range(5)]
    assert cache.read_bytes() == before
    assert "another program" in caplog.text


def test_a_cache_that_breaks_in_between_is_no_error(store, function, files):
    found(store, function, files)
    function.take()
    cache = store._cache
    data = bytearray(cache.read_bytes())
    data[4096:] = bytes(len(data) - 4096)
    cache.write_bytes(data)
    assert found(store, function, files) == [f"content {i}" for i in range(5)]
    assert len(function.take()) == 5


def test_a_place_that_cannot_be_written_is_no_error(tmp_path, function, files, caplog):
    (tmp_path / "file").write_text("")
    for cache in (tmp_path / "file" / CACHE, tmp_path, Path("/proc") / CACHE):
        assert found(FactStore(cache), function, files) == [f"content {i}" for i in range(5)]
    assert len(function.take()) == 15
    assert not caplog.text


def test_a_cache_that_cannot_be_written_is_read(store, function, files, settled):
    found(store, function, files[:3])
    function.take()
    store._cache.chmod(0o400)
    store._cache.parent.chmod(0o500)
    try:
        assert found(store, function, files) == [f"content {i}" for i in range(5)]
    finally:
        store._cache.parent.chmod(0o700)
    assert function.take()[-2:] == ["3.txt", "4.txt"]


@pytest.mark.train
def test_several_processes_share_a_cache(tmp_path):
    files = [write_picture(tmp_path / "data" / f"{i}.png", i) for i in range(40)]
    program = (
        "import sys; from pathlib import Path; from dfssd.datasets.images import facts; facts._BATCH = 3;"
        "store = facts.FactStore(Path(sys.argv[1]));"
        "found = [facts.probe_files(store, [*map(Path, sys.argv[2:])]) for _ in range(3)];"
        "assert found[0] == found[1] == found[2]; print(len({f.sha256 for f in found[0]}))"
    )
    cache = tmp_path / CACHE
    command = [sys.executable, "-c", program, str(cache), *map(str, files)]
    root = Path(facts.__file__).parents[3]
    started = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in started:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out, err) == (0, "40\n", "")
    with sqlite3.connect(cache) as connection:
        assert connection.execute("SELECT count(*) FROM facts").fetchone() == (40,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_names_that_are_no_text(store, function, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    try:
        path.write_text("odd")
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    assert found(store, function, [path]) == found(store, function, [path]) == ["odd"]
    assert len(function.take()) == 1


def test_images_are_probed_once(store, tmp_path, settled, monkeypatch):
    files = [write_picture(tmp_path / f"{i}.png", i) for i in range(2000)]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"hello")
    missing = tmp_path / "missing.png"
    first = probe_files(store, [*files, bad, missing])
    assert all(isinstance(fact, ImageFacts) for fact in first[:-2])
    assert first[-2:] == ["cannot be decoded (it is not an image)", "no such file"]
    assert [fact.sha256 for fact in first[:9] if isinstance(fact, ImageFacts)] == [file_digest(f) for f in files[:9]]
    probed = []
    monkeypatch.setattr(facts, "probe", lambda path: probed.append(path))
    seen = hashed(monkeypatch)
    assert probe_files(store, files) == first[:-2]
    assert not probed and not seen  # neither decoded nor read
