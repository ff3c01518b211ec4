"""Unpacking of untrusted .zip files."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from dfssd.datasets.images.files import progress
from dfssd.errors import UserError
from dfssd.trust.limits import archive_problem

SUFFIXES = frozenset({".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"})
"""Suffixes of archives in lower case; only ``.zip`` files are read, and none inside the data."""

INSIDE = "an archive inside the data is not unpacked: unpack it"
"""Why one inside the data is left out."""


def zip_fingerprint(path: Path) -> str:
    """Hash of the names, sizes and checksums of all members: the content, without reading all of it.

    Raises:
        UserError: ``path`` is not a zip file.
    """
    with _open(path) as archive:
        listing = sorted((i.filename, i.file_size, i.CRC) for i in archive.infolist())
    return hashlib.sha256(repr(listing).encode()).hexdigest()


def unpack(path: Path, target: Path) -> None:
    """Unpack the zip file ``path`` into the folder ``target``.

    Nothing is written if a member would land outside ``target`` (absolute path, drive, ``..``) or is a link.

    Raises:
        UserError: ``path`` is not a zip file, is damaged or encrypted, would unpack to more than it may, or has a
            member outside ``target``.
    """
    with _open(path) as archive:
        files = (m for m in archive.infolist() if not m.filename.endswith(("/", "\\")))
        members = [m for m in files if not m.filename.startswith("__MACOSX/")]
        for member in members:
            name = member.filename.replace("\\", "/")
            parts = PurePosixPath(name).parts
            is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
            if name.startswith("/") or PureWindowsPath(name).drive or ".." in parts or is_link:
                raise UserError(
                    f"{path}: member '{member.filename}' would be written outside the target folder; "
                    "nothing was unpacked, get the file from a source you trust"
                )
            if member.flag_bits & 0x1:
                raise UserError(f"{path} is encrypted; unpack it with its password and pass the folder instead")
            member.filename = name  # .NET and old PowerShell write backslashes, which are folders
        _check_unique(path, members)
        if not members:
            raise UserError(f"{path} is empty; make the zip file anew, or pass the folder")
        if problem := archive_problem(path.stat().st_size, sum(member.file_size for member in members)):
            raise UserError(f"{path} {problem}")
        try:
            for member in progress(members, f"Unpacking {path.name}", len(members)):
                archive.extract(member, target)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as e:
            raise UserError(f"{path} is damaged at '{member.filename}' ({e}); download or copy it again") from e


def _check_unique(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Raise :class:`UserError` if two members would be one file, or a file would be a folder as well."""
    names = [PurePosixPath(member.filename) for member in members]
    folders = {folder for name in names for folder in name.parents}
    seen: set[PurePosixPath] = set()
    for name in names:
        if name in seen or name in folders:
            raise UserError(f"{path}: '{name}' is in it twice; make the zip file anew")
        seen.add(name)


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as e:
        raise UserError(
            f"{path} is not a zip file, or an incomplete one; download or copy it again, or pass the folder"
        ) from e
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
