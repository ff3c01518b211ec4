"""``dfssd predict``: find defects in images, videos, and streams, without torch where the model is an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence

from dfssd.commands.options import TRUSTING, Option, Usage, limit_files, limiting
from dfssd.config.values import BOOLEAN, TEXT, UNIT, Number, Special, is_one_line, optional
from dfssd.errors import one_line
from dfssd.process import trust_files
from dfssd.wording import counted

SOURCE = Special(
    "str | int | list",
    lambda v: (
        (
            bool(v)
            and all(
                (isinstance(one, int) and not isinstance(one, bool) and one >= 0)
                or (isinstance(one, str) and bool(one.strip()) and is_one_line(one))
                for one in (v if isinstance(v, list) else [v])
            )
        )
        or v == 0
    ),
    "must be an image, a folder, a glob, a list, a video, the number of a camera, the URL of a stream, or several",
    ([], "", -1, True, None, 0.5, ["a", ""]),
)

USAGE = Usage(
    (
        Option(
            "source",
            SOURCE,
            "image, folder, glob, .txt list, video, number of a camera, RTSP or HTTP stream; or several of these",
            required=True,
        ),
        Option("model", TEXT, "student.onnx, another file that Ultralytics runs, or a run folder", required=True),
        Option("out", optional(TEXT), "folder to write to; none: the next free runs/predict"),
        Option("conf", optional(UNIT), "lowest score of all classes; none: the thresholds in the file, else 0.25"),
        Option("save", BOOLEAN, "save drawn images; of videos and streams the frames that are NG", default=True),
        Option("every", Number(1, integer=True), "of so many frames of videos and streams, look at one", default=1),
        Option("overwrite", BOOLEAN, "overwrite the predictions of an earlier call in out", default=False),
        *limiting("megapixels"),
        TRUSTING,
    ),
    positional=("source",),
    examples=(
        ("photos model=runs/dfssd", "all images of a folder and the folders below it, by the student of a run"),
        ("source='line3/*.png' model=student.onnx out=seen conf=0.4", "a glob; boxes with a score of at least 0.4"),
        ("source=rtsp://camera/stream model=student.onnx every=5", "a stream, until it ends or Ctrl-C"),
    ),
)


def run(words: Sequence[str], program: str) -> int:
    """Find defects and write what was found; 2 if an image could not be read, the code of a signal before the end.

    Args:
        words: Arguments ``key=value``.
        program: What was typed before the name of the command.
    """
    given = limit_files(USAGE.read(words))
    trust_files(given.pop("trust"))
    from dfssd.deployment.predict import predict

    folder, summary = predict(**given)
    counts = summary.as_json()
    if summary.exit_code:
        print("interrupted; what was found until then is written")
    for name, problem in summary.unreadable:
        print(f"unreadable: {one_line(name)} ({problem})")
    boxes = ", ".join(f"{one_line(name)} {count}" for name, count in summary.boxes.most_common())
    print(
        f"{counted(summary.frames, 'image')}: {counts['OK']} OK, {counts['NG']} NG, {counts['unreadable']} unreadable"
        f"; {counted(summary.boxes.total(), 'box')}{f' ({boxes})' if boxes else ''}"
    )
    if summary.milliseconds:
        print(f"{counts['ms_median']:.1f} ms per image (median; 95 % within {counts['ms_p95']:.1f} ms)")
    print(f"written to {folder}: predictions.json, predictions.csv{', images/' if given['save'] else ''}")
    if summary.exit_code and not summary.live:
        return summary.exit_code
    return 2 if summary.unreadable else 0


def show_help(words: Sequence[str], program: str) -> None:
    """Print how it is used."""
    USAGE.show(
        f"{program} predict",
        "Find defects in images, videos, and streams, and say of each whether it is OK or NG. An ONNX file needs\n"
        "neither PyTorch nor Ultralytics. Writes predictions.json, predictions.csv, and drawn images.",
    )
