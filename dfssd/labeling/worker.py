"""What each worker does with its part of the images; it loads the networks once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.data.utils import img2label_paths

from dfssd.config.sections import PseudoSection
from dfssd.datasets.images.pixels import NOT_READ, UNREAD_SUFFIXES, read_pixels
from dfssd.datasets.preprocessing import Preprocess
from dfssd.errors import UserError
from dfssd.labeling.listing import Part, images_of
from dfssd.labeling.shards import file_of, write_shard
from dfssd.process import trust_files
from dfssd.pseudo_labels.fusion import fuse
from dfssd.pseudo_labels.labeling import labels_of, match_to_truth
from dfssd.pseudo_labels.records import ImagePrediction
from dfssd.pseudo_labels.teacher_inference import Inference, View, augmented_views, normalize_boxes
from dfssd.pseudo_labels.thresholds import ClassThresholds
from dfssd.trust.limits import Limits, set_limits

COUNT, JUDGE, LABEL = "count", "judge", "label"
"""What a part is for: the scores in it, its precision by labels, or its own labels."""

Answer = dict[str, Any]
"""What comes of a part, for JSON; see the methods of :class:`Worker`."""


@dataclass(frozen=True)
class Job:
    """What the workers need to know; it is sent to their machines.

    Attributes:
        models: Checkpoints, under paths that all machines have.
        names: Class names in id order, the same of all models.
        imgsz: Side of the input [px].
        batch: Images in a forward pass, at least.
        device: In Ultralytics' spelling, as a worker sees it.
        rule: How boxes are found, and which of them become labels.
        root: The folder that the names of the images start from.
        out: Folder of the labels.
        bits: That the camera uses in files with more than 8 of them.
        steps: What was done to the pixels of the training images when they were imported; None: nothing.
        limits: What a file may ask for.
        trust: Whether checkpoints may hold anything.
        threads: Threads that a worker computes with; None: as this process.
        shards: Number of shards; 0 in the first pass.
        thresholds: State of the thresholds; None in the first pass, which finds them.
        made_with: As of :func:`~dfssd.labeling.shards.write_shard`; empty in the first pass.
    """

    models: tuple[Path, ...]
    names: tuple[str, ...]
    imgsz: int
    batch: int
    device: str
    rule: PseudoSection
    root: Path
    out: Path
    bits: int
    steps: Preprocess | None
    limits: Limits
    trust: bool
    threads: int | None
    shards: int = 0
    thresholds: Mapping[str, Any] | None = None
    made_with: Mapping[str, str] | None = None


class Worker:
    """A process that works on parts, one after the other."""

    def __init__(self, job: Job):
        """Set this process up; the networks are loaded for the first image."""
        trust_files(job.trust)
        set_limits(job.limits)
        if job.threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(job.threads)
        self.job = job
        self.sizes: dict[Path, tuple[int, int]] = {}
        self.problems: dict[Path, str] = {}
        self.inference = Inference(
            job.models,
            augmented_views(job.imgsz) if job.rule.tta else (View(job.imgsz),),
            batch=job.batch,
            device=job.device,
            conf=job.rule.tau_low,
            iou=job.rule.iou,
            read=self._read,
            unreadable=self._note,
        )
        self.tasks: Mapping[str, Callable[[Part], Answer]] = {
            COUNT: self.count,
            JUDGE: self.judge,
            LABEL: self.label,
        }

    def __call__(self, task: str, part: Part) -> Answer:
        """Do one of the tasks."""
        self.sizes.clear()
        self.problems.clear()
        return self.tasks[task](part)

    def count(self, part: Part) -> Answer:
        """Count scores.

        ``batches``: for each batch of the images that can be read, the number of boxes and the sum of their scores by
        class (:meth:`ClassThresholds.count`).
        """
        counting = ClassThresholds.from_rule(len(self.job.names), self.job.rule)
        found = self._found(part)
        batches = []
        while together := list(itertools.islice(found, self.job.batch)):
            counts = counting.count(*(np.concatenate([getattr(p, k) for p in together]) for k in ("classes", "scores")))
            batches.append([column.tolist() for column in counts])
        return {"batches": batches, "unreadable": len(self.problems)}

    def judge(self, part: Part) -> Answer:
        """``classes``, ``scores``, ``correct`` of all boxes in labeled images (:func:`match_to_truth`).

        ``labeled`` is the number of images with a label file; the others count as free of defects.

        Raises:
            UserError: An image or its label file cannot be read.
        """
        found = list(self._found(part))
        for image, problem in self.problems.items():
            raise UserError(f"val: {image}: {problem}")
        images = [one.image for one in found]
        columns = match_to_truth(found, labels_of(images, len(self.job.names)))
        labeled = sum(Path(label).is_file() for label in img2label_paths([str(image) for image in images]))
        found_out = dict(zip(("classes", "scores", "correct"), (column.tolist() for column in columns), strict=True))
        return {**found_out, "labeled": labeled}

    def label(self, part: Part) -> Answer:
        """Write the shard; ``images``: their number."""
        job, names = self.job, part.names()
        assert job.thresholds is not None and job.made_with is not None
        files = [job.root / name for name in names]  # a list may name one twice
        found = {one.image: one for one in self._found(part)}
        write_shard(
            file_of(job.out, part.number, job.shards),
            names,
            {name: found[file] for name, file in zip(names, files, strict=True) if file in found},
            {name: self.problems[file] for name, file in zip(names, files, strict=True) if file in self.problems},
            ClassThresholds.from_state(dict(job.thresholds)),
            job.names,
            **job.made_with,
        )
        return {"images": part.count}

    def _found(self, part: Part) -> Iterator[ImagePrediction]:
        """What is found in the images that can be read, in their order; boxes of the files as they are."""
        for looks in self.inference.predict(images_of(part, self.job.root)):
            yield self._in_file(fuse(looks, score_floor=self.job.rule.tau_low))

    def _read(self, image: Path) -> np.ndarray:
        """The pixels as those of the training images were; several threads call it."""
        if image.suffix.lower() in UNREAD_SUFFIXES:
            raise UserError(NOT_READ)
        if not image.is_file():  # a pipe would be waited for
            raise UserError("is no regular file" if image.exists() else "does not exist")
        pixels, steps = read_pixels(image, self.job.bits), self.job.steps
        if steps is None:
            return pixels
        height, width = pixels.shape[:2]
        if problem := steps.problem((width, height)):
            raise UserError(problem)
        self.sizes[image] = width, height
        return steps.apply(pixels, None)[0]

    def _note(self, image: Path, problem: UserError) -> None:
        text = str(problem).removeprefix(f"{image}: ").partition("; restore it, or take")[0]
        self.problems[image] = text

    def _in_file(self, found: ImagePrediction) -> ImagePrediction:
        """Boxes of the changed pixels as boxes of the file."""
        steps = self.job.steps
        if steps is None:
            return found
        width, height = self.sizes[found.image]
        x, y, w, h = (found.boxes_xywhn * [found.width, found.height, found.width, found.height]).T
        corners = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
        boxes, kept = normalize_boxes(steps.back(corners, (width, height)), width, height)
        return replace(
            found,
            width=width,
            height=height,
            classes=found.classes[kept],
            scores=found.scores[kept],
            boxes_xywhn=boxes,
        )
