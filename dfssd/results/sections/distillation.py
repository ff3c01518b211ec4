"""The distillation of a detector: a section of the record, and its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import ConfigDict, Field, StrictBool, model_validator

from dfssd.results.sections.shared import Count, GuardEvent, Number, Section


class Term(Section):
    """One term of the distillation."""

    weight: Number
    """As configured; with `balance=auto` the last one."""
    schedule: str
    """As configured."""
    first: Number | None
    """Mean of the term over the first epoch, with its weight and schedule."""
    last: Number | None
    """The same over the last epoch."""
    grad_share: Number | None
    """Its share of the gradient on the student: its norm over the sum of the norms of the YOLO loss and of all terms;
    mean over the probed batches (the first ones and the first of each epoch; with `balance=auto` every 50th)."""
    by_epoch: tuple[Number | None, ...] = ()
    """Mean of the term over every epoch; null where it was not finite."""
    weight_by_epoch: tuple[Number, ...] = ()
    """The weight at the end of each epoch."""
    grad_share_by_probe: tuple[Number, ...] = ()
    """`grad_share` of the single probes."""


class SelfTest(Section):
    """Checks that the method has any effect; a run that fails one of them stops."""

    adapters_in_optimizer: StrictBool = True
    """true."""
    teacher_in_optimizer: StrictBool = False
    """false."""
    checked_batches: Count | None = None
    """Batches after which every term had to have given the student a gradient."""
    terms_alive: tuple[str, ...] = ()
    """Terms that were finite, non-zero and gave the student a gradient; a term that needs boxes and never got any is
    missing here, which is logged."""
    teacher_unchanged: StrictBool | None = None
    """true: the teacher is bit-identical; absent where it is the moving average of the student."""
    adapters_changed: StrictBool | None = None
    """true."""


class GuardState(Section):
    """State of the guard at the end of the training."""

    level: Count
    """How often it has reduced the influence of the teacher."""
    bad: Count
    """Epochs in a row below the baseline."""
    epochs: Count
    """Epochs judged."""
    events: tuple[GuardEvent, ...]
    """Its actions: `epoch`, `factor`, `why`, as in the section `guard`."""
    noise: Number
    """Difference in the validation score that it regards as noise."""
    patience: Count
    """Epochs in a row below the baseline before it acts."""


class Health(Section):
    """Pseudo-labels of one epoch, over the unlabeled images that the student was shown; null: nothing to divide by."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | None] = Field(init=False)

    accepted: Number | None
    """Accepted boxes per image."""
    ignored: Number | None
    """Ignored areas per image: doubtful boxes, and images without an accepted box, each as one area or, in a mosaic, as
    the tiles that cover it."""
    score: Number | None
    """Mean score of the accepted boxes."""
    agreement: Number | None
    """Share of the anchors where the teacher's best score is at least 0.25 at which the student's best class is the
    same."""
    precision: Number | None
    """Share of the accepted boxes that match at IoU 0.5, in views with at least one true box, where the truth is
    known (benchmarks); never used in training."""
    recall: Number | None
    """Share of the true boxes that are matched, likewise."""

    @model_validator(mode="after")
    def _only_classes(self) -> Health:
        if strange := [key for key in self.__pydantic_extra__ if not key.startswith("class/")]:
            raise ValueError(f"unknown key {strange[0]}")
        return self

    @property
    def per_class(self) -> dict[str, float | None]:
        """Class name -> accepted boxes per image."""
        return {key.removeprefix("class/"): value for key, value in self.__pydantic_extra__.items()}


class ThresholdRule(Section):
    """Fixed numbers of the online class thresholds."""

    tau_low: Number
    """Lowest score that is more than background."""
    tau0: Number
    """Lowest threshold of a class that follows the average."""
    tau_max: Number
    """Highest threshold of such a class."""
    ema_decay: Number
    """Decay of the average."""


class ThresholdState(Section):
    """State of the online class thresholds."""

    rule: ThresholdRule
    """Fixed numbers of the rule: `tau_low`, `tau0`, `tau_max`, `ema_decay`."""
    ema: tuple[Number, ...]
    """Moving average of each class."""
    batches: tuple[Count, ...]
    """Batches that held the class."""
    fixed: tuple[Number | None, ...]
    """Threshold of a class that does not move, else null."""


class BalanceState(Section):
    """State of `balance=auto`."""

    norms: Mapping[str, Number]
    """Smoothed logarithm of the gradient norm of the YOLO loss (`det`) and of each unweighted term."""
    taken: Mapping[str, Count]
    """Number of measurements of each."""


Start = Literal["own", "teacher"]
"""Whose weights a distilled student starts with."""


class Distill(Section):
    """What the student learned from the teacher."""

    terms: Mapping[str, Term]
    """Name of each active term -> its course, see below."""
    start: Start = "own"
    """Whose weights the student started with: `own`, or `teacher`, a part of those of its teacher."""
    selftest: SelfTest
    """Checks that the method has any effect, see below."""
    guard: GuardState | None = None
    """State of the guard at the end, see below."""
    health: tuple[Health, ...] = ()
    """One entry per epoch, over the unlabeled images that the student was shown in it, see below."""
    labels_added: tuple[Number, ...] = ()
    """With `old_boxes=true`: boxes of the teacher that became labels, per labeled image, by epoch."""
    starved: tuple[str, ...] = ()
    """Classes of which no box was accepted in any epoch."""
    thresholds: ThresholdState | None = None
    """State of the online class thresholds at the end, see below; null without them."""
    balance: BalanceState | None = None
    """State of `balance=auto` at the end; null without it: `norms`, the smoothed logarithms of the gradient norms of
    the YOLO loss (`det`) and of each unweighted term; `taken`, the number of measurements of each."""
