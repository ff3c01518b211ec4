"""How much a server bears: ``python scripts/load_test.py SOURCE [url=http://127.0.0.1:8000 clients=[1,4,16] ...]``.

Each client sends the images of SOURCE to ``/predict`` one after the other, over one connection, and waits for each
answer. For each number of clients: images per second, the time from request to answer (median, 95 and 99 %), and what
was not answered with 200, by status. Clients and server share the processor where both run on one machine, so a server
alone bears more. Start it with ``rate=none``, or it soon sends its only client away.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

import numpy as np

from dfssd.commands.options import Option, Usage
from dfssd.config.values import TEXT, Number, Special, optional
from dfssd.deployment.sources import ImageFile, find_inputs
from dfssd.errors import UserError, reason, report_problems
from dfssd.files import write_json
from dfssd.wording import counted


def _are_counts(value: Any) -> bool:
    counts = value if isinstance(value, list) else [value]
    return bool(counts) and all(type(count) is int and 1 <= count <= 1024 for count in counts)


COUNTS = Special(
    "int | list", _are_counts, "must be one or more whole numbers from 1 to 1024", ([], 0, 2000, "a", None)
)

USAGE = Usage(
    (
        Option("source", TEXT, "images: a file, a folder, or a glob", required=True),
        Option("url", TEXT, "address of the server", default="http://127.0.0.1:8000"),
        Option("clients", COUNTS, "numbers of clients, one after the other", default=[1, 4, 16]),
        Option("seconds", Number(0, 3600, exclusive=True), "how long each number of them sends [s]", default=10),
        Option("token_file", optional(TEXT), "file with the token of the server"),
        Option("out", optional(TEXT), "JSON file for the results"),
    ),
    positional=("source",),
    examples=(("photos clients=[1,8] seconds=20", "a server on this machine"),),
)

_PATIENCE = 60
"""How long an answer may take [s]."""

_FIRST = 3
"""Answers before those that count."""


@dataclass
class Load:
    """What a number of clients has seen.

    Attributes:
        clients: Their number.
        seconds: How long they sent.
        milliseconds: Of each answer with status 200.
        statuses: Number of answers by status; those of broken connections by the name of the error.
    """

    clients: int
    seconds: float = 0.0
    milliseconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """The numbers that are shown."""
        times = self.milliseconds
        median, p95, p99 = (float(np.percentile(times, q)) if times else None for q in (50, 95, 99))
        return {
            "clients": self.clients,
            "answers": len(times),
            "per_second": len(times) / self.seconds,
            "ms_median": median,
            "ms_p95": p95,
            "ms_p99": p99,
            "others": {status: count for status, count in self.statuses.items() if status != "200"},
        }


class _Client:
    """One connection, opened again when it breaks."""

    def __init__(self, url: SplitResult, token: str | None) -> None:
        self.url, self.connection = url, self._opened(url)
        self.headers = {"Content-Type": "application/octet-stream"}
        self.headers |= {"Authorization": f"Bearer {token}"} if token else {}

    @staticmethod
    def _opened(url: SplitResult) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        return kind(url.hostname or "", url.port, timeout=_PATIENCE)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and content of the answer."""
        try:
            self.connection.request(method, f"{self.url.path.rstrip('/')}{path}", body, self.headers)
            answer = self.connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise

    def send(self, images: Sequence[bytes], first: int, until: float, load: Load) -> None:
        """Send images in turn, from the one with number ``first`` on, until this time of the monotonic clock."""
        number = first
        while time.monotonic() < until:
            start = time.perf_counter()
            try:
                status, _ = self.ask("POST", "/predict", images[number % len(images)])
                said = str(status)
            except (OSError, http.client.HTTPException) as e:
                said = type(e).__name__
            if said == "200":
                load.milliseconds.append((time.perf_counter() - start) * 1e3)
            load.statuses[said] += 1
            number += 1


def load_of(images: Sequence[bytes], url: str, *, clients: int, seconds: float, token: str | None = None) -> Load:
    """Let clients send images at the same time.

    Args:
        images: The bytes of the files.
        url: Address of the server.
        clients: Their number.
        seconds: How long they send.
        token: Of the server.
    """
    own = [Load(clients) for _ in range(clients)]
    parts = urlsplit(url)
    start = time.monotonic()
    threads = [
        threading.Thread(target=_Client(parts, token).send, args=(images, number, start + seconds, load))
        for number, load in enumerate(own)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = Load(clients, time.monotonic() - start)
    for load in own:
        whole.milliseconds += load.milliseconds
        whole.statuses.update(load.statuses)
    return whole


def images_of(source: str) -> list[bytes]:
    """The bytes of all images of a source.

    Raises:
        UserError: There is none.
    """
    files = [one.path for one in find_inputs(source) if isinstance(one, ImageFile)]
    if not files:
        raise UserError(f"source={source}: holds no images")
    return [file.read_bytes() for file in files]


def health_of(url: str, token: str | None, image: bytes) -> dict[str, Any]:
    """What the server says of itself, once it has computed an image a few times.

    Raises:
        UserError: There is no such server, or it does not take the image.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UserError(f"url={url}: must be an address such as http://127.0.0.1:8000")
    client = _Client(parts, token)
    try:
        for _ in range(_FIRST):
            status, content = client.ask("POST", "/predict", image)
            if status != 200:
                raise UserError(f"url={url}: answers the first image with {status}: {json.loads(content)['problem']}")
        return dict(json.loads(client.ask("GET", "/health")[1]))
    except (OSError, http.client.HTTPException, ValueError, KeyError) as e:
        raise UserError(f"url={url}: there is no dfssd serve ({reason(e)}); start it with rate=none") from e


def main(argv: Sequence[str]) -> int:
    """The command ``scripts/load_test.py``; returns its exit code."""
    if {"-h", "--help", "help"} & set(argv):
        USAGE.show("python scripts/load_test.py", "Send images to a server of dfssd serve, and time its answers.")
        return 0
    try:
        given = USAGE.read(argv)
        token = None
        if given["token_file"] is not None:
            from dfssd.serving.settings import read_token

            token = read_token(given["token_file"])
        images = images_of(given["source"])
        health = health_of(given["url"], token, images[0])
        counts = given["clients"] if isinstance(given["clients"], list) else [given["clients"]]
        loads = []
        versions = ", ".join(f"{name} {version}" for name, version in health["versions"].items())
        print(f"{health['model']['name']}, {counted(len(images), 'image')}; {versions}")
        print(_line("clients", "images/s", "median ms", "95 % ms", "99 % ms", "not answered"))
        for count in counts:
            load = load_of(images, given["url"], clients=count, seconds=given["seconds"], token=token).as_json()
            loads.append(load)
            numbers = [load[name] for name in ("per_second", "ms_median", "ms_p95", "ms_p99")]
            others = ", ".join(f"{status}: {number}" for status, number in load["others"].items())
            print(_line(str(count), *("-" if n is None else f"{n:.1f}" for n in numbers), others or "0"), flush=True)
        if given["out"]:
            write_json(given["out"], {"server": health, "loads": loads})
    except UserError as e:
        return report_problems(e)
    return 0


def _line(*cells: str) -> str:
    return "  ".join(f"{cell:<9}" for cell in cells).rstrip()
