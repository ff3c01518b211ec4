"""The section on exported files, which the reports of all tasks share: one table of all formats, and what is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dfssd.reporting.sections import Lines
from dfssd.reporting.tables import (
    UNKNOWN,
    format_difference,
    format_gain,
    format_number,
    format_range,
    markdown_table,
)
from dfssd.results.record import RunRecord
from dfssd.results.sections import BoxExport, Export, LaterExport, MaskExport, OtherFormat, SizeRecall
from dfssd.wording import counted

_DIFFERENCES = {
    "max_box_diff_px": "box edge [px]",
    "max_score_diff": "score",
    "differing_pixels": "share of pixels",
}
"""Field of a format -> what its largest difference from PyTorch is one of."""

_ALLOWED = {"box_px": "box edge {:g} px", "score": "score {:g}", "map50_95": "mAP50-95 {:g}", "miou": "mIoU {:g}"}
"""Field of the tolerance -> how it is written."""


def export_section(record: RunRecord, student_mb: float | None) -> Lines:
    """All exported files: what each is, how closely it agrees with PyTorch, what it costs, and how fast it is.

    Args:
        record: The record of the run.
        student_mb: Size of the checkpoint [10^6 bytes].
    """
    export, lines = record.export, ["## The files to deploy", ""]
    if not export:
        return [*lines, "The student has not been exported."]
    lines += _outcome(export)
    if export.size_mb is None:  # it could not be written
        return lines
    groups = (_of_run(export, student_mb), *export.later)
    known = any(one.sizes for group in groups for one in group.formats)
    header = ["file", "precision", "MB", "largest difference from PyTorch", record.measure, "against PyTorch"]
    header += [*(["most lost of a size"] if known else []), "median [ms]", "95 % [ms]"]
    rows = [row for group in groups for row in _rows(group, known)]
    lines += ["", *markdown_table(header, rows), "", " ".join(_explained(export))]
    lines += _without_pickle(export)
    failures = [f"- {failure}" for group in groups for one in group.formats for failure in _failures(one)]
    lines += ["", *failures] if failures else []
    return lines + _size_tables(groups)


def _outcome(export: Export) -> Lines:
    """Whether the ONNX file may be deployed."""
    if export.passed:
        return [
            f"`{export.file}` matches `weights/student.pt`: compared on {counted(export.images or 0, 'test image')}, "
            "all differences are within tolerance."
        ]
    failures = export.failures or ["no reason was recorded"]
    alarm = "**The check failed; do not deploy the file before this is understood:**"
    return [alarm, "", *(f"- {failure}" for failure in failures)]


def _without_pickle(export: Export) -> Lines:
    """The file of the detector that can run no program, if there is one."""
    if not isinstance(export, BoxExport) or not (file := export.tensors):
        return []
    return [
        "",
        f"`{file.file}` ({format_number(file.size_mb, 2)} MB, SHA-256 `{file.sha256}`) is the same detector without a "
        "pickle, for those who load none; it needs `student.yaml` beside it.",
    ]


def _of_run(export: Export, student_mb: float | None) -> LaterExport:
    """What the run itself has exported, in the form of what was exported later."""
    reference = OtherFormat(
        format="torch",
        file=None,
        error=None,
        precision="fp32",
        size_mb=student_mb,
        score=export.torch_score,
        sizes=export.torch_sizes,
        **(export.torch_ms.model_dump() if export.torch_ms else {}),
    )
    compared = {name: getattr(export, name) for name in _DIFFERENCES if hasattr(export, name)}
    if _gives_ids(export):
        del compared["max_score_diff"]
    own = OtherFormat(
        format="onnx",
        file=export.file,
        error=None,
        precision="fp32",
        size_mb=export.size_mb,
        score=export.score,
        sizes=export.onnx_sizes,
        **(export.onnx_ms.model_dump() if export.onnx_ms else {}),
        passed=export.passed,
        **compared,
    )
    side = export.input[-1] if export.input else 0
    return LaterExport(imgsz=side, machine=export.machine or "", formats=(reference, own, *export.other))


def _gives_ids(export: Export) -> bool:
    """Whether the file answers with a class for each pixel, without scores."""
    return isinstance(export, MaskExport) and export.answers == "ids"


def _rows(group: LaterExport, with_sizes: bool) -> list[Lines]:
    """Rows of the table: PyTorch, then what was compared with it."""
    reference, rows = group.formats[0], []
    for one in group.formats:
        plain = one is reference
        file = "weights/student.pt" if plain else one.file
        cells = [
            f"`{file}`" if file else one.format,
            one.precision or UNKNOWN,
            format_number(one.size_mb, 2),
            UNKNOWN if plain else _difference(one),
            format_number(one.score),
            UNKNOWN if plain else format_gain(one.score, reference.score),
        ]
        cells += [_most_lost(one.sizes, reference.sizes)] if with_sizes else []
        rows.append([*cells, format_number(one.median_ms, 1), format_number(one.p95_ms, 1)])
    return rows


def _difference(one: OtherFormat) -> str:
    """The largest differences of a format, or why there are none."""
    if one.error:
        return "**could not be written**"
    known = [name for name in _DIFFERENCES if name in one.model_fields_set]
    shown = [f"{_DIFFERENCES[name]} {format_difference(getattr(one, name))}" for name in known]
    return ", ".join(shown) or "not compared"


def _most_lost(sizes: Sequence[SizeRecall], reference: Sequence[SizeRecall]) -> str:
    """The size of defects of which a file finds the smallest share of what PyTorch finds."""
    if not sizes or sizes is reference:
        return UNKNOWN
    before = {row.from_px: row for row in reference}
    lost = [
        ((old.found - row.found) / old.defects, row, old)
        for row in sizes
        if (old := before.get(row.from_px)) and row.found < old.found
    ]
    if not lost:
        return "nothing"
    _, row, old = max(lost, key=lambda found: found[0])
    return f"{format_range(row.from_px, row.to_px)}: {row.found} of {row.defects} found, not {old.found}"


def _explained(export: Export) -> Lines:
    """What the numbers of the table are."""
    found = [
        "Scores are those of all test images on square inputs, which the files take; those above are of inputs padded "
        "to the shape of each image and differ a little, most at small sizes. A comparison of formats chooses nothing."
    ]
    if export.machine:
        found.append(
            "Times: one image from pixels to raw output, without reading and scaling, median and 95 % of 30 runs, all "
            f"files in turn on {export.machine}."
        )
    limits = getattr(export, "tolerance", None)  # each task has its own
    tolerance = limits.model_dump() if limits else {}
    words = {**_ALLOWED, **({"score": "share of pixels {:g}"} if _gives_ids(export) else {})}
    if allowed := ", ".join(text.format(tolerance[key]) for key, text in words.items() if key in tolerance):
        found.insert(0, f"Allowed differences of fp32: {allowed}; with fewer bits the score says what they cost.")
    if export.later:
        places = dict.fromkeys(f"at {later.imgsz} px on {later.machine}" for later in export.later)
        found.append(
            "Below each further row of `weights/student.pt` are files that were written later, compared and timed "
            f"beside it, {'; '.join(places)}."
        )
    return found


def _failures(one: OtherFormat) -> Lines:
    """Why a format cannot be used; the reasons of the ONNX file of the run stand above the table."""
    if one.error:
        return [f"**{one.format} could not be written:** {one.error}"]
    return [f"**{one.format} differs:** {'; '.join(one.failures)}"] if one.failures else []


def _size_tables(groups: Sequence[LaterExport]) -> Lines:
    """Defects found by size, by PyTorch and by the files that find other ones; a table for each size of the input."""
    lines: Lines = []
    for imgsz in dict.fromkeys(group.imgsz for group in groups):
        formats = [one for group in groups if group.imgsz == imgsz for one in group.formats if one.sizes]
        plain = next((one.sizes for one in formats if one.format == "torch"), ())
        differing = {Path(one.file).name: one.sizes for one in formats if one.file and one.sizes != plain}
        if differing:
            lines += [
                "",
                f"Defects found, by size (square root of the area, in pixels of an input of {imgsz} px), at the "
                "balanced thresholds of the student; files that find as many as PyTorch of each size are left out:",
                "",
                *_size_table({"PyTorch": plain, **differing}),
            ]
    return lines


def _size_table(columns: Mapping[str, Sequence[SizeRecall]]) -> Lines:
    ranges = {row.from_px: row.to_px for own in columns.values() for row in own}
    known = [{row.from_px: f"{row.found} of {row.defects}" for row in own} for own in columns.values()]
    rows = [
        [format_range(low, high), *(own.get(low, UNKNOWN) for own in known)] for low, high in sorted(ranges.items())
    ]
    return markdown_table(["size", *columns], rows)
