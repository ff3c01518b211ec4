"""``dfssd export``: formats of a finished run, compared with PyTorch, timed, and listed in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfssd.commands.options import Option, Usage
from dfssd.config.values import BOOLEAN, TEXT, Number, optional
from dfssd.errors import UserError

COUNT = Number(1, integer=True)

USAGE = Usage(
    (
        Option("run", TEXT, "folder of the run", required=True),
        Option("format", TEXT, "formats of Ultralytics, separated by commas; tensorrt is engine", default="onnx"),
        Option("half", BOOLEAN, "16 bits", default=False),
        Option("int8", BOOLEAN, "8 bits, calibrated on unlabeled training images", default=False),
        Option("dynamic", BOOLEAN, "accept inputs of any size and number", default=False),
        Option("nms", BOOLEAN, "suppress overlapping boxes inside the file", default=False),
        Option("batch", COUNT, "images at once", default=1),
        Option("opset", optional(Number(9, integer=True)), "version of ONNX' operators; none: the newest"),
        Option("simplify", BOOLEAN, "simplify the ONNX graph", default=True),
        Option("workspace", optional(Number(0, exclusive=True)), "memory of TensorRT [GiB]; none: its own choice"),
        Option("imgsz", optional(Number(32, integer=True)), "side of the input [px]; none: that of the run"),
        Option("device", optional(TEXT), "where formats are written that need a GPU; none: as in the run"),
    ),
    positional=("run",),
    examples=(
        ("runs/dfssd format=openvino,torchscript", "two formats beside ONNX"),
        ("runs/dfssd format=openvino int8=true", "8 bits, and what they cost"),
        ("runs/dfssd dynamic=true opset=17", "an ONNX file for inputs of any size"),
    ),
)


def run(words: Sequence[str], program: str) -> int:
    """Export and print what was found; 2 if a format could not be written or is outside its tolerance.

    Args:
        words: Arguments ``key=value``.
        program: What was typed before the name of the command.
    """
    given = USAGE.read(words)
    if given["half"] and given["int8"]:
        raise UserError("half=true and int8=true: a file has 16 bits or 8; leave one of them out")
    from dfssd.evaluation.export_formats import check_formats
    from dfssd.evaluation.export_options import FP16, FP32, INT8, ExportOptions
    from dfssd.hardware import check_device
    from dfssd.pipeline import open_finished

    formats = [name.strip().lower() for name in given["format"].split(",")]
    precision = FP16 if given["half"] else INT8 if given["int8"] else FP32
    names = ("opset", "dynamic", "nms", "batch", "simplify", "workspace")
    opened = open_finished(Path(given["run"]).expanduser())
    other_size = given["imgsz"] if given["imgsz"] != opened.imgsz else None
    options = ExportOptions(precision=precision, imgsz=other_size, **{name: given[name] for name in names})
    device = check_device(given["device"]) if given["device"] is not None else opened.device
    check_formats(formats, task=opened.record.TASK, device=device, options=options)
    settings = opened.eval_settings("test", imgsz=given["imgsz"], device=device)
    entries = opened.export_more(formats, options, settings)
    _show(entries, opened.record.measure)
    failures = [line for entry in entries for line in _failures(entry)]
    for line in failures:
        print(line)
    print(f"written to {opened.folder.path / 'deploy'}; manifest.json lists all files")
    return 2 if failures else 0


def _failures(entry: dict[str, Any]) -> list[str]:
    """A line for each reason why a format is missing or not as PyTorch."""
    if entry.get("error"):
        return [f"format={entry['format']}: {entry['error']}"]
    return [f"format={entry['format']}: {failure}" for failure in entry.get("failures", ())]


def _show(entries: Sequence[dict[str, Any]], measure: str) -> None:
    """Print the table of all formats that were written."""
    from rich.console import Console
    from rich.table import Table

    from dfssd.evaluation.exported import machine

    compared = ("max_box_diff_px", "max_score_diff", "differing_pixels")
    columns = [name for name in compared if any(entry.get(name) is not None for entry in entries)]
    heads = {"max_box_diff_px": "box edge (px)", "max_score_diff": "score", "differing_pixels": "pixels"}
    numbers = ("MB", measure, *(f"Δ {heads[name]}" for name in columns), "median ms", "95 % ms")
    table = Table("format", "bits", *numbers, box=None, pad_edge=False, title=machine(), title_justify="left")

    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    for entry in entries:
        if not entry.get("error"):
            table.add_row(
                "PyTorch" if entry["format"] == "torch" else entry["format"],
                entry["precision"],
                shown(entry.get("size_mb"), ".2f"),
                shown(entry.get("score"), ".4f"),
                *(shown(entry.get(name), ".2g") for name in columns),
                shown(entry.get("median_ms"), ".2f"),
                shown(entry.get("p95_ms"), ".2f"),
            )
    Console().print(table)


def show_help(program: str) -> None:
    """Print how it is used."""
    USAGE.show(
        f"{program} export",
        "Write the student of a finished run in other formats to the folder deploy/ of the run, compare each with\n"
        "PyTorch on the test images, box by box and by score, and time it.",
    )
