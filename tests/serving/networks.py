"""Networks that need no file: what they find is told, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import uvicorn
from starlette.testclient import TestClient

from dfssd.deployment.networks import Network
from dfssd.serving.app import create_app
from dfssd.serving.server import listen
from dfssd.serving.settings import Settings

SETTINGS = Settings(most_bytes=100_000, most_pixels=1_000_000, rate=None, queue=8, batch=4, wait=0)


class Bright(Network):
    """Finds the bright pixels of an image, as one box; fails on images that are all red.

    Attributes:
        go: It computes only while this is set.
        seen: Number of images of each call.
    """

    def __init__(self, folder: Path, batch: int | None = 1, about: dict[str, Any] | None = None) -> None:
        self.file, self.names, self.batch = folder / "bright.onnx", {0: "pit", 1: "stain"}, batch
        self.file.write_bytes(b"a network")
        self.thresholds = np.array([0.25, 0.5], np.float32)
        self.know(about or {})
        self.go, self.seen = threading.Event(), list[int]()
        self.go.set()

    def found(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        assert self.go.wait(30)
        self.seen.append(len(images))
        if any((image == (0, 0, 255)).all() for image in images):
            raise RuntimeError("all is red")
        return [self.boxes(image) for image in images]

    @staticmethod
    def boxes(image: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(image.min(2) > 200)
        if not len(rows):
            return np.zeros((0, 6), np.float32)
        corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        return np.array([[*corners, 0.9, 1]], np.float32)


def png(pixels: np.ndarray) -> bytes:
    """The bytes of a PNG file."""
    return cv2.imencode(".png", pixels)[1].tobytes()


def plate(box: tuple[int, int, int, int] | None = None, size: tuple[int, int] = (60, 40)) -> bytes:
    """A dark image of ``size`` (width, height) with a bright box x1, y1, x2, y2."""
    pixels = np.full((size[1], size[0], 3), 40, np.uint8)
    if box is not None:
        x1, y1, x2, y2 = box
        pixels[y1:y2, x1:x2] = 250
    return png(pixels)


def client_of(network: Network, client: tuple[str, int] = ("10.0.0.1", 5000), **other: Any) -> TestClient:
    """A client of a server with other settings; to be used as a context, at whose end the server is stopped."""
    return TestClient(create_app(network, replace(SETTINGS, **other)), client=client)


@contextmanager
def served(network: Bright, **other: Any) -> Iterator[str]:
    """The address of a server that runs in a thread."""
    opened = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(network, replace(SETTINGS, **other)), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def until(true: Callable[[], bool]) -> None:
    """Wait for something that becomes true soon."""
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)
