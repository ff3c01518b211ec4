"""``dfssd serve``: find defects in images that are sent over HTTP, without torch where the model is an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from dfssd.commands.options import TRUSTING, Option, Usage
from dfssd.config.values import TEXT, UNIT, Number, optional
from dfssd.errors import UserError
from dfssd.process import trust_files

_NEEDS = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
    "limits": "limits",
    "starlette": "starlette",
}
"""Module -> package, of the extra ``serve``, which would bring PyTorch along where only a server is wanted."""

USAGE = Usage(
    (
        Option("model", TEXT, "student.onnx, another file that Ultralytics runs, or a run folder", required=True),
        Option("host", TEXT, "address to listen at; 0.0.0.0: all of this machine", default="127.0.0.1"),
        Option("port", Number(0, 65535, integer=True), "its port; 0: a free one, which is printed", default=8000),
        Option("conf", optional(UNIT), "lowest score of all classes; none: the thresholds in the file, else 0.25"),
        Option("token_file", optional(TEXT), "file with a token that every request must bear; none: it needs none"),
        Option("max_mb", Number(0, 1024, exclusive=True), "largest upload [MB]", default=32),
        Option(
            "max_megapixels",
            Number(1, 178, integer=True),
            "largest image [million pixels], told by its header before it is decoded",
            default=50,
        ),
        Option(
            "rate", optional(Number(1, integer=True)), "predictions of one client a minute; none: any", default=1200
        ),
        Option(
            "queue",
            Number(1, 4096, integer=True),
            "images that wait or are computed at once, once they have arrived; a further one is sent away (503)",
            default=32,
        ),
        Option(
            "batch",
            Number(1, 256, integer=True),
            "images that are computed at once, where the file takes as many (dynamic=true, or batch=, of an export)",
            default=8,
        ),
        Option(
            "wait_ms",
            Number(0, 1000),
            "how long a batch waits for another image [ms]; what has come during the last one goes together anyway",
            default=0,
        ),
        TRUSTING,
    ),
    positional=("model",),
    examples=(
        ("runs/dfssd", "the student of a run, for this machine alone: open http://127.0.0.1:8000 in a browser"),
        ("student.onnx host=0.0.0.0 token_file=token.txt", "for other machines, with a token"),
        ("student.onnx rate=none queue=64", "one client that sends as fast as it can"),
    ),
)


def run(words: Sequence[str], program: str) -> int:
    """Answer requests until Ctrl-C or SIGTERM.

    Args:
        words: Arguments ``key=value``.
        program: What was typed before the name of the command.
    """
    given = USAGE.read(words)
    if missing := [package for module, package in _NEEDS.items() if find_spec(module) is None]:
        raise UserError(f"dfssd serve needs {', '.join(missing)}: pip install {' '.join(missing)}")
    trust_files(given["trust"])
    from dfssd.serving.server import serve
    from dfssd.serving.settings import Settings, read_token

    settings = Settings(
        most_bytes=round(given["max_mb"] * 1e6),
        most_pixels=given["max_megapixels"] * 1_000_000,
        rate=given["rate"],
        queue=given["queue"],
        batch=given["batch"],
        wait=given["wait_ms"] / 1e3,
        token=read_token(given["token_file"]) if given["token_file"] else None,
    )
    serve(given["model"], settings, host=given["host"], port=given["port"], conf=given["conf"])
    return 0


def show_help(words: Sequence[str], program: str) -> None:
    """Print how it is used."""
    USAGE.show(
        f"{program} serve",
        "Answer requests over HTTP: an image in, OK or NG and the boxes out, as dfssd predict finds them. An ONNX\n"
        "file needs neither PyTorch nor Ultralytics. Images are neither written nor logged. Ctrl-C stops it.",
    )
