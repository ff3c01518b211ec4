"""The section on whole images: how many defective ones get through, and how many good ones are thrown away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dfssd.reporting.sections import Lines
from dfssd.reporting.tables import UNKNOWN, markdown_table
from dfssd.results.record import RunRecord
from dfssd.results.sections import Operating, OperatingPoint, Outcome, Role, Share, images_for
from dfssd.trust.texts import in_markdown

FEW = images_for(0.01)
"""Good images that resolve a rate of one percent."""

UNRESOLVED = "†"
"""Behind what depends on a rate that too few good images can resolve (:func:`~dfssd.results.sections.images_for`)."""


def too_few(good: int) -> str:
    """What is wrong with thresholds for a rate that so few good validation images cannot resolve."""
    return f"too few good images to resolve this rate (n={good})"


def unresolved(record: RunRecord) -> Iterator[str]:
    """A line for the terminal if ``false_alarms`` asks for a rate that the validation part cannot resolve."""
    operating = record.operating.get("student")
    for point in operating.points if operating else ():
        if operating and point.wanted is not None and point.wanted == operating.wanted and not point.is_resolved:
            yield (
                f"false_alarms={point.wanted:g}: {too_few(point.val.good)}, it takes {images_for(point.wanted):,} "
                "in the validation part: the thresholds of the student only let none of these through"
            )


def operating_section(record: RunRecord, names: Mapping[Role, str], unit: str) -> Lines:
    """What the thresholds of each network do to whole images; nothing in a record of an earlier version.

    Args:
        record: The record of the run.
        names: Role -> name of the network, in the order of the table.
        unit: What a threshold is compared with.
    """
    tested = {role: record.operating[role] for role in names if role in record.operating}
    if not tested:
        return []
    rows = [
        [names[role], _wanted(point, operating), *_outcome(point.test)]
        for role, operating in tested.items()
        for point in operating.points
    ]
    header = ["network", "false alarms wanted", "defective images found", "get through", "good images thrown away"]
    lines = [
        "## How many bad parts get through",
        "",
        "An image is called defective if any class reaches its threshold on it. The thresholds were chosen on the "
        "validation images, for a largest share of good images that are thrown away; this is what they do on the test "
        "images:",
        "",
        *markdown_table(header, rows),
        "",
        "In brackets the 95 % interval: how far the share can be off because so many images were tested and no more. "
        "**Bold**: the thresholds that go with the student (`false_alarms`).",
        *_caution(next(iter(tested.values()))),
    ]
    if student := tested.get("student"):
        lines += ["", f"Thresholds of the student ({unit}):", "", *_thresholds(student)]
    return lines


def _wanted(point: OperatingPoint, operating: Operating) -> str:
    text = "balanced" if point.wanted is None else f"at most {point.wanted * 100:g} %"
    text = f"**{text}**" if point.wanted == operating.wanted else text
    return text if point.is_resolved else f"{text} {UNRESOLVED}"


def _outcome(found: Outcome) -> Lines:
    escapes = str(found.defective - found.found) if found.defective else UNKNOWN
    return [
        _share(found.found, found.defective, found.recall),
        escapes,
        _share(found.false_alarms, found.good, found.false_alarm_rate),
    ]


def _share(count: int, of: int, share: Share | None) -> str:
    """``35 of 40: 0.875 [0.732, 0.958]``."""
    return UNKNOWN if share is None else f"{count} of {of}: {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"


def _caution(operating: Operating) -> Lines:
    """What the images are too few to say."""
    good, tested = operating.points[0].val.good, operating.points[0].test.good
    lines = []
    if not good:
        lines.append(
            "No validation image is free of defects, so the thresholds keep the wanted rate only as far as images with "
            "other defects can tell."
        )
    if not tested:
        lines.append(
            "No test image is free of defects, so how many good ones are thrown away is not known: add images of good "
            "parts."
        )
    rates = [point.wanted for point in operating.points if point.wanted is not None and not point.is_resolved]
    marked = [f"{UNRESOLVED} T{too_few(good)[1:]}: {_needed(rates)}"] if rates else []
    return [line for text in (*marked, " ".join(lines)) if text for line in ("", text)]


def _needed(rates: Sequence[float]) -> str:
    """Why, and how many images each of these rates takes."""
    each = ", ".join(f"{rate * 100:g} % takes {images_for(rate):,}" for rate in rates)
    return (
        "one false alarm among n good validation images is a share of 1/n already. For a lower rate none of them may "
        f"be called defective, whichever rate it is. {each} of them."
    )


def _threshold(value: float) -> str:
    """Without zeros at its end: shares of an area have six decimals, scores four."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _thresholds(operating: Operating) -> Lines:
    """Table of the thresholds, a column for each point."""
    header = ["class", *(_wanted(point, operating) for point in operating.points)]
    rows = [
        [in_markdown(name), *(_threshold(point.thresholds[name]) for point in operating.points)]
        for name in operating.points[0].thresholds
    ]
    return markdown_table(header, rows)
