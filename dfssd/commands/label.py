"""``dfssd label``: pseudo-labels of a large folder by trained networks, as Parquet files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfssd.commands.options import TRUSTING, Option, Usage, as_options, limit_files, limiting
from dfssd.config import KEYS
from dfssd.config.resolution import help_lines
from dfssd.config.sections import PseudoSection
from dfssd.config.values import TEXT, TEXTS, Number, OneOf, optional
from dfssd.errors import one_line
from dfssd.files import from_here
from dfssd.labeling.names import ENGINES, LARGEST, SERIAL
from dfssd.process import trust_files
from dfssd.reporting.tables import format_duration
from dfssd.wording import counted

COUNT = Number(1, integer=True)

RULE = [line for line in help_lines() if line.key in KEYS and KEYS[line.key].labels_folders]
"""The keys of a run that act here, with the same defaults."""

SAMPLE = 2000
"""Images of the first pass."""


def rule_of(given: Mapping[str, Any]) -> PseudoSection:
    """How boxes are found and become labels, by the keys of a run."""
    own = {line.key.partition(".")[2]: given[line.key] for line in RULE}
    return PseudoSection(mode="offline", weigh=False, teachers=(), **own)


USAGE = Usage(
    (
        Option("images", TEXT, "folder, with those below it, or a .txt with a path in each line", required=True),
        Option("model", TEXTS, "run (its student), .pt, or .safetensors; boxes of several are fused", required=True),
        Option("out", TEXT, "folder of the labels; the same line goes on in it", required=True),
        Option(
            "imgsz", optional(Number(32, LARGEST, integer=True)), "side of the input [px]; none: that of the training"
        ),
        Option("batch", COUNT, "images at once; a GPU takes more", default=16),
        Option("shard", COUNT, "images in a Parquet file; a worker makes one at a time", default=2000),
        Option("sample", COUNT, "images that fix the thresholds in a first pass", default=SAMPLE),
        Option("seed", Number(0, integer=True), "of the draw of the sample", default=0),
        Option("val", optional(TEXT), "labeled images for pseudo.precision, such as splits/val.txt of a run"),
        *as_options(RULE),
        Option("engine", OneOf(ENGINES), "in this process, or by actors of Ray", default=SERIAL),
        Option("workers", optional(COUNT), "actors of Ray; none: as many as there is room for"),
        Option("cpus", COUNT, "cores of an actor", default=1),
        Option("gpus", Number(0), "GPUs of an actor; 0.5: two share one", default=0),
        Option("device", optional(TEXT), "without Ray: cpu, 0, mps; none: a GPU if there is one"),
        *limiting("megapixels"),
        TRUSTING,
    ),
    positional=("images",),
    examples=(
        ("photos model=runs/dfssd out=labels", "a folder, by the student of a run"),
        (
            "photos model=runs/dfssd out=labels val=runs/dfssd/splits/val.txt pseudo.precision=0.9",
            "with thresholds at which nine of ten boxes are right on validation images",
        ),
        ("photos model=runs/dfssd out=labels engine=ray gpus=1 cpus=8", "on all GPUs of a Ray cluster"),
    ),
)


def run(words: Sequence[str], program: str) -> int:
    """Label what is not labeled yet; 2 if images cannot be read.

    Args:
        words: Arguments ``key=value``.
        program: What was typed before the name of the command.
    """
    given = limit_files(USAGE.read(words))
    trust_files(given.pop("trust"))
    from dfssd.labeling.request import Request
    from dfssd.labeling.run import label

    models = given["model"]
    request = Request(
        images=Path(given["images"]).expanduser(),
        models=[models] if isinstance(models, str) else models,
        out=Path(given["out"]).expanduser(),
        rule=rule_of(given),
        imgsz=given["imgsz"],
        batch=given["batch"],
        shard=given["shard"],
        sample=given["sample"],
        seed=given["seed"],
        val=None if given["val"] is None else Path(given["val"]).expanduser(),
        engine=given["engine"],
        workers=given["workers"],
        cpus=given["cpus"],
        gpus=given["gpus"],
        device=given["device"],
    )
    done = label(request)
    if done.made:
        rate = f" ({done.made / done.seconds:,.0f} images/s)" if done.seconds >= 1 else ""
        print(f"labeled {counted(done.made, 'image')} in {format_duration(done.seconds)}{rate}")
    else:
        print("all images have been labeled before")
    for name, threshold in done.thresholds.items():
        print(
            f"{one_line(name)}: {counted(done.accepted[name], 'label')} from a score of {threshold:.2f} on, "
            f"{counted(done.ignored[name], 'box')} below it ignored"
        )
    if done.unreadable:
        print(f"{counted(done.unreadable, 'image')} of {done.images:,} cannot be read; column problem says why")
    print(f"written to {from_here(request.out)}: shards/*.parquet, manifest.json")
    return 2 if done.unreadable else 0


def show_help(words: Sequence[str], program: str) -> None:
    """Print how it is used."""
    USAGE.show(
        f"{program} label",
        "Label a large folder by trained networks, as in pseudo=offline, and write Parquet files and a manifest.\n"
        "A first pass over a sample fixes the thresholds; then each file is made on its own, here or by actors of\n"
        "Ray, with the same result. The same line makes what is missing.",
    )
