"""The recipe for masks, read top to bottom: prepare, teacher, self-train, baseline, student, test, export, report.

The teacher learns from the masks. The student learns from the masks and from the teacher's soft masks, of unlabeled
images as well; the baseline is the same network without a teacher, and ``compare`` trains others like it. What all
tasks share is in :mod:`dfssd.runs.stages`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfssd.config import Config
from dfssd.datasets.copies.twins import Leak, name_leak
from dfssd.datasets.data_state import write_state
from dfssd.datasets.masks.descriptions import MASKS_DIR
from dfssd.datasets.masks.splits import write_mask_split
from dfssd.errors import UserError
from dfssd.evaluation.bootstrap import Measured
from dfssd.evaluation.differences import differences
from dfssd.evaluation.export import Comparison
from dfssd.files import copy_atomically, write_text
from dfssd.inspection.report import Part, inspect_data
from dfssd.inspection.table import log_report
from dfssd.log import LOGGER
from dfssd.reporting.tables import csv_text
from dfssd.reporting.words import baseline_is_selected
from dfssd.results.record import MaskRecord
from dfssd.results.sections import (
    Latency,
    Leaks,
    MaskData,
    MaskExport,
    MaskScores,
    MaskTolerance,
    MaskTraining,
    Picture,
    Role,
    Status,
)
from dfssd.runs.checks import tell_idle_keys
from dfssd.runs.folder import RunFolder
from dfssd.runs.model_selection import select_better
from dfssd.runs.plan import PlannedStage
from dfssd.runs.stages import StagedRun
from dfssd.segmentation.checks import check_model, compared, must_train_teacher
from dfssd.segmentation.data import select
from dfssd.segmentation.metrics import PIXELS, PixelCounts, operate
from dfssd.segmentation.pictures import choose_pictures
from dfssd.segmentation.plan import plan_of
from dfssd.segmentation.rows import rows
from dfssd.segmentation.trainer import SemanticStageTrainer
from dfssd.segmentation.verdict import SCORES, headline
from dfssd.trainers.sampler import batch_composition
from dfssd.trainers.settings import SegmentationSettings

NAMED = 10
"""Leaking images that are named in the record; the files beside the split list all of them."""


class SegmentationRun(StagedRun):
    """A run that ends with a segmentation model."""

    STAGES = ("prepare", "teacher", "self-train", "baseline", "student", "test", "export", "report")
    TRAINING = MaskTraining
    EXPORT = MaskExport
    SCORES = SCORES
    record: MaskRecord

    def __init__(self, folder: RunFolder, config: Config):
        """Bind folder and configuration; nothing runs yet."""
        super().__init__(folder, config)
        self.others = {f"compare{i}": name for i, name in enumerate(compared(config), 1)}

    def prepare(self) -> Status:
        """Read the data, find twins in eight poses, split, and write the lists that all other stages use."""
        c = self.config
        selection = select(c)
        dataset, split = selection.dataset, selection.split
        write_state(self.splits, split, dataset)
        write_mask_split(split, dataset, self.splits)
        counts = {part: len(getattr(split, part)) for part in ("train_labeled", "train_unlabeled", "val", "test")}
        self.record.data = MaskData(
            name=dataset.name,
            classes=dataset.names,
            bits=dataset.depth,
            images=len(dataset.items),
            **counts,
            split=selection.kind,
            duplicates=selection.repeated,
            leaks=Leaks(
                test=len(selection.test_leaks),
                val=len(selection.val_leaks),
                named=tuple(name_leak(leak) for leak in selection.test_leaks[:NAMED]),
            ),
            left_out=len(split.left_out),
            skipped=tuple((str(path), reason) for path, reason in dataset.skipped),
            lists_read=(),
            warnings=dataset.account.warnings,
        )
        self.record.models = {role: c[role] for role in ("teacher", "student") if c[role] is not None}
        self.record.compare = self.others
        for part, leaks in (("test", selection.test_leaks), ("val", selection.val_leaks)):
            if leaks:
                lines = "".join(f"{name_leak(leak)}\n" for leak in leaks)
                write_text(self.splits / f"{part}_leaks.txt", lines)
        leaks_of: Mapping[Part, Sequence[Leak]] = {"val": selection.val_leaks, "test": selection.test_leaks}
        log_report(inspect_data(dataset, split, selection.groups, leaks=leaks_of))
        if selection.test_leaks:
            LOGGER.info(f"all of them: {self.splits / 'test_leaks.txt'}; for true scores: split=grouped")
        train = c["teacher"] is not None and must_train_teacher(c, dataset.names)
        tell_idle_keys(c, used_teacher=c["teacher"] is not None and not train, unlabeled=counts["train_unlabeled"])
        if c["teacher"] is not None:
            LOGGER.info(f"the teacher {'is trained on the masks' if train else 'knows the classes'}")
            if not counts["train_unlabeled"]:
                LOGGER.info("no unlabeled images: the student is distilled on the labeled ones alone")
        self.check_plan()
        return "done"

    def plan(self) -> list[PlannedStage]:
        """What the stages after ``prepare`` are going to do."""
        return plan_of(self)

    def check_plan(self) -> None:
        """Check the planned trainings, and that rectangles can be pasted if they are asked for.

        Raises:
            UserError: As for all tasks; or rectangles are to be pasted, and a batch holds a single unlabeled image.
        """
        super().check_plan()
        _, unlabeled = batch_composition(self.batch, self.unlabeled_share())
        if unlabeled == 1 and (asked := self.config.seg.cutmix):
            raise UserError(
                f"seg.cutmix={asked} needs two unlabeled images in a batch, and batch={self.batch} has one: "
                "raise batch or unlabeled_ratio, or leave seg.cutmix out"
            )

    def learns_from_unlabeled(self) -> bool:
        """Every student does; a run without one keeps the budget, so that other runs can reuse its baseline."""
        return True

    def _settings(self, batches_per_epoch: int, epochs: int, **changes: Any) -> SegmentationSettings:
        """Settings of a training of this length on the labels alone, with ``changes``."""
        labels_alone = SegmentationSettings(
            batches_per_epoch=batches_per_epoch,
            unlabeled_share=0.0,
            cpu_bf16=self.cpu_bf16,
            loader=self.config["loader"],
            unlabeled="",
            freeze_bn=False,
            val_every=self.val_every(batches_per_epoch, epochs),
            way=self.way,
            average=None,
            own_loggers=not self.config.trackers,
            teacher="",
            seg=replace(self.config.seg, kd=0.0),
            strong_view=0.0,
            selftest_steps=self.config["selftest_steps"],
        )
        return replace(labels_alone, **changes)

    def _student_settings(self, **changes: Any) -> SegmentationSettings:
        """Settings of a training as long as that of the student, on the labels alone, with ``changes``."""
        return self._settings(self.batches_per_epoch(), self.epochs, **changes)

    def _train_network(self, role: str, settings: SegmentationSettings, source: str, **budget: Any) -> None:
        """Train a network in that role; each batch is an optimizer step unless ``nbs`` accumulates several."""
        settings = replace(settings, average=self.average(source))
        self.train(role, SemanticStageTrainer, settings, model=source, nbs=self.nominal_batch(), **budget)

    def nominal_batch(self) -> int:
        """``nbs=``, or the batch itself."""
        return int(self.config.train.get("nbs", self.batch))

    def _distill(self, role: str, source: str, teacher: Path) -> None:
        """Train the network ``source`` in that role on the masks, and on all images by a teacher."""
        unlabeled = self.data.train_unlabeled > 0
        settings = self._student_settings(
            teacher=str(teacher),
            seg=self.config.seg,
            strong_view=float(self.config["strong_view"]),
            unlabeled_share=self.unlabeled_share(),
            unlabeled=str(self.splits / "train_unlabeled.txt") if unlabeled else "",
        )
        self._train_network(role, settings, source)

    def teacher(self) -> Status:
        """Use the teacher as it is, or train it on the masks."""
        c = self.config
        if c["teacher"] is None:
            return "skipped"
        source = check_model(c["teacher"], "teacher")
        if not must_train_teacher(c, self.data.classes):
            copy_atomically(Path(source), self.weights / "teacher.pt")
            return "reused"
        per_epoch, budget = self.teacher_budget()
        self._train_network("teacher", self._settings(per_epoch, budget["epochs"]), source, **budget)
        return "done"

    def train_round(self, number: int, teacher: Path) -> Path:
        """Train a network of the teacher's size as the student will be, by ``teacher``."""
        trained_here = must_train_teacher(self.config, self.data.classes)
        start = check_model(self.config["teacher"], "teacher") if trained_here else str(teacher)
        self._distill(f"teacher_round{number}", start, teacher)
        return self.weights / f"teacher_round{number}.pt"

    def val_score(self, weights: Path) -> float:
        """Validation mIoU of the defects."""
        from dfssd.segmentation.evaluate import evaluate_masks

        return evaluate_masks(weights, self.eval_settings("val"))["miou_fg"] or 0.0

    def baseline(self) -> Status:
        """Train the student's network, and those of ``compare``, on the masks only, for as many batches."""
        setting = self.config["baseline"]
        status: Status = "skipped"
        if setting is True:
            self._train_network("baseline", self._student_settings(), check_model(self.config["student"], "student"))
            status = "done"
        elif setting:
            self.take_baseline(setting)
            status = "taken over"
        for role, name in self.others.items():
            self._train_network(role, self._student_settings(), check_model(name, "compare"))
            status = "done"
        return status

    def student(self) -> Status:
        """Train the student on the masks and by the teacher; select it or the baseline as ``student.pt``."""
        self.record.guard = None
        if self.config["student_training"] == "skip":
            return "skipped"
        self._distill("student", check_model(self.config["student"], "student"), self.weights / "teacher.pt")
        select_better(self.weights, self.record, guarded=self.config["guard"])
        return "done"

    def test(self) -> Status:
        """Measure all networks on the test set, which no other stage reads, and time them side by side."""
        from ultralytics.data.utils import img2label_paths

        from dfssd.segmentation.evaluate import evaluate_masks, time_networks

        roles = ("teacher", "baseline", "student", "student_trained", *self.others)
        files = {role: file for role in roles if (file := self.weights / f"{role}.pt").exists()}
        folder = self.folder.path / "test"
        shutil.rmtree(folder, ignore_errors=True)
        self.start_beside("test")
        counts = {role: folder / role / PIXELS for role in files}
        on_val = {role: self.folder.path / "val" / role / PIXELS for role in files}
        for role, file in files.items():
            evaluate_masks(file, self.eval_settings("val"), counts_file=on_val[role])
        first = next(role for role in ("student", "baseline", *files) if role in files)
        evaluate_masks(files[first], self.eval_settings("test"), counts_file=counts[first])
        shown = self._shown(PixelCounts.read(counts[first]))
        drawn = {role: {image: folder / "masks" / role / _file_name(image) for image in shown} for role in files}
        self.record.test = {
            role: MaskScores.model_validate(
                evaluate_masks(file, self.eval_settings("test"), keep=drawn[role], counts_file=counts[role])
            )
            for role, file in files.items()
        }
        found = {role: PixelCounts.read(file) for role, file in counts.items()}
        self.record.operating = {
            role: operate(PixelCounts.read(on_val[role]), own, self.data.classes[1:], self.config["false_alarms"])
            for role, own in found.items()
        }
        self.record.differences = differences(
            self.record.test,
            found,
            ("miou_fg", "miou_all"),
            baseline_shipped=baseline_is_selected(self.record),
        )
        truth = img2label_paths(list(map(str, shown)), label_dir=MASKS_DIR, suffix=".png")
        self.record.pictures = tuple(
            Picture(
                image=str(image),
                truth=mask,
                masks={role: own[image].relative_to(self.folder.path).as_posix() for role, own in drawn.items()},
                said=said,
            )
            for (image, said), mask in zip(shown.items(), truth, strict=True)
        )
        timed = time_networks(files, imgsz=self.imgsz, device=self.device)
        self.record.latency = {role: Latency.model_validate(own) for role, own in timed.items()}
        write_text(self.folder.path / "segmentation.csv", csv_text(rows(self.record), show="{:.6g}".format))
        return "done"

    def _shown(self, counts: PixelCounts) -> dict[Path, str]:
        """Test images that the report shows, and what is to be seen there."""
        assert counts.line is not None
        images = self.inputs.listed("test")
        return {images[counts.line[number]]: said for number, said in choose_pictures(counts).items()}

    def comparison(self) -> Comparison:
        """Exported files are compared pixel by pixel."""
        from dfssd.segmentation.export import MaskComparison

        tolerance = MaskTolerance(score=self.config.parity.score, miou=self.config.parity.map)
        return MaskComparison(self.weights / "student.pt", tolerance)

    def export_section(self) -> dict[str, Any]:
        """The exported student; a network that cannot be exported is recorded as such."""
        try:
            return super().export_section()
        except UserError as e:  # some library networks cannot be exported; the scores still deserve a report
            LOGGER.error(f"export: {e}")
            return {"format": "onnx", "file": None, "passed": False, "failures": (str(e),)}

    def report(self) -> Status:
        """Write the report and its pictures from the recorded results."""
        self.folder.save()
        self.write_report(self.folder.path)
        return "done"

    @staticmethod
    def write_report(folder: Path) -> None:
        """Write the report of a run folder from what is recorded there."""
        from dfssd.segmentation.report import write_report

        write_report(folder)

    @staticmethod
    def measured(folder: Path, role: Role) -> Measured | None:
        """What a network of a run folder did on each test image; None if it is not recorded."""
        file = folder / "test" / role / PIXELS
        return PixelCounts.read(file) if file.is_file() else None

    def verdict(self) -> str:
        """Whether the teacher helped."""
        return headline(self.record)

    def show(self) -> None:
        """Print the result in a few lines."""
        from dfssd.segmentation.verdict import closing_table

        closing_table(self.record)


def _file_name(image: Path) -> str:
    """Folder and stem: stems repeat in the parts of a source, which a grouped split mixes."""
    return f"{image.parent.name}_{image.stem}.png"
