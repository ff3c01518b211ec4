"""Which network a run hands over as its student, and the baseline that one run takes over from another."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfssd.config import Config, differences
from dfssd.config.schema import argument, keys_where
from dfssd.errors import UserError
from dfssd.files import copy_whole, read_yaml
from dfssd.trainers.guard import better_of

VALUE = {"detect": "val_map50_95", "semantic": "val_miou_fg"}
"""What the networks of a task are compared by on validation: its name in the summaries of their trainings."""

_MEASURES = {"detect": "mAP50-95", "semantic": "mIoU of the defects"}


def silent_teacher(section: Mapping[str, Any] | None) -> str | None:
    """What to say of a teacher that accepts no box in any unlabelled image; None if it accepts some.

    Args:
        section: Section ``pseudo_labels`` of ``results.json``; None without pseudo-labels.
    """
    if not section or section["accepted"]:
        return None
    lower = "pseudo.tau0" if (section.get("settings") or {}).get("precision") is None else "pseudo.precision"
    return (
        f"the teacher accepted no box in {section['images']:,} unlabelled images (it marked {section['boxes']:,}, all "
        "below the threshold of their class), so it has nothing to teach: give it more labels or epochs, or lower "
        f"{lower}"
    )


def hand_over_baseline(weights: Path, results: dict[str, Any], why: str) -> None:
    """Make the baseline the result of a run that trains no student.

    Args:
        weights: Folder of the run's checkpoints.
        results: Content of ``results.json``; ``guard`` is set.
        why: Reason, for the user and the record.

    Raises:
        UserError: The run has no baseline.
    """
    if not (weights / "baseline.pt").exists():
        raise UserError(f"{why}; with baseline=off there is no other network to hand over")
    print(f"[dfssd] warning: {why}. The student is the baseline.")
    copy_whole(weights / "baseline.pt", weights / "student.pt")
    results["training"].pop("student", None)
    results.pop("distill", None)
    results["guard"] = {
        "chosen": "baseline",
        "why": why,
        "student_val_map50_95": None,
        "baseline_val_map50_95": results["training"]["baseline"]["val_map50_95"],
        "events": [],
    }


def hand_over_better(weights: Path, results: dict[str, Any], *, task: str, guarded: bool) -> None:
    """Leave the better of student and baseline, by validation, in ``student.pt``, and record why.

    A student that is not handed over is kept as ``student_trained.pt``.

    Args:
        weights: Folder of the run's checkpoints.
        results: Content of ``results.json`` after both trainings; ``guard`` is set.
        task: Key of :data:`VALUE`.
        guarded: False: the student is handed over whatever it has become.
    """
    value = VALUE[task]
    student = results["training"]["student"][value]
    floor = (results["training"].get("baseline") or {}).get(value)
    chosen, why = better_of(student, floor, _MEASURES[task]) if guarded else ("student", "guard=off")
    results["guard"] = {
        "chosen": chosen,
        "why": why,
        f"student_{value}": student,
        f"baseline_{value}": floor,
        "events": ((results.get("distill") or {}).get("guard") or {}).get("events", []),
    }
    if chosen == "baseline":
        copy_whole(weights / "student.pt", weights / "student_trained.pt")
        copy_whole(weights / "baseline.pt", weights / "student.pt")
        print(f"[dfssd] warning: the baseline is handed over as student.pt: {why}")


def check_baseline(run: Path, config: Config) -> dict[str, Any]:
    """Check that ``run`` holds a finished baseline with the network and the training arguments of ``config``.

    Returns:
        Its summary, section ``training.baseline`` of its ``results.json``.

    Raises:
        UserError: There is none, or it was trained in another way, so that a comparison would not be fair.
    """
    try:
        tree = read_yaml(run / "run.yaml")
        summary: dict[str, Any] = json.loads((run / "results.json").read_text(encoding="utf-8"))["training"]["baseline"]
        others = _settings_of_baseline(tree["config"], tree["train"])
        summary[f"{VALUE[config['task']]}_by_epoch"], summary["batches"], summary["epochs_done"]
        for needed in ("weights/baseline.pt", "splits/train_labeled.txt", "splits/val.txt", "splits/data.yaml"):
            if not (run / needed).is_file():
                raise FileNotFoundError(f"{needed} is missing")
    except (OSError, ValueError, KeyError, TypeError, UserError) as e:
        raise UserError(f"baseline={run}: no finished baseline there ({e}); give the folder of a run") from e
    changed = differences(others, _settings_of_baseline(config.own, config.train))
    _refuse(run, [f"{key} ({theirs} there)" for key, theirs, _ in changed])
    return summary


def _settings_of_baseline(own: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a network trained on the labels alone depends on; those of distillation are not among them."""
    read = keys_where(lambda key: key.baseline and key.task in {None, own["task"]})
    arguments = {key: value for key, value in train.items() if argument(key).baseline}
    return {**arguments, **{key: own.get(key) for key in read}}


def check_same_data(run: Path, into: Path, batches_per_epoch: int, config: Config) -> dict[str, Any]:
    """Check that the baseline of ``run`` was trained on the images of this run, and for the same time.

    Args:
        run: Folder of the other run.
        into: Folder of this run, with its ``splits/``.
        batches_per_epoch: Length of an epoch in this run.
        config: Configuration of this run.

    Returns:
        Its summary.

    Raises:
        UserError: As in :func:`check_baseline`, or it was trained on other images or for another time.
    """
    summary = check_baseline(run, config)
    different = [
        part
        for part in ("train_labeled", "val")
        if (into / "splits" / f"{part}.txt").read_text(encoding="utf-8")
        != (run / "splits" / f"{part}.txt").read_text(encoding="utf-8")
    ]
    names = [read_yaml(folder / "splits" / "data.yaml").get("names") for folder in (into, run)]
    different += ["the classes"] if names[0] != names[1] else []
    theirs = summary["batches"] / max(1, summary["epochs_done"])
    if theirs != batches_per_epoch:
        different.append(f"batches per epoch ({theirs:g} there, {batches_per_epoch} here)")
    _refuse(run, different)
    return summary


def take_baseline(run: Path, into: Path, batches_per_epoch: int, config: Config) -> dict[str, Any]:
    """Take over the baseline of a finished run: its weights and its training summary with the validation curve.

    Arguments and errors are those of :func:`check_same_data`.
    """
    summary = check_same_data(run, into, batches_per_epoch, config)
    copy_whole(run / "weights" / "baseline.pt", into / "weights" / "baseline.pt")
    return {**summary, "taken_from": run.resolve().name}


def _refuse(run: Path, different: list[str]) -> None:
    if different:
        raise UserError(f"baseline={run} cannot be compared with this run: it differs in {', '.join(different)}")
