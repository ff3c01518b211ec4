"""The trainer of the stage ``pretrain``: a stage without labels, validation, and best epoch."""

from __future__ import annotations

import math
from typing import Any, cast

from torch import nn
from ultralytics.utils import DEFAULT_CFG
from ultralytics.utils.torch_utils import unwrap_model

from dfssd.config import DENSE, REGIONS
from dfssd.distributed import group
from dfssd.log import LOGGER
from dfssd.pretraining.features import TimmFeatures
from dfssd.pretraining.images import PlainImages
from dfssd.pretraining.model import NETWORK, PretrainingModel
from dfssd.pretraining.objectives import Features, ForeignParts, Objective
from dfssd.trainers.graphs import Pass
from dfssd.trainers.results_csv import columns_of
from dfssd.trainers.settings import PretrainSettings
from dfssd.trainers.stage import StageTrainer
from dfssd.trust.checkpoints import load_checkpoint

COLLAPSED = 0.01
"""Spread of the features (:func:`~dfssd.pretraining.objectives.spread`) below which all places look alike."""


LOSS = "train/"
"""How the columns of losses in ``results.csv`` begin."""


class NoImages:
    """Stands in for the loader of validation images, of which this stage must not see any."""

    dataset: tuple[Any, ...] = ()

    def __iter__(self) -> Any:
        raise RuntimeError("networks are not validated before they have learned from labels")

    def reset(self) -> None:
        """Nothing has been prepared."""


class RegionTrainer(StageTrainer):
    """Trains a detector by its own loss to find the regions that stand out, in all training images."""

    SETTINGS = PretrainSettings
    REGIONS = True
    """Whether the images come with these regions."""

    settings: PretrainSettings

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> PlainImages:
        """The images of the lists ``img_path``, with the views of all trainings."""
        return PlainImages(
            img_path=img_path,
            imgsz=self.args.imgsz,
            batch_size=batch,
            augment=True,
            hyp=self.args,
            cache=self.args.cache or None,
            stride=self.stride,
            data={**self.data, "regions": self.REGIONS},
            task=self.args.task,
            prefix="images: ",
        )

    def get_dataloader(self, dataset_path: Any, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """The stage's loader for training; none for validation."""
        return NoImages() if mode != "train" else super().get_dataloader(dataset_path, batch_size, rank, mode)

    def _is_validated(self) -> bool:
        return False

    def summary(self) -> dict[str, Any]:
        """The stage's summary, with the losses under ``pretraining``."""
        losses = {
            name.removeprefix(LOSS): [value if math.isfinite(value) else None for value in values]
            for name, values in columns_of(self.csv).items()
            if name.startswith(LOSS)
        }
        learned = {"method": self.settings.method, "images": len(self.train_loader.dataset), "losses": losses}
        return {**super().summary(), "pretraining": learned}


class ObjectiveTrainer(RegionTrainer):
    """Trains a detector up to its head by an objective over its feature maps."""

    REGIONS = False

    model: Any

    def __init__(
        self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict[str, Any] | None = None
    ):
        """Build the stage trainer."""
        super().__init__(cfg, overrides, _callbacks)
        self.add_callback("on_train_epoch_end", ObjectiveTrainer._look_at_features)

    @property
    def wrapped(self) -> PretrainingModel:
        """The model, without the wrapper of a multi-GPU training."""
        return cast(PretrainingModel, unwrap_model(self.model))

    def setup_model(self) -> Any:
        """The detector with its objective, fresh or from the checkpoint to resume; returns that checkpoint."""
        if isinstance(self.model, nn.Module):
            return None
        weights: Any = None
        ckpt = None
        if self.resume:
            weights, ckpt = load_checkpoint(self.model)
            network = self.get_model(cfg=weights.yaml, weights=weights.student_model, verbose=group.is_first())
        else:
            super().setup_model()
            network = self.model
        network.args = self.args
        network = network.to(self.device)
        self.model = PretrainingModel(network, self._objective(network))
        if weights is not None:
            self.model.projector.load_state_dict(weights.projector.state_dict())
        return ckpt

    def _objective(self, network: Any) -> Objective:
        head = network.model[-1]
        channels = [level[0].conv.in_channels for level in head.cv2]
        strides = [int(stride) for stride in head.stride]
        if self.settings.method == DENSE:
            return ForeignParts(channels, strides)
        source = TimmFeatures(self.settings.method).to(self.device)
        return Features(channels, strides, source, source.width)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Ultralytics' preprocessing of the images; the random numbers of the step follow from its number."""
        wrapped, number = self.wrapped, self.batch_in_epoch
        wrapped.seed(self.args.seed, group.rank(), self.epoch, number)
        wrapped.probe = number + 1 == self.settings.batches_per_epoch
        ready: dict[str, Any] = super().preprocess_batch({"img": batch["img"], "im_file": batch["im_file"]})
        wrapped.captured = self.stand_ins
        return ready

    def passes(self) -> dict[str, Pass]:
        """The pass of the network up to its head."""
        run = self.wrapped.passes[NETWORK]
        return {NETWORK: Pass(run, run.network, learns=True)}

    def summary(self) -> dict[str, Any]:
        """The stage's summary, with the spread of the features besides the losses."""
        summary = super().summary()
        return {**summary, "pretraining": {**summary["pretraining"], "spread": self.wrapped.spreads}}

    @staticmethod
    def _look_at_features(trainer: ObjectiveTrainer) -> None:
        """Tell when the features of all places have become alike."""
        spreads = trainer.wrapped.spreads
        if spreads and max(spreads) < COLLAPSED:
            LOGGER.warning(
                f"pretrain: the features of all places look alike (spread {max(spreads):.4f}), and no detector can be "
                "made of them: are the images blank, or is lr0 too high?"
            )


def trainer_of(method: str) -> type[RegionTrainer]:
    """The trainer for a value of ``pretrain``."""
    return RegionTrainer if method == REGIONS else ObjectiveTrainer
