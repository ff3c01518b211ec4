"""``review export``: choose images of a run and write them with the boxes that its networks have found."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfssd.datasets.copies.fingerprints import Fingerprints
from dfssd.datasets.copies.known import described_once
from dfssd.errors import UserError
from dfssd.files import write_text
from dfssd.log import LOGGER
from dfssd.review import RANDOM, REASONS
from dfssd.review.folders import new_folder
from dfssd.review.formats import FORMATS, Offer
from dfssd.review.names import ReviewNames
from dfssd.review.offered import write_offered
from dfssd.review.proposals import proposals
from dfssd.review.ranking import Choice, Ranking
from dfssd.review.run import ReviewedRun
from dfssd.trust.texts import in_table


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: The folder.
        offers: The images, in order.
        choices: Why each of them is there.
        candidates: Number of unlabeled images of the run.
        student: Whether the boxes of the student are among those offered.
    """

    folder: Path
    offers: tuple[Offer, ...]
    choices: tuple[Choice, ...]
    candidates: int
    student: bool


def export_review(
    run: ReviewedRun,
    out: Path,
    *,
    to: str,
    n: int,
    order: str,
    seed: int,
    conf: float | None,
    student: bool,
    device: str | None,
) -> Exported:
    """Write unlabeled images of a run for an annotation tool.

    Args:
        run: The run.
        out: Folder to make; must not exist, or be empty.
        to: One of :data:`dfssd.review.TOOLS`.
        n: Number of images; all if there are fewer.
        order: One of :data:`dfssd.review.ORDERS`.
        seed: Seed of the draw, and of the order of equally valuable images.
        conf: Lowest score of a box that is offered; None: that of the run, below which boxes are background.
        student: Ask the student, too, if there is one.
        device: Device of the student; None: that of the run.

    Raises:
        UserError: The run has not come far enough, has no unlabeled images, its data have changed, or the folder cannot
            be written.
    """
    teacher = run.teacher_boxes()
    if not teacher:
        raise UserError(f"{run.folder} has no unlabeled images: there is nothing to review")
    second = run.student_boxes([own.image for own in teacher], device) if student else None
    if student and second is None:
        LOGGER.info("there is no student yet: images are valued by the boxes of the teacher alone")
    found = [proposals(own, None if second is None else second[i]) for i, own in enumerate(teacher)]
    counts = np.zeros(len(run.names))
    for image in run.lists["train_labeled"]:
        np.add.at(counts, run.labels(image)[:, 0].astype(int), 1)
    lowest = run.thresholds.tau_low
    ranking = Ranking(found, run.names, run.class_thresholds(), lowest, counts, student=second is not None)
    rng = np.random.default_rng(seed)
    if order == RANDOM:
        choices = ranking.drawn(n, rng)
    else:
        labeled = run.lists["train_labeled"]
        hashes = Fingerprints.of(described_once([*labeled, *(own.image for own in teacher)], run.data_dir)).hashes
        choices = ranking.most_valuable(n, hashes[len(labeled) :], hashes[: len(labeled)], rng)
    names = ReviewNames(run.images)
    offers = []
    for rank, choice in enumerate(choices, 1):
        own = teacher[choice.index]
        offers.append(
            Offer(
                image=own.image,
                name=names.name(own.image, rank),
                size=(own.width, own.height),
                found=found[choice.index].above(lowest if conf is None else conf),
                value=choice.value,
                reason=choice.reason,
            )
        )
    _write(out, to, offers, choices, run.names)
    write_offered(run.folder, offers)
    return Exported(out, tuple(offers), tuple(choices), len(teacher), second is not None)


def _write(out: Path, to: str, offers: Sequence[Offer], choices: Sequence[Choice], names: Sequence[str]) -> None:
    with new_folder(out) as folder:
        FORMATS[to].write(folder, offers, names)
        for offer in offers:  # copies, since tools may turn or rewrite the images that they are given
            target = folder / FORMATS[to].images / offer.name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(offer.image, target)
        write_text(folder / REASONS, _table(offers, choices))


def _table(offers: Sequence[Offer], choices: Sequence[Choice]) -> str:
    """The reasons as CSV, a line per image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("rank", "name", "value", "disagreement", "uncertainty", "rarity", "novelty", "boxes", "reason", "image")
    writer.writerow(columns)
    for rank, (offer, choice) in enumerate(zip(offers, choices, strict=True), 1):
        numbers = (choice.value, choice.disagreement, choice.uncertainty, choice.rarity, choice.novelty)
        shown = ["" if number is None else f"{number:.3f}" for number in numbers]
        image = os.fsencode(offer.image).decode("utf-8", "backslashreplace")
        row = [rank, offer.name, *shown, len(offer.found), offer.reason, image]
        writer.writerow(map(in_table, row))
    return text.getvalue()
