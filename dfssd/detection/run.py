"""The stages of a detector, from ``prepare`` to ``report``, in the order of :attr:`DetectionRun.STAGES`.

What all tasks share, and what an epoch is, is in :mod:`dfssd.runs.stages`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from dfssd.config import GROWN, Config
from dfssd.datasets.data_state import write_state
from dfssd.datasets.split_files import write_split
from dfssd.datasets.splits import check_new_labels, torn_groups
from dfssd.detection.checks import (
    has_teacher,
    known_classes,
    must_train_teacher,
)
from dfssd.detection.data import choose_split, copies_among, read_data
from dfssd.detection.forgetting import forgetting
from dfssd.detection.methods import METHODS, Method
from dfssd.detection.operating import measure
from dfssd.detection.plan import plan_of
from dfssd.detection.start import StartingWeights
from dfssd.detection.trainer import StudentTrainer
from dfssd.detection.verdict import SCORES, headline
from dfssd.distillation.compatibility import LABELERS, align_teacher, resolve_weights
from dfssd.distillation.growth import write_grown
from dfssd.distillation.semi_loss import Coverage
from dfssd.errors import UserError
from dfssd.evaluation.bootstrap import Measured
from dfssd.evaluation.detections import DETECTIONS, Detections
from dfssd.evaluation.differences import differences
from dfssd.evaluation.export import Comparison
from dfssd.files import copy_atomically
from dfssd.inspection.report import inspect_data
from dfssd.inspection.table import log_report
from dfssd.log import LOGGER
from dfssd.pseudo_labels.files import PREDICTIONS
from dfssd.reporting.words import baseline_is_selected
from dfssd.results.record import BoxRecord
from dfssd.results.sections import (
    SCRATCH,
    BoxData,
    BoxExport,
    BoxTolerance,
    PseudoLabels,
    Role,
    Status,
)
from dfssd.runs.checks import tell_idle_keys
from dfssd.runs.data import import_settings
from dfssd.runs.folder import RunFolder
from dfssd.runs.plan import PlannedStage
from dfssd.trainers.settings import StudentSettings
from dfssd.trainers.stage import StageTrainer


class DetectionRun(StartingWeights):
    """A run that ends with a detector."""

    STAGES = (
        "prepare", "pretrain", "teacher", "self-train", "pseudo-label", "baseline", "student", "test", "export",
        "report",
    )  # fmt: skip
    EXPORT = BoxExport
    SCORES = SCORES
    record: BoxRecord

    def __init__(self, folder: RunFolder, config: Config):
        """Bind folder and configuration; nothing runs yet."""
        super().__init__(folder, config)
        self.pseudo = folder.path / "pseudo"

    @property
    def method(self) -> Method:
        """How the student is trained."""
        return METHODS[self.config["student_training"]]

    @property
    def known_classes(self) -> int:
        """Number of the first classes that the teacher knew before this run; 0 if it learns them all."""
        return self.record.data.learnt_classes if self.record.data else 0

    def prepare(self) -> Status:
        """Read the data, find duplicates, split, and write the lists that all other stages use."""
        c = self.config
        dataset = read_data(c)
        known = known_classes(c, dataset.names)
        images = [item.image for item in dataset.items]
        copies = copies_among(c, dataset)
        split = choose_split(c, dataset, copies, known)
        if known and c["new_only"]:
            check_new_labels(dataset, split.train_labeled, known)
        write_state(self.splits, split, dataset, imported=import_settings(c))
        write_split(split, dataset, self.splits)
        counts = {part: len(getattr(split, part)) for part in ("train_labeled", "train_unlabeled", "val", "test")}
        torn = torn_groups(split, images, copies.families)
        self.record.data = BoxData(
            name=dataset.name,
            classes=dataset.names,
            bits=dataset.depth,
            learnt_classes=known,
            images=len(dataset.items),
            **counts,
            duplicates=len(images) - len(set(copies.families)),
            torn_duplicates=torn,
            left_out=len(split.left_out),
            skipped=tuple((str(path), reason) for path, reason in dataset.skipped),
            lists_read=(),
            warnings=dataset.account.warnings,
        )
        log_report(inspect_data(dataset, split, copies.families))
        if not counts["train_unlabeled"] and not c.terms and c["student_training"] == "distilled":
            raise UserError(
                "there is nothing to distill: no term is switched on and there are no unlabeled images; add a term, "
                "such as pkd.weight=1, or use recipe=baseline"
            )
        train = must_train_teacher(c, dataset.names)
        if known:
            old, new = dataset.names[:known], dataset.names[known:]
            LOGGER.info(f"the teacher knows {', '.join(old)}; new: {', '.join(new)}")
        elif not counts["train_unlabeled"]:
            LOGGER.info("no unlabeled images: the student is distilled on the labeled ones alone")
        if has_teacher(c) and not known:
            LOGGER.info(f"the teacher {'is trained on the labeled images' if train else 'knows all classes by name'}")
        used = has_teacher(c) and not known and not train
        tell_idle_keys(c, used_teacher=used, unlabeled=counts["train_unlabeled"])
        self.check_plan()
        return "done"

    def plan(self) -> list[PlannedStage]:
        """What the stages after ``prepare`` are going to do."""
        return plan_of(self, uses_pseudo_labels=self.method.uses_pseudo_labels)

    def learns_from_unlabeled(self) -> bool:
        """False for a grown network without terms and pseudo boxes."""
        c = self.config
        return c["student_training"] != GROWN or bool(c.terms) or c["unsup_weight"] > 0

    def teacher(self) -> Status:
        """Use the teacher as it is, in the class order of the data, or train it on the labeled images."""
        if not has_teacher(self.config):
            return "skipped"
        source = resolve_weights(self.config["teacher"], "teacher")
        if self.known_classes:
            copy_atomically(source, self.weights / "teacher.pt")
            names, seed = self.data.classes, self.config.seed
            write_grown(self.weights / "teacher.pt", names, self.weights / "before.pt", seed)
            return "reused"
        if not must_train_teacher(self.config, self.data.classes):
            align_teacher(source, self.data.classes, self.weights / "teacher.pt")
            return "reused"
        source = self.start("teacher")
        per_epoch, budget = self.teacher_budget()
        settings = self.labels_alone(source, per_epoch, budget["epochs"])
        self.train("teacher", StageTrainer, settings, model=source, **budget)
        return "done"

    def train_round(self, number: int, teacher: Path) -> Path:
        """Label the unlabeled images with ``teacher``, and train a network of its size by them and the terms."""
        folder = self.folder.path / f"pseudo_round{number}"
        if not (folder / PREDICTIONS).exists():
            self._label(teacher, folder)
        anew = self.config["student_start"] == "own" and must_train_teacher(self.config, self.data.classes)
        start = self.start("teacher") if anew else str(teacher)
        settings = self.student_settings(start, pseudo=folder, teacher=teacher, terms=self.config.terms, guard=())
        self.train(f"teacher_round{number}", StudentTrainer, settings, model=start)
        return self.weights / f"teacher_round{number}.pt"

    def val_score(self, weights: Path) -> float:
        """Validation mAP50-95."""
        from dfssd.detection.evaluate import evaluate

        where = self.folder.path / "train" / f"val_{weights.stem}"
        return evaluate(weights, self.eval_settings("val"), save_dir=where)["map50_95"] or 0.0

    def _label(self, teacher: Path, folder: Path) -> PseudoLabels:
        """Let a teacher, and the extra ones, label the unlabeled images; the files go to ``folder``."""
        from dfssd.pseudo_labels.labeling import label_images

        names = self.data.classes[: self.known_classes or None]
        weights = [teacher]
        for number, extra in enumerate(self.config.pseudo.teachers, 1):
            weights.append(self.weights / f"extra_teacher{number}.pt")
            align_teacher(resolve_weights(extra, LABELERS), names, weights[-1])
        found = label_images(
            weights,
            self.inputs.listed("train_unlabeled"),
            folder,
            names=names,
            imgsz=self.imgsz,
            batch=self.batch,
            device=self.device,
            val=self.inputs.listed("val"),
            n_label_classes=len(self.data.classes),
            rule=self.config.pseudo,
        )
        return PseudoLabels.model_validate(found)

    def pseudo_label(self) -> Status:
        """Let the teacher label the unlabeled images, in three zones by class thresholds.

        Done for ``pseudo=online`` as well: the online thresholds start from those found here, and a teacher that
        detects nothing is noticed before a student is trained.
        """
        self.record.pseudo_labels = None
        c = self.config
        wanted = self.method.uses_pseudo_labels and has_teacher(c) and self.learns_from_unlabeled()
        if not wanted or not self.inputs.listed("train_unlabeled"):
            return "skipped"
        found = self.record.pseudo_labels = self._label(self.weights / "teacher.pt", self.pseudo)
        if found.accepted and found.starved:
            LOGGER.warning(f"no box was accepted for: {', '.join(found.starved)}")
        return "done"

    def baseline(self) -> Status:
        """Train the same student on the labeled images only, with as many batches as the student gets.

        Where it was pretrained, a second one starts without that and shows what it was worth; that one may be the
        baseline of another run.
        """
        setting = self.config["baseline"]
        if setting is False:
            return "skipped"
        taken = {} if setting is True else self.take_baseline(setting)
        starts = {"baseline": self.start("student")}
        if self.config["pretrain"]:
            starts[SCRATCH] = resolve_weights(self.config["student"], "student")
        missing = {name: source for name, source in starts.items() if name not in taken}
        for name, source in missing.items():
            settings = self.labels_alone(source, self.batches_per_epoch(), self.epochs)
            self.train(name, StageTrainer, settings, model=source)
        return "done" if missing else "taken over"

    def student_settings(
        self, start: str, *, pseudo: Path, teacher: Path, terms: Any, guard: Any, selected: bool = False
    ) -> StudentSettings:
        """Settings of a training on labeled and unlabeled images, of the network ``start``.

        ``selected``: that is a part of its teacher.
        """
        c = self.config
        unlabeled = self.data.train_unlabeled > 0 and self.learns_from_unlabeled()
        frozen = has_teacher(c)
        patience, every = c["guard_patience"], self.val_every(self.batches_per_epoch(), self.epochs)
        return StudentSettings(
            batches_per_epoch=self.batches_per_epoch(),
            unlabeled_share=self.unlabeled_share(),
            cpu_bf16=self.cpu_bf16,
            loader=c["loader"],
            unlabeled=str(self.splits / "train_unlabeled.txt") if unlabeled else "",
            pseudo=str(pseudo) if unlabeled and frozen else "",
            labels=c.pseudo,
            # scores of fused boxes are lower than those of the single pass in training
            keep_thresholds=not c.pseudo.tta and not c.pseudo.teachers,
            strong_view=float(c["strong_view"]),
            unlabeled_mosaic=c["unlabeled_mosaic"],
            teacher=str(teacher) if frozen else "",
            layers=() if c["layers"] == "auto" else tuple(c["layers"]),
            terms={k: dict(v) for k, v in terms.items()},
            balance=c["balance"] == "auto",
            coverage=Coverage(new_only=c["new_only"], old_boxes=c["old_boxes"], unlabeled_old=c["unlabeled_old"]),
            freeze_bn=c["freeze_bn"],
            val_every=every,
            way=self.way,
            average=self.average(start, selected=selected),
            own_loggers=not self.config.trackers,
            unsup_weight=c["unsup_weight"],
            unsup_schedule=c["unsup_schedule"],
            labels_last=float(c["labels_last"]),
            selftest_steps=c["selftest_steps"],
            guard=tuple(guard),
            guard_patience=max(3 * every, math.ceil(self.epochs / 10)) if patience == "auto" else patience,
            selected=selected,
        )

    def student(self) -> Status:
        """Train the student with the teacher and the unlabeled images; select it or the baseline as ``student.pt``."""
        self.record.guard = None
        return self.method.train(self)

    def test(self) -> Status:
        """Measure teacher, baseline and student on the test set, which no other stage reads.

        Thresholds come from the validation images.
        """
        self.start_beside("test")
        tested = ("teacher", "baseline", SCRATCH, "student", "student_trained")
        files = {name: self.weights / f"{name}.pt" for name in tested}
        if self.known_classes:  # with rows for the classes that it does not know
            files["teacher"] = self.weights / "before.pt"
        measured = {
            role: measure(
                file, self.eval_settings, self.folder.path, role, self.data.classes, self.config["false_alarms"]
            )
            for role, file in files.items()
            if file.exists()
        }
        self.record.test = {role: own.scores for role, own in measured.items()}
        self.record.operating = {role: own.operating for role, own in measured.items()}
        self.record.differences = differences(
            self.record.test,
            {role: own.detections for role, own in measured.items()},
            ("map50_95", "map50"),
            baseline_shipped=baseline_is_selected(self.record),
        )
        if self.known_classes:
            self.record.incremental = forgetting(self.record.test, self.data.classes, self.known_classes)
        return "done"

    def comparison(self) -> Comparison:
        """Exported files are compared box by box."""
        from dfssd.detection.export import BoxComparison

        parity = self.config.parity
        tolerance = BoxTolerance(box_px=parity.box_px, score=parity.score, map50_95=parity.map)
        return BoxComparison(self.weights / "student.pt", tolerance, self.folder.path / "test" / "export")

    def report(self) -> Status:
        """Write the report and its pictures from the recorded results."""
        self.folder.save()
        self.write_report(self.folder.path)
        return "done"

    @staticmethod
    def write_report(folder: Path) -> None:
        """Write the report of a run folder from what is recorded there."""
        from dfssd.detection.report import write_report

        write_report(folder)

    @staticmethod
    def measured(folder: Path, role: Role) -> Measured | None:
        """What a network of a run folder did on each test image; None if it is not recorded."""
        file = folder / "test" / role / DETECTIONS
        return Detections.read(file) if file.is_file() else None

    def verdict(self) -> str:
        """What the unlabeled images, or the teacher, brought."""
        return headline(self.record)

    def show(self) -> None:
        """Print the result in a few lines."""
        from dfssd.detection.verdict import closing_table

        closing_table(self.record)
