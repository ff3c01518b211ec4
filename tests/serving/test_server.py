"""``dfssd serve`` as it is started: its answers are those of ``dfssd predict``, and it stops when it is told to."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from dfssd import process
from dfssd.cli import main
from dfssd.deployment.networks import open_network
from dfssd.deployment.predict import predict
from dfssd.errors import UserError
from dfssd.serving import server
from dfssd.serving.settings import read_token
from tests.deployment.material import PHOTOS, WITHOUT_TORCH
from tests.serving.networks import Bright, client_of

ROOMY = {"most_bytes": 10_000_000, "most_pixels": 10_000_000}


@pytest.mark.train
@pytest.mark.parametrize("name", ["model", "dynamic"])
def test_answers_are_those_of_predict(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Also where images that need inputs of two shapes wait together."""
    file = request.getfixturevalue(name)
    for photo in PHOTOS:
        shutil.copy(photo, tmp_path)
    Image.open(PHOTOS[0]).crop((0, 300, 810, 500)).save(tmp_path / "c.png")
    folder, _ = predict(str(tmp_path), str(file), out=str(tmp_path / "seen"), save=False)
    tree = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    bodies = [(tmp_path / image["image"]).read_bytes() for image in tree["images"]] * 3
    network = open_network(file, None)
    with client_of(network, **ROOMY, wait=0.2, queue=32) as client, ThreadPoolExecutor(6) as pool:
        found = [one.json() for one in pool.map(lambda body: client.post("/predict", files={"file": body}), bodies)]
        [batches] = re.findall(r"^dfssd_batch_images_count (\d+)", client.get("/metrics").text, re.M)
    assert int(batches) == 9 if name == "model" else int(batches) < 6
    for ours, theirs in zip(found, tree["images"] * 3, strict=True):
        assert len(theirs["boxes"]) > 0 and ours["thresholds"] == tree["thresholds"]
        assert all(ours[key] == theirs[key] for key in ("verdict", "width", "height"))
        if name == "model":
            assert ours["boxes"] == theirs["boxes"]
        else:  # several images at once may be rounded otherwise than one
            assert ours["boxes"] == [pytest.approx(box, abs=0.02) for box in theirs["boxes"]]


@contextmanager
def started(*words: str, code: str = "") -> Iterator[tuple[subprocess.Popen, str]]:
    """The command in a process of its own, at a free port, and its address once it is there."""
    arguments = ["serve", *words, "port=0"]
    program = f"{code}\nfrom dfssd.__main__ import main\nimport sys\nsys.argv[1:] = {arguments!r}\nsys.exit(main())\n"
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        env=process.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines = []
        for line in child.stdout:
            lines.append(line)
            if found := re.match(r"http://\S+", line):
                yield child, found.group()
                return
        raise AssertionError("".join([*lines, child.stderr.read()]))
    finally:
        child.kill()
        child.communicate()


@pytest.mark.train
@pytest.mark.skipif(os.name == "nt", reason="no such signals on Windows")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_answers_without_torch_and_stops_cleanly(model: Path, number: signal.Signals) -> None:
    with started(str(model), "max_mb=0.5", "rate=3", code=WITHOUT_TORCH) as (child, address):
        found = httpx.post(f"{address}/predict", files={"file": PHOTOS[0].read_bytes()}, timeout=60)
        assert found.json()["verdict"] == "NG" and "server" not in found.headers
        # its sender is told, although the answer is known before all has been sent
        assert httpx.post(f"{address}/predict", files={"file": bytes(20_000_000)}, timeout=60).status_code == 413
        statuses = [
            httpx.post(f"{address}/predict", files={"file": b"none"}, headers={"x-forwarded-for": claimed}).status_code
            for claimed in ("10.0.0.1", "10.0.0.2")
        ]
        assert statuses == [422, 429], "an address that is claimed does not count"
        assert httpx.get(f"{address}/health", headers={"host": "rebound.example"}).status_code == 421
        child.send_signal(number)
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0 and out.endswith("stopped\n") and err == ""


def test_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["serve", "student.onnx", f"port={port}"]) == 2
    error = capsys.readouterr().err
    assert error == f"error: port={port}: is used by another program: stop it, or choose another port\n"


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_address_of_another_machine_is_one_line(host: str) -> None:
    with pytest.raises(UserError, match=f"host={host}: is no address of this machine"):
        server.listen(host, 0)


def test_missing_model_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["serve", "gone.onnx", "port=0"]) == 2
    assert capsys.readouterr().err.startswith("error: model=gone.onnx: does not exist")


def test_network_that_fails_is_told_before_the_first_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Bright):
        def found(self, images: object) -> list[np.ndarray]:
            raise RuntimeError("bad weights")

    with pytest.raises(UserError, match=r"model=a.onnx: fails on an image \(bad weights\)"):
        server.warm_up(Broken(tmp_path), "a.onnx")


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True), ("::1", False), ("::", True)])
@pytest.mark.parametrize("token", [None, "a-token-of-20-letters"])
def test_address_for_others_without_a_token_is_warned_of(
    host: str, warned: bool, token: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(server, "open_network", lambda *_: Bright(tmp_path))
    statuses = []

    def run(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        statuses.append(TestClient(self.config.app).get("/", headers={"host": "line3"}).status_code)
        self.config.app.state.service.worker.close()

    monkeypatch.setattr(server.uvicorn.Server, "run", run)
    words = ["serve", "a.onnx", f"host={host}", "port=0"]
    if token is not None:
        (tmp_path / "token.txt").write_text(f"{token}\n", encoding="utf-8")
        words.append(f"token_file={tmp_path / 'token.txt'}")
    assert main(words) == 0
    assert statuses == [200 if warned else 421], "for others it has names that are not known here"
    shown = capsys.readouterr().out
    assert ("warning: host=" in shown) is (warned and token is None) and "bright.onnx: 2 classes, one image" in shown


@pytest.mark.parametrize("text", ["", "short", "two words-of-some-length", "a-word-of-ümlauts-only"])
def test_token_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "token.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="must hold one word of at least 16 ASCII characters"):
        read_token(str(tmp_path / "token.txt"))
    with pytest.raises(UserError, match="cannot be read"):
        read_token(str(tmp_path / "gone.txt"))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("dfssd.commands.serve.find_spec", lambda name: None if name == "uvicorn" else object())
    assert main(["serve", "student.onnx"]) == 2
    assert capsys.readouterr().err == "error: dfssd serve needs uvicorn: pip install uvicorn\n"
