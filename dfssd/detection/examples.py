"""Test images that show what a detector finds and misses, the worst ones first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfssd.evaluation.detections import Detections, Places
from dfssd.evaluation.errors import BACKGROUND, CORRECT, Matches, match
from dfssd.evaluation.operating import selected
from dfssd.reporting.boxes import Mark
from dfssd.results.record import BoxRecord
from dfssd.results.sections import Role

MISSED, FALSE_ALARM, TYPICAL = "missed", "false alarm", "typical"
"""Why an image is shown."""
MOST = {MISSED: 6, FALSE_ALARM: 6, TYPICAL: 3}
"""Most images of each kind."""
TRUTH = "truth"
"""Beside the roles: the true boxes."""
RIGHT, WRONG, PARTLY = "#0072b2", "#d55e00", "#b8860b"
"""Colors of what is found, of what is missed or a false alarm, and of the wrong class or place."""
COLUMNS = (TRUTH, "student", "student_trained", "baseline")
"""What is drawn of each image, where there is such a network."""


@dataclass(frozen=True)
class Example:
    """A test image and what is drawn on it.

    Attributes:
        kind: :data:`MISSED`, :data:`FALSE_ALARM`, or :data:`TYPICAL`.
        image: The file.
        said: What is to be seen, in a few words.
        marks: :data:`TRUTH` or role -> its boxes.
    """

    kind: str
    image: Path
    said: str
    marks: Mapping[str, Sequence[Mark]]


@dataclass(frozen=True)
class _Network:
    """What a network found at its thresholds."""

    found: Detections
    places: Places
    matches: Matches


def choose_examples(record: BoxRecord, found: Mapping[Role, Detections], images: Sequence[Path]) -> tuple[Example, ...]:
    """The largest defects that the student misses, its surest false alarms, and some images without either.

    Args:
        record: The record of the run, with the thresholds.
        found: Role -> its predictions on the test images.
        images: The test images, in the order of their list.

    Returns:
        At most :data:`MOST` of each kind, each image once; none without thresholds, or where an image is not known.
    """
    names = record.data.classes if record.data else ()
    networks = {
        role: _Network(own, own.places, match(own, _thresholds(record, role, names)))
        for role in COLUMNS
        if (own := found.get(role)) and own.places is not None and role in record.operating
    }
    if "student" not in networks or any(_unknown(own.places, images) for own in networks.values()):
        return ()
    student, shown, examples = networks["student"], set(), []
    for kind, ranked in (
        (MISSED, _missed(student, names)),
        (FALSE_ALARM, _false_alarms(student, names)),
        (TYPICAL, _typical(student)),
    ):
        left = MOST[kind]
        for number, said in ranked:
            if left and number not in shown:
                shown.add(number)
                left -= 1
                file = images[student.places.line[number]]
                marks = dict(_marks(networks, int(student.places.line[number]), names))
                examples.append(Example(kind, file, said, marks))
    return tuple(examples)


def _thresholds(record: BoxRecord, role: Role, names: Sequence[str]) -> np.ndarray:
    """(C,) thresholds that go with a network."""
    own = selected(record.operating[role]).thresholds
    return np.array([own.get(name, 1.0) for name in names])


def _unknown(places: Places, images: Sequence[Path]) -> bool:
    """Whether a test image is not in the list."""
    return bool(((places.line < 0) | (places.line >= len(images))).any())


def _missed(student: _Network, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Images with the defects that the student misses, the largest first, and what they are."""
    found, places = student.found, student.places
    sides = places.sides(1)
    for box in sorted(np.flatnonzero(~student.matches.found), key=lambda box: -sides[box]):
        touched = " (found as something else, or elsewhere)" if student.matches.touched[box] else ""
        yield int(found.target_image[box]), f"missed: {names[int(found.target_cls[box])]}{touched}"


def _false_alarms(student: _Network, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Images with the detections of nothing, the surest first, and what they are called."""
    found = student.found
    for row, kind in zip(student.matches.rows, student.matches.kind, strict=True):
        if kind == BACKGROUND:
            yield int(found.image[row]), f"false alarm: {names[int(found.pred_cls[row])]} {found.conf[row]:.2f}"


def _typical(student: _Network) -> Iterator[tuple[int, str]]:
    """Images where all is found and nothing else, spread evenly over the list."""
    found, matches = student.found, student.matches
    wrong = set(found.target_image[~matches.found].tolist())
    wrong |= set(found.image[matches.rows[matches.kind != CORRECT]].tolist())
    right = [image for image in range(len(found.images)) if image not in wrong]
    step = max(1, len(right) // MOST[TYPICAL])
    for image in [*right[step // 2 :: step], *right]:
        yield image, "everything found" if (found.target_image == image).any() else "a good image"


def _marks(networks: Mapping[Role, _Network], line: int, names: Sequence[str]) -> Iterator[tuple[str, list[Mark]]]:
    """The boxes of the truth, as the student sees it, and of each network."""
    for role, network in networks.items():
        image = int(np.flatnonzero(network.places.line == line)[0])
        if role == "student":
            yield TRUTH, list(_true_marks(network, image, names))
        yield role, list(_found_marks(network, image, names))


def _true_marks(network: _Network, image: int, names: Sequence[str]) -> Iterator[Mark]:
    matches = network.matches
    for box in np.flatnonzero(network.found.target_image == image):
        color = RIGHT if matches.found[box] else PARTLY if matches.touched[box] else WRONG
        yield Mark(_corners(network.places.target_box[box]), names[int(network.found.target_cls[box])], color)


def _found_marks(network: _Network, image: int, names: Sequence[str]) -> Iterator[Mark]:
    found, matches = network.found, network.matches
    for row, kind in zip(matches.rows, matches.kind, strict=True):
        if found.image[row] == image:
            color = {CORRECT: RIGHT, BACKGROUND: WRONG}.get(int(kind), PARTLY)
            text = f"{names[int(found.pred_cls[row])]} {found.conf[row]:.2f}"
            yield Mark(_corners(network.places.box[row]), text, color)


def _corners(box: Iterable[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (min(1.0, max(0.0, float(value))) for value in box)
    return x1, y1, x2, y2
