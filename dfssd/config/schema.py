"""Every key of the configuration, described once.

A key of ours has its default and its meaning in ``cfg/default.yaml`` and one row here: its values, its scope, and what
depends on it. Arguments of Ultralytics need a row only where this package treats them in its own way. No other module
lists keys: they query this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dfssd.config.values import (
    BOOLEAN,
    CACHE,
    CROP,
    FREEZE,
    LABELED,
    LAYERS,
    NAME,
    SHARES,
    SPLIT_RATIO,
    STEPS,
    TEXT,
    TEXTS,
    UNIT,
    Check,
    Number,
    OneOf,
    Or,
    Special,
    optional,
    several_of,
)

DETECT, SEMANTIC = "detect", "semantic"
"""The tasks, as Ultralytics calls them: boxes, and a class for each pixel."""

GROWN = "grown"
"""The ``student_training`` in which a trained teacher gets rows for new classes."""

REGIONS, DENSE = "regions", "dense"
"""The values of ``pretrain`` that need no foundation model."""

HIGHEST_THRESHOLD = 0.9
"""Highest score threshold that ``pseudo.precision`` may set: few detections score higher, so a class would get no boxes
above it."""

ALIASES = {
    "teacher_model": "teacher",
    "student_model": "student",
    "dataset": "data",
    "threshold": "pseudo.tau0",
    "pseudo": "pseudo.mode",
}
"""Spellings of the original project, and a short form -> our keys."""

TERM_OPTIONS: Mapping[str, Any] = {"weight": 0.0, "schedule": "constant", "share": 0.2}
"""Options that every distillation term has besides those in its own signature, with their defaults."""

TERM_MEANINGS: Mapping[str, str] = {
    "weight": "Weight of the term beside the YOLO loss; 0: it is switched off.",
    "schedule": "How the weight changes during the training.",
    "share": "With balance=auto: its gradient as a share of that of the YOLO loss.",
}
"""What they do, for ``--help``."""

TERM_CHECKS: Mapping[str, Check] = {"weight": Number(0), "share": Number(0, exclusive=True)}
"""Ranges of these options; schedules are checked against the registered ones."""


TRACKERS = ("tensorboard", "mlflow", "wandb")
"""The values of ``track``."""


class Protocol(Enum):
    """What the class-incremental protocol (``steps=``) does with a key of its command line."""

    EACH_RUN = "passed on to all of its runs"
    OF_RECIPE = "passed on only to runs of the recipe on the command line: the key defines that recipe"
    OWN = "used by the protocol itself; changing it makes a different protocol"
    PLACE = "used by the protocol itself; sets where and how it runs, and does not change results"


@dataclass(frozen=True)
class Key:
    """A key of ours.

    Attributes:
        name: Its dotted name.
        check: Which values it takes.
        task: The only task in which it acts; None: it acts in both.
        method: The only ``student_training`` with which it acts; None: it acts with all.
        distills: It is read only where a student is distilled, or a teacher is trained on pseudo-labels.
        changes_results: Its value changes results; if not, it may differ between a run and its resumption.
        baseline: The network trained on the labels alone (the baseline) depends on it.
        protocol: What ``steps=`` does with it.
        set_by_grid: A benchmark grid sets it in each of its runs.
        selects: It says which images there are, and what their labels are: a data set that was made of those of a run
            needs it no more.
    """

    name: str
    check: Check
    task: str | None = None
    method: str | None = None
    distills: bool = False
    changes_results: bool = True
    baseline: bool = False
    protocol: Protocol = Protocol.EACH_RUN
    set_by_grid: bool = False
    selects: bool = False


def _keys(*rows: Key) -> dict[str, Key]:
    return {row.name: row for row in rows}


OWN, PLACE, OF_RECIPE = Protocol.OWN, Protocol.PLACE, Protocol.OF_RECIPE
WEIGHT = Number(0)
POSITIVE = Number(0, exclusive=True)
COUNT = Number(1, integer=True)

KEYS: Mapping[str, Key] = _keys(
    Key("recipe", TEXT, protocol=PLACE),
    Key("task", OneOf((DETECT, SEMANTIC))),
    Key("data", optional(TEXT), protocol=OWN, selects=True),
    Key("teacher", optional(TEXT), protocol=OWN),
    Key("student", TEXT, protocol=OWN, baseline=True),
    Key("student_start", OneOf(("own", "teacher", "auto")), task=DETECT, distills=True),
    # data
    Key("unlabeled", optional(TEXTS), protocol=OWN, selects=True),
    Key("labeled", LABELED, protocol=OWN, set_by_grid=True, selects=True),
    Key("limit", optional(COUNT), protocol=OWN, selects=True),
    Key("split", optional(TEXT), protocol=OWN, set_by_grid=True, selects=True),
    Key("split_ratio", SPLIT_RATIO, protocol=OWN, selects=True),
    Key("names", optional(TEXTS), protocol=OWN, selects=True),
    Key("labels", optional(TEXTS), task=DETECT, protocol=OWN, selects=True),
    Key("resize_labels", BOOLEAN, task=DETECT, protocol=OWN, selects=True),
    Key("missing_label", OneOf(("unlabeled", "background")), task=DETECT, protocol=OWN, selects=True),
    Key("skip_bad", BOOLEAN, protocol=OWN, selects=True),
    Key("data_dir", TEXT),
    Key("loader", OneOf(("auto", "device", "ultralytics")), changes_results=False),
    Key("preprocess.resize", optional(Number(32, integer=True)), task=DETECT, protocol=OWN, selects=True),
    Key("preprocess.normalize", BOOLEAN, task=DETECT, protocol=OWN, selects=True),
    Key("preprocess.clahe", BOOLEAN, task=DETECT, protocol=OWN, selects=True),
    Key("preprocess.crop", optional(CROP), task=DETECT, protocol=OWN, selects=True),
    Key("preprocess.pad", BOOLEAN, task=DETECT, protocol=OWN, selects=True),
    # before any label
    Key("pretrain", optional(TEXT), task=DETECT, baseline=True),
    Key("pretrain_batches", Or(("auto",), COUNT), task=DETECT, baseline=True),
    # teacher
    Key("teacher_train", OneOf(("auto", True, False))),
    Key("teacher_epochs", Or(("auto",), COUNT)),
    Key("teacher_min_batches", COUNT),
    Key("teacher_kind", OneOf(("frozen", "ema")), task=DETECT),
    Key("teacher_rounds", Number(0, 10, integer=True)),
    # pseudo-labels
    Key("pseudo.mode", OneOf(("offline", "online", "both")), task=DETECT, distills=True),
    Key("pseudo.weigh", BOOLEAN, task=DETECT, distills=True),
    Key("pseudo.precision", optional(Number(0, 1, exclusive=True)), task=DETECT, distills=True),
    Key("pseudo.tta", BOOLEAN, task=DETECT, distills=True),
    Key("pseudo.teachers", optional(TEXTS), task=DETECT, distills=True),
    Key("pseudo.tau_low", UNIT, task=DETECT, distills=True),
    Key("pseudo.tau0", UNIT, task=DETECT, distills=True),
    Key("pseudo.tau_max", UNIT, task=DETECT, distills=True),
    Key("pseudo.ema_decay", Number(0, 0.999999), task=DETECT, distills=True),
    Key("pseudo.iou", UNIT, task=DETECT, distills=True),
    # baseline and student
    Key("student_training", OneOf(("distilled", "labels", "ultralytics", GROWN, "skip")), protocol=OF_RECIPE),
    Key("baseline", Or((True, False), TEXT), protocol=OF_RECIPE, set_by_grid=True),
    Key("ema_decay", optional(Number(0, 0.999999, exclusive=True)), baseline=True),
    Key("val_every", Or(("auto",), COUNT), baseline=True),
    Key("guard", BOOLEAN, distills=True, protocol=OF_RECIPE),
    Key("guard_patience", Or(("auto",), COUNT), task=DETECT, distills=True),
    Key("batches_per_epoch", Or(("auto",), COUNT), baseline=True, protocol=OWN),
    Key("unlabeled_ratio", POSITIVE),
    Key("strong_view", UNIT, distills=True),
    Key("unlabeled_mosaic", optional(UNIT), task=DETECT, distills=True),
    Key("unsup_weight", WEIGHT, task=DETECT, distills=True, protocol=OF_RECIPE),
    Key("unsup_schedule", TEXT, task=DETECT, distills=True),
    Key("labels_last", Number(0, 0.9), task=DETECT, distills=True),
    Key("layers", LAYERS, task=DETECT, distills=True),
    Key("balance", OneOf(("fixed", "auto")), task=DETECT, distills=True),
    Key("selftest_steps", COUNT, distills=True),
    # new classes for a trained teacher
    Key("steps", optional(STEPS), task=DETECT, method=GROWN, protocol=OWN),
    Key("modes", TEXTS, task=DETECT, method=GROWN, protocol=PLACE),
    Key("step_labels", OneOf(("new", "all")), task=DETECT, method=GROWN, protocol=OF_RECIPE),
    Key("new_only", BOOLEAN, task=DETECT, method=GROWN, protocol=OF_RECIPE),
    Key("old_boxes", BOOLEAN, task=DETECT, method=GROWN, protocol=OF_RECIPE),
    Key("freeze_bn", BOOLEAN, task=DETECT, method=GROWN, protocol=OF_RECIPE),
    Key("freeze_features", BOOLEAN, task=DETECT, method=GROWN, protocol=OF_RECIPE),
    # a class for each pixel
    Key("compare", optional(TEXTS), task=SEMANTIC),
    Key("seg.ce", WEIGHT, task=SEMANTIC, baseline=True),
    Key("seg.dice", WEIGHT, task=SEMANTIC, baseline=True),
    Key("seg.boundary", WEIGHT, task=SEMANTIC, baseline=True),
    Key("seg.kd", WEIGHT, task=SEMANTIC, distills=True),
    Key("seg.tau", POSITIVE, task=SEMANTIC, distills=True),
    Key("seg.cutmix", UNIT, task=SEMANTIC, distills=True),
    Key("seg.symmetries", BOOLEAN, task=SEMANTIC, baseline=True),
    Key("seg.jitter", UNIT, task=SEMANTIC, baseline=True),
    Key("seg.lr_steps", optional(SHARES), task=SEMANTIC, baseline=True),
    Key("seg.lr_factor", Number(0, 1, exclusive=True), task=SEMANTIC, baseline=True),
    # how networks are computed
    Key("compile", OneOf(("auto", "graph", "inductor", True, False)), changes_results=False),
    # thresholds
    Key("false_alarms", optional(Number(0, 0.5))),
    # export and run folder
    Key("format", TEXT),
    Key("parity.box_px", WEIGHT, task=DETECT),
    Key("parity.score", WEIGHT),
    Key("parity.map", WEIGHT),
    Key("project", TEXT, changes_results=False, protocol=PLACE, set_by_grid=True),
    Key("name", optional(NAME), changes_results=False, protocol=PLACE, set_by_grid=True),
    Key("exist_ok", BOOLEAN, changes_results=False, protocol=PLACE, set_by_grid=True),
    Key("track", optional(several_of(TRACKERS)), changes_results=False),
    Key("resume", Or((True, False), TEXT), changes_results=False, protocol=PLACE, set_by_grid=True),
)
"""Our keys; the same as in ``cfg/default.yaml`` (tested)."""


@dataclass(frozen=True)
class Argument:
    """An argument of Ultralytics that this package treats specially; all others are passed on unchanged.

    Attributes:
        refused: Why it is unavailable here, or what to use instead; empty: it is available.
        check: A range narrower than that of Ultralytics; ``None``: its own.
        requirement: Message for a value outside that range, after ``key=value: ``.
        idle_for_masks: Why it has no effect in segmentation; empty: it has one.
        changes_results: As in :class:`Key`.
        baseline: As in :class:`Key`.
        set_by_grid: As in :class:`Key`.
    """

    refused: str = ""
    check: Check | None = None
    requirement: str = ""
    idle_for_masks: str = ""
    changes_results: bool = True
    baseline: bool = True
    set_by_grid: bool = False


OPTIMIZERS = ("auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop")
"""The optimizers that Ultralytics 8.4.190 builds (tested)."""

_OPTIMIZER = Special(
    "str",
    lambda v: str(v).lower() in {name.lower() for name in OPTIMIZERS},
    f"must be one of {', '.join(OPTIMIZERS)}",
    ("foo", 3, None),
)
_MOMENTUM = Special(
    "float", lambda v: isinstance(v, (int, float)) and 0 <= v < 1, "must be >= 0 and < 1", (1, -0.1, "x")
)
_HIGHEST_SEED = 2**31 - 1
"""numpy takes 32 bits, and Ultralytics adds the number of each process."""
_VIEWS = "the views are those of seg.symmetries and seg.jitter"
_BOXES = "it belongs to detectors; leave it out"

ARGUMENTS: Mapping[str, Argument] = {
    # refused: they would silently have another meaning here
    "model": Argument(refused="use student= (and teacher=)"),
    "distill_model": Argument(
        refused="use teacher=; the method is chosen by recipe= (recipe=ultralytics is Ultralytics' own)"
    ),
    "dis": Argument(refused="set the weight of a term instead, for example hwjs.weight=2"),
    "fraction": Argument(refused="use labeled= (share of labels) or limit= (share of images)"),
    "time": Argument(refused="use epochs=; budgets are matched in optimizer steps, not in hours"),
    "mode": Argument(refused="this command always trains"),
    "single_cls": Argument(refused="all stages must agree on the classes; merge them in the data set instead"),
    "classes": Argument(refused="all stages must agree on the classes; drop them in the data set instead"),
    "cutmix": Argument(
        refused="it chooses its patches by boxes, which unlabeled images do not have; use mixup= or mosaic="
    ),
    "rect": Argument(refused="batches mix images of two lists and need one shape"),
    "val": Argument(refused="the best checkpoint is chosen on the validation images; use val_every="),
    "save": Argument(refused="resume= continues from the checkpoints"),
    "save_period": Argument(refused="the best and the last checkpoint are kept"),
    "cfg": Argument(refused="use recipe=path/to/recipe.yaml"),
    "save_dir": Argument(refused="use project= and name="),
    "quantize": Argument(refused="train first, then dfssd export <run> int8=true (or half=true)"),
    # refused: Ultralytics takes them in a training and ignores them
    **{
        name: Argument(refused=f"it belongs to {what}")
        for what, names in {
            "exports: after the run, dfssd export <run>": (
                "opset", "dynamic", "nms", "simplify", "workspace", "half", "int8",
            ),
            "a target that this program does not export for; leave it out": ("optimize",),
            "Ultralytics' tracking; leave it out": ("tracker",),
            "predictions and tests: dfssd predict, or yolo predict; leave it out": (
                "source", "vid_stride", "stream_buffer", "visualize", "augment", "retina_masks", "embed", "dnn",
                "show", "save_frames", "save_txt", "save_conf", "save_crop", "save_json", "show_labels", "show_conf",
                "show_boxes", "line_width",
            ),
            "other tasks of Ultralytics; leave it out": (
                "overlap_mask", "mask_ratio", "dropout", "auto_augment", "erasing", "pose", "kobj", "rle", "angle",
                "dlog", "dgrad", "dlam",
            ),
        }.items()
        for name in names
    },
    # narrower than in Ultralytics, which accepts other values and fails in the middle of a run
    "batch": Argument(
        check=Number(2, integer=True),
        requirement="give a whole number of at least 2; budgets are matched in batches of one size",
    ),
    "epochs": Argument(check=COUNT),
    "imgsz": Argument(check=Number(32, integer=True)),
    "optimizer": Argument(check=_OPTIMIZER),
    "momentum": Argument(check=_MOMENTUM),
    "warmup_epochs": Argument(check=WEIGHT),
    "freeze": Argument(check=optional(FREEZE)),
    "pretrained": Argument(check=Or((True, False), TEXT)),
    # without effect on masks
    **{
        name: Argument(idle_for_masks=_VIEWS)
        for name in (
            "mosaic", "mixup", "copy_paste", "hsv_h", "hsv_s", "hsv_v", "scale", "translate",
            "perspective", "flipud", "fliplr", "bgr", "augmentations",
        )
    },
    "copy_paste_mode": Argument(check=OneOf(("flip", "mixup")), idle_for_masks=_VIEWS),
    "close_mosaic": Argument(check=Number(0, integer=True), idle_for_masks=_VIEWS),
    "degrees": Argument(check=Number(-180, 180), idle_for_masks=_VIEWS),
    "shear": Argument(check=Number(-89, 89), idle_for_masks=_VIEWS),
    **{name: Argument(check=WEIGHT, idle_for_masks=_BOXES) for name in ("box", "cls", "dfl")},
    **{name: Argument(idle_for_masks=_BOXES) for name in ("cls_pw", "conf", "iou", "max_det")},
    # where and how a run computes, not what
    "device": Argument(changes_results=False, baseline=False),
    "workers": Argument(check=Number(0, integer=True), changes_results=False, baseline=False),
    "verbose": Argument(changes_results=False, baseline=False),
    "cache": Argument(check=CACHE, changes_results=False, baseline=False),
    "plots": Argument(baseline=False),
    "seed": Argument(check=Number(0, _HIGHEST_SEED, integer=True), set_by_grid=True),
}  # fmt: skip

_PLAIN = Argument()


def argument(name: str) -> Argument:
    """How an argument of Ultralytics is treated here."""
    return ARGUMENTS.get(name, _PLAIN)


def keys_where(holds: Callable[[Key], bool]) -> frozenset[str]:
    """Names of our keys for which ``holds``."""
    return frozenset(name for name, key in KEYS.items() if holds(key))


RESUMABLE: frozenset[str] = keys_where(lambda key: not key.changes_results) | {
    name for name, given in ARGUMENTS.items() if not given.changes_results
}
"""Keys of both kinds that may differ between a run and its resumption: they do not change what is computed, or (the
loader) only its random numbers."""

SET_BY_GRID: frozenset[str] = keys_where(lambda key: key.set_by_grid) | {
    name for name, given in ARGUMENTS.items() if given.set_by_grid
}
"""Keys of both kinds that a benchmark grid sets in each of its runs."""
