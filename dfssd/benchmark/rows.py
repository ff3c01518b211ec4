"""The rows of a benchmark, read from the records of finished runs."""

from __future__ import annotations

import csv
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from dfssd.errors import UserError, reason
from dfssd.reporting.run_files import read_csv
from dfssd.results.record import FILE, BoxRecord
from dfssd.results.sections import Training

COLUMNS = (
    "recipe", "labeled", "seed", "map50", "map50_95", "steps", "seconds", "device", "command",
    "optimizer_steps", "val_map50_95", "chosen", "machine", "dfssd", "ultralytics", "torch", "git",
)  # fmt: skip
"""Columns of the CSV; one per class follows, ``ap50_95 <class>``."""

PER_CLASS = "ap50_95 "
_NUMBERS = ("map50", "map50_95", "seconds", "val_map50_95")
_COUNTS = ("seed", "steps", "optimizer_steps")


@dataclass(frozen=True)
class Row:
    """One detector of a finished run.

    Attributes:
        recipe: Name of the cell, or ``teacher``, ``baseline``, ``oracle``.
        labeled: Share or number of labeled images.
        seed: Seed of the run.
        values: The other :data:`COLUMNS`; None if unknown.
        per_class: Class name -> AP50-95 on the test images.
        detections: File of the detections that the scores were computed from.
        images: Number of test images.
    """

    recipe: str
    labeled: float
    seed: int
    values: Mapping[str, Any]
    per_class: Mapping[str, float | None] = field(default_factory=dict)
    detections: Path | None = None
    images: int | None = None

    @property
    def map50_95(self) -> float:
        """mAP50-95 on the test images."""
        return self.values["map50_95"]


def rows_of_run(
    folder: Path, named: Mapping[str, str | None], *, labeled: float, seed: int, machine: str | None = None
) -> list[Row]:
    """The rows of a finished run.

    Args:
        folder: The run folder.
        named: Name of the row -> role in the run (``teacher``, ``baseline``, ``student``); None: what the run is about,
            the student, or the baseline that it trained itself if it trained no student.
        labeled: Share or number of labeled images.
        seed: Seed of the run.
        machine: Model of the processor or GPU; None: as recorded by the run.
    """
    record = BoxRecord.read(folder / FILE)
    run, rows = record.run, []
    for name, given in named.items():
        role = given or _subject(record)
        scores = record.test.get(role)
        if scores is None or scores.map50_95 is None:
            continue
        trainings = _trainings(record, role)
        selection = record.guard if role == "student" else None
        chosen = selection.chosen if selection else None
        val_score = trainings[-1].val_score if trainings else None
        if selection and chosen == "baseline":  # whose weights were tested
            val_score = selection.baseline_val_score
        values = {
            "map50": scores.map50,
            "map50_95": scores.map50_95,
            "steps": sum(training.batches for training in trainings) if trainings else None,
            "optimizer_steps": sum(training.optimizer_steps or 0 for training in trainings) if trainings else None,
            "seconds": _seconds(folder, record, role) if trainings else None,
            "val_map50_95": val_score,
            "chosen": chosen,
            "machine": machine or run.machine,
            "command": shown_command(shlex.split(run.command), folder.parent.parent.parent),
            **{key: getattr(run, key) for key in ("device", "dfssd", "ultralytics", "torch", "git")},
        }
        per_class = {name: own.ap50_95 for name, own in scores.per_class.items()}
        detections = folder / "test" / role / "detections.npz"
        rows.append(Row(name, labeled, seed, values, per_class, detections, scores.images))
    return rows


def read_rows(file: Path) -> list[Row]:
    """The rows of a table that was written before, perhaps on another machine; their detections are not known.

    Raises:
        UserError: It is no such table.
    """
    try:
        with open(file, encoding="utf-8", newline="") as opened:
            return [_row_of(line) for line in csv.DictReader(opened)]
    except OSError as e:
        raise UserError(f"rows={file}: cannot be read ({e.strerror})") from e
    except (KeyError, TypeError, ValueError) as e:
        raise UserError(f"rows={file}: is not the .csv of a grid ({reason(e)})") from e


def _row_of(line: Mapping[str, str]) -> Row:
    values = {name: _value_of(name, line[name]) for name in COLUMNS}
    recipe, labeled, seed = (values.pop(name) for name in ("recipe", "labeled", "seed"))
    classes = {name.removeprefix(PER_CLASS): text for name, text in line.items() if name.startswith(PER_CLASS)}
    if values["map50_95"] is None or labeled is None:
        raise ValueError("a row without a score")
    return Row(
        recipe, labeled, int(seed), values, {name: float(text) if text else None for name, text in classes.items()}
    )


def _value_of(column: str, text: str) -> Any:
    """A value of a row as :func:`rows_of_run` has it."""
    if not text:
        return None
    if column in _NUMBERS:
        return float(text)
    if column in _COUNTS:
        return int(text)
    return (float(text) if "." in text or "e" in text else int(text)) if column == "labeled" else text


def _subject(record: BoxRecord) -> str:
    """The role of the network that a run is about."""
    own_baseline = "baseline" in record.training and record.training["baseline"].taken_from is None
    return "baseline" if own_baseline and "student" not in record.test else "student"


def _trainings(record: BoxRecord, role: str) -> list[Training]:
    """The training of a network; for a self-trained teacher all rounds up to the one in use."""
    taken = record.self_training.taken if record.self_training and role == "teacher" else 0
    roles = [role, *(f"teacher_round{number}" for number in range(1, taken + 1))]
    return [record.training[name] for name in roles if name in record.training]


def _seconds(folder: Path, record: BoxRecord, role: str) -> float | None:
    """Duration of a training [s]; of a resumed one the sum over epochs: a stage records its last session only."""
    if (seconds := record.training[role].seconds) and record.pretraining:  # then stages hold several trainings
        return round(seconds.total, 1)
    if not record.run.resumed:
        return next((stage.seconds for stage in record.stages if stage.name == role), None)
    times = read_csv(folder / "train" / role / "results.csv").get("time") or []
    if not times or not all(math.isfinite(t) for t in times):
        return None
    # the clock of results.csv restarts in each session
    return round(sum(t - before if t > before else t for before, t in zip([0.0, *times], times)), 1)


def shown_command(words: Sequence[str], below: Path | None = None) -> str:
    """A command line for publication: data by file name only, without absolute paths.

    Args:
        words: The command line.
        below: Absolute paths in this folder become relative to it; of others only the name is kept.
    """
    return shlex.join(_shown(word, below) for word in words)


def _shown(word: str, below: Path | None) -> str:
    key, sign, value = word.partition("=")
    if not sign:
        key, value = "", word
    if key.lstrip("-") in {"data", "dataset"}:
        value = _last_name(value)
    elif PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith("~"):
        inside = below is not None and Path(value).is_relative_to(below)
        value = Path(value).relative_to(below).as_posix() if below and inside else _last_name(value)
    return f"{key}{sign}{value}"


def _last_name(path: str) -> str:
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]
