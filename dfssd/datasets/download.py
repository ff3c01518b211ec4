"""Downloading the release file of a data set card: with a progress bar, resumable, and checked."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from dfssd.datasets.cards import Card
from dfssd.errors import UserError
from dfssd.log import LOGGER, note

_TIMEOUT_S = 30
_BLOCK = 1 << 20
_ATTEMPTS = 3
_NETWORK_ERRORS = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch: address, size [bytes] and MD5 (None where the server does not send it)."""

    url: str
    size: int | None = None
    md5: str | None = None


def fetch_card(card: Card, data_dir: Path) -> Path:
    """The release file of ``card`` in ``data_dir``, downloaded if it is not there yet.

    Raises:
        UserError: There is no address or no network; the message names the place to put the file by hand.
    """
    target = data_dir / card.file
    by_hand = f"get {card.file} by hand ({card.homepage}) and put it at {target}"
    if target.exists():
        return target
    if card.url:
        return download(RemoteFile(card.url), target, by_hand=by_hand)
    if card.record is None:
        raise UserError(f"data={card.name}: no download address is known; {by_hand}")
    try:
        remote = _release(card.record, card.file)
    except (*_NETWORK_ERRORS, ValueError, KeyError) as e:
        raise UserError(f"data={card.name}: cannot reach {card.record} ({_reason(e)}); {by_hand}") from e
    return download(remote, target, by_hand=by_hand)


def _release(record: str, name: str) -> RemoteFile:
    """The release file in the Zenodo record at that URL: the file called ``name``, else the largest .zip."""
    _check_scheme(record)
    with urllib.request.urlopen(record, timeout=_TIMEOUT_S) as response:
        files = json.load(response)["files"]
    zips = [f for f in files if f["key"].lower().endswith(".zip")]
    best = max(zips, key=lambda f: (f["key"] == name, f["size"]), default=None)
    if best is None:
        raise KeyError("no .zip in the record")
    kind, _, checksum = best.get("checksum", "").partition(":")
    url = urllib.parse.urljoin(record, best["links"]["self"])
    return RemoteFile(url, int(best["size"]), checksum if kind == "md5" else None)


def download(remote: RemoteFile, target: Path, *, by_hand: str) -> Path:
    """Fetch ``remote`` to ``target``, which appears only when it is complete and has passed the checks.

    A partial download (``<target>.part``) is continued by an HTTP range request.

    Args:
        remote: What to fetch.
        target: Final path.
        by_hand: What to do instead, for the message.

    Raises:
        UserError: The network fails, the disk is full, or size or checksum is wrong.
    """
    _check_scheme(remote.url)
    LOGGER.info(f"downloading {remote.url}" + (f", {remote.size / 1e6:,.0f} MB" if remote.size else ""))
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        with Progress(*columns, TimeRemainingColumn(), transient=True) as progress:
            for attempt in range(_ATTEMPTS):
                before = part.stat().st_size if part.exists() else 0
                try:
                    _transfer(remote, part, progress)
                    break
                except _NETWORK_ERRORS as e:
                    if isinstance(e, OSError) and e.errno is not None and e.filename is not None:
                        raise  # of the disk, not of the network
                    grown = part.exists() and part.stat().st_size > before
                    if attempt == _ATTEMPTS - 1 or not grown:
                        raise UserError(
                            f"the download of {remote.url} broke off ({_reason(e)}); "
                            f"run the same line again to continue it, or {by_hand}"
                        ) from e
        _check(remote, part)
        os.replace(part, target)
    except OSError as e:
        raise UserError(f"cannot write {target}: {e.strerror}; free some space or choose another data_dir=") from e
    finally:
        note("")
    return target


def _transfer(remote: RemoteFile, part: Path, progress: Progress) -> None:
    have = part.stat().st_size if part.exists() else 0
    if remote.size is not None and have >= remote.size:
        return
    request = urllib.request.Request(remote.url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as e:
        if e.code == 416:  # nothing left to send, or the partial file is of another file: the check decides
            return
        raise
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        have = have if resumed else 0
        total = remote.size or (have + int(length) if length else None)
        task = progress.add_task(f"Downloading {part.stem}", total=total, completed=have)
        with open(part, "ab" if resumed else "wb") as file:
            while block := response.read(_BLOCK):
                try:
                    file.write(block)
                except OSError as e:
                    e.filename = str(part)
                    raise
                have += len(block)
                progress.update(task, completed=have)
                note(f"Downloading {part.stem}: {have / 1e6:,.0f}" + (f" of {total / 1e6:,.0f} MB" if total else " MB"))
        if total is not None and have < total:
            raise http.client.IncompleteRead(b"", total - have)


def _check(remote: RemoteFile, part: Path) -> None:
    size = part.stat().st_size if part.exists() else 0
    wrong = None
    if remote.size is not None and size != remote.size:
        wrong = f"{size} bytes instead of {remote.size}"
    elif remote.md5 is not None:
        digest = hashlib.md5(usedforsecurity=False)
        with open(part, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        if digest.hexdigest() != remote.md5.lower():
            wrong = f"MD5 {digest.hexdigest()} instead of {remote.md5}"
    if wrong:
        part.unlink(missing_ok=True)
        raise UserError(f"{remote.url} arrived damaged ({wrong}) and was removed; run the same line again")


def _check_scheme(url: str) -> None:
    if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
        raise UserError(f"cannot download from {url}; only http and https addresses are fetched")


def _reason(error: BaseException) -> str:
    return str(getattr(error, "reason", None) or error) or error.__class__.__name__
