"""The section of a report with test images: the truth beside what the networks find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dfssd.detection.examples import COLUMNS, FALSE_ALARM, MISSED, TRUTH, TYPICAL, Example
from dfssd.detection.figures import example_name
from dfssd.reporting.sections import Drawn, Lines
from dfssd.reporting.tables import markdown_table
from dfssd.trust.texts import in_markdown

_HEADS: Mapping[str, str] = {
    MISSED: "Missed defects, the largest first",
    FALSE_ALARM: "False alarms, the surest first",
    TYPICAL: "Images without a mistake",
}
_NAMES: Mapping[str, str] = {TRUTH: "what is there", "student_trained": "student as trained, not selected"}


def example_section(examples: Sequence[Example], drawn: Drawn) -> Lines:
    """Pictures of the examples that were drawn; nothing without any."""
    shown = [(n, example) for n, example in enumerate(examples, 1) if drawn.get(example_name(n))]
    if not shown:
        return []
    lines = [
        "## What the student finds and misses",
        "",
        "Test images at the thresholds that go with each network. **Blue**: found. **Orange**: missed, or a false "
        "alarm. **Yellow**: found as something else or in another place.",
    ]
    for kind, head in _HEADS.items():
        own = [(n, example) for n, example in shown if example.kind == kind]
        if own:
            columns = [what for what in COLUMNS if any(what in example.marks for _, example in own)]
            lines += ["", f"### {head}", "", *_pictures(own, columns)]
    return lines


def _pictures(examples: Sequence[tuple[int, Example]], columns: Sequence[str]) -> Lines:
    """A table of pictures, a row for each example."""
    rows = [
        [
            in_markdown(f"{example.image.name}: {example.said}"),
            *(f"![{_NAMES.get(what, what)}](plots/{example_name(number, what)}.jpg)" for what in columns),
        ]
        for number, example in examples
    ]
    return markdown_table(["image", *(_NAMES.get(what, what) for what in columns)], rows)
