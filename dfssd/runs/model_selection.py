"""Model selection: which network a run ships as its student, and baselines reused from another run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from dfssd.config import Config, Difference, defaults, differences
from dfssd.config.arguments import argument
from dfssd.config.schema import DETECT, keys_where
from dfssd.errors import UserError
from dfssd.files import copy_atomically, read_yaml
from dfssd.log import LOGGER
from dfssd.results.record import FILE, RECORDS, BoxRecord, RunRecord
from dfssd.results.sections import PRETRAINED, SCRATCH, ModelSelection, PseudoLabels, Role, Training
from dfssd.trust.checkpoints import vet
from dfssd.wording import counted

OF_EARLIER_VERSIONS: Mapping[str, Any] = {"val_every": 1}
"""What runs did that were recorded before there was a key for it."""


def missing_labels_reason(found: PseudoLabels | None) -> str | None:
    """Why there is nothing to distill from pseudo-labels: the teacher has none accepted; None if there are some.

    Args:
        found: Its pseudo-labels; None without any.
    """
    if not found or found.accepted:
        return None
    precision = found.settings.precision if found.settings else None
    lower = "pseudo.tau0" if precision is None else "pseudo.precision"
    if not found.boxes:
        return (
            f"the teacher found no box at all in {counted(found.images, 'unlabeled image')}, so the student has "
            "nothing to learn from them: give the teacher more labels or epochs"
        )
    return (
        f"the teacher accepted no box in {counted(found.images, 'unlabeled image')} (it found {found.boxes:,}, all "
        "below the threshold of their class), so the student has nothing to learn from them: give the teacher more "
        f"labels or epochs, or lower {lower}"
    )


def select_baseline(weights: Path, record: BoxRecord, why: str) -> None:
    """Make the baseline the result of a run that trains no student.

    Args:
        weights: Folder of the run's checkpoints.
        record: Record of the run; its selection is set.
        why: Reason, for the user and the record.

    Raises:
        UserError: The run has no baseline.
    """
    if not (weights / "baseline.pt").exists():
        raise UserError(f"{why}; with baseline=off there is no other network to ship")
    LOGGER.warning(f"{why}. The student is the baseline.")
    copy_atomically(weights / "baseline.pt", weights / "student.pt")
    record.training = {role: training for role, training in record.training.items() if role != "student"}
    if record.distill is not None:  # of a student that was trained before the stages were run again
        record.distill = None
    record.guard = ModelSelection(
        chosen="baseline",
        why=why,
        student_val_score=None,
        baseline_val_score=record.training["baseline"].val_score,
        events=(),
    )


def select_better(weights: Path, record: RunRecord, *, guarded: bool) -> None:
    """Put the better of student and baseline, by validation score, into ``student.pt``, and record why.

    A student that is not selected is kept as ``student_trained.pt``.

    Args:
        weights: Folder of the run's checkpoints.
        record: Record of the run after both trainings; its selection is set.
        guarded: False: always select the student.
    """
    student, baseline = (
        training.val_score if (training := record.training.get(role)) else None for role in ("student", "baseline")
    )
    chosen, why = better_of(student, baseline, record.measure) if guarded else ("student", "guard=off")
    distill = record.distill if isinstance(record, BoxRecord) else None
    record.guard = ModelSelection(
        chosen=chosen,
        why=why,
        student_val_score=student,
        baseline_val_score=baseline,
        events=distill.guard.events if distill and distill.guard else (),
    )
    if chosen == "baseline":
        copy_atomically(weights / "student.pt", weights / "student_trained.pt")
        copy_atomically(weights / "baseline.pt", weights / "student.pt")
        LOGGER.warning(f"the baseline is shipped as student.pt: {why}")


def better_of(
    student: float | None, baseline: float | None, measure: str
) -> tuple[Literal["student", "baseline"], str]:
    """Which network a run ships, by the best validation score of each, and why in one sentence.

    Args:
        student: Best score of the student; None if it was not trained.
        baseline: Best score of the baseline; None without a baseline.
        measure: What was measured, for the sentence.
    """
    if baseline is None:
        return "student", "there is no baseline to compare with"
    if student is None:
        return "baseline", "the student was not trained"
    compared = f"validation {measure} {student:.3f} against {baseline:.3f} of the baseline"
    return ("student", compared) if student >= baseline else ("baseline", compared)


def check_baseline(run: Path, config: Config) -> Training:
    """Check that ``run`` holds a finished baseline with the network and the training arguments of ``config``.

    Returns:
        Its training.

    Raises:
        UserError: There is none, or it was trained with other settings, so that a comparison would not be fair.
    """
    try:
        tree = read_yaml(run / "run.yaml")
        baseline = RECORDS[config["task"]].read(run / FILE).training["baseline"]
        if not baseline.val_score_by_epoch:  # the floor of the guard
            raise ValueError("its validation scores by epoch are not recorded")
        # a run from before there was a key had its default
        own = {**defaults(), **OF_EARLIER_VERSIONS, **tree["config"]}
        changed = unfit_settings(own, tree["train"], config)
        pretrained = config["pretrain"] and not is_scratch(own, config)
        networks = ["baseline", f"{PRETRAINED}student"] if pretrained else ["baseline"]
        lists = [f"splits/{part}.txt" for part in _lists_read(own)]
        for needed in (*(f"weights/{name}.pt" for name in networks), *lists, "splits/data.yaml"):
            if not (run / needed).is_file():
                raise FileNotFoundError(f"{needed} is missing")
    except (OSError, ValueError, KeyError, TypeError, UserError) as e:
        raise UserError(f"baseline={run}: no finished baseline there ({e}); give the folder of a run") from e
    _check_equal(run, [f"{key} ({theirs} there)" for key, theirs, _ in changed])
    for name in networks:
        vet(run / "weights" / f"{name}.pt")
    return baseline


def is_scratch(own: Mapping[str, Any], config: Config) -> bool:
    """Whether a baseline trained with the keys ``own`` is that from scratch to ``config``, which pretrains its own."""
    return config["pretrain"] is not None and own.get("pretrain") is None


def from_scratch(run: Path, config: Config) -> bool:
    """Whether the baseline of ``run``, which passes :func:`check_baseline`, is that from scratch to ``config``."""
    return is_scratch(read_yaml(run / "run.yaml")["config"], config)


def _lists_read(own: Mapping[str, Any]) -> tuple[str, ...]:
    """The lists of images that a baseline depends on: with ``pretrain`` it has seen the unlabeled ones, too."""
    return ("train_labeled", "val", *(("train_unlabeled",) if own.get("pretrain") else ()))


def unfit_settings(own: Mapping[str, Any], train: Mapping[str, Any], config: Config) -> list[Difference]:
    """What keeps a baseline from being compared with the networks of ``config``.

    Args:
        own: Our keys that it was trained with, complete.
        train: Ultralytics' arguments that it was trained with.
        config: The configuration that it is taken over for; where only that pretrains, it is the one from scratch.
    """
    ours = dict(config.own)
    if is_scratch(own, config):
        ours |= {key: own[key] for key in ("pretrain", "pretrain_batches")}
    return differences(_baseline_settings(own, train), _baseline_settings(ours, config.train))


def _baseline_settings(own: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a network trained on the labels alone depends on, thus none of the distillation."""
    read = keys_where(lambda key: key.baseline and key.task in {None, own.get("task", DETECT)})
    arguments = {key: value for key, value in train.items() if argument(key).baseline}
    return {**arguments, **{key: own.get(key) for key in read}}


def check_same_data(run: Path, into: Path, batches_per_epoch: int, config: Config) -> Training:
    """Check that the baseline of ``run`` was trained on the images of this run, and for as many batches.

    Args:
        run: Folder of the other run.
        into: Folder of this run, with its ``splits/``.
        batches_per_epoch: Length of an epoch in this run.
        config: Configuration of this run.

    Returns:
        Its training.

    Raises:
        UserError: As in :func:`check_baseline`, or it was trained on other images or for another number of batches.
    """
    baseline = check_baseline(run, config)
    different = [
        part
        for part in _lists_read(read_yaml(run / "run.yaml")["config"])
        if (into / "splits" / f"{part}.txt").read_text(encoding="utf-8")
        != (run / "splits" / f"{part}.txt").read_text(encoding="utf-8")
    ]
    names = [read_yaml(folder / "splits" / "data.yaml").get("names") for folder in (into, run)]
    different += ["the classes"] if names[0] != names[1] else []
    theirs = baseline.batches / max(1, baseline.epochs_done)
    if theirs != batches_per_epoch:
        different.append(f"batches per epoch ({theirs:g} there, {batches_per_epoch} here)")
    _check_equal(run, different)
    return baseline


def take_baseline(run: Path, into: Path, batches_per_epoch: int, config: Config) -> dict[Role, Training]:
    """Reuse the baseline of a finished run, and the one from scratch beside it: the weights, and the trainings.

    Arguments and errors are those of :func:`check_same_data`.

    Returns:
        Role -> its training with the validation curve; without ``baseline`` where that of the run is the one from
        scratch.
    """
    check_same_data(run, into, batches_per_epoch, config)
    roles = {"baseline": SCRATCH} if from_scratch(run, config) else {"baseline": "baseline", SCRATCH: SCRATCH}
    return _take(run, into / "weights", roles, RECORDS[config["task"]].read(run / FILE))


def take_pretrained(run: Path, weights: Path, record: BoxRecord) -> None:
    """Reuse the student of a run, with which its baseline began.

    Args:
        run: The other run, which passes :func:`check_same_data`.
        weights: Folder of the checkpoints of this run.
        record: Record of this run; its training and its pretraining are set.
    """
    other = BoxRecord.read(run / FILE)
    role = f"{PRETRAINED}student"
    record.training = {**record.training, **_take(run, weights, {role: role}, other)}
    record.pretraining = {**record.pretraining, "student": other.pretraining["student"]}


def _take(run: Path, weights: Path, roles: Mapping[Role, Role], record: RunRecord) -> dict[Role, Training]:
    """Copy the checkpoints of networks of ``run``, and return their trainings, which name it.

    Args:
        run: The other run.
        weights: Folder of the checkpoints of this run.
        roles: Role there -> role here; one that was not trained there is left out.
        record: Record of the other run.
    """
    taken = {}
    for there, here in roles.items():
        if there in record.training:
            copy_atomically(run / "weights" / f"{there}.pt", weights / f"{here}.pt")
            taken[here] = record.training[there].model_copy(update={"taken_from": run.resolve().name})
    return taken


def _check_equal(run: Path, different: list[str]) -> None:
    if different:
        raise UserError(f"baseline={run} cannot be compared with this run: it differs in {', '.join(different)}")
