"""Rejects contradictory and no-op combinations of arguments.

A rule reads the resolved keys and yields one sentence for each problem. All rules are applied, so that
a command line has to be corrected only once; a rule that reads a key whose value was rejected already is skipped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dfssd.config.idle import idle_keys, shown
from dfssd.config.line import CommandLine, WrongValueError
from dfssd.config.schema import DETECT, DISTILLED, GROWN, HIGHEST_THRESHOLD, KEYS, ONLY_GROWN, SEMANTIC

Rule = Callable[[CommandLine], Iterator[str]]


def problems(line: CommandLine) -> list[str]:
    """What the rules of the task find, in their order; where recipe and task do not match, only that."""
    mismatch = _apply(_recipe_is_of_the_task, line)
    return mismatch or [text for rule in (*SHARED, *OF_TASK.get(line.task, ())) for text in _apply(rule, line)]


def _apply(rule: Rule, line: CommandLine) -> list[str]:
    found: list[str] = []
    with contextlib.suppress(WrongValueError):
        found.extend(rule(line))
    return found


def _recipe_is_of_the_task(line: CommandLine) -> Iterator[str]:
    labels_only = line.recipe.get("student_training") == "skip"  # any network, any task
    meant = line.recipe.get("task", line.task if labels_only else DETECT)
    if meant != line.task:
        yield f"recipe={line.own['recipe']} is for task={meant}, not {line.task}; choose another recipe"


def _keys_act(line: CommandLine) -> Iterator[str]:
    yield from (f"{key} {why}" for key, why in idle_keys(line).items())


def _recipe_fits_the_method(line: CommandLine) -> Iterator[str]:
    """Keys of a recipe that needs the method of another one; the typed ones are those of :func:`_keys_act`."""
    idle = [
        name
        for name, key in KEYS.items()
        if key.methods == ONLY_GROWN
        and line.method != GROWN
        and name not in line.given
        and line.own[name] != line.defaults[name]
    ]
    if idle:
        yield f"{', '.join(idle)}: only with student_training={GROWN}, as in recipe=sdidd"


def _is_balanced(line: CommandLine, weight: str) -> bool:
    """Whether a ``weight`` was given in place of that of the recipe, while the gradients set the strength."""
    recipe = line.recipe_terms.get(weight, 0)
    return line.own["balance"] == "auto" and recipe not in {0, line.given[weight]}


def _term_options_act(line: CommandLine) -> Iterator[str]:
    for key in line.given:
        term, _, option = key.rpartition(".")
        if term not in line.known_terms:
            continue
        if option != "weight" and term not in line.terms:
            yield f"{key} has no effect: {term} is switched off; add {term}.weight=1, or leave it out"
        elif option == "share" and line.own["balance"] == "fixed":
            yield f"{key} acts with balance=auto only; add balance=auto, or set {term}.weight"
        elif option == "weight" and term in line.terms and _is_balanced(line, key):
            yield (
                f"{key}={line.given[key]} sets no strength with balance=auto: set {term}.share, or add balance=fixed"
            )


def _terms_take_keys(line: CommandLine) -> Iterator[str]:
    """Keys that act on terms alone."""
    if line.own["resume"]:
        return
    options = any(key.rpartition(".")[0] in line.known_terms for key in line.given)  # reported by their names
    idle = idle_keys(line)  # named already
    if "balance" in {*line.given} - {*idle} and line.own["balance"] == "auto" and not (line.terms or options):
        yield "balance=auto has no effect: no term is switched on; add one, such as pkd.weight=1"
    if (
        "layers" in {*line.given} - {*idle}
        and not line.is_default("layers")
        and not set(line.terms) & set(line.feature_terms)
    ):
        yield "layers has no effect: no term compares feature maps; add one, such as pkd.weight=1"


def _schedules_exist(line: CommandLine) -> Iterator[str]:
    requested = {"unsup_schedule": line.own["unsup_schedule"]}
    requested |= {f"{term}.schedule": options["schedule"] for term, options in line.terms.items()}
    for key, name in requested.items():
        if name not in line.schedules:
            yield f"{key}={name} must be one of: {', '.join(line.schedules)}"


def _something_is_trained(line: CommandLine) -> Iterator[str]:
    if line.method == "skip" and line.own["baseline"] is False and not line.own["compare"]:
        yield "student_training=skip with baseline=off leaves nothing to train; switch one of them on"


def _needs(line: CommandLine, setting: str, needed: tuple[tuple[str, Any, str], ...]) -> Iterator[str]:
    """Each key that lacks the value that ``setting`` needs."""
    for key, value, why in needed:
        if line.own[key] != value:
            yield f"{setting} needs {key}={shown(value)}, not {shown(line.own[key])}: {why}"


def _student_start(line: CommandLine) -> Iterator[str]:
    start = line.own["student_start"]
    if line.method == "labels" and start == "own":
        yield "student_training=labels trains the baseline once more from student_start=own; give student_start=teacher"
    elif start == "teacher" and line.own["teacher_kind"] == "ema":
        yield "student_start=teacher needs a trained teacher: leave teacher_kind=ema out"


def _moving_average_teacher(line: CommandLine) -> Iterator[str]:
    if line.own["teacher_kind"] != "ema" or line.method != DISTILLED:  # elsewhere it is refused as such
        return
    own_pass = "the boxes come from the forward pass of the training"
    yield from _needs(
        line,
        "teacher_kind=ema",
        (
            ("pseudo.mode", "online", "the moving average of the student exists only while it is trained"),
            ("teacher_rounds", 0, "there is no frozen teacher to train again"),
            ("pseudo.precision", None, "the teacher changes with every batch"),
            ("pseudo.tta", False, own_pass),
            ("pseudo.teachers", None, own_pass),
        ),
    )


def _online_labels(line: CommandLine) -> Iterator[str]:
    if line.own["pseudo.mode"] != "online" or line.own["teacher_kind"] == "ema":
        return
    for key, off in (("pseudo.tta", False), ("pseudo.teachers", None)):
        if line.own[key] != off:
            yield f"{key}={line.own[key]} improves offline labels, which pseudo=online does not use; add pseudo=both"


def _target_precision(line: CommandLine) -> Iterator[str]:
    if line.own["pseudo.precision"] is None:
        return
    if line.own["pseudo.tau_low"] > HIGHEST_THRESHOLD:
        yield (f"pseudo.tau_low={line.own['pseudo.tau_low']} with pseudo.precision must be at most {HIGHEST_THRESHOLD}")
    if line.own["pseudo.mode"] == "both" and (line.own["pseudo.tta"] or line.own["pseudo.teachers"]):
        yield (
            "pseudo.precision with pseudo=both needs pseudo.tta=false and no pseudo.teachers: thresholds found for "
            "fused scores do not fit those of a single teacher"
        )


def _thresholds_are_in_order(line: CommandLine) -> Iterator[str]:
    low, first, most = (line.own[f"pseudo.{name}"] for name in ("tau_low", "tau0", "tau_max"))
    if not low <= first <= most:
        yield f"pseudo.tau_low={low} <= pseudo.tau0={first} <= pseudo.tau_max={most} must hold"


def _new_classes(line: CommandLine) -> Iterator[str]:
    if line.method != GROWN:
        return
    own = line.own
    yield from _needs(
        line,
        f"student_training={GROWN}",
        (
            ("teacher_kind", "frozen", "the teacher is the model trained so far"),
            ("baseline", False, "a network trained on the new labels alone is no fair comparison"),
            ("teacher_rounds", 0, "the teacher must not change"),
            ("pretrain", None, "the network has been trained before"),
        ),
    )
    if own["teacher"] is None and own["steps"] is None:
        yield "teacher is missing: give the model trained so far, teacher=old.pt"
    if own["balance"] == "auto":
        yield "balance=auto cannot weigh terms that start at 0, as those of a grown network do"
    if own["steps"] is not None and own["step_labels"] == "all" and own["new_only"]:
        yield "step_labels=all keeps boxes of old classes, which new_only=true rejects; change one of them"
    if own["old_boxes"]:
        yield from _needs(line, "old_boxes=true", (("new_only", True, "other labels cover the old classes already"),))
        if own["pseudo.mode"] == "offline":
            yield "old_boxes=true needs pseudo=online: the boxes come from the forward pass of the training"
    if "student" in line.given and own["teacher"] is not None:
        yield (
            f"student={own['student']} has no effect here: the student is the teacher with rows for the new "
            "classes; leave it out"
        )
    if own["freeze_features"] and (idle := [name for name in line.terms if name in line.feature_terms]):
        off = " ".join(f"{name}.weight=0" for name in idle)
        yield f"freeze_features=true leaves {', '.join(idle)} without effect; switch off with {off}"


def _unlabeled_images_are_from_before(line: CommandLine) -> Iterator[str]:
    if not line.own["unlabeled_old"]:
        return
    if line.own["steps"] is not None:
        yield "unlabeled_old=true does not hold with steps=: unlabeled images of a protocol show all classes"
    if line.own["labeled"] != 1:
        yield (
            f"unlabeled_old=true does not hold with labeled={line.own['labeled']}: images whose labels are left out "
            "show new classes; give photos from before as unlabeled=folder"
        )


def _mosaic_closes(line: CommandLine) -> Iterator[str]:
    """At the end of a training, mosaics and mixups of both kinds of images are left out, if there are any."""
    if "close_mosaic" not in line.given or line.is_default("close_mosaic") or not line.train["close_mosaic"]:
        return
    if not (line.train["mosaic"] or line.train["mixup"] or line.own["unlabeled_mosaic"]):
        yield "close_mosaic has no effect with mosaic=0: no images are combined; leave it out"


def _rounds_have_a_teacher(line: CommandLine) -> Iterator[str]:
    if line.own["teacher_rounds"] and line.own["teacher"] is None:
        yield "teacher_rounds needs a teacher, but teacher=none: give a teacher, or leave teacher_rounds out"


def _detector_has_a_teacher(line: CommandLine) -> Iterator[str]:
    if line.own["teacher"] is not None:
        return
    if line.method not in {"skip", GROWN} and line.own["teacher_kind"] != "ema":
        yield (
            "teacher=none works only with recipe=baseline; use teacher=yolov8s.pt, or the moving average of the "
            "student as the teacher with teacher_kind=ema pseudo=online"
        )


def _mask_distillation(line: CommandLine) -> Iterator[str]:
    if line.terms:
        yield f"{next(iter(line.terms))} compares detectors; segmentation is distilled by seg.kd"
    if line.method not in {"distilled", "skip"}:
        yield f"student_training={line.method} is for detectors; use recipe=mffmetal"
    if line.own["teacher_rounds"] and not line.own["seg.kd"]:
        yield "teacher_rounds teaches by soft masks, but seg.kd=0: give seg.kd a weight, or leave teacher_rounds out"
    if line.method != "distilled":
        return
    if not line.own["seg.kd"]:
        yield "seg.kd=0 makes the student its own baseline; train that alone with student_training=skip"
    elif line.own["teacher"] is None:
        yield (
            "teacher=none leaves nothing to distill: give teacher=mffmetal-180, or train on the labels alone with "
            "student_training=skip"
        )


def _mask_losses(line: CommandLine) -> Iterator[str]:
    if not any(line.own[f"seg.{name}"] for name in ("ce", "dice", "boundary")):
        yield "seg.ce, seg.dice and seg.boundary are all 0: teacher and baseline learn from them alone"


def _mask_learning_rate(line: CommandLine) -> Iterator[str]:
    if line.own["seg.lr_steps"]:
        for key in sorted({"lrf", "cos_lr"} & set(line.given)):
            if line.is_default(key):
                continue
            yield f"{key} has no effect: the learning rate falls by seg.lr_steps; add seg.lr_steps=none"


SHARED: tuple[Rule, ...] = (_keys_act, _something_is_trained, _term_options_act, _rounds_have_a_teacher)
OF_TASK: Mapping[str, tuple[Rule, ...]] = {
    DETECT: (
        _recipe_fits_the_method,
        _terms_take_keys,
        _schedules_exist,
        _student_start,
        _moving_average_teacher,
        _online_labels,
        _target_precision,
        _thresholds_are_in_order,
        _new_classes,
        _unlabeled_images_are_from_before,
        _detector_has_a_teacher,
        _mosaic_closes,
    ),
    SEMANTIC: (_mask_distillation, _mask_losses, _mask_learning_rate),
}
