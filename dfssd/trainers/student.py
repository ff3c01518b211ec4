"""The student's trainer: mixed batches in, a :class:`DistillationPair` as the model, and a check that it learns.

The signal self-test exists because every published reference of this method trained without one of its terms and
nobody noticed: each term must be finite, non-zero and move the student, the teacher must not move, the adapters must.
"""

from __future__ import annotations

import json
import logging
import math
from typing import Any, cast

import torch
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from dfssd.datasets.semi import MixedDataset, PseudoLabelDataset, widen_tiles
from dfssd.distillation.pair import DistillationPair, state_hash
from dfssd.errors import UserError
from dfssd.trainers.stage import StageTrainer


def _not_about_teacher(record: logging.LogRecord) -> bool:
    """Log filter: Ultralytics says of each of the teacher's 180 tensors that it is frozen, as it should be."""
    return "Freezing layer 'teacher_model." not in str(record.msg)


class StudentTrainer(StageTrainer):
    """Trains the student on labelled and pseudo-labelled images under the guidance of a frozen teacher."""

    model: Any

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict | None = None, _callbacks: dict | None = None):
        """Build the stage trainer and hook the self-test into it."""
        super().__init__(cfg, overrides, _callbacks)
        self.records: dict[str, dict[str, list[float]]] = {}
        self.selftest: dict[str, Any] = {}
        self._batch_in_epoch = 0
        self._alive: dict[str, bool] = {}
        self._adapters: dict[str, torch.Tensor] = {}
        self._teacher_hash = ""
        self.add_callback("on_train_start", StudentTrainer._start_selftest)
        self.add_callback("on_train_epoch_start", StudentTrainer._start_epoch)
        self.add_callback("on_train_batch_end", StudentTrainer._check_signal)
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
        LOGGER.addFilter(_not_about_teacher)
        weights = ckpt = None
        if self.resume:
            weights, ckpt = load_checkpoint(self.model)
            student = self.get_model(cfg=weights.yaml, weights=weights.student_model, verbose=RANK in {-1, 0})
        else:
            super().setup_model()
            student = self.model
        student.args = self.args
        teacher, _ = load_checkpoint(self.settings.teacher)
        s = self.settings
        self.model = DistillationPair(
            teacher,
            student.to(self.device),
            terms=s.terms,
            layers=s.layers,
            unsup_weight=s.unsup_weight,
        )
        if weights is not None:
            self.model.projector.load_state_dict(weights.projector.state_dict())
        return ckpt

    def set_model_attributes(self) -> None:
        """Class count, names and arguments, on the pair and on the student, whose loss reads them."""
        super().set_model_attributes()
        student = self.pair.student_model
        student.nc, student.names, student.args = self.model.nc, self.model.names, self.model.args

    def build_optimizer(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        """The optimizer over student and adapters; the teacher is taken out of sight, so it can never be in it."""
        pair = self.pair
        teacher, pair.teacher_model = pair.teacher_model, None
        try:
            return super().build_optimizer(model, *args, **kwargs)
        finally:
            pair.teacher_model = teacher

    def build_train_dataset(self, labeled: Any) -> MixedDataset:
        """Labelled images plus, if there are any, the unlabelled ones with their pseudo-labels."""
        if not self.settings.unlabeled:
            return MixedDataset(labeled)
        unlabeled = PseudoLabelDataset(
            img_path=self.settings.unlabeled,
            imgsz=self.args.imgsz,
            batch_size=labeled.batch_size,
            augment=True,
            hyp=self.args,
            cache=self.args.cache or None,
            stride=labeled.stride,
            data={**self.data, "pseudo": self.settings.pseudo},
            task=self.args.task,
            prefix="unlabeled: ",
        )
        return MixedDataset(labeled, unlabeled)

    def preprocess_batch(self, batch: dict) -> dict:
        """Ultralytics' preprocessing; then take the ignore boxes (class ids from ``nc``) out of the labels."""
        batch["labeled"] = torch.tensor(batch["labeled"])
        batch = super().preprocess_batch(batch)
        kind = batch["cls"].view(-1) - self.data["nc"]
        ignore = kind >= 0
        batch["ignore_batch_idx"] = batch["batch_idx"][ignore]
        batch["ignore_bboxes"] = widen_tiles(batch["bboxes"][ignore], kind[ignore])
        for name in ("batch_idx", "bboxes", "cls"):
            batch[name] = batch[name][~ignore]
        pair = self.pair
        per_epoch = self.settings.batches_per_epoch
        pair.set_progress(self.epoch * per_epoch + self._batch_in_epoch, self.epochs * per_epoch, per_epoch)
        pair.probe = self._batch_in_epoch == 0 or self.batches_done < self.settings.selftest_steps
        self._batch_in_epoch += 1
        return batch

    def summary(self) -> dict[str, Any]:
        """The stage's summary, with the record of the distillation terms and the self-test under ``distill``."""
        terms = {}
        for name, (weight, schedule) in self.pair.weights.items():
            record = self.records[name]
            values, shares = record["by_epoch"], record["grad_share_by_probe"]
            terms[name] = {
                "weight": weight,
                "schedule": schedule,
                "first": values[0] if values else None,
                "last": values[-1] if values else None,
                "grad_share": sum(shares) / len(shares) if shares else None,
                **record,
            }
        return {**super().summary(), "distill": {"terms": terms, "selftest": self.selftest}}

    @staticmethod
    def _start_selftest(trainer: StudentTrainer) -> None:
        """Note the state that must not change (teacher) and the one that must (adapters)."""
        LOGGER.removeFilter(_not_about_teacher)
        pair = trainer.pair
        trainer.records = {name: {"by_epoch": [], "grad_share_by_probe": []} for name in pair.weights}
        if trainer.start_epoch and trainer.summary_file.exists():
            before = json.loads(trainer.summary_file.read_text(encoding="utf-8"))["distill"]["terms"]
            for name, record in trainer.records.items():
                for key in record:
                    record[key] = before.get(name, {}).get(key, [])[: None if "probe" in key else trainer.start_epoch]
        optimized = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
        adapters = dict(pair.projector.named_parameters())
        trainer.selftest = {
            "adapters_in_optimizer": all(id(p) in optimized for p in adapters.values()),
            "teacher_in_optimizer": any(id(p) in optimized for p in pair.teacher_model.parameters()),
        }
        if not trainer.selftest["adapters_in_optimizer"] or trainer.selftest["teacher_in_optimizer"]:
            raise UserError("self-test: the optimizer must hold every adapter and nothing of the teacher; it does not")
        trainer._adapters = {name: p.detach().clone() for name, p in adapters.items()}
        trainer._teacher_hash = state_hash(pair.teacher_model)

    @staticmethod
    def _start_epoch(trainer: StudentTrainer) -> None:
        trainer._batch_in_epoch = 0

    @staticmethod
    def _check_signal(trainer: StudentTrainer) -> None:
        """Record the gradient shares where they were measured; stop if a loss is not finite or a term moves nothing."""
        pair = trainer.pair
        if not pair.probe:
            return
        for name, norm in pair.gradients.items():
            value = pair.values.get(name)
            if not math.isfinite(norm) or (value is not None and not torch.isfinite(value)):
                what = "the YOLO loss" if value is None else f"term {name}"
                cure = "lr0" if value is None else f"{name}.weight or lr0"
                raise UserError(f"self-test: {what} is not finite in epoch {trainer.epoch + 1}; lower {cure}")
        total = sum(pair.gradients.values())
        for name, value in pair.values.items():
            norm = pair.gradients[name]
            trainer.records[name]["grad_share_by_probe"].append(norm / total if total > 0 else 0.0)
            trainer._alive[name] = trainer._alive.get(name, False) or (float(value) != 0 and norm > 0)
        if trainer.batches_done == trainer.settings.selftest_steps:
            trainer._judge_signal()

    def _judge_signal(self) -> None:
        """Stop if a term has not given the student any gradient so far."""
        dead = [name for name, alive in self._alive.items() if not alive]
        if dead:
            raise UserError(
                f"self-test: {', '.join(dead)} gave the student no gradient in the first {self.batches_done} "
                "batches; check that the teacher is trained, or switch the term off with weight=0"
            )
        self.selftest["checked_batches"] = self.batches_done
        self.selftest["terms_alive"] = sorted(self._alive)

    @staticmethod
    def _end_epoch(trainer: StudentTrainer) -> None:
        if "checked_batches" not in trainer.selftest:  # an epoch shorter than selftest_steps
            trainer._judge_signal()
        for name, record in trainer.records.items():
            value = float(trainer.tloss[name])
            # by position, since Ultralytics repeats an epoch after a loss that was not finite
            record["by_epoch"][trainer.epoch :] = [value if math.isfinite(value) else None]

    def save_model(self) -> Any:
        """The stage's checkpoint, written only while the teacher is the same bit for bit and the adapters learn.

        Checked before each checkpoint, so that no checkpoint exists, and none can be resumed or finished, that the
        check has not passed.
        """
        self.selftest["teacher_unchanged"] = state_hash(self.pair.teacher_model) == self._teacher_hash
        parameters = self.pair.projector.named_parameters()
        frozen = [name for name, p in parameters if torch.equal(p.detach(), self._adapters[name])]
        self.selftest["adapters_changed"] = not frozen
        if not self.selftest["teacher_unchanged"]:
            raise UserError("self-test: the teacher's weights changed during training; its result cannot be trusted")
        if frozen and self.epoch + 1 >= self.epochs:
            if self.ema.updates >= 2:
                raise UserError(f"self-test: adapters {', '.join(frozen)} did not change during training")
            # Ultralytics' first step has learning rate 0
            LOGGER.warning(f"only {self.ema.updates} optimizer step(s): nothing is learnt; raise epochs or lower nbs")
        return super().save_model()
