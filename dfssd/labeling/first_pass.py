"""The first pass: what a sample of the images says about the threshold of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.errors import UserError
from dfssd.labeling.engines import Engine
from dfssd.labeling.listing import parts_of, root_of, write_listing, write_sample
from dfssd.labeling.worker import COUNT, JUDGE, Answer, Job
from dfssd.log import LOGGER
from dfssd.pseudo_labels.thresholds import ClassThresholds, precision_thresholds
from dfssd.wording import counted

SAMPLE, VAL = "sample.jsonl", "val.jsonl"
"""Lists of the images of the first pass."""

BATCHES = 8
"""Batches in a part: small, so that the workers end together."""


def find_thresholds(
    engine: Engine, job: Job, listing: Path, *, total: int, size: int, seed: int, val: Path | None
) -> tuple[ClassThresholds, dict[str, Any]]:
    """Find the threshold of each class.

    As for the labels of a run (:func:`dfssd.pseudo_labels.labeling.label_images`), but from a part of the images: the
    averages are updated batch by batch, in the order of the list; with ``precision``, the thresholds of classes with
    enough detections on labeled images are those that reach it there.

    Args:
        engine: Works on the parts.
        job: Without thresholds.
        listing: The list of all images.
        total: Number of all images.
        size: Images to draw.
        seed: Of the draw.
        val: Labeled images, with ``precision``; else None.

    Returns:
        The thresholds, and what is known of the sample: ``images``, ``unreadable``, ``boxes`` {class: number}.

    Raises:
        UserError: A labeled image or its label cannot be read.
    """
    rule, fixed = job.rule, None
    if val is not None and rule.precision is not None:
        write_listing(val, job.out / VAL, "val")
        judged = _in_order(engine, replace(job, root=root_of(val)), JUDGE, job.out / VAL)
        labeled = sum(answer["labeled"] for answer in judged)
        if not labeled:
            raise UserError(
                f"val={val}: none of its images has a label file, such as labels/1.txt beside images/1.png: give "
                "images with labels, or leave val and pseudo.precision out"
            )
        LOGGER.info(f"{counted(labeled, 'image')} of val with labels; one without a label file is free of defects")
        classes, scores, correct = (
            np.concatenate([np.array(answer[key], kind) for answer in judged])
            for key, kind in (("classes", np.int64), ("scores", np.float64), ("correct", bool))
        )
        fixed = precision_thresholds(
            classes, scores, correct, len(job.names), precision=rule.precision, tau_low=rule.tau_low
        )
    drawn = write_sample(listing, total, size, seed, job.out / SAMPLE)
    thresholds, boxes = ClassThresholds.from_rule(len(job.names), rule, fixed), np.zeros(len(job.names), np.int64)
    of_sample = _in_order(engine, job, COUNT, job.out / SAMPLE)
    for count, score in (one for answer in of_sample for one in answer["batches"]):
        boxes += np.array(count)
        thresholds.add(np.array(count), np.array(score))
    return thresholds, {
        "images": drawn,
        "unreadable": sum(answer["unreadable"] for answer in of_sample),
        "boxes": dict(zip(job.names, boxes.tolist(), strict=True)),
    }


def _in_order(engine: Engine, job: Job, task: str, listing: Path) -> Sequence[Answer]:
    """What comes of each part of a list, in its order."""
    parts = parts_of(listing, job.batch * BATCHES)
    answers = {part.number: answer for part, answer in engine.work(job, task, parts)}
    return [answers[part.number] for part in parts]
