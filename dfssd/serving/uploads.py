"""The image in the body of a request, kept in memory and read within limits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from dfssd.serving.settings import Settings

_LARGEST_FIELD = 1024
"""Bytes of a form field that is no file; none is used."""

_SMALLEST_SHARE = 65_536
"""Bytes that an upload counts at least: as much as uvicorn may hold of a connection, however little has arrived."""

_BUSY_SECONDS = 1
"""When to try again while there is no room [s]."""

HOW = "send it as multipart/form-data, or as the body with its own type, such as image/png"


class Refused(Exception):
    """A request that is not served.

    Attributes:
        status: Of the answer.
        answer: What it says, as JSON.
        wait: After how many seconds it may be tried again; None: it would not help.
    """

    def __init__(self, status: int, problem: str, wait: int | None = None, **more: Any) -> None:
        """Note why; ``more`` are further values of the answer."""
        super().__init__(problem)
        self.status, self.answer, self.wait = status, {**more, "problem": problem}, wait


class Room:
    """What the memory has room for: bytes of uploads that arrive, a part of them for each client, and complete images.

    Uploads that arrive take no place in the queue, so that slow ones cannot keep out images that are complete.

    Attributes:
        under_way: Images that wait or are computed.
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing is there yet."""
        self.settings, self.under_way = settings, 0
        self._arriving: Counter[str] = Counter()

    @contextmanager
    def upload(self, client: str) -> Iterator[Callable[[int], None]]:
        """An upload that arrives.

        Args:
            client: Who sends it.

        Yields:
            A function to be called with the number of bytes that have arrived so far; it may refuse, too.

        Raises:
            Refused: The uploads of the client, or of all, hold as much as they may.
        """
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            more = max(size, min(_SMALLEST_SHARE, self.settings.most_bytes)) - held
            most = self.settings.most_arriving
            if more > 0 and self._arriving[client] + more > most:
                raise Refused(429, "too many uploads at once: try again in a moment", wait=_BUSY_SECONDS)
            if more > 0 and self._arriving.total() + more > 2 * most:
                raise Refused(503, "too many uploads arrive: try again in a moment", wait=_BUSY_SECONDS)
            self._arriving[client] += more
            held += more

        try:
            hold(0)
            yield hold
        finally:
            self._arriving[client] -= held
            if not self._arriving[client]:
                del self._arriving[client]

    def check(self) -> None:
        """Refuse an upload whose image would have no place in the queue.

        Raises:
            Refused: All are taken.
        """
        if self.under_way >= self.settings.queue:
            raise Refused(503, "the queue is full: try again in a moment", wait=_BUSY_SECONDS)

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place in the queue, for an image that is complete.

        Raises:
            Refused: All are taken.
        """
        self.check()
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1


class _InMemory(MultiPartParser):
    """Never writes to the disk, as Starlette does with files of more than a megabyte."""

    spool_max_size = 0  # no limit, for a SpooledTemporaryFile


async def image_in(request: Request, room: Room) -> bytes:
    """The bytes of the image that a request sends, as a file of a form or as its body.

    Raises:
        Refused: It is too large, too slow, not complete, or there is none, or no room for it.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    settings = room.settings
    form = kind == "multipart/form-data"
    if not form and kind and not kind.startswith("image/") and kind != "application/octet-stream":
        raise Refused(415, f"Content-Type {kind[:40]!r} is no image: {HOW}")
    try:
        with room.upload(client_of(request)) as hold:
            parts = _within(request, settings.most_bytes, hold)
            reading = _file_of(request, parts) if form else _body_of(parts)
            data = await asyncio.wait_for(reading, settings.upload_seconds)
    except asyncio.TimeoutError:
        raise Refused(408, f"the image has not arrived within {settings.upload_seconds:.0f} seconds") from None
    except ClientDisconnect:
        raise Refused(400, "the upload was broken off") from None
    if not data:
        raise Refused(400, f"there is no image in the request: {HOW}")
    return data


def client_of(request: Request) -> str:
    """The address that a request comes from."""
    return request.client.host if request.client else ""


async def _within(request: Request, most: int, hold: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    """The body, part by part, as long as it is not too large and there is room for it."""
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise Refused(413, f"the image is too large: at most {most / 1e6:g} MB are read")
        hold(size)
        yield part


async def _body_of(parts: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([part async for part in parts])


async def _file_of(request: Request, parts: AsyncGenerator[bytes, None]) -> bytes:
    """The only file of a form; its name is not looked at."""
    parser = _InMemory(request.headers, parts, max_files=1, max_fields=8, max_part_size=_LARGEST_FIELD)
    try:
        form = await parser.parse()
    except MultiPartException as e:
        raise Refused(400, f"the form cannot be read ({e.message.rstrip('.')}): send one file") from e
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    try:
        return await files[0].read() if files else b""
    finally:
        await form.close()
