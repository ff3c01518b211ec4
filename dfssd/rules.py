"""Which arguments go together: what would contradict itself, or act in silence on nothing, is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfssd.errors import UserError
from dfssd.pseudo_labels.thresholds import HIGHEST

OF_NEW_CLASSES = ("steps", "modes", "step_labels", "new_only", "freeze_bn", "freeze_features")
"""Keys that act with ``student_training: grown`` only."""


OF_BOXES = {"missing_label", "preprocess", "teacher_kind", "teacher_rounds", "pseudo", "guard_patience", "strong_view"}
OF_BOXES |= {"unsup_weight", "unsup_schedule", "layers", "balance", *OF_NEW_CLASSES}
"""Keys, or sections of them, that act in detection only."""

OF_MASKS = {"compare", "seg"}
"""Those that act in segmentation only."""

VIEWS = {"mosaic", "close_mosaic", "mixup", "copy_paste", "copy_paste_mode", "hsv_h", "hsv_s", "hsv_v", "degrees"}
VIEWS |= {"scale", "translate", "shear", "perspective", "flipud", "fliplr", "bgr", "auto_augment", "erasing"}
VIEWS |= {"augmentations"}
"""Ultralytics' views, which segmentation replaces by its own."""

IDLE = {"box", "cls", "dfl", "cls_pw", "conf", "iou", "max_det", "parity.box_px"}
"""Keys of losses and results of detectors."""


def check_task(own: Mapping[str, Any], given: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """Refuse what the task leaves without effect.

    Args:
        own: Our keys, resolved.
        given: What the user typed, and the active terms.
        recipe: Keys of the recipe, flat.

    Raises:
        UserError: An argument acts in the other task only, or in none.
    """
    both = recipe.get("student_training") == "skip"  # the labels alone: any network, any task
    meant = recipe.get("task", own["task"] if both else "detect")
    if meant != own["task"]:
        raise UserError(f"recipe={own['recipe']} is for task={meant}, not {own['task']}; choose another recipe")
    masks = own["task"] == "semantic"
    foreign = OF_BOXES if masks else OF_MASKS
    for key in [*recipe, *given]:
        section = key.partition(".")[0]
        if section in foreign or key in foreign:
            where = "detection, and this run segments" if masks else "segmentation, as in recipe=mffmetal"
            raise UserError(f"{key} acts only in {where}; leave it out, or choose another recipe")
        if masks and key in VIEWS:
            raise UserError(f"{key} has no effect on masks: the views are those of seg.symmetries and seg.jitter")
        if masks and key in IDLE:
            raise UserError(f"{key} has no effect on masks; leave it out")
    if masks:
        _check_masks(own, given)


def _check_masks(own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    if terms := [key for key in given if isinstance(given[key], Mapping)]:
        raise UserError(f"{terms[0]} compares detectors; segmentation is distilled by seg.kd")
    training = own["student_training"]
    if training not in {"distilled", "skip"}:
        raise UserError(f"student_training={training} is for detectors; use recipe=mffmetal")
    if training == "distilled" and own["seg.kd"] and own["teacher"] is None:
        raise UserError(
            "teacher=none leaves nothing to distil: give teacher=mffmetal-180, or train on the labels alone with "
            "student_training=skip"
        )
    if training == "distilled" and not own["seg.kd"]:
        raise UserError("seg.kd=0 makes the student its own baseline; train that alone with student_training=skip")
    if training == "skip" and own["baseline"] is False and not own["compare"]:
        raise UserError("student_training=skip with baseline=off leaves nothing to train; switch one of them on")
    if not any(own[f"seg.{name}"] for name in ("ce", "dice", "boundary")):
        raise UserError("seg.ce, seg.dice and seg.boundary are all 0: teacher and baseline learn from them alone")
    idle: dict[str, str] = {}
    if training == "skip":
        idle |= dict.fromkeys(("seg.kd", "seg.tau"), "no student is distilled")
    if own["seg.lr_steps"]:
        idle |= dict.fromkeys(("lrf", "cos_lr"), "the learning rate falls by seg.lr_steps; add seg.lr_steps=none")
    else:
        idle["seg.lr_factor"] = "seg.lr_steps=none"
    for key, why in idle.items():
        if key in given:
            raise UserError(f"{key} has no effect: {why}")


def check_together(own: Mapping[str, Any], given: Mapping[str, Any], standard: Mapping[str, Any]) -> None:
    """Refuse what contradicts itself.

    Args:
        own: Our keys, resolved.
        given: What the user typed.
        standard: The defaults of our keys.

    Raises:
        UserError: Two arguments do not go together.
    """
    if own["teacher_kind"] == "ema":
        for key, needed, why in (
            ("pseudo.mode", "online", "the moving average of the student exists only while it is trained"),
            ("teacher_rounds", 0, "there is no frozen teacher to refine"),
            ("pseudo.precision", None, "the teacher changes all the time"),
            ("pseudo.tta", False, "boxes are found in the training's own forward pass"),
            ("pseudo.teachers", None, "boxes are found in the training's own forward pass"),
        ):
            if own[key] != needed:
                shown = str(needed).lower() if isinstance(needed, bool) else needed
                raise UserError(f"teacher_kind=ema needs {key}={shown}, not {own[key]}: {why}")
    if own["pseudo.mode"] == "online":
        for key, off in (("pseudo.tta", False), ("pseudo.teachers", None)):
            if own[key] != off:
                raise UserError(f"{key}={own[key]} makes better offline labels, which pseudo=online does not use")
    if own["pseudo.precision"] is not None:
        if own["pseudo.tau_low"] > HIGHEST:
            raise UserError(f"pseudo.tau_low={own['pseudo.tau_low']} with pseudo.precision must be at most {HIGHEST}")
        if own["pseudo.mode"] == "both" and (own["pseudo.tta"] or own["pseudo.teachers"]):
            raise UserError(
                "pseudo.precision with pseudo=both needs pseudo.tta=false and no pseudo.teachers: the thresholds found "
                "for fused scores do not fit the teacher's own"
            )
    if own["student_training"] == "grown":
        for key, needed, why in (
            ("teacher_kind", "frozen", "the teacher is the model trained so far"),
            ("baseline", False, "without its old classes there is nothing to compare with"),
            ("teacher_rounds", 0, "the teacher keeps what it knows"),
        ):
            if own[key] != needed:
                raise UserError(f"student_training=grown needs {key}={str(needed).lower()}, not {own[key]}: {why}")
        if own["teacher"] is None and own["steps"] is None:
            raise UserError("teacher is missing: give the model trained so far, teacher=old.pt")
        if own["balance"] == "auto":
            raise UserError("balance=auto cannot weigh terms that start at 0, as those of a grown network do")
        if own["steps"] is None and (asked := [key for key in ("modes", "step_labels") if key in given]):
            raise UserError(f"{asked[0]} needs steps, the number of classes of each step, such as steps=3,3")
        if own["step_labels"] == "all" and own["new_only"]:
            raise UserError("step_labels=all shows old boxes, which new_only=true refuses; change one of them")
        if "student" in given and own["teacher"] is not None:
            raise UserError(
                f"student={own['student']} has no part in this: the student is the teacher with rows for the new "
                "classes; leave it out"
            )
    elif asked := [key for key in OF_NEW_CLASSES if own[key] != standard[key]]:
        raise UserError(f"{', '.join(asked)}: only with student_training=grown, as in recipe=sdidd")
    if own["student_training"] == "ultralytics" and own["teacher_kind"] == "ema":
        raise UserError("recipe=ultralytics needs a teacher of its own: leave teacher_kind=ema out")
    if own["teacher"] is None and own["teacher_rounds"]:
        raise UserError("teacher_rounds needs a teacher, and teacher=none says that there is none")
    if own["student_training"] == "skip" and own["baseline"] is False:
        raise UserError("student_training=skip with baseline=off leaves nothing to train; switch one of them on")
    if own["teacher"] is None and own["student_training"] not in {"skip", "grown"} and own["teacher_kind"] != "ema":
        raise UserError(
            "teacher=none works only with recipe=baseline; without a teacher of your own give teacher=yolov8s.pt, or "
            "let the student teach itself with teacher_kind=ema pseudo=online"
        )
    if not own["pseudo.tau_low"] <= own["pseudo.tau0"] <= own["pseudo.tau_max"]:
        raise UserError(
            f"pseudo.tau_low={own['pseudo.tau_low']} <= pseudo.tau0={own['pseudo.tau0']} <= "
            f"pseudo.tau_max={own['pseudo.tau_max']} must hold"
        )
