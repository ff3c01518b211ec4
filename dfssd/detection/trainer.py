"""The student's trainer: mixed batches, a :class:`DistillationPair` as the model, and three monitors.

The signal self-test checks that every term gives a gradient and that the teacher is frozen, the health meter counts the
pseudo-labels of each epoch, and the guard compares the student with the baseline at the same epoch.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils import LOGGER as ULTRALYTICS
from ultralytics.utils.torch_utils import unwrap_model

from dfssd.batches import LoadedBatch, decode
from dfssd.detection.selftest import SignalSelfTest
from dfssd.distillation.balance import MOST, is_due
from dfssd.distillation.forward import round_weights
from dfssd.distillation.growth import same_old_rows
from dfssd.distillation.pair import DistillationPair, for_inference
from dfssd.distributed import group
from dfssd.errors import UserError
from dfssd.evaluation.significance import noise_of
from dfssd.log import LOGGER
from dfssd.pseudo_labels.files import read_thresholds
from dfssd.pseudo_labels.meter import HealthMeter
from dfssd.pseudo_labels.online import OnlineLabeler
from dfssd.pseudo_labels.thresholds import ClassThresholds
from dfssd.trainers.graphs import Pass
from dfssd.trainers.guard import Guard
from dfssd.trainers.mixed_data import MixedDataset, PseudoLabelDataset
from dfssd.trainers.settings import StudentSettings
from dfssd.trainers.stage import StageTrainer
from dfssd.trust.checkpoints import load_checkpoint


def _hide_frozen_teacher(record: logging.LogRecord) -> bool:
    """Log filter for Ultralytics' notes that it freezes the teacher's 180 tensors, one line each."""
    return "Freezing layer 'teacher_model." not in str(record.msg)


class StudentTrainer(StageTrainer):
    """Trains the student on labeled and pseudo-labeled images with a teacher.

    The teacher is a frozen network, or (``settings.teacher`` empty) the moving average of the student itself, which
    Ultralytics keeps anyway for validation: the mean teacher (arXiv:1703.01780).
    """

    SETTINGS = StudentSettings

    model: Any
    settings: StudentSettings
    selftest: SignalSelfTest  # from the start of the training on

    def __init__(
        self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict[str, Any] | None = None
    ):
        """Build the stage trainer and attach self-test, health meter and guard."""
        if overrides and overrides.get("resume"):  # Ultralytics reads the checkpoint before the settings are
            self.SETTINGS.read(overrides["save_dir"])
        super().__init__(cfg, overrides, _callbacks)
        self.guard = Guard(
            self.settings.guard,
            noise=0.0,
            patience=self.settings.guard_patience,
            every=self.settings.val_every,
        )
        self.meter = HealthMeter(list(self.data["names"].values()))
        self.health: list[dict[str, Any]] = []
        self.labels_added: list[float] = []
        self._added = self._labeled = 0
        self._truth = np.zeros((0, 7))
        self._followed: tuple[Any, list[torch.Tensor], list[torch.Tensor]] | None = None
        self._unlabeled_in_batch = 0
        self._labels_alone = False
        self.add_callback("on_train_start", StudentTrainer._start_watch)
        self.add_callback("on_train_epoch_start", StudentTrainer._start_epoch)
        self.add_callback("on_train_batch_end", StudentTrainer._end_batch)
        self.add_callback("on_train_epoch_end", StudentTrainer._end_epoch)

    @property
    def pair(self) -> DistillationPair:
        """The model, without the wrapper of a multi-GPU training."""
        return cast(DistillationPair, unwrap_model(self.model))

    def setup_model(self) -> Any:
        """The pair, fresh or from the checkpoint to resume; returns that checkpoint, as Ultralytics expects.

        Ultralytics would wrap the student in its own ``DistillationModel`` later on, but leaves a model that is one
        already alone; its freezing, EMA and saving rules then hold for ours.
        """
        if isinstance(self.model, torch.nn.Module):
            return None
        ULTRALYTICS.addFilter(_hide_frozen_teacher)
        weights = ckpt = None
        if self.resume:
            weights, ckpt = load_checkpoint(self.model)
            student = self.get_model(cfg=weights.yaml, weights=weights.student_model, verbose=group.is_first())
        else:
            super().setup_model()
            student = self.model
        student.args = self.args
        s = self.settings
        student = student.to(self.device)
        teacher = for_inference(load_checkpoint(s.teacher)[0]) if s.teacher else copy.deepcopy(student)
        self.model = DistillationPair(
            teacher,
            student,
            terms=s.terms,
            layers=s.layers,
            unsup_weight=s.unsup_weight,
            unsup_schedule=s.unsup_schedule,
            labeler=self._labeler(),
            weigh_boxes=s.labels.weigh,
            balance=s.balance,
            coverage=s.coverage,
            selected=s.selected,
        )
        grown = self.model.known < self.data["nc"]
        if grown and weights is None and not same_old_rows(student, self.model.teacher_model):
            raise UserError("the old classes' rows of the student are not those of the teacher: was it grown from it?")
        if weights is not None:
            self.model.projector.load_state_dict(weights.projector.state_dict())
        return ckpt

    def _labeler(self) -> OnlineLabeler | None:
        """The source of pseudo boxes during the training; None if all of them were made before."""
        s = self.settings
        if not (s.unlabeled or s.coverage.old_boxes) or s.labels.mode == "offline":
            return None
        if s.pseudo and s.keep_thresholds:
            thresholds = read_thresholds(Path(s.pseudo))
        else:
            thresholds = ClassThresholds.from_rule(self.data["nc"], s.labels)
        return OnlineLabeler(thresholds, iou=s.labels.iou)

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """The stage's loader; labeled images alone once the batches hold no others."""
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode == "train" and self._labels_alone:
            loader.sampler.labeled_only()
        return loader

    def set_model_attributes(self) -> None:
        """Class count, names and arguments, on the pair and on the student, whose loss reads them."""
        super().set_model_attributes()
        student = self.pair.student_model
        student.nc, student.names, student.args = self.model.nc, self.model.names, self.model.args

    def build_optimizer(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """The optimizer over student and adapters; the teacher is hidden meanwhile, so it can never be in it."""
        pair = self.pair
        teacher, pair.teacher_model = pair.teacher_model, None
        try:
            return super().build_optimizer(model, *args, **kwargs)
        finally:
            pair.teacher_model = teacher

    def build_train_dataset(self, labeled: Any) -> MixedDataset:
        """Labeled images plus, if there are any, the unlabeled ones with their pseudo-labels."""
        if not self.settings.unlabeled:
            return MixedDataset(labeled)
        views = copy.copy(self.args)
        if self.settings.unlabeled_mosaic is not None:
            views.mosaic = self.settings.unlabeled_mosaic
        unlabeled = PseudoLabelDataset(
            img_path=self.settings.unlabeled,
            imgsz=self.args.imgsz,
            batch_size=labeled.batch_size,
            augment=True,
            hyp=views,
            cache=self.args.cache or None,
            stride=labeled.stride,
            data={
                **self.data,
                "pseudo": "" if self.settings.labels.mode == "online" else self.settings.pseudo,
                "strong_view": self.settings.strong_view,
                "mosaic": views.mosaic,
            },
            task=self.args.task,
            prefix="unlabeled: ",
        )
        return MixedDataset(labeled, unlabeled)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Ultralytics' preprocessing and :func:`dfssd.batches.decode`; sets the progress in the pair."""
        pair = self.pair
        per_epoch = self.settings.batches_per_epoch
        pair.set_progress(self.epoch * per_epoch + self.batch_in_epoch, self.epochs * per_epoch, per_epoch)
        early = self.batches_done < self.settings.selftest_steps
        pair.probe = early or (is_due(pair.progress[0]) if pair.balance else self.batch_in_epoch == 0)
        views = {name: batch[name] for name in ("img", "weak_img") if name in batch}
        loaded = {**batch, **super().preprocess_batch(views)}  # the boxes stay on the host
        ready, truth = decode(cast(LoadedBatch, loaded), nc=self.data["nc"])
        self._truth = truth[truth[:, 5] < pair.known]
        self._unlabeled_in_batch = len(ready["labeled"]) - int(ready["labeled"].sum())
        self._labeled += len(ready["labeled"]) - self._unlabeled_in_batch
        pair.captured = self.stand_ins
        return cast(dict[str, Any], ready)

    def passes(self) -> dict[str, Pass]:
        """The passes of teacher and student; none in a step that measures gradients, which need several ways back."""
        if self.pair.probe:
            return {}
        return {name: Pass(one, one.network, learns=not one.frozen) for name, one in self.pair.passes.items()}

    @property
    def precision(self) -> torch.dtype | None:
        """The half precision of the steps; None for full precision."""
        if self.settings.cpu_bf16 or self.args.amp == "bf16":
            return torch.bfloat16
        return torch.float16 if self.amp and self.device.type == "cuda" else None

    def summary(self) -> dict[str, Any]:
        """The stage's summary, with the record of the distillation terms and the self-test under ``distill``."""
        labeler = self.pair.labeler
        distill = {
            "terms": self.selftest.terms(),
            "selftest": self.selftest.result,
            "guard": {**self.guard.state_dict(), "noise": self.guard.noise, "patience": self.guard.patience},
            "health": self.health,
            "labels_added": self.labels_added,
            "starved": [n for n in self.meter.names if self.health and not any(h[f"class/{n}"] for h in self.health)],
            "thresholds": labeler.thresholds.state_dict() if labeler else None,
            "balance": self.pair.balance.state_dict() if self.pair.balance else None,
        }
        return {**super().summary(), "distill": distill}

    @staticmethod
    def _start_watch(trainer: StudentTrainer) -> None:
        """Start self-test, meter and guard."""
        ULTRALYTICS.removeFilter(_hide_frozen_teacher)
        pair = trainer.pair
        # the teacher gives boxes of the classes that it knows
        trainer.meter = HealthMeter(list(trainer.data["names"].values())[: pair.known])
        trainer._follow_student()
        frozen = bool(trainer.settings.teacher)
        copied = same_old_rows(pair.student_model, pair.teacher_model)  # before the teacher's weights are rounded
        if frozen and (precision := trainer.precision) is not None:
            round_weights(pair.teacher_model, precision)
        trainer.selftest = SignalSelfTest(
            pair,
            trainer.optimizer,
            steps=trainer.settings.selftest_steps,
            frozen=frozen,
            same_start=copied or not frozen,
        )
        instances = sum(len(label["cls"]) for label in trainer.test_loader.dataset.labels)
        trainer.guard.noise = noise_of(instances)

    def watch_state(self) -> dict[str, Any]:
        """What self-test, meter, guard, thresholds, and balance know."""
        pair = self.pair
        return {
            "selftest": self.selftest.state_dict(),
            "guard": self.guard.state_dict(),
            "health": self.health,
            "labels_added": self.labels_added,
            "thresholds": pair.labeler.thresholds.state_dict() if pair.labeler else None,
            "balance": pair.balance.state_dict() if pair.balance else None,
        }

    def load_watch_state(self, state: dict[str, Any]) -> None:
        """Let them go on."""
        self.selftest.load_state_dict(state["selftest"])
        self.guard.load_state_dict(state["guard"])
        self.health, self.labels_added = state["health"], state["labels_added"]
        if self.pair.labeler:
            self.pair.labeler.thresholds.load_state_dict(state["thresholds"])
        if self.pair.balance:
            self.pair.balance.load_state_dict(state["balance"])

    def _follow_student(self) -> None:
        """Make the teacher the moving average of the student, if it is one."""
        if self.settings.teacher or self.ema is None:
            return
        average = self.ema.ema.student_model
        if self._followed is None or self._followed[0] is not average:
            own, theirs = average.state_dict(), self.pair.teacher_model.state_dict()
            self.pair.teacher_model.load_state_dict(own)
            names = [name for name, value in own.items() if value.is_floating_point()]  # the others are never averaged
            self._followed = (average, [theirs[name] for name in names], [own[name] for name in names])
        with torch.no_grad():
            torch._foreach_copy_(*self._followed[1:])

    @staticmethod
    def _start_epoch(trainer: StudentTrainer) -> None:
        """Apply the guard's decision after the last epoch, in all processes alike; end with the labels alone."""
        trainer._follow_student()  # Ultralytics may have gone back to an earlier epoch after a NaN loss
        trainer._added = trainer._labeled = 0
        trainer.meter.reset()
        trainer.guard.level = group.from_first(trainer.guard.level)  # only the first process validates
        trainer.pair.trust = trainer.guard.factor
        before = trainer._labels_alone
        last = round(trainer.settings.labels_last * trainer.epochs)
        trainer._labels_alone = trainer.guard.factor == 0 or trainer.epoch >= trainer.epochs - last
        if trainer._labels_alone and not before:  # a loader rebuilt later starts as this one ends
            sampler = trainer.train_loader.sampler
            sampler.labeled_only()
            sampler.epoch = trainer.begun
            trainer.train_loader.reset()

    @staticmethod
    def _end_batch(trainer: StudentTrainer) -> None:
        """Check the signal, let a moving-average teacher follow, and count the batch's pseudo boxes."""
        trainer.selftest.check_batch(trainer.epoch, trainer.batches_done)
        trainer._follow_student()
        pair, images = trainer.pair, trainer._unlabeled_in_batch
        trainer._added += pair.added
        if images and pair.labels is not None:
            trainer.meter.add_batch(pair.labels, images, pair.agreement, trainer._truth)

    def is_validated(self, loss: str) -> bool:
        """The YOLO loss on true boxes alone: a validation has neither unlabeled images nor a teacher."""
        return not loss.startswith("u_") and loss not in self.pair.weights

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Ultralytics' row of ``results.csv`` with the health of the pseudo-labels; then the guard judges."""
        health = self.meter.record() if self.settings.unlabeled else {}
        if health:
            LOGGER.debug(self.meter.line())
            if health["accepted"] == 0 and self.pair.trust:
                LOGGER.warning("no pseudo box was accepted in this epoch: the unlabeled images gave the student no box")
            self.health[self.epoch :] = [health]
        columns = {f"pseudo/{k}".replace(",", " "): float("nan") if v is None else v for k, v in health.items()}
        if self.pair.balance:
            columns |= {f"weight/{name}": self.pair.weight(name) for name in self.pair.weights}
        super().save_metrics(metrics={**metrics, **columns})
        judged = self.fitness is not None
        if judged and (line := self.guard.step(self.epoch, float(self.metrics.get("metrics/mAP50-95(B)", 0.0)))):
            LOGGER.warning(line)

    @staticmethod
    def _end_epoch(trainer: StudentTrainer) -> None:
        trainer.selftest.end_epoch(trainer.epoch, trainer.tloss, trainer.batches_done)
        trainer.meter.share(group.total)
        if trainer.settings.coverage.old_boxes:
            added, labeled = group.total(np.array([trainer._added, trainer._labeled])).tolist()
            trainer.labels_added[trainer.epoch :] = [added / max(1, labeled)]
            if trainer.epoch + 1 >= trainer.epochs and not any(trainer.labels_added):
                LOGGER.warning("old_boxes=true had no effect: the teacher found no box that it is sure of")
        if (balance := trainer.pair.balance) and (capped := balance.held_back()):
            LOGGER.warning(
                f"balance=auto: {', '.join(capped)} would need more than {MOST:g} times the configured weight to reach "
                "the share; the weight is capped there"
            )

    def check_before_checkpoint(self) -> None:
        """No checkpoint is written unless the self-test passes."""
        self.selftest.check_before_checkpoint(last=self.epoch + 1 >= self.epochs, updates=self.ema.updates)
