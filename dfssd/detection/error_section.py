"""The section of a report on what detectors get wrong, box by box."""

from __future__ import annotations

from dfssd.reporting.sections import Drawn, Lines, figure_lines
from dfssd.reporting.tables import UNKNOWN, format_range, markdown_table
from dfssd.reporting.words import named
from dfssd.results.record import BoxRecord

_KINDS = {
    "correct": ("correct", "the right class, on at least half of the defect"),
    "wrong_class": ("wrong class", "in the right place"),
    "wrong_place": ("wrong place", "the right class, but less than half of the defect"),
    "wrong_both": ("wrong class and place", "near a defect of another class"),
    "duplicates": ("duplicates", "a defect found once more"),
    "background": ("false alarms", "where nothing is"),
    "missed": ("missed", "defects without any detection"),
}
"""Field of :class:`~dfssd.results.sections.Errors` -> its name, and what it is."""


def error_section(record: BoxRecord, drawn: Drawn) -> Lines:
    """Kinds of errors, and recall by size, of all networks at their balanced thresholds."""
    names = {role: name for role, name in named(record.operating).items() if role in record.operating}
    found = {role: own for role in names if (own := record.operating[role].errors)}
    rows = [
        [label, meaning, *(str(getattr(own, key)) for own in found.values())]
        for key, (label, meaning) in _KINDS.items()
    ]
    sizes = {role: {row.from_px: row for row in record.operating[role].sizes} for role in names}
    ranges = {row.from_px: row.to_px for own in sizes.values() for row in own.values()}
    size_rows = [
        [
            format_range(low, high),
            *(f"{row.found} of {row.defects}" if (row := own.get(low)) else UNKNOWN for own in sizes.values()),
        ]
        for low, high in sorted(ranges.items())
    ]
    return [
        "## What goes wrong, box by box",
        "",
        "At the balanced thresholds, on the test images:",
        "",
        *markdown_table(["", "what it is", *(names[role] for role in found)], rows),
        "",
        "Defects found, by size (square root of the area, in pixels of the network's input):",
        "",
        *markdown_table(["size", *names.values()], size_rows),
        *figure_lines(drawn, "confusion", "What the student takes the defects of each class for"),
    ]
