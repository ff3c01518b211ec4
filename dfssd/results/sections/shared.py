"""Sections of the record that runs of all tasks have, and their base types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(strict=True, ge=0)]
Number = Annotated[float, Field(strict=True)]
Role = str
"""Name of a network in a run: ``teacher``, ``teacher_round1``, ``baseline``, ``student``, ``compare1``, ..."""

PRETRAINED = "pretrained_"
"""How the role of a network begins that has learned from images alone; that of the network to come follows."""

SCRATCH: Role = "baseline_scratch"
"""The baseline that does not start from such a network."""


Status = Literal["done", "reused", "taken over", "skipped", "failed"]
"""How a stage ended; a failed one is not finished."""


class Section(BaseModel):
    """A part of a record, assigned once by a stage."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Session(Section):
    """Versions and machine of a session."""

    dfssd: str
    """Version of dfssd."""
    ultralytics: str
    """Version of Ultralytics."""
    torch: str
    """Version of PyTorch."""
    python: str
    """Version of Python."""
    machine: str
    """System and processor family."""
    device: str
    """`device=` as given, `auto` if it was not."""
    git: str | None = None
    """Commit of the checkout, with `+changes` if files differed; null outside a checkout."""


class RunFacts(Session):
    """What is needed to repeat the run."""

    command: str
    """The command line."""
    recipe: str
    """Name or path of the recipe."""
    seed: Annotated[int, Field(strict=True)]
    """Seed of split, training order and augmentation."""
    resumed: tuple[Session, ...] = ()
    """One entry for each later session: `dfssd`, `ultralytics`, `torch`, `python`, `machine`, `device`, `git`;
    absent if there was none."""


class Stage(Section):
    """One finished stage."""

    name: str
    """Name of the stage."""
    seconds: Number
    """Duration, of the last session that worked on it [s]."""
    status: Status
    """How it ended, see below."""


class Data(Section):
    """What was trained and tested on."""

    name: str
    """Name of the data set."""
    classes: tuple[str, ...]
    """Class names in id order."""
    bits: Count = 8
    """Bits that the camera uses in files with more than 8 per channel, of which training sees the upper 8; 8: there are
    no such files."""
    images: Count
    """Images read, before `limit=`."""
    train_labeled: Count
    """Labeled training images; the lists of all parts are in `splits/`."""
    train_unlabeled: Count
    """Unlabeled training images."""
    val: Count
    """Validation images."""
    test: Count
    """Test images."""
    duplicates: Count
    """Images that repeat another one; repeats are kept in one part."""
    left_out: Count = 0
    """Images without labels that are not used: they belong to val or test, or are copies of labeled images."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Pairs of file and reason, with `skip_bad=true`: found by `prepare`, or lost after it."""
    lists_read: tuple[str, ...] = ()
    """Lists of the split that a later stage has read: nothing is left out of them any more."""
    warnings: tuple[str, ...] = ()
    """What the import found worth knowing: bits of a 16-bit camera, masks among the images, unused classes, ..."""


class Seconds(Section):
    """Wall time of a training by part [s], over all its sessions."""

    setup: Number
    """Model, data, and optimizer, before the first batch."""
    waiting: Number
    """Waiting for the loader's next batch."""
    steps: Number
    """Forward and backward passes and updates; the next three are parts of it."""
    forward: Number
    """Preprocessing of the batch, forward pass, and loss; of a CUDA device its own time."""
    backward: Number
    """Backward pass; of a CUDA device its own time."""
    optimizer: Number
    """Update of the weights and of their moving average; of a CUDA device its own time."""
    validation: Number
    """Validation."""
    writing: Number
    """Checkpoints, `results.csv`, and records, as far as the training waited for them."""
    other: Number
    """Everything else."""

    @property
    def total(self) -> float:
        """Duration of the training [s]."""
        return self.setup + self.waiting + self.steps + self.validation + self.writing + self.other


class Training(Section):
    """How long and how a network was trained."""

    epochs: Count
    """Planned; an epoch is one pass over the labeled images."""
    epochs_done: Count
    """Done; fewer after early stopping."""
    batches: Count
    """Forward and backward passes."""
    optimizer_steps: Count | None
    """Weight updates; equal for baseline and student unless one stopped early."""
    batch: Count
    """Images in a batch, labeled and unlabeled together."""
    optimizer: str
    """As actually used."""
    lr0: Number
    """Initial learning rate, as actually used."""
    best_epoch: Count | None
    """First epoch (from 1) with the best validation score; on a tie the later weights were kept."""
    val_score: Number | None
    """Validation score of that epoch, in the `measure` of the record."""
    val_score_by_epoch: tuple[Number | None, ...] = ()
    """The score after each epoch; null in epochs without validation (`val_every`)."""
    seconds: Seconds | None = None
    """Wall time by part, see below; absent in records of earlier versions."""
    passes: str | None = None
    """How forward and backward passes ran, and why: `eager`, `graph` (captured CUDA graphs) or `inductor` (compiled);
    absent in records of earlier versions."""
    from_scratch: bool | None = None
    """Whether a detector started from random weights; absent for masks, and in records of earlier versions."""
    taken_from: str | None = None
    """Name of the run whose baseline is reused; absent for a network that was trained here."""


class GuardEvent(Section):
    """One action of the guard."""

    epoch: Count
    """Epoch after which it acted, from 1."""
    factor: Number
    """Factor on everything that comes from the teacher: 0.25, then 0."""
    why: str
    """Reason in one sentence."""


class ModelSelection(Section):
    """Which network is shipped as the student, and why."""

    chosen: Literal["student", "baseline"]
    """What `weights/student.pt` is: the better one on the validation images; the test images are not used."""
    why: str
    """In one sentence."""
    student_val_score: Number | None
    """Best validation score of the student; null if there is none."""
    baseline_val_score: Number | None
    """Best validation score of the baseline; null if there is none."""
    events: tuple[GuardEvent, ...] = ()
    """Actions of the guard during the training: `epoch`, `factor` on everything that comes from the teacher (0.25, then
    0), `why`."""


class Gain(Section):
    """How much higher a score of one network is than that of another, on the same test images."""

    value: Number
    """The difference of the two scores, in [-1, 1]."""
    low: Number | None
    """Lower end of its interval; null if it is not known."""
    high: Number | None
    """Upper end of its interval; null if it is not known."""


class Difference(Section):
    """One network against another."""

    network: Role
    """The network that is compared."""
    reference: Role
    """The network that it is compared with."""
    gains: Mapping[str, Gain]
    """Name of a score, as in `test`, -> `value`, and the ends of its interval, `low` and `high`; empty if the test part
    has nothing to be measured on."""


class Differences(Section):
    """What the networks of a run differ by on the test images."""

    method: str
    """How the intervals were found. They cover which images happened to be tested, not the randomness of training."""
    level: Number
    """Confidence level of the intervals."""
    draws: Count
    """Draws of the test images, the same for all pairs."""
    pairs: tuple[Difference, ...]
    """`network`, `reference`, `gains`: each pair of networks that the report compares, see below."""


class SelfTraining(Section):
    """Whether self-training improved the teacher."""

    val_score: tuple[Number, ...]
    """Validation score before the first round, then after each."""
    taken: Count
    """The round whose teacher is used; 0 is the first teacher."""


def to_json(section: BaseModel) -> dict[str, Any]:
    """A section as it is written: in the order of its fields, those that were never given left out."""
    tree: dict[str, Any] = section.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return tree
