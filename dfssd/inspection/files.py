"""``data_report.json``: what a data set holds, for programs (docs/data.md lists its fields)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from dfssd.datasets.account import Role
from dfssd.errors import UserError
from dfssd.files import atomic_write
from dfssd.inspection.report import DataReport, ReportedImage

SCHEMA = 1
"""Raised when a field changes its meaning or is gone; new fields do not raise it."""

REPORT, SHEET = "data_report.json", "data.png"

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

SPELLED = {role: role.value for role in Role} | {
    Role.LABELED: "labelled",
    Role.DEFECT_FREE: "defect-free",
    Role.UNLABELED: "unlabelled",
}
"""Names of the roles in the file."""


def write_report(report: DataReport, path: Path) -> None:
    """Write ``data_report.json``, whole or not at all; images are written one by one.

    Raises:
        UserError: The file cannot be written, or an image can no longer be read.
    """
    account = report.dataset.account
    # Halves of characters, as in names of files that are no valid text, become escapes of JSON.
    with (
        written(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file,
    ):
        file.write("{\n")
        _write(file, "schema", SCHEMA)
        _write(file, "name", report.dataset.name)
        _write(file, "task", "semantic" if report.masks else "detect")
        _write(file, "names", report.names)
        _write(file, "warnings", report.warnings)
        _write(file, "problems", report.problems)
        _write(file, "files", {"counted": report.counted} | {SPELLED[role]: n for role, n in report.files.items()})
        _write(file, "outside", dict(account.outside))
        _write_rows(file, "images", (_row(image, masks=report.masks) for image in report.images()))
        _write_rows(file, "left_out", ({"path": str(left.path), "reason": left.reason} for left in report.left_out))
        torn = {group[0] for group in report.torn}
        groups = (
            {"images": [str(report.source_of(image)) for image in group], "torn": group[0] in torn}
            for group in report.copies
        )
        _write_rows(file, "copies", groups, last=True)
        file.write("}\n")


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """:func:`~dfssd.files.atomic_write` with a message that names ``out=``.

    Raises:
        UserError: The file cannot be written.
    """
    try:
        with atomic_write(path) as temporary:
            yield temporary
    except OSError as e:
        raise UserError(_cannot_write(path, e)) from e
    except UserError as e:
        if isinstance(e.__cause__, OSError) and str(path) in str(e):
            raise UserError(_cannot_write(path, e.__cause__)) from e
        raise


def _cannot_write(path: Path, error: OSError) -> str:
    return f"cannot write {path}: {error.strerror or error}; free some space or choose another folder with out="


def _write(file: IO[str], key: str, value: Any) -> None:
    file.write(f"{_json(key)}: {_json(value)},\n")


def _write_rows(file: IO[str], key: str, rows: Iterable[Any], *, last: bool = False) -> None:
    """A list, each element on a line of its own."""
    file.write(f"{_json(key)}: [")
    for i, row in enumerate(rows):
        file.write(f"{',' if i else ''}\n {_json(row)}")
    file.write(f"\n]{'' if last else ','}\n")


def _json(value: Any) -> str:
    return _ENCODER.encode(value)


def _row(image: ReportedImage, *, masks: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "path": str(image.path),
        "source": str(image.source),
        "role": SPELLED[image.role],
        "split": image.part,
        "width": image.size[0],
        "height": image.size[1],
    }
    if masks:
        row |= {"mask": None if image.mask is None else str(image.mask), "pixels": dict(image.pixels)}
    else:
        row["boxes"] = image.boxes
    return row | ({"hidden": True} if image.hidden else {})
