"""Every key of the configuration, described once.

A key of ours has its default and its meaning in ``cfg/default.yaml`` and one row here: its values, its scope, what it
needs, and what depends on it. :mod:`dfssd.config.arguments` is the table of Ultralytics' arguments. No other module
lists keys: they query these tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from dfssd.config.arguments import ARGUMENTS
from dfssd.config.values import (
    BOOLEAN,
    COUNT,
    CROP,
    LABELED,
    LAYERS,
    NAME,
    SHARES,
    SPLIT_RATIO,
    STEPS,
    TEXT,
    TEXTS,
    UNIT,
    WEIGHT,
    Check,
    Needs,
    Number,
    OneOf,
    Or,
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


DISTILLED, LABELS_ONLY, OF_ULTRALYTICS = "distilled", "labels", "ultralytics"
"""The other values of ``student_training`` that train a student; ``skip`` trains none."""

STUDENTS = frozenset({DISTILLED, LABELS_ONLY, OF_ULTRALYTICS, GROWN})
ONLY_GROWN = frozenset({GROWN})


@dataclass(frozen=True)
class Key:
    """A key of ours.

    Attributes:
        name: Its dotted name.
        check: Which values it takes.
        task: The only task in which it acts; None: it acts in both.
        methods: The values of ``student_training`` with which it acts; None: it acts with all.
        distills: It is read only where a student is distilled, or a teacher is trained on pseudo-labels.
        always_in: A task in which it acts nevertheless, whatever is trained.
        trains_teacher: It is read only where a teacher is trained on the labels.
        unlabeled: It acts on unlabeled images alone.
        needs: Other keys without which it has no effect.
        zero_is_off: 0 switches it off.
        promises: Who types even its default expects that it acts.
        changes_results: Its value changes results; if not, it may differ between a run and its resumption.
        baseline: The network trained on the labels alone (the baseline) depends on it.
        protocol: What ``steps=`` does with it.
        set_by_grid: A benchmark grid sets it in each of its runs.
        selects: It says which images there are, and what their labels are: a data set that was made of those of a run
            needs it no more.
        labels_folders: ``dfssd label`` takes it as well.
    """

    name: str
    check: Check
    task: str | None = None
    methods: frozenset[str] | None = None
    distills: bool = False
    always_in: str | None = None
    trains_teacher: bool = False
    unlabeled: bool = False
    needs: tuple[Needs, ...] = ()
    zero_is_off: bool = False
    promises: bool = False
    changes_results: bool = True
    baseline: bool = False
    protocol: Protocol = Protocol.EACH_RUN
    set_by_grid: bool = False
    selects: bool = False
    labels_folders: bool = False


def _keys(*rows: Key) -> dict[str, Key]:
    return {row.name: row for row in rows}


OWN, PLACE, OF_RECIPE = Protocol.OWN, Protocol.PLACE, Protocol.OF_RECIPE
POSITIVE = Number(0, exclusive=True)
_DISTILLED = frozenset({DISTILLED})
_PRETRAIN = Needs("pretrain", lambda v: v is not None, "add pretrain=dense, or leave it out")
TRAINED_TEACHER = Needs("teacher_train", lambda v: v is not False, "the teacher is used as it is; leave it out")
_AUTO_LENGTH = Needs("teacher_epochs", lambda v: v == "auto", "leave one of them out")
_STEPS = Needs("steps", lambda v: v is not None, "give the number of classes of each step, such as steps=3,3")
_BASELINE = Needs("baseline", lambda v: v is not False, "the guard compares with the baseline; leave it out")
_GUARD = (Needs("guard", lambda v: v is True, "add guard=true, or leave it out"), _BASELINE)
_FROZEN = Needs("teacher_kind", lambda v: v == "frozen", "the student's own average teaches; leave one of them out")
_DRAWN = Needs("split", lambda v: v in {None, "official", "grouped"}, "its lists select the images; leave it out")
_UNSUPERVISED = Needs("unsup_weight", lambda v: v > 0, "there is no loss on pseudo boxes; leave it out")
_SOFT_MASKS = Needs("seg.kd", lambda v: v > 0, "there is no distillation; leave it out")
_LR_STEPS = Needs("seg.lr_steps", bool, "the learning rate follows lrf and cos_lr; leave it out")

KEYS: Mapping[str, Key] = _keys(
    Key("recipe", TEXT, protocol=PLACE),
    Key("task", OneOf((DETECT, SEMANTIC))),
    Key("data", optional(TEXT), protocol=OWN, selects=True),
    Key("teacher", optional(TEXT), protocol=OWN, needs=(_FROZEN,), promises=True),
    Key("student", TEXT, protocol=OWN, baseline=True),
    Key(
        "student_start",
        OneOf(("own", "teacher", "auto")),
        task=DETECT,
        methods=frozenset({DISTILLED, LABELS_ONLY}),
        distills=True,
    ),
    # data
    Key("unlabeled", optional(TEXTS), protocol=OWN, selects=True),
    Key("labeled", LABELED, protocol=OWN, set_by_grid=True, selects=True),
    Key("limit", optional(COUNT), protocol=OWN, selects=True),
    Key("split", optional(TEXT), protocol=OWN, set_by_grid=True, selects=True),
    Key("split_ratio", SPLIT_RATIO, protocol=OWN, needs=(_DRAWN,), selects=True),
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
    Key("pretrain_batches", Or(("auto",), COUNT), task=DETECT, baseline=True, needs=(_PRETRAIN,)),
    # teacher
    Key("teacher_train", OneOf(("auto", True, False)), trains_teacher=True),
    Key("teacher_epochs", Or(("auto",), COUNT), trains_teacher=True, needs=(TRAINED_TEACHER,)),
    Key("teacher_min_batches", COUNT, trains_teacher=True, needs=(TRAINED_TEACHER, _AUTO_LENGTH)),
    Key("teacher_kind", OneOf(("frozen", "ema")), task=DETECT, methods=_DISTILLED),
    Key("teacher_rounds", Number(0, 10, integer=True), unlabeled=True),
    # pseudo-labels
    Key("pseudo.mode", OneOf(("offline", "online", "both")), task=DETECT, distills=True, unlabeled=True),
    Key("pseudo.weigh", BOOLEAN, task=DETECT, distills=True, needs=(_UNSUPERVISED,), unlabeled=True),
    Key(
        "pseudo.precision",
        optional(Number(0, 1, exclusive=True)),
        task=DETECT,
        distills=True,
        unlabeled=True,
        labels_folders=True,
    ),
    Key("pseudo.tta", BOOLEAN, task=DETECT, distills=True, unlabeled=True, labels_folders=True),
    Key("pseudo.teachers", optional(TEXTS), task=DETECT, distills=True, unlabeled=True),
    Key("pseudo.tau_low", UNIT, task=DETECT, distills=True, unlabeled=True, labels_folders=True),
    Key("pseudo.tau0", UNIT, task=DETECT, distills=True, unlabeled=True, labels_folders=True),
    Key("pseudo.tau_max", UNIT, task=DETECT, distills=True, unlabeled=True, labels_folders=True),
    Key("pseudo.ema_decay", Number(0, 0.999999), task=DETECT, distills=True, unlabeled=True, labels_folders=True),
    Key("pseudo.iou", UNIT, task=DETECT, distills=True, unlabeled=True, labels_folders=True),
    # baseline and student
    Key("student_training", OneOf((DISTILLED, LABELS_ONLY, OF_ULTRALYTICS, GROWN, "skip")), protocol=OF_RECIPE),
    Key("baseline", Or((True, False), TEXT), protocol=OF_RECIPE, set_by_grid=True),
    Key("ema_decay", optional(Number(0, 0.999999, exclusive=True)), baseline=True),
    Key("val_every", Or(("auto",), COUNT), baseline=True),
    Key(
        "guard",
        BOOLEAN,
        methods=_DISTILLED,
        distills=True,
        needs=(_BASELINE,),
        promises=True,
        protocol=OF_RECIPE,
    ),
    Key("guard_patience", Or(("auto",), COUNT), task=DETECT, methods=_DISTILLED, distills=True, needs=_GUARD),
    Key("batches_per_epoch", Or(("auto",), COUNT), baseline=True, protocol=OWN),
    Key("unlabeled_ratio", POSITIVE, unlabeled=True),
    Key("strong_view", UNIT, distills=True, unlabeled=True),
    Key("unlabeled_mosaic", optional(UNIT), task=DETECT, distills=True, zero_is_off=True, unlabeled=True),
    Key(
        "unsup_weight",
        WEIGHT,
        task=DETECT,
        distills=True,
        zero_is_off=True,
        protocol=OF_RECIPE,
        unlabeled=True,
    ),
    Key("unsup_schedule", TEXT, task=DETECT, distills=True, needs=(_UNSUPERVISED,), unlabeled=True),
    Key("labels_last", Number(0, 0.9), task=DETECT, distills=True, unlabeled=True),
    Key("layers", LAYERS, task=DETECT, distills=True, protocol=OF_RECIPE),
    Key("balance", OneOf(("fixed", "auto")), task=DETECT, distills=True),
    Key("selftest_steps", COUNT, distills=True, always_in=SEMANTIC),
    # new classes for a trained teacher
    Key("steps", optional(STEPS), task=DETECT, methods=ONLY_GROWN, protocol=OWN),
    Key("modes", TEXTS, task=DETECT, methods=ONLY_GROWN, protocol=PLACE, needs=(_STEPS,)),
    Key("step_labels", OneOf(("new", "all")), task=DETECT, methods=ONLY_GROWN, protocol=OF_RECIPE, needs=(_STEPS,)),
    Key("new_only", BOOLEAN, task=DETECT, methods=ONLY_GROWN, protocol=OF_RECIPE),
    Key("old_boxes", BOOLEAN, task=DETECT, methods=ONLY_GROWN, protocol=OF_RECIPE),
    Key("unlabeled_old", BOOLEAN, task=DETECT, methods=ONLY_GROWN, needs=(_UNSUPERVISED,), unlabeled=True),
    Key("freeze_bn", BOOLEAN, task=DETECT, methods=ONLY_GROWN, protocol=OF_RECIPE),
    Key("freeze_features", BOOLEAN, task=DETECT, methods=ONLY_GROWN, protocol=OF_RECIPE),
    # a class for each pixel
    Key("compare", optional(TEXTS), task=SEMANTIC),
    Key("seg.ce", WEIGHT, task=SEMANTIC, zero_is_off=True, baseline=True),
    Key("seg.dice", WEIGHT, task=SEMANTIC, zero_is_off=True, baseline=True),
    Key("seg.boundary", WEIGHT, task=SEMANTIC, zero_is_off=True, baseline=True),
    Key("seg.kd", WEIGHT, task=SEMANTIC, distills=True, zero_is_off=True),
    Key("seg.tau", POSITIVE, task=SEMANTIC, distills=True, needs=(_SOFT_MASKS,)),
    Key("seg.cutmix", UNIT, task=SEMANTIC, distills=True, needs=(_SOFT_MASKS,), unlabeled=True),
    Key("seg.symmetries", BOOLEAN, task=SEMANTIC, baseline=True),
    Key("seg.jitter", UNIT, task=SEMANTIC, zero_is_off=True, baseline=True),
    Key("seg.lr_steps", optional(SHARES), task=SEMANTIC, baseline=True),
    Key("seg.lr_factor", Number(0, 1, exclusive=True), task=SEMANTIC, baseline=True, needs=(_LR_STEPS,)),
    # how networks are computed
    Key("compile", OneOf(("auto", "graph", "inductor", True, False)), changes_results=False),
    # thresholds
    Key("false_alarms", optional(Number(0, 0.5))),
    # export and run folder
    Key("format", TEXT, methods=STUDENTS),
    Key("parity.box_px", WEIGHT, task=DETECT, methods=STUDENTS),
    Key("parity.score", WEIGHT, methods=STUDENTS),
    Key("parity.map", WEIGHT, methods=STUDENTS),
    Key("project", TEXT, changes_results=False, protocol=PLACE, set_by_grid=True),
    Key("name", optional(NAME), changes_results=False, protocol=PLACE, set_by_grid=True),
    Key("exist_ok", BOOLEAN, changes_results=False, protocol=PLACE, set_by_grid=True),
    Key("limits.megapixels", Number(1, 178, integer=True), changes_results=False),
    Key("limits.archive_gb", POSITIVE, changes_results=False),
    Key("limits.archive_ratio", POSITIVE, changes_results=False),
    Key("limits.yaml_nodes", Number(100_000, integer=True), changes_results=False),
    Key("limits.json_mb", Number(1), changes_results=False),
    Key("limits.json_depth", Number(1, 500, integer=True), changes_results=False),
    Key("trust", BOOLEAN, changes_results=False),
    Key("track", optional(several_of(TRACKERS)), changes_results=False),
    Key("resume", Or((True, False), TEXT), changes_results=False, protocol=PLACE, set_by_grid=True),
)
"""Our keys; the same as in ``cfg/default.yaml`` (tested)."""


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
