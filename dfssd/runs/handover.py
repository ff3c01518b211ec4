"""What a run hands over: the facts in its files, the folder ``deploy/``, and further formats of a finished run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfssd.config import DETECT
from dfssd.datasets.preprocessing import Preprocess
from dfssd.deployment.facts import Facts, facts, sign_folder, sign_onnx
from dfssd.deployment.folder import FOLDER, TENSORS, write_deploy
from dfssd.evaluation.export import Comparison, Entry, ExportRequest, export_formats
from dfssd.evaluation.export_options import INT8
from dfssd.evaluation.exported import machine, size_mb
from dfssd.evaluation.operating import selected
from dfssd.files import copy_atomically, file_digest
from dfssd.results.record import RunRecord
from dfssd.results.sections import Export, LaterExport, OtherFormat, SizeRecall, TensorFile, to_json

_NOT_LISTED = {"other", "later", "torch_ms", "torch_sizes", "machine", "tensors"}
"""What the record of an export holds beyond what concerns the ONNX file."""


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
    times, sizes = own.pop("onnx_ms", {}), own.pop("onnx_sizes", [])
    listed = {name: value for name, value in own.items() if name not in _NOT_LISTED}
    listed |= {"file": "student.onnx", "score": record.export.score, **times, "sizes": sizes}
    others = [{**to_json(one), "file": Path(one.file).name} for one in record.export.other if one.file]
    for other in others:
        sign_folder(run / FOLDER / other["file"], about)
    _complete(run, about, record, [listed, *others], record.export.machine)


def with_sizes(section: Entry, record: RunRecord, comparison: Comparison, imgsz: int) -> Entry:
    """The section ``export`` with the recall by size of the defects of each file.

    Where the files were compared while the networks were tested, the thresholds were not known yet.

    Args:
        section: As of :func:`~dfssd.evaluation.export.export_and_compare`.
        record: The record of the run, with the thresholds of the student.
        comparison: What has measured the scores of the files; it forgets what it has kept.
        imgsz: Side of the input [px].
    """
    names = ["torch", "onnx", *(one["format"] for one in section.get("other", ()))]
    found = _sizes(names, record, comparison, imgsz)
    comparison.forget()
    own = {f"{name}_sizes": found[name] for name in names[:2] if name in found}
    return {**section, **own, "other": [_with(one, found) for one in section.get("other", ())]}


def export_more(
    request: ExportRequest, record: RunRecord, comparison: Comparison, calibration: Sequence[Path]
) -> LaterExport:
    """Write and compare formats of a finished run, and list them in the manifest of what is handed over.

    Args:
        request: What to export.
        record: The record of the run; it gets what was exported.
        comparison: How the files are compared with the student.
        calibration: Training images that INT8 is calibrated on.

    Returns:
        PyTorch and the formats, in the order of the request.

    Raises:
        UserError: An unknown format, or no image of the split can be read.
    """
    used = tuple(calibration) if request.options.precision == INT8 else ()
    imgsz = request.settings.imgsz
    try:
        entries = export_formats(replace(request, calibration=used), task=record.TASK, comparison=comparison)
        found = _sizes([one["format"] for one in entries], record, comparison, imgsz)
    finally:
        comparison.forget()
    done = LaterExport(
        imgsz=imgsz,
        machine=machine(),
        formats=tuple(OtherFormat.model_validate(_with(one, found)) for one in entries),
    )
    written = [{**to_json(one), "file": Path(one.file).name} for one in done.formats if one.file]
    _complete(request.deploy.parent, request.about, record, written, done.machine)
    if record.export:
        record.export = with_later(record.export, done)
    return done


def _complete(run: Path, about: Facts, record: RunRecord, formats: Sequence[Entry], machine: str | None) -> None:
    """Write all else that is handed over with the formats, and record the detector without a pickle."""
    write_deploy(run, about, formats, machine=machine, detects=record.TASK == DETECT)
    if record.TASK == DETECT and record.export:
        file = run / "weights" / Path(TENSORS).name
        found = TensorFile(file=f"weights/{file.name}", size_mb=size_mb(file), sha256=file_digest(file))
        record.export = record.export.model_copy(update={"tensors": found})


def with_later(export: Export, done: LaterExport) -> Export:
    """The section with formats that were written now, without earlier ones whose files they replace."""
    replaced = {one.file for one in done.formats if one.file}
    other, kept = tuple(one for one in export.other if one.file is None or one.file not in replaced), []
    for earlier in export.later:
        reference, *formats = earlier.formats
        if left := [one for one in formats if one.file and one.file not in replaced]:
            kept.append(earlier.model_copy(update={"formats": (reference, *left)}))
    return export.model_copy(update={"other": other, "later": (*kept, done)})


def _sizes(
    names: Sequence[str], record: RunRecord, comparison: Comparison, imgsz: int
) -> dict[str, tuple[SizeRecall, ...]]:
    """Name of a format -> recall by size, at the balanced thresholds of the student; only what there is."""
    operating = record.operating.get("student")
    if operating is None:
        return {}
    thresholds = list(operating.points[0].thresholds.values())
    found = {name: comparison.sizes(name, thresholds, imgsz) for name in names}
    return {name: sizes for name, sizes in found.items() if sizes}


def _with(entry: Entry, found: Mapping[str, tuple[SizeRecall, ...]]) -> Entry:
    """What is known of a format, with its recall by size if there is one."""
    sizes = found.get(entry["format"])
    return {**entry, "sizes": sizes} if sizes else entry
