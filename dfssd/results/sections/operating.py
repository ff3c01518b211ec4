"""Sections of the record on thresholds, and on what they do to whole images."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dfssd.results.sections.shared import Count, Number, Section


class Share(Section):
    """A share of some counts, with its exact 95 % interval (Clopper and Pearson)."""

    value: Number
    """The share."""
    low: Number
    """Lower end of the interval."""
    high: Number
    """Upper end of the interval."""


class Outcome(Section):
    """What thresholds do on the images of a part."""

    defective: Count
    """Images with a true defect."""
    found: Count
    """Those of them that are called defective; the others are escapes."""
    recall: Share | None
    """`found` / `defective`: `value`, and the ends of its interval, `low` and `high`; null without any."""
    good: Count
    """Images without a true defect."""
    false_alarms: Count
    """Those of them that are called defective (overkill)."""
    false_alarm_rate: Share | None
    """`false_alarms` / `good`: `value`, `low`, `high`; null without any."""


def images_for(rate: float) -> int:
    """Good images that it takes to resolve a rate of false alarms: 1 / rate, so 100 for 1 %, 50 for 2 %, 20 for 5 %.

    One false alarm among n good images is a share of 1/n, the smallest there is besides none. If that is more than the
    wanted rate, no image may be called defective at all, for this rate as for any other below 1/n: the thresholds then
    lie just above the highest scores that n images happened to have, and say nothing about the rate. One image
    suffices for a rate of 0, which asks for just that.

    Args:
        rate: Wanted rate of false alarms, in [0, 1].
    """
    return math.ceil(1 / rate - 1e-9) if rate else 1


class OperatingPoint(Section):
    """Thresholds for a wanted rate of false alarms, chosen on the validation images."""

    wanted: Number | None
    """Largest share of the good validation images that may be called defective; null: the thresholds that balance
    precision and recall."""
    thresholds: Mapping[str, Number]
    """Class name -> score from which a detection counts (of masks: share of the image's area from which the class
    does). An image is called defective if any class reaches its own."""
    val: Outcome
    """On the validation images: `defective`, `found`, `recall`, `good`, `false_alarms`, `false_alarm_rate`."""
    test: Outcome
    """The same on the test images, which have chosen nothing."""
    resolved: bool | None = None
    """Whether the validation part has enough good images to resolve this rate, at least 1 / `wanted`; with fewer the
    thresholds are those of no false alarm at all. True without a rate; absent in records of earlier versions."""

    @property
    def is_resolved(self) -> bool:
        """``resolved``, also in a record of an earlier version (:func:`images_for`)."""
        return self.wanted is None or self.val.good >= images_for(self.wanted)


class Errors(Section):
    """What a detector gets wrong on the test images, at the balanced thresholds."""

    correct: Count
    """Detections that overlap a true box of their class by 0.5 or more, the best one for each box."""
    wrong_place: Count
    """Detections that overlap one by 0.1 to 0.5 only."""
    wrong_class: Count
    """Detections that overlap a true box of another class by 0.5 or more."""
    wrong_both: Count
    """Detections that overlap one of another class by 0.1 to 0.5."""
    duplicates: Count
    """Further detections of a true box that is found already."""
    background: Count
    """Detections that overlap no true box by 0.1."""
    missed: Count
    """True boxes that no detection overlaps by 0.1, or only one that has found another box."""
    confusion: tuple[tuple[Count, ...], ...]
    """Counts: a row for each true class, and a last one for what is no defect; a column for each class that was
    predicted, and a last one for what was missed."""


class SizeRecall(Section):
    """True boxes of the test images of one class of size, at the balanced thresholds."""

    from_px: Number
    """Least square root of their area [px of the network's input]."""
    to_px: Number | None
    """All are below it; null: no limit."""
    defects: Count
    """True boxes."""
    found: Count
    """Those that are found."""
    recall: Share | None
    """`found` / `defects`: `value`, `low`, `high`."""


class Operating(Section):
    """Thresholds of a network, and what they do to whole images."""

    wanted: Number | None
    """`false_alarms` of the run: the thresholds of this point go with the files of the student."""
    points: tuple[OperatingPoint, ...]
    """The balanced thresholds first, then those for each rate of false alarms, see below."""
    errors: Errors | None = None
    """What the balanced thresholds get wrong box by box, see below; absent for masks."""
    sizes: tuple[SizeRecall, ...] = ()
    """Recall by size of the defects, small ones first, see below; absent for masks."""
