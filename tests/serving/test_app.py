"""What the server answers, whom it refuses, and what it counts; with networks that need no file."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from dfssd.deployment.facts import facts
from dfssd.serving.app import create_app
from dfssd.serving.uploads import Refused, Room
from tests.serving.networks import SETTINGS, Bright, client_of, plate, png, served, until

BOX = (10, 5, 30, 20)
FOUND = {"class": "stain", "score": 0.9, "x1": 10.0, "y1": 5.0, "x2": 30.0, "y2": 20.0}
RED = png(np.full((20, 20, 3), (0, 0, 255), np.uint8))


@pytest.fixture
def network(tmp_path: Path) -> Bright:
    return Bright(tmp_path)


@pytest.fixture
def server(network: Bright) -> Iterator[TestClient]:
    with client_of(network) as client:
        yield client


def metric(client: TestClient, name: str) -> float:
    """The value in a line of /metrics."""
    text = client.get("/metrics").text
    [value] = [line.rpartition(" ")[2] for line in text.splitlines() if line.rpartition(" ")[0] == name]
    return float(value)


@pytest.mark.parametrize("name", ["file", "photo"])
def test_file_of_a_form_is_looked_at(server: TestClient, name: str) -> None:
    found = server.post("/predict", files={name: ("../../etc/passwd", plate(BOX), "text/plain")})
    assert found.status_code == 200
    assert found.json() == {
        "verdict": "NG",
        "width": 60,
        "height": 40,
        "boxes": [FOUND],
        "thresholds": {"pit": 0.25, "stain": 0.5},
    }


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "IMAGE/JPEG; a=b", None])
def test_body_is_looked_at_whatever_image_it_claims_to_be(server: TestClient, kind: str | None) -> None:
    found = server.post("/predict", content=plate(), headers={"content-type": kind} if kind else {})
    assert found.status_code == 200 and found.json()["verdict"] == "OK" and found.json()["boxes"] == []


def test_drawn_image_is_a_jpeg_with_the_box(server: TestClient) -> None:
    found = server.post("/predict?annotated=true", files={"file": plate(BOX, (400, 300))})
    assert found.headers["content-type"] == "image/jpeg" and found.headers["x-verdict"] == "NG"
    drawn = np.asarray(Image.open(io.BytesIO(found.content))).astype(int)
    plain = np.asarray(Image.open(io.BytesIO(plate(BOX, (400, 300))))).astype(int)
    changed = abs(drawn - plain).max(2) > 60
    assert drawn.shape == plain.shape and changed[:40, :120].any() and not changed[150:].any()


def bomb(width: int, height: int) -> bytes:
    """A small PNG file of a large black image."""
    target = io.BytesIO()
    Image.new("1", (width, height)).save(target, "PNG")
    return target.getvalue()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"no image", "cannot be decoded (it is not an image)"),
        (b"<svg/>", "is an SVG, which is not read: convert it to .png or .jpg"),
        (plate(BOX)[:200], "cannot be decoded"),
        (bytes(100), "holds only zeros; restore it"),
        (bomb(8000, 8000), "64 million px are too many, at most 1 are read"),
    ],
)
def test_images_that_cannot_be_read(server: TestClient, data: bytes, problem: str) -> None:
    found = server.post("/predict", files={"file": data})
    assert found.status_code == 422 and found.json()["verdict"] == "unreadable"
    assert found.json()["problem"].startswith(problem) and "\n" not in found.json()["problem"]
    assert metric(server, 'dfssd_images_total{verdict="unreadable"}') == 1


def test_image_that_the_training_images_were_not_like(tmp_path: Path) -> None:
    """Smaller than what is cut out of the training images."""
    steps = {"resize": None, "normalize": False, "clahe": False, "crop": [0, 0, 200, 150], "pad": False}
    about = facts(run="a", ultralytics="8", names=("pit", "stain"), preprocess=steps)
    with client_of(Bright(tmp_path, about=about)) as client:
        found = client.post("/predict", files={"file": plate(BOX)})
    assert found.status_code == 422 and "does not lie inside an image of 60x40 px" in found.json()["problem"]


@pytest.mark.parametrize(
    ("request_", "status", "problem"),
    [
        ({"json": {"path": "/etc/passwd"}}, 415, "Content-Type 'application/json' is no image: send it as multipart"),
        ({"data": {"file": "/etc/passwd"}}, 415, "Content-Type 'application/x-www-form-urlencoded' is no image"),
        ({"content": b"", "headers": {"content-type": "image/png"}}, 400, "there is no image in the request"),
        ({"files": {"file": b""}}, 400, "there is no image in the request"),
        ({"files": [("file", plate()), ("more", plate())]}, 400, "the form cannot be read (Too many files."),
        ({"files": {"a": plate()}, "data": {"b": "x" * 2000}}, 400, "the form cannot be read (Part exceeded maximum"),
        ({"files": {"file": plate()}, "params": {"annotated": "perhaps"}}, 422, "annotated: is not as it must be"),
        ({"content": bytes(100_001), "headers": {"content-type": "image/png"}}, 413, "the image is too large: at most"),
        ({"files": {"file": bytes(100_001)}}, 413, "the image is too large: at most 0.1 MB are read"),
        (
            {"content": iter([bytes(60_000), bytes(60_000)]), "headers": {"content-type": "image/png"}},
            413,
            "the image is too large: at most 0.1 MB are read",
        ),
        ({"content": b"--x", "headers": {"content-type": "multipart/form-data"}}, 400, "the form cannot be read (Mi"),
        (
            {"content": b"rubbish", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "the form cannot be read (Invalid",
        ),
    ],
)
def test_requests_without_an_image_within_the_limits(
    server: TestClient, network: Bright, request_: dict, status: int, problem: str
) -> None:
    found = server.post("/predict", **request_)
    assert found.status_code == status and found.json()["problem"].startswith(problem), found.text
    assert network.seen == [] and metric(server, f'dfssd_requests_total{{status="{status}"}}') == 1


def test_upload_is_never_written_to_the_disk(network: Bright, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one of several megabytes, which Starlette would spool."""

    def rollover(self: SpooledTemporaryFile) -> None:
        raise AssertionError("written to the disk")

    monkeypatch.setattr(SpooledTemporaryFile, "rollover", rollover)
    noise = np.random.default_rng(0).integers(0, 255, (900, 1000, 3), dtype=np.uint8)
    with client_of(network, most_bytes=10_000_000) as client:
        data = png(noise)
        assert len(data) > 2_000_000 and client.post("/predict", files={"file": data}).status_code == 200


def part(body: bytes) -> dict:
    return {"type": "http.request", "body": body, "more_body": True}


@pytest.mark.parametrize(
    ("arrives", "status", "problem"),
    [
        ([part(plate()[:50])], 408, "the image has not arrived within 0 seconds"),
        ([part(plate()[:50]), {"type": "http.disconnect"}], 400, "the upload was broken off"),
    ],
)
def test_upload_that_does_not_end(network: Bright, arrives: list[dict], status: int, problem: str) -> None:
    app = create_app(network, replace(SETTINGS, upload_seconds=0.05))
    sent: list[Any] = []

    async def receive() -> dict:
        if arrives:
            return arrives.pop(0)
        await asyncio.sleep(60)
        raise AssertionError("waited for it")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"image/png")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": headers}
    asyncio.run(app(scope, receive, send))
    app.state.service.worker.close()
    assert sent[0]["status"] == status and json.loads(sent[1]["body"]) == {"problem": problem}
    assert app.state.service.room.under_way == 0 and network.seen == []


def test_queue_that_is_full_sends_away(network: Bright) -> None:
    network.go.clear()
    with client_of(network, queue=2) as client, ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(client.post, "/predict", files={"file": plate(BOX)}) for _ in range(2)]
        until(partial(under_way, client, 2))
        found = client.post("/predict", files={"file": plate(BOX)})
        network.go.set()
        assert [one.result().status_code for one in waiting] == [200, 200]
        assert found.status_code == 503 and found.headers["retry-after"] == "1"
        assert found.json()["problem"] == "the queue is full: try again in a moment"
        assert metric(client, "dfssd_queue_length") == 0
        assert client.post("/predict", files={"file": plate(BOX)}).status_code == 200


def stalled(address: str, length: int, sent: bytes) -> socket.socket:
    """A connection on which only the beginning of an upload of ``length`` bytes has been sent."""
    host, _, port = address.removeprefix("http://").partition(":")
    opened = socket.create_connection((host, int(port)), timeout=20)
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: image/png\r\nContent-Length: {length}\r\n\r\n"
    opened.sendall(head.encode() + sent)
    return opened


def test_slow_uploads_keep_nobody_out(network: Bright) -> None:
    """More of them than the queue has places, of which a byte has arrived."""
    with served(network, queue=2, most_bytes=1_000_000) as address, ExitStack() as connections:
        for _ in range(6):
            connections.enter_context(stalled(address, 1000, b"x"))
        time.sleep(0.2)
        found = httpx.post(f"{address}/predict", files={"file": plate(BOX)}, timeout=20)
    assert found.status_code == 200 and found.json()["boxes"] == [FOUND]


def test_uploads_of_a_client_hold_no_more_than_their_part(network: Bright) -> None:
    with served(network, queue=4) as address, ExitStack() as connections:
        waiting = [connections.enter_context(stalled(address, 99_000, bytes(98_000))) for _ in range(5)]
        ready, _, _ = select.select(waiting, [], [], 20)
        heads = [one.recv(10_000).decode() for one in ready]
    assert heads and all(head.startswith("HTTP/1.1 429") and "retry-after: 1" in head for head in heads)


def test_uploads_of_all_clients_hold_no_more_than_the_memory_has_room_for() -> None:
    """Twice the part of one; and what has been answered is free again."""
    room, most = Room(replace(SETTINGS, queue=2)), 2 * SETTINGS.most_bytes
    for _ in range(3):
        with room.upload("a") as first, room.upload("b") as second:
            first(most)
            second(most)
            with pytest.raises(Refused) as caught, room.upload("c"):
                pass
            assert caught.value.status == 503
            with pytest.raises(Refused) as caught, room.upload("a"):
                pass
            assert caught.value.status == 429


@pytest.mark.parametrize("size", [1, 1000, SETTINGS.most_bytes])
def test_an_image_of_any_size_that_is_read_fits_the_smallest_queue(size: int) -> None:
    room = Room(replace(SETTINGS, queue=1, most_bytes=size))
    with room.upload("a") as hold:
        hold(size)


def under_way(client: TestClient, count: int) -> bool:
    return metric(client, "dfssd_queue_length") == count


def test_client_that_asks_too_often_is_told_when_to_come_back(network: Bright) -> None:
    with client_of(network, rate=3) as client:
        statuses = [client.post("/predict", files={"file": plate()}) for _ in range(4)]
        assert [found.status_code for found in statuses] == [200, 200, 200, 429]
        assert 50 <= int(statuses[-1].headers["retry-after"]) <= 61
        assert statuses[-1].json()["problem"] == "too many requests: 3 a minute are served"
        other = TestClient(client.app, client=("10.0.0.2", 5000))
        assert other.post("/predict", files={"file": plate()}).status_code == 200
        assert client.get("/health").status_code == 200


TOKEN = "a-token-of-20-letters"


@pytest.mark.parametrize(
    ("header", "good"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer  {TOKEN} ", True),
        ("Bearer wrong", False),
        (f"Basic {TOKEN}", False),
        ("Bearer", False),
        (None, False),
    ],
)
def test_token(network: Bright, header: str | None, good: bool) -> None:
    headers = {"authorization": header} if header else {}
    with client_of(network, token=TOKEN) as client:
        found = client.post("/predict", files={"file": plate()}, headers=headers)
        assert found.status_code == (200 if good else 401)
        assert client.get("/metrics", headers=headers).status_code == found.status_code
        health = client.get("/health", headers=headers)
        assert health.status_code == 200 and health.json()["token"] is True
        assert ("classes" in health.json()) is good
        assert client.get("/").status_code == 200 and TOKEN not in client.get("/").text
        if not good:
            assert found.headers["www-authenticate"] == "Bearer" and "send the header" in found.json()["problem"]
            assert network.seen == []


def test_network_that_fails_costs_only_that_request(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Also where others were computed with it."""
    network = Bright(tmp_path, batch=None)
    network.go.clear()
    with client_of(network) as client, ThreadPoolExecutor(4) as pool:
        bodies = [plate(), RED, plate(BOX), plate()]
        waiting = []
        for count, body in enumerate(bodies, 1):
            waiting.append(pool.submit(client.post, "/predict", files={"file": body}))
            until(partial(under_way, client, count))
        time.sleep(0.05)
        network.go.set()
        found = [one.result() for one in waiting]
    assert [one.status_code for one in found] == [200, 500, 200, 200]
    assert [one.json().get("verdict") for one in found] == ["OK", None, "NG", "OK"]
    assert found[1].json() == {"problem": "the network failed on this image"}
    assert "an image could not be computed (RuntimeError: all is red)" in capsys.readouterr().err
    assert network.seen[0] == 1 and 3 in network.seen, "the three that came meanwhile went together"


def test_health_tells_what_is_running_and_no_path(tmp_path: Path) -> None:
    network = Bright(tmp_path, about=facts(run="line 3", ultralytics="8", names=("pit", "stain")))
    with client_of(network, rate=5) as client:
        found = client.get("/health")
        tree = found.json()
        assert found.status_code == 200 and tree["status"] == "ok" and str(tmp_path) not in found.text
        assert tree["model"]["name"] == "bright.onnx" and tree["model"]["run"] == "line 3"
        assert tree["model"]["sha256"] == hashlib.sha256(b"a network").hexdigest()
        assert [one["name"] for one in tree["classes"]] == ["pit", "stain"]
        assert tree["limits"] == {"max_mb": 0.1, "max_megapixels": 1.0, "rate": 5, "queue": 8}
        assert {"dfssd", "python", "onnxruntime"} <= set(tree["versions"])
        client.app.state.service.worker.close()  # as if its thread had died
        assert client.get("/health").status_code == 503


def test_counts_are_those_of_what_was_asked(server: TestClient) -> None:
    for body in (plate(), plate(BOX), plate(BOX), RED, b"nothing"):
        server.post("/predict", files={"file": body})
    assert [metric(server, f'dfssd_requests_total{{status="{code}"}}') for code in (200, 500, 422)] == [3, 1, 1]
    assert [metric(server, f'dfssd_images_total{{verdict="{word}"}}') for word in ("OK", "NG", "unreadable")] == [
        1,
        2,
        1,
    ]
    assert metric(server, 'dfssd_boxes_total{class="stain"}') == 2
    assert metric(server, "dfssd_request_seconds_count") == 5 and metric(server, "dfssd_compute_seconds_count") == 3
    assert metric(server, 'dfssd_request_seconds_bucket{le="+Inf"}') == 5


@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [
        ("GET", "/nowhere", 404, "there is nothing at this address"),
        ("GET", "/predict", 405, "this address takes another method"),
        ("DELETE", "/health", 405, "this address takes another method"),
    ],
)
def test_wrong_addresses_are_told_the_right_ones(
    server: TestClient, method: str, path: str, status: int, problem: str
) -> None:
    found = server.request(method, path, follow_redirects=False)
    text = found.json()["problem"]
    assert found.status_code == status and "\n" not in text
    assert text.startswith(f"{problem}; the server has ")
    for address in ("POST /predict", "GET /health", "GET /metrics", "GET / (a page)", "GET /openapi.json"):
        assert address in text
        verb, _, where = address.removesuffix(" (a page)").partition(" ")
        assert server.request(verb, where).status_code not in {404, 405}, "they are there"


@pytest.mark.parametrize(
    "path", ["/", "/health", "/metrics", "/nothing", "/predict", "/../etc/passwd", "/openapi.json"]
)
def test_every_answer_has_the_headers_of_a_careful_server(server: TestClient, path: str) -> None:
    found = server.get(path)
    policy = found.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    assert found.headers["x-content-type-options"] == "nosniff" and found.headers["x-frame-options"] == "DENY"
    assert "server" not in found.headers and "access-control-allow-origin" not in found.headers
    if found.status_code in {404, 405}:
        assert list(found.json()) == ["problem"]


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:8000", True),
        ("127.3.2.1", True),
        ("[::1]:8000", True),
        ("rebound.example:8000", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("localhost@rebound.example", False),
        ("10.0.0.1", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_server_of_one_machine_answers_to_its_own_names_only(network: Bright, host: str, good: bool) -> None:
    for local in (True, False):
        with TestClient(create_app(network, SETTINGS, local=local)) as client:
            found = client.post("/predict", files={"file": plate()}, headers={"host": host})
            assert found.status_code == (200 if good or not local else 421)
            assert "content-security-policy" in found.headers
            if found.status_code == 421:
                assert found.json()["problem"].startswith("this server is for its own machine: ask for it as localhost")


def test_page_needs_nothing_from_elsewhere(server: TestClient) -> None:
    page = server.get("/").text
    assert "http" not in page.replace("http-equiv", "") and "src=" not in page
    assert page.count("<script>") == page.count("<style>") == 1 and "style=" not in page


def test_description_of_the_interface_names_the_body(server: TestClient) -> None:
    described = server.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert set(described["requestBody"]["content"]) == {"multipart/form-data", "image/*"}
