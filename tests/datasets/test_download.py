import hashlib
import json
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dfssd.datasets import cards
from dfssd.datasets.cards import Card
from dfssd.datasets.download import RemoteFile, download, fetch_card
from dfssd.datasets.importing import resolve_source, usual_names
from dfssd.errors import UserError

CONTENT = bytes(range(256)) * 12_000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """A record and its file; ``cut`` bytes after which a connection breaks off, ``ranges`` whether it can resume."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut, self.ranges, self.requests, self.md5 = None, True, [], MD5
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        if self.path == "/record":
            files = [
                {"key": "readme.zip", "size": 10, "links": {"self": "/other"}},
                {
                    "key": "set.zip",
                    "size": len(CONTENT),
                    "checksum": f"md5:{self.server.md5}",
                    "links": {"self": "/set"},
                },
            ]
            self.answer(200, json.dumps({"files": files}).encode())
        elif self.path in {"/set", "/set/mini.zip"}:
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
            start = int(wanted[1]) if wanted and self.server.ranges else 0
            if start >= len(CONTENT):
                self.answer(416, b"")
            else:
                self.answer(206 if start else 200, CONTENT[start:], self.server.cut)
        else:
            self.answer(404, b"")

    def answer(self, status, body, cut=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def card(server):
    return Card("set", "set.zip", ("a",), "https://example.org/set", "none stated", f"{server.url}/record")


def remote(server, **changes):
    return replace(RemoteFile(f"{server.url}/set", len(CONTENT), MD5), **changes)


def test_a_card_is_fetched_once_and_checked(server, card, tmp_path):
    target = fetch_card(card, tmp_path / "sets")
    assert target == tmp_path / "sets" / "set.zip" and target.read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/record", "/set"]
    assert fetch_card(card, tmp_path / "sets") == target and len(server.requests) == 2
    assert [p.name for p in (tmp_path / "sets").iterdir()] == ["set.zip"]


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path):
    server.cut = 1_200_000  # of each connection
    target = download(remote(server), tmp_path / "set.zip", by_hand="")
    assert target.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=1200000-", "bytes=2400000-"]


def test_a_later_run_goes_on_too(server, tmp_path):
    (tmp_path / "set.zip.part").write_bytes(CONTENT[:1_000_000])
    assert download(remote(server), tmp_path / "set.zip", by_hand="").read_bytes() == CONTENT
    assert server.requests == [("/set", "bytes=1000000-")]


def test_what_breaks_off_for_good_is_kept_for_the_next_run(server, tmp_path):
    server.cut = 500_000
    with pytest.raises(UserError, match=r"broke off .* run the same line again to continue it, or put it there"):
        download(remote(server), tmp_path / "set.zip", by_hand="put it there")
    assert (tmp_path / "set.zip.part").stat().st_size == 1_500_000
    assert not (tmp_path / "set.zip").exists()


def test_a_server_that_cannot_resume_starts_anew(server, tmp_path):
    server.ranges = False
    (tmp_path / "set.zip.part").write_bytes(b"x" * 1_000_000)
    assert download(remote(server), tmp_path / "set.zip", by_hand="").read_bytes() == CONTENT


def test_a_complete_part_is_not_fetched_again(server, tmp_path):
    (tmp_path / "set.zip.part").write_bytes(CONTENT)
    assert download(remote(server), tmp_path / "set.zip", by_hand="").read_bytes() == CONTENT
    assert server.requests == []
    (tmp_path / "other.zip.part").write_bytes(CONTENT)
    download(remote(server, size=None), tmp_path / "other.zip", by_hand="")  # size not known: the server says so (416)


@pytest.mark.parametrize(
    ("start", "message"), [(b"x" * 1_000_000, "MD5 .* instead of"), (CONTENT + b"x", "bytes instead of")]
)
def test_a_damaged_file_is_removed_and_reported(server, tmp_path, start, message):
    (tmp_path / "set.zip.part").write_bytes(start)
    with pytest.raises(UserError, match=f"arrived damaged .*{message}"):
        download(remote(server), tmp_path / "set.zip", by_hand="")
    assert list(tmp_path.iterdir()) == []


def test_without_network_the_message_says_where_to_put_the_file(card, tmp_path):
    offline = replace(card, record="http://127.0.0.1:9/record")
    with pytest.raises(UserError) as error:
        fetch_card(offline, tmp_path)
    assert f"get set.zip by hand (https://example.org/set) and put it at {tmp_path / 'set.zip'}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_card_without_address_says_where_to_put_the_file(card, tmp_path):
    with pytest.raises(UserError, match=r"no download address is known; get set\.zip by hand"):
        fetch_card(replace(card, record=None), tmp_path)
    (tmp_path / "set.zip").write_bytes(b"x")
    assert fetch_card(replace(card, record=None), tmp_path) == tmp_path / "set.zip"


def test_a_missing_record_and_other_schemes_are_reported(server, card, tmp_path):
    with pytest.raises(UserError, match="Not Found"):
        fetch_card(replace(card, record=f"{server.url}/gone"), tmp_path)
    with pytest.raises(UserError, match="only http and https"):
        download(RemoteFile("file:///etc/passwd"), tmp_path / "x", by_hand="")


def test_a_folder_that_cannot_be_written_to_is_reported(server, tmp_path):
    (tmp_path / "sets").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*set\.zip.* data_dir="):
        download(remote(server), tmp_path / "sets" / "set.zip", by_hand="")


def test_card_inside_ultralytics_is_fetched_and_named(server, tmp_path, monkeypatch):
    """``data=coco8.yaml``: the zip file that it names, and its classes where that has no list of them."""
    text = f"path: mini\ntrain: images/train\nval: images/val\nnames: {{0: a, 1: b}}\ndownload: {server.url}/set"
    (tmp_path / "mini.yaml").write_text(text + "/mini.zip\n", encoding="utf-8")
    (tmp_path / "scripted.yaml").write_text("path: x\nnames: [a]\ndownload: |\n  import os\n", encoding="utf-8")
    monkeypatch.setattr(cards, "ultralytics_cards", lambda: tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fetched = resolve_source("mini.yaml", tmp_path / "sets")
    assert fetched == tmp_path / "sets" / "mini.zip" and fetched.read_bytes() == CONTENT
    assert usual_names(fetched) == ("a", "b") and usual_names(tmp_path / "mini") is None
    with pytest.raises(UserError, match=r"data=scripted\.yaml is prepared by a script inside Ultralytics"):
        resolve_source("scripted.yaml", tmp_path / "sets")
    with pytest.raises(UserError, match=r"data=nothing\.yaml does not exist"):
        resolve_source("nothing.yaml", tmp_path / "sets")


def test_cards_of_the_installed_ultralytics_are_found():
    card = cards.ultralytics_card("coco8.yaml")
    assert card.file == "coco8.zip" and card.url.endswith("/coco8.zip") and card.names[:2] == ("person", "bicycle")
    assert cards.ultralytics_card("VOC.yaml").url is None and cards.ultralytics_card("nothing.yaml") is None
