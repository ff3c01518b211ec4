"""The differences between the networks of a run on its test images, with intervals: ``differences`` of its record."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dfssd.evaluation.bootstrap import DRAWS, LEVEL, METHOD, Measured, intervals
from dfssd.results.sections import SCRATCH, Difference, Differences, Gain, Role

_PAIRS: tuple[tuple[Role, Role], ...] = (
    ("student", "baseline"),
    ("student", "teacher"),
    ("teacher", "baseline"),
    ("baseline", SCRATCH),
    ("student", SCRATCH),
    ("student_trained", "baseline"),
    ("student_trained", "teacher"),
)


def compared_pairs(roles: Collection[Role], *, baseline_shipped: bool) -> list[tuple[Role, Role]]:
    """Which networks are compared, each first one with the second.

    Args:
        roles: The networks that were tested; those that are not of a student, a baseline, or a teacher are compared
            with the student.
        baseline_shipped: The student is the baseline, so that the two differ by nothing.
    """
    known = {role for pair in _PAIRS for role in pair}
    others = [("student", role) for role in roles if role not in known]
    same = [("student", "baseline")] if baseline_shipped else []
    return [pair for pair in [*_PAIRS, *others] if pair not in same and set(pair) <= set(roles)]


def differences(
    test: Mapping[Role, Any], measured: Mapping[Role, Measured], scores: Sequence[str], *, baseline_shipped: bool
) -> Differences | None:
    """The differences of all pairs of :func:`compared_pairs`; None if there is no pair.

    Args:
        test: Role -> section with the scores of the network on the test images.
        measured: Role -> what it did on each of them.
        scores: Names of the scores to compare.
        baseline_shipped: See :func:`compared_pairs`.
    """
    pairs = compared_pairs(test, baseline_shipped=baseline_shipped)
    if not pairs:
        return None
    found = intervals(measured, pairs)
    rows = []
    for own, other in pairs:
        gains = {}
        for score in scores:
            values = [getattr(test[role], score) for role in (own, other)]
            if None not in values:
                low, high = found[own, other].get(score, (None, None))
                gains[score] = Gain(value=values[0] - values[1], low=low, high=high)
        rows.append(Difference(network=own, reference=other, gains=gains))
    return Differences(method=METHOD, level=LEVEL, draws=DRAWS, pairs=tuple(rows))
