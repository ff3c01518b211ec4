"""``dfssd review``: images of a run to an annotation tool, and the reviewed labels back into a data set."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfssd.commands.options import TRUSTING, Option, Usage, command_line, limit_files, limiting
from dfssd.config.values import BOOLEAN, TEXT, TEXTS, UNIT, Number, OneOf, Special, optional
from dfssd.errors import UserError
from dfssd.log import LOGGER
from dfssd.review import ACCOUNT, BY_VALUE, ORDERS, REASONS, TOOLS
from dfssd.wording import counted

_DEVICE = Special(
    "str | int",
    lambda v: isinstance(v, (str, int)) and not isinstance(v, bool),
    "must be a device in Ultralytics' spelling, such as cpu or 0",
    (True, 0.5, [0, 1]),
)

EXPORT = Usage(
    (
        Option("run", TEXT, "folder of a run with a teacher and unlabeled images", required=True),
        Option("to", OneOf(TOOLS), f"the tool: {', '.join(TOOLS)}", required=True),
        Option("out", TEXT, "folder to make", required=True),
        Option("n", Number(1, integer=True), "number of images", default=200),
        Option("order", OneOf(ORDERS), "value: the most valuable images first; random: drawn, to compare", BY_VALUE),
        Option("seed", Number(0, integer=True), "of the draw, and between images of the same value", default=0),
        Option(
            "conf",
            optional(UNIT),
            "lowest score of a box that is shown; none: pseudo.tau_low of the run, below which a box is background",
        ),
        Option("student", BOOLEAN, "let the student look at the images, too, if there is one", default=True),
        Option("device", optional(_DEVICE), "device of the student; none: that of the run"),
        TRUSTING,
    ),
    positional=("run",),
    examples=(("runs/dfssd to=label-studio n=200 out=to_review", "the 200 most valuable images for Label Studio"),),
)

IMPORT = Usage(
    (
        Option("file", TEXTS, "what the tool has exported: a file, folder, or zip file, or several", required=True),
        Option("data", TEXT, "the run folder, whose division of the data is kept; or data= of a run", required=True),
        Option("out", TEXT, "folder to make: the data set of the next run", required=True),
        Option(
            "first",
            optional(Number(1, integer=True)),
            "only the first images of the export have been reviewed; the others stay unlabeled",
        ),
        Option("overwrite", BOOLEAN, "replace labels that an image has already; else they are kept", default=False),
        Option("skip_bad", BOOLEAN, "leave out annotations that cannot be used instead of stopping", default=False),
        Option(
            "names",
            optional(TEXTS),
            "class names in id order, old ones first, if some are new; none: those of the data",
        ),
        Option("unlabeled", optional(TEXTS), "additional unlabeled images, if data= is no run"),
        *limiting(),
    ),
    positional=("file",),
    examples=(("project-1.json data=runs/dfssd out=parts2", "labels from Label Studio, and those that the run had"),),
)


def run(words: Sequence[str], program: str) -> int:
    """Run ``export`` or ``import``, the first of the words.

    Args:
        words: Its name and its options.
        program: What was typed before them.
    """
    name = words[0] if words else ""
    if name not in PARTS:
        near = difflib.get_close_matches(name, PARTS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"write {program} review {' or '.join(PARTS)}{hint}")
    PARTS[name].work(PARTS[name].usage.read(words[1:]), program)
    return 0


def show_help(words: Sequence[str], program: str) -> None:
    """Print how both are used, or the one that ``words`` name."""
    named = {name: part for name, part in PARTS.items() if name in words[:1]}
    for number, (name, part) in enumerate((named or PARTS).items()):
        print("\n" * bool(number), end="")
        part.usage.show(f"{program} review {name}", part.summary)


def _export(values: Mapping[str, Any], program: str) -> None:
    from dfssd.process import prepare_process, trust_files

    prepare_process()
    trust_files(values["trust"])
    from dfssd.review.export import export_review
    from dfssd.review.formats import FORMATS
    from dfssd.review.run import ReviewedRun
    from dfssd.runs.ownership import Ownership

    reviewed, out = ReviewedRun.open(Path(values["run"])), Path(values["out"]).expanduser()
    device = None if values["device"] is None else str(values["device"])
    options = {key: values[key] for key in ("to", "n", "order", "seed", "conf", "student")}
    with Ownership(reviewed.folder):  # which keeps what the student has found, and what was offered
        done = export_review(reviewed, out, device=device, **options)
    by = Counter(by for offer in done.offers for by in offer.found.found_by)
    counts = {"both": "by both", "teacher": "by the teacher alone", "student": "by the student alone"}
    shown = ", ".join(f"{by[key]:,} {words}" for key, words in counts.items() if done.student or key == "teacher")
    form = FORMATS[values["to"]]
    LOGGER.info(f"{len(done.offers):,} of {counted(done.candidates, 'unlabeled image')}, order={values['order']}")
    LOGGER.info(f"{counted(sum(by.values()), 'box')}: {shown}")
    for number, offer in enumerate(done.offers[:3], 1):
        LOGGER.info(f"  {number}. {offer.name}: {offer.reason}")
    LOGGER.info(f"{out}: {form.files}, {REASONS} (why each image is on the list)")
    LOGGER.info(f"next: {form.next_step}")


def _import(values: Mapping[str, Any], program: str) -> None:
    from dfssd.review.loop import import_review

    values = limit_files(values)
    files = values["file"]
    options = {key: values[key] for key in ("first", "overwrite", "skip_bad", "names", "unlabeled")}
    out = Path(values["out"]).expanduser()
    done = import_review([files] if isinstance(files, str) else files, values["data"], out, **options)
    for note in done.notes:
        LOGGER.info(note)
    if done.unconfirmed:
        LOGGER.warning(f"{counted(done.unconfirmed, 'box')} with the score of a prediction: taken as confirmed")
    for what, number in sorted(done.merged.counts.items()):
        LOGGER.info(f"  {number:6,}  {what}")
    known, changes = done.compared.images, done.compared.changes
    if known:
        LOGGER.info(f"boxes in {counted(known, 'image')}, against those that were offered: {changes}")
        if changes.nothing:
            LOGGER.warning("no box was changed, added, or deleted: has a person looked at these images?")
    if unknown := done.compared.unknown:
        LOGGER.info(
            f"of {counted(unknown, 'image')} it is not known what was offered (data= is no run, or no export of it has "
            "kept them): what was moved, relabeled, added, or deleted there cannot be counted"
        )
    parts = ", ".join(f"{number:,} {part}" for part, number in done.merged.parts.items())
    LOGGER.info(f"{done.file}: images: {parts}; {ACCOUNT} says what became of each annotation")
    LOGGER.info(f"next: {command_line(program, done.keys)}")


@dataclass(frozen=True)
class Part:
    """One of the two ways.

    Attributes:
        usage: Its options.
        summary: What it does.
        work: Does it, with the values of all options, and the name of the program.
    """

    usage: Usage
    summary: str
    work: Callable[[Mapping[str, Any], str], None]


PARTS: Mapping[str, Part] = {
    "export": Part(
        EXPORT,
        "Write unlabeled images of a run for an annotation tool, with the boxes that teacher and student have found,\n"
        "as predictions with scores. The most valuable images come first; review.csv says why.",
        _export,
    ),
    "import": Part(
        IMPORT,
        "Make a data set of what a person has corrected and of the labels that there were. An image without boxes was\n"
        "seen and is free of defects. Your files are not changed.",
        _import,
    ),
}
"""Second word of the command -> what it does."""
