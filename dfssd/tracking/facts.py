"""What a tracker is told about a run: parameters, values of an epoch, results. Pure functions of what is recorded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from dfssd.config import KEYS, Config, Protocol
from dfssd.deployment.folder import FOLDER, handed_over
from dfssd.results.record import RunRecord
from dfssd.results.sections import Operating, OperatingPoint, Role, Share

_PREFIXES = {"metrics/": "val/"}
"""How names of Ultralytics' columns begin -> how they begin here."""


def project_name(project: str) -> str:
    """The name of a project: ``project=`` without what only this machine knows.

    A path that leads somewhere from the root or from above is named by its last part.
    """
    path = PurePath(project)
    parts = [part for part in path.parts if part not in {"..", "~", path.anchor}]
    outside = bool(path.anchor) or len(parts) < len(path.parts)
    return (parts[-1] if outside else "/".join(parts)) if parts else "runs"


def parameters(config: Config, record: RunRecord) -> dict[str, Any]:
    """All that was decided before the first training: our keys, terms, Ultralytics' arguments, data, versions.

    Args:
        config: The configuration of the run; keys of the other task are left out, and those that say only where files
            lie.
        record: Its record, after ``prepare``.

    Returns:
        Dotted name -> value.
    """
    found: dict[str, Any] = {
        name: config[name]
        for name, key in KEYS.items()
        if key.task in {None, config["task"]} and (key.changes_results or key.protocol is not Protocol.PLACE)
    }
    found |= {f"{term}.{option}": value for term, own in config.terms.items() for option, value in own.items()}
    found |= config.train
    if record.data:
        data = record.data.model_dump(exclude={"skipped", "warnings", "leaks"})
        found |= {f"data.{name}": ", ".join(value) if name == "classes" else value for name, value in data.items()}
    facts = record.run.model_dump(include={"command", "dfssd", "ultralytics", "torch", "python", "machine", "git"})
    return found | {f"run.{name}": value for name, value in facts.items()}


def epoch_values(row: Mapping[str, str]) -> dict[str, float]:
    """The numbers of a row of ``results.csv``; what is not a number, or was not computed in this epoch, is left out.

    ``train/<loss or term>``, ``val/<loss or score>``, ``lr/<group>``, ``pseudo/<health>``, ``weight/<term>``,
    ``seconds`` since the start of the training, and ``epoch``, from 1.
    """
    values = {}
    for column, text in row.items():
        value = _number(text)
        if value is None or (column.startswith("val/") and value == 0):  # a loss that the validation does not compute
            continue
        name = column.removesuffix("(B)").removesuffix("(M)")
        for old, new in _PREFIXES.items():
            name = new + name.removeprefix(old) if name.startswith(old) else name
        values["seconds" if name == "time" else name] = value
    return values


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def results(record: RunRecord) -> dict[str, float]:
    """What was measured on the test images: name -> number.

    ``test/<network>/<score>``, ``difference/<network>-<reference>/<score>`` and
    ``operating/<network>/<point>/<number>``, with ``..._low`` and ``..._high`` for the ends of an interval.
    """
    found: dict[str, float] = {}
    for role, scores in record.test.items():
        for name in type(scores).model_fields:
            value = getattr(scores, name)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                found[f"test/{role}/{name}"] = value
    for pair in record.differences.pairs if record.differences else ():
        for score, gain in pair.gains.items():
            name = f"difference/{pair.network}-{pair.reference}/{score}"
            ends = {"": gain.value, "_low": gain.low, "_high": gain.high}
            found |= {name + end: value for end, value in ends.items() if value is not None}
    for role, operating in record.operating.items():
        found |= dict(_operating(role, operating))
    return found


def _operating(role: Role, operating: Operating) -> Iterator[tuple[str, float]]:
    for point in operating.points:
        name = f"operating/{role}/{_point_name(point)}"
        shares = {"ng_recall": point.test.recall, "false_alarm_rate": point.test.false_alarm_rate}
        for rate, share in shares.items():
            yield from _share(f"{name}/{rate}", share)
        yield f"{name}/escapes", point.test.defective - point.test.found
        yield f"{name}/false_alarms", point.test.false_alarms
        for cls, threshold in point.thresholds.items():
            yield f"{name}/threshold/{cls}", threshold


def _point_name(point: OperatingPoint) -> str:
    """``balanced``, or ``false_alarms_2_percent``."""
    return "balanced" if point.wanted is None else f"false_alarms_{100 * point.wanted:g}_percent"


def _share(name: str, share: Share | None) -> Iterator[tuple[str, float]]:
    if share is not None:
        yield from ((name, share.value), (f"{name}_low", share.low), (f"{name}_high", share.high))


def files(folder: Path) -> dict[str, Path]:
    """The files of a run that are worth keeping elsewhere: report, record, configuration, and the student's.

    Returns:
        Name, as a path in the run folder -> file. Those of the student are in ``deploy/``, or its checkpoint before
        there is such a folder.
    """
    student = handed_over(folder / FOLDER) or sorted((folder / "weights").glob("student.pt"))
    found = [*(folder / name for name in ("report.html", "results.json", "run.yaml")), *student]
    return {file.relative_to(folder).as_posix(): file for file in found if file.is_file()}
