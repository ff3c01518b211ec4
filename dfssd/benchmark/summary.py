"""What the rows of a cell say together: means over the seeds, and differences paired by seed.

With several seeds an interval is that of Student's t distribution for the mean of the paired differences; with one seed
it is a paired bootstrap over the test images, which leaves out the randomness of training.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from dfssd.benchmark.grid import BASE, ORACLE, TEACHER
from dfssd.benchmark.rows import Row
from dfssd.evaluation.bootstrap import LEVEL, Interval, intervals
from dfssd.evaluation.detections import Detections
from dfssd.results.sections import SCRATCH

PEER = "ultralytics"
"""The cell of Ultralytics' own distillation, the second reference of the table."""
TEST, VAL = "map50_95", "val_map50_95"
"""Columns of mAP50-95 on the test and on the validation images."""


@dataclass(frozen=True)
class Mean:
    """Mean and sample standard deviation over the seeds; the latter is None for a single seed."""

    value: float
    sd: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.3f}" if self.sd is None else f"{self.value:.3f} ± {self.sd:.3f}"


@dataclass(frozen=True)
class Difference:
    """The mean difference of two cells with its 95 % interval.

    Attributes:
        value: Mean over the seeds that both have.
        low: Lower end of the interval; None if it is unknown.
        high: Upper end.
        kind: What was drawn at random: ``seeds`` or ``images``; empty without an interval.
        above: Number of seeds with a positive difference.
        seeds: Number of seeds.
    """

    value: float
    low: float | None = None
    high: float | None = None
    kind: Literal["seeds", "images", ""] = ""
    above: int = 0
    seeds: int = 1

    def __str__(self) -> str:
        text = f"{self.value:+.3f}"
        if self.low is not None and self.high is not None:
            text += f" [{self.low:+.3f}, {self.high:+.3f}]{'*' if self.kind == 'images' else ''}"
        return text if self.seeds == 1 else f"{text} ({self.above} of {self.seeds})"


@dataclass(frozen=True)
class Recovered:
    """The mean gain over the baseline as a share of the mean distance from baseline to oracle.

    ``low`` and ``high`` are its 95 % interval, None if the data do not bound it.
    """

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" [{self.low:.0%}, {self.high:.0%}]"
        return f"{self.value:.0%}{interval}"


@dataclass(frozen=True)
class Summary:
    """One line of the table: a cell with some share of the labels, over its seeds.

    Attributes:
        cell: Name of the cell, or ``teacher``, ``oracle``.
        labeled: Label share of the table that the line belongs to.
        rows: Seed -> row.
        test: mAP50-95 on the test images.
        map50: mAP50 on the test images.
        val: mAP50-95 on the validation images; None if it is unknown for some seed.
        gain: Test mAP50-95 less that of the baseline; None for the baseline itself and without a common seed.
        val_gain: The same on the validation images.
        peer_gain: Test mAP50-95 less that of Ultralytics' own distillation.
        recovered: Share of the way from baseline to oracle.
    """

    cell: str
    labeled: float
    rows: Mapping[int, Row]
    test: Mean
    map50: Mean
    val: Mean | None
    gain: Difference | None
    val_gain: Difference | None
    peer_gain: Difference | None
    recovered: Recovered | None

    def known(self, column: str) -> list[int]:
        """The different values of a column that counts something, in order."""
        return sorted({value for row in self.rows.values() if (value := row.values[column]) is not None})


def shares(rows: Sequence[Row]) -> list[float]:
    """The label shares; that of the oracle only if there is no other."""
    return sorted({row.labeled for row in rows if row.recipe != ORACLE} or {row.labeled for row in rows})


def summaries(rows: Sequence[Row], labeled: float, cells: Sequence[str]) -> list[Summary]:
    """The lines of the table of one label share, in the order of ``cells``, teacher first and oracle last."""
    baseline, peer = (rows_by_seed(rows, other, labeled) for other in (BASE, PEER))
    oracle = rows_by_seed(rows, ORACLE)
    found = []
    for name in (TEACHER, SCRATCH, *(cell for cell in cells if cell != ORACLE), ORACLE):
        own = oracle if name == ORACLE else rows_by_seed(rows, name, labeled)
        if not own:
            continue
        scores = {column: [row.values[column] for row in own.values()] for column in (TEST, "map50", VAL)}
        found.append(
            Summary(
                cell=name,
                labeled=labeled,
                rows=own,
                test=mean_of(scores[TEST]),
                map50=mean_of(scores["map50"]),
                val=None if None in scores[VAL] else mean_of(scores[VAL]),
                gain=None if name == BASE else difference(own, baseline),
                val_gain=None if name == BASE else difference(own, baseline, VAL),
                peer_gain=None if name == PEER else difference(own, peer),
                recovered=None if name in {BASE, ORACLE} else recovered(own, baseline, oracle),
            )
        )
    return found


def rows_by_seed(rows: Sequence[Row], recipe: str, labeled: float | None = None) -> dict[int, Row]:
    """The rows of a cell by seed; of all label shares if ``labeled`` is None."""
    return {r.seed: r for r in rows if r.recipe == recipe and labeled in {None, r.labeled}}


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and sample standard deviation."""
    return Mean(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def difference(cell: Mapping[int, Row], reference: Mapping[int, Row], column: str = TEST) -> Difference | None:
    """Mean difference in ``column`` over the seeds that both have; None without any.

    With a single seed the interval of the test score is a bootstrap over the test images; that of another one is
    unknown.
    """
    pairs = [(cell[seed], reference[seed]) for seed in sorted(set(cell) & set(reference))]
    pairs = [pair for pair in pairs if None not in (pair[0].values[column], pair[1].values[column])]
    if not pairs:
        return None
    found = [own.values[column] - other.values[column] for own, other in pairs]
    value, above = statistics.fmean(found), sum(gain > 0 for gain in found)
    if len(found) > 1:
        return Difference(value, *student_t(found), "seeds", above, len(found))
    interval = _over_images(*pairs[0]) if column == TEST else None
    return Difference(value, *interval, "images", above) if interval else Difference(value, above=above)


def student_t(differences: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """Confidence interval of the mean of at least two paired differences, by Student's t distribution."""
    n = len(differences)
    half = _quantile(n, level) * statistics.stdev(differences) / math.sqrt(n)
    return statistics.fmean(differences) - half, statistics.fmean(differences) + half


def _quantile(n: int, level: float) -> float:
    """Half width of the interval of a mean of ``n`` values, in standard errors."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1 + level) / 2))


def _over_images(own: Row, other: Row) -> Interval | None:
    """Interval of the difference of two networks on the test images; None if it cannot be computed."""
    files = [row.detections for row in (own, other)]
    if not all(file is not None and file.is_file() for file in files):
        return None
    try:
        return _bootstrap(*((file, file.stat().st_mtime_ns) for file in files if file))
    except ValueError:  # other test images
        return None


@lru_cache(maxsize=256)
def _bootstrap(a: tuple[Path, int], b: tuple[Path, int]) -> Interval | None:
    """Cached between tables of a grid as long as the files and their modification times are the same."""
    measured = {"own": Detections.read(a[0]), "other": Detections.read(b[0])}
    [found] = intervals(measured, [("own", "other")]).values()
    return found.get(TEST)


def recovered(
    cell: Mapping[int, Row], baseline: Mapping[int, Row], oracle: Mapping[int, Row], level: float = LEVEL
) -> Recovered | None:
    """Share of the way from baseline to oracle that a cell covers: mean gain / mean distance, over the common seeds.

    The ratio of means, not the mean of ratios: a seed whose oracle is hardly better than its baseline would dominate
    the latter. Its interval is that of Fieller (J. R. Stat. Soc. B 16, 1954): all shares r for which Student's t does
    not tell the mean of gain - r * distance, paired by seed, from 0. It has no bounds, and is left out, unless the mean
    distance itself differs from 0.

    Returns:
        None without a common seed, or if the oracle is not above the baseline in each of them: where all labels hardly
        help, the labels are not what is missing, and a share of nothing says nothing.
    """
    seeds = sorted(set(cell) & set(baseline) & set(oracle))
    gains, distances = (
        [one[seed].values[TEST] - baseline[seed].values[TEST] for seed in seeds] for one in (cell, oracle)
    )
    if not seeds or min(distances) <= 0:
        return None
    value, n = sum(gains) / sum(distances), len(seeds)
    if n < 2:
        return Recovered(value)
    x, y, factor = statistics.fmean(gains), statistics.fmean(distances), _quantile(n, level) ** 2 / n
    # (x - r y)^2 <= factor * variance(gain - r distance) is a r^2 - 2 b r + c <= 0
    a = y * y - factor * statistics.variance(distances)
    b = x * y - factor * statistics.covariance(gains, distances)
    c = x * x - factor * statistics.variance(gains)
    if a <= 0:
        return Recovered(value)
    root = math.sqrt(max(0.0, b * b - a * c))
    return Recovered(value, (b - root) / a, (b + root) / a)
