"""Training of a segmentation model, with or without a teacher: the stage trainer for Ultralytics' semantic task.

It differs from ``SemanticSegmentationTrainer`` in what :class:`~dfssd.trainers.stage.StageTrainer` adds (batches per
epoch, whole checkpoints, bf16 on CPUs), and in these:

* the loss is :class:`~dfssd.segmentation.losses.SegmentationLoss`, on labeled and unlabeled images in one batch;
* images keep their size if the stride of the network divides it, 200 px for a stride of 8: Ultralytics would round up
  to a multiple of 32;
* the best epoch is the one with the highest mean IoU of the defects, at the masks' own size;
* the learning rate can fall in steps.

The teacher never becomes part of the model: its logits come with the batch.
"""

from __future__ import annotations

import math
from copy import copy
from typing import Any, cast

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR
from ultralytics.models.yolo.semantic import SemanticSegmentationTrainer
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.checks import check_imgsz
from ultralytics.utils.torch_utils import unwrap_model

from dfssd.batches import Batch
from dfssd.distillation.forward import teacher_views
from dfssd.distributed import group
from dfssd.errors import UserError
from dfssd.segmentation.criterion import BatchLoss
from dfssd.segmentation.dataset import MaskDataset, MixedMaskDataset, UnlabeledDataset
from dfssd.segmentation.losses import SegmentationLoss
from dfssd.segmentation.mixing import draw, paste
from dfssd.segmentation.model import build_model, parameters
from dfssd.segmentation.selftest import SegmentationSelfTest
from dfssd.segmentation.teacher import SegmentationTeacher
from dfssd.segmentation.validator import MIOU_FG, MaskMetrics, MaskValidator
from dfssd.trainers.graphs import Pass
from dfssd.trainers.results_csv import read_results_csv
from dfssd.trainers.sampler import batch_composition
from dfssd.trainers.settings import SegmentationSettings
from dfssd.trainers.stage import StageTrainer

_GRID = 32
"""Ultralytics' smallest unit of image sizes [px]."""

VALIDATED = ("ce", "dice")
"""The losses that need nothing but the masks."""


def build_loss(settings: SegmentationSettings) -> SegmentationLoss:
    """The loss of a training.

    Raises:
        UserError: A value is out of range, distillation has no teacher, or unlabeled images no distillation.
    """
    seg = settings.seg
    if seg.kd and not settings.teacher:
        raise UserError("distillation (kd > 0) needs a teacher; name one, or set kd=0")
    if settings.unlabeled and not seg.kd:
        raise UserError("unlabeled images teach only through a teacher; set kd > 0, or leave them out")
    try:
        return SegmentationLoss(ce=seg.ce, dice=seg.dice, boundary=seg.boundary, kd=seg.kd, tau=seg.tau)
    except ValueError as e:
        raise UserError(str(e)) from e


def _stop_counting(model: torch.nn.Module) -> None:
    """Let the normalizations of a model in training not count their batches, an operator for each of them in a step.

    Only a normalization without momentum reads its counter; Ultralytics' moving average, which is what checkpoints
    hold, has counters of its own and never updates them.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.num_batches_tracked = None


class SemanticStageTrainer(StageTrainer, SemanticSegmentationTrainer):
    """Trains a segmentation model; a teacher, unlabeled images and the weights come from its settings.

    ``model`` may be anything that :func:`~dfssd.segmentation.model.build_model` takes; ``data`` is a semantic data YAML
    with ``masks_dir``.
    """

    SETTINGS = SegmentationSettings
    SCORE = MIOU_FG

    settings: SegmentationSettings
    model: Any
    selftest: SegmentationSelfTest  # from the start of the training on

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: dict | None = None, _callbacks: dict | None = None):
        """Build the stage trainer, check the settings, and load the teacher.

        Raises:
            UserError: The settings do not fit together, or the teacher does not fit the data.
        """
        super().__init__(cfg, overrides, _callbacks)
        self.batch_loss = build_loss(self.settings)
        if not self.data.get("masks_dir"):
            raise UserError(f"{self.args.data} has no entry masks_dir:; name the folder that holds the masks")
        s = self.settings
        self.teacher = SegmentationTeacher(s.teacher, self.data["names"], self.device) if s.seg.kd else None
        self.add_callback("on_pretrain_routine_end", SemanticStageTrainer._attach)
        self.add_callback("on_train_batch_end", SemanticStageTrainer._check_batch)
        self.add_callback("on_train_epoch_end", SemanticStageTrainer._check_epoch)

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """The model that ``cfg`` names, with ``weights`` as far as they fit."""
        model = build_model(cfg, self.data["nc"], self.data["names"])
        if weights is not None:
            model.load(weights, verbose=verbose)
        return model

    def set_model_attributes(self) -> None:
        """Class count, names and arguments; and the size of the images, before Ultralytics rounds it to 32."""
        super().set_model_attributes()
        stride = int(self.model.stride.max())
        self._size = check_imgsz(self.args.imgsz, stride=stride, floor=stride, max_dim=1), stride
        self.args.imgsz = self._rounded()  # else Ultralytics warns of a change that is undone

    def _rounded(self) -> int:
        """The size as Ultralytics rounds it [px]."""
        return math.ceil(self._size[0] / _GRID) * _GRID

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """The stage's loader, for images of the size that the network's own stride allows."""
        self.args.imgsz, self.stride = self._size
        return super().get_dataloader(dataset_path, batch_size, rank, mode)

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> MaskDataset:
        """Images with masks: our views in training, each in full otherwise."""
        return self._dataset(MaskDataset, img_path, augment=mode == "train", batch_size=batch, prefix=f"{mode}: ")

    def build_train_dataset(self, labeled: Any) -> MixedMaskDataset:
        """Images with masks plus, if there are any, those without."""
        if not self.settings.unlabeled:
            return MixedMaskDataset(labeled)
        size = labeled.batch_size
        path = self.settings.unlabeled
        return MixedMaskDataset(
            labeled, self._dataset(UnlabeledDataset, path, augment=True, batch_size=size, prefix="unlabeled: ")
        )

    def _dataset(self, kind: type[MaskDataset], path: str, *, augment: bool, **kwargs: Any) -> Any:
        seg = self.settings.seg
        return kind(
            img_path=path,
            imgsz=self.args.imgsz,
            augment=augment,
            hyp=self.args,
            rect=not augment,
            cache=self.args.cache or None,
            stride=self._size[1],
            pad=0.0,
            data={
                **self.data,
                "symmetries": seg.symmetries,
                "jitter": seg.jitter,
                "boundary": seg.boundary > 0,
                "strong_view": self.settings.strong_view,
            },
            task="semantic",
            **kwargs,
        )

    def preprocess_batch(self, batch: dict) -> dict:
        """The stage's preprocessing, the teacher's logits, and rectangles pasted into the unlabeled images.

        With the channels innermost, oneDNN (PyTorch 2.15) computes wrong weight gradients of dilated convolutions in
        bf16: off by half, or NaN. With rows innermost they are correct.
        """
        if self.teacher is not None:
            self.teacher.settle(self.device.type)
        batch = super().preprocess_batch(batch)
        if self.settings.cpu_bf16:
            batch["img"] = batch["img"].contiguous()
        if self.teacher is None:
            return batch
        _, unlabeled = batch_composition(len(batch["img"]), self.settings.unlabeled_share)
        if "weak_img" in batch:
            batch["weak_img"] = batch["weak_img"].float() / 255
        seen = teacher_views(cast(Batch, batch), len(batch["img"]) - unlabeled)
        batch["teacher_logits"] = self.stand_ins.get("teacher", self.teacher)(seen)
        if (probability := self.settings.seg.cutmix) and unlabeled:
            rng = np.random.default_rng((self.args.seed, group.rank(), self.epoch, self.batch_in_epoch))
            batch = paste(batch, draw(rng, unlabeled, batch["img"].shape[2:], probability))
        return batch

    def passes(self) -> dict[str, Pass]:
        """The passes of the teacher, if there is one, and of the network."""
        if self.teacher is None:
            return super().passes()
        return {"teacher": Pass(self.teacher, self.teacher.model, learns=False), **super().passes()}

    def obstacle(self) -> str:
        """Why the networks have to run eagerly: also for the layout of the images, see :meth:`preprocess_batch`."""
        return "in bf16 on CPUs the images keep their rows" if self.settings.cpu_bf16 else super().obstacle()

    def _setup_scheduler(self) -> None:
        """Steps instead of Ultralytics' schedule, if the settings have some; warm-up multiplies by the same factor."""
        steps, factor = self.settings.seg.lr_steps, self.settings.seg.lr_factor
        if not steps:
            super()._setup_scheduler()
            return
        self.lf = lambda epoch: factor ** sum(epoch >= max(1, round(share * self.epochs)) for share in steps)
        self.scheduler = LambdaLR(self.optimizer, lr_lambda=self.lf)

    def get_validator(self) -> MaskValidator:
        """A validator that compares at the masks' own size."""
        args = copy(self.args)
        args.imgsz = self._rounded()  # of no effect: the images come from the loader of the training
        validator = MaskValidator(self.test_loader, save_dir=self.save_dir, args=args, _callbacks=self.callbacks)
        validator.metrics = MaskMetrics(self.data["names"])
        return validator

    def is_validated(self, loss: str) -> bool:
        """The losses that compare with the masks; a validation has neither a teacher nor a distance map."""
        return loss in VALIDATED

    @staticmethod
    def _attach(trainer: SemanticStageTrainer) -> None:
        """Give the model its loss.

        Done after the moving average is made, which would copy it. The average gets a loss for validation, where there
        is neither a teacher nor a distance map.
        """
        model, loss = unwrap_model(trainer.model), trainer.batch_loss
        _stop_counting(model)
        auxiliary = getattr(model.model[-1], "aux_head", None) is not None
        model.criterion = BatchLoss(loss, auxiliary=auxiliary)
        weights = {name: loss.weights[name] for name in VALIDATED}
        if not any(weights.values()):  # a training by the teacher alone: show at least how well it fits the masks
            weights["ce"] = 1.0
        without_teacher = SegmentationLoss(**weights, boundary=0, kd=0, tau=loss.tau)
        trainer.ema.ema.criterion = BatchLoss(without_teacher, auxiliary=auxiliary)
        trainer.selftest = SegmentationSelfTest(model.criterion, trainer.teacher, steps=trainer.settings.selftest_steps)

    @staticmethod
    def _check_batch(trainer: SemanticStageTrainer) -> None:
        trainer.selftest.check_batch(trainer.epoch)
        trainer._check_losses()

    @staticmethod
    def _check_epoch(trainer: SemanticStageTrainer) -> None:
        """Check what is left of an epoch, before its validation and its checkpoint."""
        trainer.losses.read()
        trainer._check_losses()

    def _check_losses(self) -> None:
        """Stop at a loss that is not finite, as soon as it has been read."""
        if (back := self.losses.not_finite) is not None:
            raise UserError(
                f"the loss is not finite in batch {self.batches_done - back} of the training, epoch {self.epoch + 1}; "
                "start again with a lower lr0, or with amp=false"
            )

    def watch_state(self) -> dict[str, Any]:
        """What the self-test knows."""
        return {"selftest": self.selftest.state_dict()}

    def load_watch_state(self, state: dict[str, Any]) -> None:
        """Let it go on."""
        self.selftest.load_state_dict(state["selftest"])

    def check_before_checkpoint(self) -> None:
        """No checkpoint is written unless the self-test passes."""
        self.selftest.check_before_checkpoint()

    def summary(self) -> dict[str, Any]:
        """The stage's summary with ``losses``, the mean of each loss by epoch, and the self-test."""
        rows = read_results_csv(self.csv)
        losses = {
            name: {"weight": weight, "by_epoch": [float(row[f"train/{name}"]) for row in rows]}
            for name, weight in self.batch_loss.weights.items()
            if weight
        }
        size = {"imgsz": self.args.imgsz, "parameters": parameters(unwrap_model(self.model))}
        return {**super().summary(), **size, "losses": losses, "selftest": self.selftest.result}
