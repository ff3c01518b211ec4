"""The command ``compare``: the results of several runs side by side, as a table and a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfssd.errors import UserError
from dfssd.evaluation.bootstrap import LEVEL, METHOD, Measured, intervals
from dfssd.evaluation.operating import selected
from dfssd.files import write_text
from dfssd.reporting.operating import UNRESOLVED
from dfssd.reporting.tables import UNKNOWN, csv_text, format_count, format_interval, format_number, markdown_table
from dfssd.results.record import RunRecord, read_run
from dfssd.results.sections import Gain, Role, Share
from dfssd.tasks import TASKS


@dataclass(frozen=True)
class Compared:
    """A network of a run.

    Attributes:
        name: What it is called in the table.
        record: The record of its run.
        role: The network.
        gain: Its first score less that of the first network, on the same test images; None for the first one, and
            where the test images are others.
        comparable: Whether it was tested on the images of the first one.
    """

    name: str
    record: RunRecord
    role: Role
    gain: Gain | None
    comparable: bool

    def score(self, name: str) -> float | None:
        """A score on the test images."""
        value: float | None = getattr(self.record.test[self.role], name)
        return value


@dataclass(frozen=True)
class Comparison:
    """Networks of several runs.

    Attributes:
        networks: The first one is what the others are compared with.
        scores: Name of a score -> what it is called; the first one is compared.
    """

    networks: tuple[Compared, ...]
    scores: Mapping[str, str]

    @property
    def header(self) -> list[str]:
        """Headers of :meth:`rows`."""
        against = f"against {self.networks[0].name}"
        return [
            "run",
            "recipe",
            "labeled",
            "unlabeled",
            "optimizer steps",
            "val",
            *self.scores.values(),
            against,
            "NG found",
        ]

    def rows(self) -> list[list[str]]:
        """A row for each network, as texts."""
        return [self._row(network) for network in self.networks]

    def __str__(self) -> str:
        """The table in Markdown, and what its intervals are."""
        return "\n".join([*markdown_table(self.header, self.rows()), "", self.note])

    @property
    def note(self) -> str:
        """What the intervals and marks of the table are."""
        return NOTE + (_MARKED if any(cell.endswith(UNRESOLVED) for row in self.rows() for cell in row) else "")

    def _row(self, network: Compared) -> list[str]:
        record, role = network.record, network.role
        training, data = record.training.get(role), record.data
        against = UNKNOWN if network is self.networks[0] else format_interval(network.gain)
        return [
            network.name,
            record.run.recipe,
            format_count(data.train_labeled if data else None),
            format_count(data.train_unlabeled if data else None),
            format_count(training.optimizer_steps if training else None),
            format_number(training.val_score if training else None),
            *(format_number(network.score(name)) for name in self.scores),
            against if network.comparable else "other test images",
            _found(record, role),
        ]


def _found(record: RunRecord, role: Role) -> str:
    """Share of the defective test images that are found, at the thresholds that go with the network."""
    operating = record.operating.get(role)
    point = selected(operating) if operating else None
    recall: Share | None = point.test.recall if point else None
    if point is None or recall is None:
        return UNKNOWN
    mark = "" if point.is_resolved else f" {UNRESOLVED}"
    return f"{recall.value:.3f} [{recall.low:.3f}, {recall.high:.3f}]{mark}"


def compare_runs(folders: Sequence[Path], role: Role = "student") -> Comparison:
    """Compare a network of several runs on the test images.

    Args:
        folders: Folders of runs of one task; the first one is what the others are compared with.
        role: The network, ``student``, ``baseline``, or ``teacher``.

    Raises:
        UserError: A run has no such network with a test result, or the tasks differ; all problems at once.
    """
    records, problems = [], []
    for folder in folders:
        try:
            records.append(read_run(folder))
            if role not in records[-1].test:
                problems.append(f"{folder} has no test result of a {role}: finish the run, or give another role=")
        except UserError as e:
            problems += e.problems
    tasks = {record.task for record in records}
    if len(tasks) > 1:
        problems.append(
            f"runs of different tasks ({', '.join(sorted(tasks))}) have no score in common: compare one task"
        )
    if problems:
        raise UserError(*problems)
    task = TASKS[records[0].task]
    scores = task.run.SCORES
    first = next(iter(scores))
    names = _names(folders)
    base, networks = task.run.measured(folders[0], role), []
    for name, folder, record in zip(names, folders, records, strict=True):
        own = task.run.measured(folder, role)
        comparable = same_images(base, own)
        networks.append(Compared(name, record, role, _gain(records[0], record, role, first, base, own), comparable))
    return Comparison(tuple(networks), scores)


def _names(folders: Sequence[Path]) -> list[str]:
    """Names of the folders; with the folder above where two have the same."""
    names = [folder.resolve().name for folder in folders]
    return [
        name if names.count(name) == 1 else f"{folder.resolve().parent.name}/{name}"
        for name, folder in zip(names, folders, strict=True)
    ]


def same_images(a: Measured | None, b: Measured | None) -> bool:
    """Whether two networks were tested on the same images with the same labels; False where it is not recorded."""
    return a is not None and b is not None and a.images == b.images and a.same_truth(b)


def _gain(
    reference: RunRecord, record: RunRecord, role: Role, score: str, base: Measured | None, own: Measured | None
) -> Gain | None:
    """The difference to the first run, with its interval."""
    values = [getattr(one.test[role], score) for one in (record, reference)]
    if None in values or base is None or own is None or not same_images(base, own):
        return None
    low, high = intervals({"own": own, "base": base}, [("own", "base")])["own", "base"].get(score, (None, None))
    return Gain(value=values[0] - values[1], low=low, high=high)


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write ``comparison.md``, ``comparison.csv``, and ``comparison.png``.

    Raises:
        UserError: The folder cannot be written to.
    """
    rows = comparison.rows()
    table = [dict(zip(comparison.header, row, strict=True)) for row in rows]
    text = ["# Runs side by side", "", str(comparison), "", "![scores](comparison.png)"]
    draw(comparison, folder / "comparison.png")
    write_text(folder / "comparison.csv", csv_text(table, show=str))
    write_text(folder / "comparison.md", "\n".join(text) + "\n")


NOTE = (
    f"In brackets the {LEVEL * 100:g} % interval: of differences by a {METHOD}, which does not cover the randomness of "
    "training; of the defective images that are found (NG found), the exact one."
)

_MARKED = f" {UNRESOLVED}: with thresholds for a rate of false alarms that too few good validation images can resolve."


def draw(comparison: Comparison, path: Path) -> None:
    """A bar for each network with its first score; the interval is that of the difference to the first network."""
    from matplotlib.figure import Figure

    from dfssd.reporting.figures import list_classes, save_figure, shortened

    networks = comparison.networks
    score, label = next(iter(comparison.scores.items()))
    figure = Figure(figsize=(8, 1.4 + 0.45 * len(networks)), layout="constrained")
    axes = figure.add_subplot()
    values = [network.score(score) or 0.0 for network in networks]
    axes.barh(range(len(networks)), values, 0.62, color=["#e08214", *["#2166ac"] * (len(networks) - 1)])
    for place, (network, value) in enumerate(zip(networks, values, strict=True)):
        gain = network.gain
        right = value
        if place and gain is not None and gain.low is not None and gain.high is not None:
            low, high = value - gain.value + gain.low, value - gain.value + gain.high
            axes.plot([low, high], [place, place], color="black", linewidth=1.4)
            right = max(value, high)
        axes.annotate(f" {value:.3f}", (right, place), va="center", fontsize=9)
    list_classes(axes, [shortened(network.name) for network in networks])
    axes.set(xlim=(0, min(1.1, max(values) * 1.25 + 0.02)), xlabel=f"{label} on the test images")
    save_figure(figure, path)
