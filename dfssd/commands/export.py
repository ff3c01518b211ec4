"""``dfssd export``: formats of a finished run, compared with PyTorch, timed, and listed in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfssd.commands.options import TRUSTING, Option, Usage
from dfssd.config.values import BOOLEAN, TEXT, TEXTS, Number, optional
from dfssd.deployment.folder import FOLDER
from dfssd.errors import UserError
from dfssd.files import from_here
from dfssd.process import trust_files
from dfssd.remedies import explain_storage

if TYPE_CHECKING:
    from dfssd.results.sections import LaterExport, OtherFormat

COUNT = Number(1, integer=True)

USAGE = Usage(
    (
        Option("run", TEXT, "folder of the run", required=True),
        Option("format", TEXTS, "formats of Ultralytics, separated by commas; tensorrt is engine", default="onnx"),
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
        TRUSTING,
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
    done = write_formats(USAGE.read(words))
    _show(done.exported, done.measure)
    failures = [line for one in done.exported.formats for line in _failures(one)]
    for line in failures:
        print(f"error: {line}")
    if any(one.file for one in done.exported.formats):
        print(f"written to {from_here(done.folder / FOLDER)}, and shown in report.html; manifest.json lists all files")
    return 2 if failures else 0


@dataclass(frozen=True)
class Written:
    """What an export has written.

    Attributes:
        folder: Folder of the run.
        measure: What the scores are.
        exported: PyTorch and the formats.
    """

    folder: Path
    measure: str
    exported: LaterExport


def write_formats(given: Mapping[str, Any]) -> Written:
    """Write formats of a finished run, as ``dfssd export`` and :meth:`dfssd.api.Run.export` do.

    Args:
        given: The values of all options, as :meth:`~dfssd.commands.options.Usage.check` returns them.

    Raises:
        UserError: Options that exclude each other or have no effect, formats that this machine cannot write, no
            finished run with a student, or another process that works in its folder. A format that fails while it is
            written is recorded instead.
    """
    if given["half"] and given["int8"]:
        raise UserError("half=true and int8=true: a file has 16 bits or 8; leave one of them out")
    from dfssd.evaluation.export_formats import check_formats
    from dfssd.evaluation.export_options import FP16, FP32, INT8, ExportOptions
    from dfssd.hardware import check_device
    from dfssd.log_file import logged_to
    from dfssd.pipeline import open_finished
    from dfssd.runs.ownership import Ownership

    trust_files(given["trust"])
    listed = [given["format"]] if isinstance(given["format"], str) else given["format"]
    formats = [name.strip().lower() for part in listed for name in part.split(",")]
    precision = FP16 if given["half"] else INT8 if given["int8"] else FP32
    names = ("opset", "dynamic", "nms", "batch", "simplify", "workspace")
    folder = open_finished(Path(given["run"]).expanduser()).folder.path
    with explain_storage(folder), Ownership(folder):
        opened = open_finished(folder)  # with what another export may just have added
        other_size = given["imgsz"] if given["imgsz"] != opened.imgsz else None
        options = ExportOptions(precision=precision, imgsz=other_size, **{name: given[name] for name in names})
        device = check_device(given["device"]) if given["device"] is not None else opened.device
        check_formats(formats, task=opened.record.TASK, device=device, options=options)
        settings = opened.eval_settings("test", imgsz=given["imgsz"], device=device)
        with logged_to(folder, f"dfssd export format={','.join(formats)} ({options.stem})", shown=False):
            exported = opened.export_more(formats, options, settings)
    return Written(folder, opened.record.measure, exported)


def _failures(one: OtherFormat) -> list[str]:
    """A line for each reason why a format is missing or not as PyTorch."""
    return [f"format={one.format}: {failure}" for failure in ([one.error] if one.error else one.failures)]


def _show(exported: LaterExport, measure: str) -> None:
    """Print the table of all formats that were written."""
    from rich.console import Console
    from rich.table import Table

    heads = {"max_box_diff_px": "box edge (px)", "max_score_diff": "score", "differing_pixels": "pixels"}
    columns = [name for name in heads if any(getattr(one, name) is not None for one in exported.formats)]
    numbers = ("MB", measure, *(f"Δ {heads[name]}" for name in columns), "median ms", "95 % ms")
    table = Table("format", "bits", *numbers, box=None, pad_edge=False, title=exported.machine, title_justify="left")

    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    for one in exported.formats:
        if not one.error:
            table.add_row(
                "PyTorch" if one.format == "torch" else one.format,
                one.precision,
                shown(one.size_mb, ".2f"),
                shown(one.score, ".4f"),
                *(shown(getattr(one, name), ".2g") for name in columns),
                shown(one.median_ms, ".2f"),
                shown(one.p95_ms, ".2f"),
            )
    Console().print(table)


def show_help(words: Sequence[str], program: str) -> None:
    """Print how it is used."""
    USAGE.show(
        f"{program} export",
        "Write the student of a finished run in other formats to the folder deploy/ of the run, compare each with\n"
        "PyTorch on the test images, box by box and by score, and time it.",
    )
