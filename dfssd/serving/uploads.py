"""The image in the body of a request, kept in memory and read within limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from dfssd.serving.settings import Settings

_LARGEST_FIELD = 1024
"""Bytes of a form field that is no file; none is used."""

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


class _InMemory(MultiPartParser):
    """Never writes to the disk, as Starlette does with files of more than a megabyte."""

    spool_max_size = 0  # no limit, for a SpooledTemporaryFile


async def image_in(request: Request, settings: Settings) -> bytes:
    """The bytes of the image that a request sends, as a file of a form or as its body.

    Raises:
        Refused: It is too large, too slow, not complete, or there is none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    form = kind == "multipart/form-data"
    if not form and kind and not kind.startswith("image/") and kind != "application/octet-stream":
        raise Refused(415, f"Content-Type {kind[:40]!r} is no image: {HOW}")
    try:
        data = await asyncio.wait_for((_file_of if form else _body_of)(request, settings), settings.upload_seconds)
    except asyncio.TimeoutError:
        raise Refused(408, f"the image has not arrived within {settings.upload_seconds:.0f} seconds") from None
    except ClientDisconnect:
        raise Refused(400, "the upload was broken off") from None
    if not data:
        raise Refused(400, f"there is no image in the request: {HOW}")
    return data


async def _within(request: Request, settings: Settings) -> AsyncGenerator[bytes, None]:
    """The body, part by part, as long as it is not too large."""
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > settings.most_bytes:
            raise Refused(413, f"the image is too large: at most {settings.most_bytes / 1e6:g} MB are read")
        yield part


async def _body_of(request: Request, settings: Settings) -> bytes:
    return b"".join([part async for part in _within(request, settings)])


async def _file_of(request: Request, settings: Settings) -> bytes:
    """The only file of a form; its name is not looked at."""
    parser = _InMemory(
        request.headers, _within(request, settings), max_files=1, max_fields=8, max_part_size=_LARGEST_FIELD
    )
    try:
        form = await parser.parse()
    except MultiPartException as e:
        raise Refused(400, f"the form cannot be read ({e.message.rstrip('.')}): send one file") from e
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    try:
        return await files[0].read() if files else b""
    finally:
        await form.close()
