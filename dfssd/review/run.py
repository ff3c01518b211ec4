"""What a review needs of a run: its images and labels, and what its networks have found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dfssd.config import SEMANTIC, Config
from dfssd.datasets.data_state import check_state
from dfssd.datasets.label_files import read_label_file
from dfssd.datasets.records import DetectionSet, Item
from dfssd.datasets.splits import LISTS
from dfssd.datasets.yaml_files import labels_folder
from dfssd.errors import UserError
from dfssd.files import file_digest
from dfssd.hardware import check_device
from dfssd.pseudo_labels.files import read_pseudo_labels, read_thresholds, write_pseudo_labels
from dfssd.pseudo_labels.records import PseudoImage
from dfssd.pseudo_labels.thresholds import ClassThresholds
from dfssd.results.record import BoxRecord
from dfssd.runs.folder import RunFolder

SPLIT_OF = dict(zip(LISTS, ("train", "unlabeled", "val", "test"), strict=True))
"""List of a run -> split of a data set."""


@dataclass(frozen=True)
class ReviewedRun:
    """A detection run whose images are reviewed.

    Attributes:
        folder: The run folder.
        config: Its configuration.
        record: Its ``results.json``.
        lists: Its images by list (:data:`dfssd.datasets.splits.LISTS`).
    """

    folder: Path
    config: Config
    record: BoxRecord
    lists: Mapping[str, tuple[Path, ...]]

    @classmethod
    def open(cls, folder: Path) -> ReviewedRun:
        """Open a run folder.

        Raises:
            UserError: It is none, is a run with masks, has not divided its data yet, or its data have changed.
        """
        folder = Path(folder).expanduser().resolve()
        opened, config = RunFolder.open(folder)
        record = opened.record
        if config["task"] == SEMANTIC or not isinstance(record, BoxRecord):
            raise UserError(f"{folder} is a run with masks; a review is about boxes")
        if record.stage("prepare") is None:
            raise UserError(f"{folder} has not divided its data yet: dfssd resume={folder} goes on with it")
        check_state(folder / "splits", str(folder))
        lists = {name: tuple(_read_list(folder / "splits" / f"{name}.txt")) for name in LISTS}
        return cls(folder, config, record, lists)

    @property
    def names(self) -> tuple[str, ...]:
        """Class names in id order."""
        assert self.record.data is not None, "written by the stage prepare"
        return self.record.data.classes

    @property
    def images(self) -> list[Path]:
        """All images in any list."""
        return [image for name in LISTS for image in self.lists[name]]

    @property
    def data_dir(self) -> Path:
        """Folder of imported data sets, wherever this process was started: ``<data_dir>/<data set>/images/<image>``."""
        return self.lists["train_labeled"][0].parents[2]

    def labels(self, image: Path) -> np.ndarray:
        """(n, 5) rows [class id, x, y, w, h], xywh center format, 0-1, of an image in a list with labels."""
        return read_label_file(labels_folder(image.parent) / f"{image.stem}.txt", len(self.names))

    @cached_property
    def left_out(self) -> tuple[Path, ...]:
        """Unlabeled images that the run does not use: copies of labeled images, or of images in val or test."""
        try:
            summary = json.loads((self.folder / "splits" / "split.json").read_text(encoding="utf-8"))
            return tuple(map(Path, summary["left_out"]))
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise UserError(f"{self.folder / 'splits' / 'split.json'} cannot be read ({e}); restore it") from e

    def data_set(self) -> DetectionSet:
        """The images in their splits, and the labels that the run has used; hidden ones stay hidden."""
        items = (
            Item(image, None if split == "unlabeled" else self.labels(image), split)
            for name, split in SPLIT_OF.items()
            for image in self.lists[name]
        )
        assert self.record.data is not None, "written by the stage prepare"
        return DetectionSet(self.record.data.name, self.names, tuple(items))

    def teacher_boxes(self) -> list[PseudoImage]:
        """What the teacher has found on the unlabeled images.

        Raises:
            UserError: The run has not come that far, or makes no pseudo-labels.
        """
        stage = self.record.stage("pseudo-label")
        if stage is not None and stage.status == "skipped":
            raise UserError(
                f"{self.folder}: no teacher has looked at its unlabeled images; a review needs a run with a teacher "
                "and unlabeled images, such as recipe=dfssd"
            )
        return read_pseudo_labels(self.folder / "pseudo")

    @cached_property
    def thresholds(self) -> ClassThresholds:
        """The thresholds of the classes that the teacher knows."""
        return read_thresholds(self.folder / "pseudo")

    def class_thresholds(self) -> np.ndarray:
        """(nc,) the score from which a box of each class is accepted; for a class without one the lowest."""
        known = self.thresholds.thresholds()
        return np.concatenate([known, np.full(len(self.names) - len(known), self.thresholds.tau0)])

    def student_boxes(self, images: Sequence[Path], device: str | None) -> list[PseudoImage] | None:
        """What the student finds on the images; None if there is no student yet.

        Found once for each state of its weights, and kept in ``review/`` in the run folder.

        Args:
            images: The unlabeled images, in their order.
            device: Device in Ultralytics' spelling; None: that of the run.
        """
        if (kept := self._student_folder()) is None:
            return None
        if not kept.is_dir():
            from dfssd.pseudo_labels.teacher_inference import Inference, View  # late: torch and Ultralytics

            rule = self.config.pseudo
            student = Inference(
                [self.folder / "weights" / "student.pt"],
                [View(self.config.imgsz)],
                batch=self.config.batch,
                device=check_device(self.config.train.get("device") if device is None else device),
                conf=rule.tau_low,
                iou=rule.iou,
            )
            found = student.predict(images, "unlabeled images with the student")
            whole = ClassThresholds.from_rule(len(self.names), rule, self.class_thresholds())
            write_pseudo_labels(kept, [of_image for (of_image,) in found], whole, self.names)
        return read_pseudo_labels(kept)

    def known_student_boxes(self) -> list[PseudoImage] | None:
        """What :meth:`student_boxes` has found before; None if nobody has asked it."""
        kept = self._student_folder()
        return None if kept is None or not kept.is_dir() else read_pseudo_labels(kept)

    def _student_folder(self) -> Path | None:
        """Where the boxes of the student are kept, by the content of its weights; None without a student."""
        weights = self.folder / "weights" / "student.pt"
        return self.folder / "review" / f"student-{file_digest(weights)[:12]}" if weights.is_file() else None


def is_run(folder: Path) -> bool:
    """Whether a path is the folder of a run."""
    return (folder / "run.yaml").is_file()


def _read_list(file: Path) -> list[Path]:
    try:
        return [Path(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    except OSError as e:
        raise UserError(f"cannot read {file}: {e.strerror}; restore it, or start a new run") from e
