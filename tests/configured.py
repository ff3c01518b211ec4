"""Things that the package builds from a configuration, for tests: the defaults of ``cfg/default.yaml``, and changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from dfssd.config import Config, defaults
from dfssd.datasets import formats
from dfssd.datasets.masks import loading
from dfssd.datasets.preprocessing import Preprocess
from dfssd.datasets.records import DetectionSet, MaskSet
from dfssd.distillation.pair import DistillationPair
from dfssd.distillation.semi_loss import PLAIN
from dfssd.segmentation.losses import SegmentationLoss
from dfssd.segmentation.views import Views
from dfssd.trainers.settings import SegmentationSettings, StageSettings, StudentSettings

DEFAULTS = Config(own=defaults(), terms={}, train={})


def labels_alone(batches_per_epoch: int, **changes: Any) -> StageSettings:
    """Settings of a detector trained on its labels alone, validated after every epoch, with ``changes``."""
    plain = StageSettings.labels_alone(
        batches_per_epoch,
        cpu_bf16=False,
        loader=DEFAULTS["loader"],
        val_every=1,
        way="eager",
        average=None,
        own_loggers=True,
    )
    return replace(plain, **changes)


def student_settings(**changes: Any) -> StudentSettings:
    """Settings of a student without teacher and unlabeled images, its terms unscheduled, with ``changes``.

    Keys of the section ``pseudo`` are fields of ``labels``.
    """
    rule = {key: changes.pop(key) for key in DEFAULTS.section("pseudo") if key in changes}
    plain = StudentSettings(
        batches_per_epoch=1,
        unlabeled_share=0.0,
        cpu_bf16=False,
        loader=DEFAULTS["loader"],
        unlabeled="",
        freeze_bn=False,
        val_every=1,
        way="eager",
        average=None,
        own_loggers=True,
        pseudo="",
        labels=replace(DEFAULTS.pseudo, **{"weigh": False, **rule}),
        keep_thresholds=True,
        strong_view=0.0,
        unlabeled_mosaic=None,
        teacher="",
        layers=(),
        terms={},
        balance=False,
        coverage=PLAIN,
        unsup_weight=1.0,
        unsup_schedule="constant",
        labels_last=0.0,
        selftest_steps=3,
        guard=(),
        guard_patience=5,
    )
    return replace(plain, **changes)


def segmentation_settings(**changes: Any) -> SegmentationSettings:
    """Settings of a mask network trained on its labels alone, with ``changes``, also of the section ``seg``."""
    seg = {key: changes.pop(key) for key in DEFAULTS.section("seg") if key in changes}
    plain = SegmentationSettings(
        batches_per_epoch=1,
        unlabeled_share=0.0,
        cpu_bf16=False,
        loader=DEFAULTS["loader"],
        unlabeled="",
        freeze_bn=False,
        val_every=1,
        way="eager",
        average=None,
        own_loggers=True,
        teacher="",
        strong_view=0.0,
        seg=replace(DEFAULTS.seg, **{"kd": 0.0, **seg}),
        selftest_steps=3,
    )
    return replace(plain, **changes)


def segmentation_loss(**changes: float) -> SegmentationLoss:
    """The default loss of mask networks, with ``changes``."""
    seg = DEFAULTS.seg
    values = {name: getattr(seg, name) for name in ("ce", "dice", "boundary", "kd", "tau")}
    return SegmentationLoss(**{**values, **changes})


def views(**changes: Any) -> Views:
    """The default views of mask networks, with ``changes``."""
    return Views(**{"symmetries": DEFAULTS.seg.symmetries, "jitter": DEFAULTS.seg.jitter, **changes})


def pair(teacher: nn.Module, student: nn.Module, **changes: Any) -> DistillationPair:
    """A pair that compares the inputs of the heads, pseudo boxes as good as true ones, with ``changes``."""
    values: dict[str, Any] = {
        "layers": (),
        "unsup_weight": 1.0,
        "unsup_schedule": "constant",
        "labeler": None,
        "weigh_boxes": False,
        "balance": False,
        "coverage": PLAIN,
        "selected": False,
    }
    return DistillationPair(teacher, student, **{**values, **changes})


def load_dataset(source: str, data_dir: Path, **changes: Any) -> DetectionSet:
    """A data set with boxes, imported as the configuration asks, with ``changes``."""
    rules = {key: DEFAULTS[key] for key in ("labels", "resize_labels", "skip_bad", "missing_label")}
    return formats.load_dataset(source, data_dir, **{**rules, **changes})


def load_masks(source: str, data_dir: Path, **changes: Any) -> MaskSet:
    """A data set with masks, imported as the configuration asks, with ``changes``."""
    return loading.load_masks(source, data_dir, **{"skip_bad": DEFAULTS["skip_bad"], **changes})


def preprocess(**changes: Any) -> Preprocess:
    """No change to the pixels but ``changes``."""
    return replace(Preprocess(**DEFAULTS.section("preprocess")), **changes)
