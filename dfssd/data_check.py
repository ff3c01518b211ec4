"""The command ``check``: what a run would read from its data, before anything is trained."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfssd.config import GROWN, SEMANTIC, Config
from dfssd.datasets.copies.twins import Leak
from dfssd.errors import UserError
from dfssd.inspection.files import REPORT, SHEET, write_report
from dfssd.inspection.report import DataReport, Part, inspect_data
from dfssd.runs.key_names import configure_data


def check_data(given: Mapping[str, Any]) -> DataReport:
    """Read the data and draw the split that a run with these keys would use; write the report to ``out=``, if given.

    Neither torch nor Ultralytics is imported, and no network is needed.

    Args:
        given: Keys of a run, flat as :func:`~dfssd.config.parse.parse_arguments` returns them, and perhaps ``out``.
            Keys that do not concern the data may be there and have no effect.

    Raises:
        UserError: Wrong keys, data that cannot be read, or a folder that cannot be written. What stops only the split
            is in :attr:`~dfssd.inspection.report.DataReport.problems`.
    """
    keys = dict(given)
    out = _out_folder(keys.pop("out", None))
    config = configure_data(keys)
    if config["data"] is None:
        raise UserError("data is missing: data=demo, a data set YAML, a folder, a .zip, or a name such as CR7-DET")
    report = _masks(config) if config["task"] == SEMANTIC else _boxes(config)
    if out is not None:
        _check_out(out, report, Path(config["data"]).expanduser())
        write_report(report, out / REPORT)
        from dfssd.inspection.sheet import write_sheet  # fonts and drawing, for this file alone

        write_sheet(report, out / SHEET)
    return report


def _boxes(config: Config) -> DataReport:
    from dfssd.detection.data import choose_split, copies_among, read_data

    dataset = read_data(config)
    copies = copies_among(config, dataset)
    # which classes a teacher knows already, and so need no labels, is known to the run alone
    exempt = len(dataset.names) if config["student_training"] == GROWN and config["steps"] is None else 0
    try:
        split = choose_split(config, dataset, copies, exempt)
    except UserError as e:
        return inspect_data(dataset, None, copies.families, problems=e.problems)
    return inspect_data(dataset, split, copies.families)


def _masks(config: Config) -> DataReport:
    from dfssd.datasets.copies.twins import twin_groups
    from dfssd.segmentation.data import read_data, select_from, twins_among

    dataset = read_data(config)
    twins = twins_among(config, dataset)
    try:
        selection = select_from(config, dataset, twins)
    except UserError as e:
        return inspect_data(dataset, None, twin_groups(len(dataset.items), twins), problems=e.problems)
    leaks: Mapping[Part, Sequence[Leak]] = {"val": selection.val_leaks, "test": selection.test_leaks}
    return inspect_data(dataset, selection.split, selection.groups, leaks=leaks)


def _out_folder(value: Any) -> Path | None:
    if value is None:
        return None
    if isinstance(value, (bool, list)) or not str(value).strip():
        raise UserError(f"out={value} must be a folder, to which {REPORT} and {SHEET} are written")
    folder = Path(str(value)).expanduser()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"out={value} is a file; give a folder")
    return folder


def _check_out(out: Path, report: DataReport, data: Path) -> None:
    """Raise :class:`UserError` for a folder of the data, where the picture would become one of its images."""
    real = os.path.realpath(out)
    folders = {os.path.realpath(folder) for folder in {(item.source or item.image).parent for item in report.items}}
    holds = real in folders
    if data.exists() and data.suffix.lower() != ".zip":  # neither the demo nor a card
        root = os.path.realpath(data if data.is_dir() else data.parent)
        holds |= real == root or (_below(real, root) and any(_below(folder, real) for folder in folders))
    if holds:
        raise UserError(f"out={out} holds images of the data, to which {SHEET} would be added; choose another folder")


def _below(folder: str, top: str) -> bool:
    """Whether a real path is ``top`` or lies in it."""
    return folder == top or folder.startswith(top.rstrip(os.sep) + os.sep)
