"""How the files of a segmentation run are used: a section of its report."""

from __future__ import annotations

from collections.abc import Sequence

from dfssd.reporting.sections import Lines
from dfssd.results.record import MaskRecord
from dfssd.segmentation.verdict import student_training

_GRID = 32
"""Ultralytics' smallest unit of image sizes [px]."""


def usage_section(record: MaskRecord) -> Lines:
    """What a user does with the ONNX file and with the checkpoint."""
    export, student = record.export, student_training(record)
    shape = export.input if export else None
    sides = list(shape[-2:]) if shape else [student.imgsz] if student else []
    lines = ["## How to use the files", ""]
    if shape:
        lines += _onnx_lines(record, sides)
    tested = record.test.get("student")
    ours = " wherever `dfssd` can be imported, since the network is a module of `dfssd`."
    lines.append(
        "`weights/student.pt` is an Ultralytics checkpoint, which `ultralytics.YOLO()` loads"
        + ("." if tested and tested.plain else ours)
    )
    return [*lines, *_size_lines(sides, bool(shape)), "Ultralytics and what is trained with it are under AGPL-3.0."]


def _onnx_lines(record: MaskRecord, sides: Sequence[int]) -> Lines:
    """The ONNX file: a command, and its input and output for a program."""
    export = record.export
    file = (export and export.file) or "weights/student.onnx"
    size = ",".join(str(side) for side in dict.fromkeys(sides))
    height, width = sides
    classes = record.data.classes if record.data else ()
    ids = f" ({', '.join(f'{i} {name}' for i, name in enumerate(classes))})" if classes else ""
    output = (
        f"(1, {height}, {width}), the class of each pixel{ids}"
        if export and export.answers == "ids"
        else f"(1, {len(classes) or 'nc'}, {height}, {width}), a logit for each class at full resolution; the class of "
        f"a pixel is the one with the largest logit{ids}"
    )
    return [
        "`deploy/` is what you hand over; `dfssd predict`, `dfssd serve`, and `deploy/infer.py` find boxes, not masks. "
        "The ONNX file does not need `dfssd`. In this folder, with `pip install ultralytics onnxruntime`, this draws "
        "the defects on each image:",
        "",
        "```",
        f"yolo predict task=semantic model={file} source=FOLDER_OF_IMAGES imgsz={size}",
        "```",
        "",
        f"In a program of your own: the input is RGB in [0, 1], float, (1, 3, {height}, {width}); the output is "
        f"{output}. An image of another shape is scaled to fit, centered, and padded with gray 114; crop the padding "
        "from the output.",
        "",
    ]


def _size_lines(sides: Sequence[int], exported: bool) -> Lines:
    """What Ultralytics does to a size that it cannot take."""
    rounded = next((side for side in sides if side % _GRID), None)
    if rounded is None:
        return []
    file = "; the ONNX file keeps its size." if exported else "."
    return [
        f'Note that `YOLO("weights/student.pt").predict()` rounds imgsz={rounded} up to '
        f"{-(-rounded // _GRID) * _GRID}, a multiple of {_GRID}{file}"
    ]
