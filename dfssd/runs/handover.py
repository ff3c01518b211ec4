"""What a run hands over: the facts in its files, the folder ``deploy/``, and further formats of a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfssd.config import DETECT
from dfssd.datasets.preprocessing import Preprocess
from dfssd.deployment.facts import Facts, facts, sign_folder, sign_onnx
from dfssd.deployment.folder import FOLDER, write_deploy
from dfssd.evaluation.export import Comparison, Entry, ExportRequest, export_formats
from dfssd.evaluation.export_options import INT8
from dfssd.evaluation.exported import machine
from dfssd.evaluation.operating import selected
from dfssd.files import copy_atomically
from dfssd.results.record import RunRecord
from dfssd.results.sections import to_json


def about_run(name: str, record: RunRecord, preprocess: Mapping[str, Any]) -> Facts:
    """What the files of a run say about themselves, with the thresholds that were chosen on validation images.

    Args:
        name: Name of the run.
        record: Its record, with the section ``data``; without ``operating`` there are no thresholds.
        preprocess: Section ``preprocess`` of its configuration.
    """
    assert record.data is not None
    operating = record.operating.get("student")
    found = selected(operating).thresholds if operating and record.TASK == DETECT else None
    return facts(
        run=name,
        ultralytics=record.run.ultralytics,
        names=record.data.classes,
        bits=record.data.bits,
        preprocess=preprocess if Preprocess(**preprocess).changes_pixels else None,
        thresholds=found,
    )


def hand_over(run: Path, about: Facts, record: RunRecord) -> None:
    """Write ``deploy/`` of a run: a copy of its ONNX file, and all else that belongs to it.

    Where the files were exported while the networks were tested, they did not know the thresholds yet: they are signed
    once more.

    Args:
        run: Folder of the run.
        about: As of :func:`about_run`.
        record: Its record, with the section ``export`` of an ONNX file that was written.
    """
    assert record.export is not None
    sign_onnx(run / "weights" / "student.onnx", about)
    copy_atomically(run / "weights" / "student.onnx", run / FOLDER / "student.onnx")
    own = {"format": "onnx", "precision": "fp32", **to_json(record.export)}
    times = own.pop("onnx_ms", {})
    listed = {name: value for name, value in own.items() if name not in {"other", "torch_ms", "machine"}}
    listed |= {"file": "student.onnx", "score": record.export.score, **times}
    others = [{**to_json(one), "file": Path(one.file).name} for one in record.export.other if one.file]
    for other in others:
        sign_folder(run / FOLDER / other["file"], about)
    detects = record.TASK == DETECT
    write_deploy(run, about, [listed, *others], machine=record.export.machine, detects=detects)


def export_more(
    request: ExportRequest, record: RunRecord, comparison: Comparison, calibration: Sequence[Path]
) -> list[Entry]:
    """Write and compare formats of a finished run, and list them in the manifest of what is handed over.

    Args:
        request: What to export.
        record: The record of the run.
        comparison: How the files are compared with the student.
        calibration: Training images that INT8 is calibrated on.

    Returns:
        As :func:`~dfssd.evaluation.export.export_formats`.

    Raises:
        UserError: An unknown format, or no image of the split can be read.
    """
    used = tuple(calibration) if request.options.precision == INT8 else ()
    entries = export_formats(replace(request, calibration=used), task=record.TASK, comparison=comparison)
    written = [{**one, "file": Path(one["file"]).name} for one in entries if one["file"]]
    run, detects = request.deploy.parent, record.TASK == DETECT
    write_deploy(run, request.about, written, machine=machine(), detects=detects)
    return entries
