"""The arguments of Ultralytics that this package treats in its own way; all others are passed on unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dfssd.config.values import CACHE, COUNT, FREEZE, WEIGHT, Check, Needs, Number, Special, optional


@dataclass(frozen=True)
class Argument:
    """An argument of Ultralytics that this package treats specially.

    Attributes:
        refused: Why it is unavailable here, or what to use instead; empty: it is available.
        check: A range narrower than that of Ultralytics; ``None``: its own.
        requirement: Message for a value outside that range, after ``key=value: ``.
        always_refused: A refused key is accepted with Ultralytics' default, which changes nothing; this one is not.
        zero_is_off: 0 switches it off.
        idle_for_masks: Why it has no effect in segmentation; empty: it has one.
        needs: Other keys without which it has no effect.
        changes_results: As in :class:`Key`.
        baseline: As in :class:`Key`.
        set_by_grid: As in :class:`Key`.
    """

    refused: str = ""
    check: Check | None = None
    requirement: str = ""
    always_refused: bool = False
    zero_is_off: bool = False
    idle_for_masks: str = ""
    needs: tuple[Needs, ...] = ()
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
_NAMED = Needs("optimizer", lambda v: str(v).lower() != "auto", "auto sets its own; name one, such as optimizer=AdamW")
_WITH_MOMENTUM = Needs(
    "optimizer",
    lambda v: not str(v).lower().endswith(("adam", "adamw", "adamax")),  # auto takes MuSGD for long trainings
    "it takes one that warms up a momentum, such as optimizer=SGD",
)
_WARMUP = Needs("warmup_epochs", lambda v: v > 0, "there is no warm-up; leave it out")
_FEATURES_LEARN = Needs("freeze_features", lambda v: not v, "all but the head is frozen; leave one of them out")
_VIEWS = "the views are those of seg.symmetries and seg.jitter"
_BOXES = "it belongs to detectors; leave it out"

ARGUMENTS: Mapping[str, Argument] = {
    # refused: they would silently have another meaning here
    "model": Argument(refused="use student= (and teacher=)", always_refused=True),
    "distill_model": Argument(
        refused="use teacher=; the method is chosen by recipe= (recipe=ultralytics is Ultralytics' own)",
        always_refused=True,
    ),
    "dis": Argument(refused="set the weight of a term instead, for example hwjs.weight=2"),
    "fraction": Argument(refused="use labeled= (share of labels) or limit= (share of images)"),
    "time": Argument(refused="use epochs=; budgets are matched in optimizer steps, not in hours"),
    "mode": Argument(refused="this command always trains", always_refused=True),
    "single_cls": Argument(refused="all stages must agree on the classes; merge them in the data set instead"),
    "classes": Argument(refused="all stages must agree on the classes; drop them in the data set instead"),
    "cutmix": Argument(
        refused="it chooses its patches by boxes, which unlabeled images do not have; use mixup= or mosaic="
    ),
    **{
        name: Argument(refused="it pastes outlined objects, and labels are boxes or masks here; leave it out")
        for name in ("copy_paste", "copy_paste_mode")
    },
    "rect": Argument(refused="batches mix images of two lists and need one shape"),
    "val": Argument(refused="the best checkpoint is chosen on the validation images; use val_every="),
    "save": Argument(refused="resume= continues from the checkpoints"),
    "save_period": Argument(refused="the best and the last checkpoint are kept", zero_is_off=True),
    "pretrained": Argument(
        refused="name what a training starts from in student= and teacher=: a .pt, or a .yaml for random weights; for "
        'a .yaml with weights: YOLO("my.yaml").load("weights.pt").save("start.pt") in Python, then student=start.pt'
    ),
    "profile": Argument(refused="after the run, dfssd export <run> times the exported files"),
    "cfg": Argument(refused="use recipe=path/to/recipe.yaml", always_refused=True),
    "save_dir": Argument(refused="use project= and name=", always_refused=True),
    "quantize": Argument(refused="train first, then dfssd export <run> int8=true (or half=true)"),
    # refused: Ultralytics takes them in a training and ignores them
    **{
        name: Argument(refused=f"it belongs to {what}", zero_is_off=what.startswith("other tasks"))
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
    "lr0": Argument(needs=(_NAMED,)),
    "momentum": Argument(check=_MOMENTUM),  # also with auto: the warm-up of a long training ends at it
    "warmup_epochs": Argument(check=WEIGHT),
    "warmup_momentum": Argument(needs=(_WITH_MOMENTUM, _WARMUP)),
    "warmup_bias_lr": Argument(needs=(_NAMED, _WARMUP)),
    "freeze": Argument(check=optional(FREEZE), needs=(_FEATURES_LEARN,)),
    # without effect on masks
    **{
        name: Argument(idle_for_masks=_VIEWS, zero_is_off=True)
        for name in (
            "mosaic", "mixup", "hsv_h", "hsv_s", "hsv_v", "scale", "translate",
            "perspective", "flipud", "fliplr", "bgr", "multi_scale",
        )
    },
    "close_mosaic": Argument(check=Number(0, integer=True), idle_for_masks=_VIEWS, zero_is_off=True),
    "degrees": Argument(check=Number(-180, 180), idle_for_masks=_VIEWS, zero_is_off=True),
    "shear": Argument(check=Number(-89, 89), idle_for_masks=_VIEWS, zero_is_off=True),
    **{name: Argument(check=WEIGHT, idle_for_masks=_BOXES, zero_is_off=True) for name in ("box", "cls", "dfl")},
    **{
        name: Argument(idle_for_masks=_BOXES)
        for name in ("cls_pw", "cls_remap", "conf", "iou", "max_det", "agnostic_nms")
    },
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
