"""Sections that the reports of all tasks share; each task passes in its own wording."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dfssd.reporting.tables import (
    UNKNOWN,
    format_count,
    format_duration,
    format_gain,
    format_interval,
    format_number,
    markdown_table,
)
from dfssd.reporting.words import ROLES, export_failures
from dfssd.results.record import RunRecord
from dfssd.results.sections import Data, ModelSelection, Role, RunFacts, Session, Training
from dfssd.results.sections import to_json as section_to_json
from dfssd.trust.texts import code_block, in_markdown

Lines = list[str]
Drawn = Mapping[str, int]
"""Name of each figure that was drawn (``plots/<name>.png``) -> number of images in it; 1 for a chart."""

Column = tuple[str, Callable[[Role, Any], str]]
"""Header of a column, and the function that makes the cell of a network."""

_FACTS = ("dfssd", "ultralytics", "torch", "python", "machine", "device", "seed", "recipe", "git")


def join_sections(sections: Sequence[Lines]) -> str:
    """The text of a report."""
    return "\n\n".join("\n".join(lines).strip("\n") for lines in sections) + "\n"


def top_section(name: str, headline: str, cautions: Lines) -> Lines:
    """Title, headline, and caveats."""
    return [f"# {in_markdown(name)}: what the run found", "", f"**{headline}**", "", *cautions]


def figure_lines(drawn: Drawn, name: str, caption: str) -> Lines:
    """Lines that show ``plots/<name>.png``, if it was drawn."""
    return ["", f"![{caption}](plots/{name}.png)"] if drawn.get(name) else []


def seed_caution(record: RunRecord, differences: str) -> str:
    """The caveat that one run is one sample; ``differences`` is the sentence about what can be chance."""
    return (
        f"- This is one run with one random seed ({record.run.seed}). {differences}; repeat the run with seed=1 and "
        "seed=2 before you rely on a small one."
    )


def export_cautions(record: RunRecord) -> Lines:
    """A line for each reason not to deploy the exported file."""
    return [f"- **The export check failed: {failure}.**" for failure in export_failures(record)]


def network_rows(names: Mapping[Role, Sequence[str]], cells: Mapping[Role, Sequence[str]], width: int) -> list[Lines]:
    """Rows of the test table.

    Args:
        names: Role -> first cells of its row, in the order of the table.
        cells: Role -> the other cells; absent for a network without result.
        width: Number of the other cells.
    """
    rows = []
    for role, first in names.items():
        missing = "not trained" if role == "baseline" else "no result"
        rows.append([*first, *cells.get(role, [missing, *[UNKNOWN] * (width - 1)])])
    return rows


def difference_lines(record: RunRecord, labels: Mapping[Role, str], scores: Mapping[str, str]) -> Lines:
    """The table of differences with their intervals; none in a record of an earlier version.

    Args:
        record: The record of the run.
        labels: Role -> name of the network.
        scores: Name of a score -> header of its column.
    """
    found = record.differences
    if not found or not found.pairs:
        return []
    rows = [
        [
            f"{labels.get(pair.network, pair.network)} - {labels.get(pair.reference, pair.reference)}",
            *(format_interval(record.gain(pair.network, pair.reference, score)) for score in scores),
        ]
        for pair in found.pairs
    ]
    return [
        "",
        *markdown_table(["difference", *scores.values()], rows),
        "",
        f"In brackets the {found.level * 100:g} % interval ({found.method}, {found.draws:,} draws): it covers which "
        "images happened to be tested, not the randomness of training.",
    ]


def file_size(weights_mb: Mapping[Role, float], role: Role) -> str:
    """Size of the checkpoint of a network."""
    return f"{weights_mb[role]:.1f} MB" if role in weights_mb else UNKNOWN


def class_rows(
    scores: Mapping[Role, Mapping[str, float | None]], counts: Mapping[str, str], order: Sequence[str]
) -> list[Lines]:
    """Rows of the table of classes: name, count in the test part, score of each network, student - baseline.

    Args:
        scores: Role -> class name -> score, the roles in the order of the columns.
        counts: Class name -> how many true objects or pixels the test part has.
        order: Class names in the order of the rows.
    """
    rows = []
    for name in order:
        found = {role: own.get(name) for role, own in scores.items()}
        gain = format_gain(found.get("student"), found.get("baseline"))
        rows.append([in_markdown(name), counts.get(name, UNKNOWN), *map(format_number, found.values()), gain])
    return rows


EPOCHS: Column = ("epochs", lambda _, done: f"{done.epochs_done} of {done.epochs}")
OPTIMIZER_STEPS: Column = ("optimizer steps", lambda _, done: format_count(done.optimizer_steps))
BATCH: Column = ("batch", lambda _, done: str(done.batch))
OPTIMIZER: Column = ("optimizer", lambda _, done: f"{done.optimizer}, lr0 {done.lr0}")
BEST_EPOCH: Column = ("best epoch", lambda _, done: format_number(done.best_epoch))


def val_score(head: str) -> Column:
    """The column of the best validation score."""
    return head, lambda _, done: format_number(done.val_score)


def training_table(
    labels: Mapping[Role, str], training: Mapping[Role, Training], columns: Sequence[Column]
) -> list[str]:
    """How long and how each network was trained; also lists those of :data:`ROLES` that were not trained.

    Args:
        labels: Role -> name of the network, in the order of the table.
        training: Role -> its training.
        columns: The columns after the first.
    """
    rows = []
    for role, label in labels.items():
        if done := training.get(role):
            rows.append([label, *(cell(role, done) for _, cell in columns)])
        elif role in ROLES:
            missing = "used as given" if role == "teacher" else "not trained"
            rows.append([label, missing, *[UNKNOWN] * (len(columns) - 1)])
    return markdown_table(["network", *(head for head, _ in columns)], rows)


def selected_network(guard: ModelSelection | None) -> Lines:
    """Which network is shipped as the student, and why."""
    return ["", f"Selected as `weights/student.pt`: the **{guard.chosen}** ({guard.why})."] if guard else []


def self_training(record: RunRecord) -> Lines:
    """What rounds of self-training did to the teacher."""
    if not (rounds := record.self_training):
        return []
    reached = ", ".join(format_number(value) for value in rounds.val_score)
    selected = f"that of round {rounds.taken}" if rounds.taken else "the original"
    return [
        "",
        f"Networks of the teacher's size learned as its students (`teacher_rounds`); val {record.measure} of the "
        f"teacher and after each round: {reached}; selected: {selected}.",
    ]


def data_section(data: Data | None, *, truth: str, classes: str, notes: Lines) -> Lines:
    """What was trained and tested on.

    Args:
        data: The record of it.
        truth: Kind of annotations: ``labels`` or ``masks``.
        classes: Word for what is counted: ``classes``.
        notes: Further lines.
    """
    lines = ["## Data", ""]
    if not data:
        return [*lines, "No data is recorded."]
    rows = [
        [f"training, with {truth}", str(data.train_labeled)],
        [f"training, {truth} unknown or not used", str(data.train_unlabeled)],
        ["validation (chooses the best epoch)", str(data.val)],
        ["test (the numbers above)", str(data.test)],
    ]
    lines += markdown_table(["part", "images"], rows)
    return [*lines, "", f"{len(data.classes)} {classes}: {', '.join(map(in_markdown, data.classes))}.", *notes]


def record_section(record: RunRecord) -> Lines:
    """The stages, the command and the versions of a run."""
    rows = [[stage.name, stage.status, format_duration(stage.seconds)] for stage in record.stages]
    recorded = section_to_json(record.run)
    facts = [f"{key} {in_markdown(str(recorded[key]))}" for key in _FACTS if recorded.get(key) is not None]
    command = [*code_block(record.run.command), ""]
    lines = ["## Record", "", *markdown_table(["stage", "status", "time"], rows), "", *command, ", ".join(facts)]
    return lines + _session_lines(record.run)


def _session_lines(run: RunFacts) -> Lines:
    """How often the run was resumed, and what later sessions ran with if it is not what the first one had."""
    if not run.resumed:
        return []
    changes = []
    for number, session in enumerate(run.resumed, 2):
        changed = [name for name in Session.model_fields if getattr(session, name) != getattr(run, name)]
        if changed:
            values = ", ".join(f"{name} {format_number(getattr(session, name))}" for name in changed)
            changes.append(f"- session {number}: {values}")
    times = "once" if len(run.resumed) == 1 else f"{len(run.resumed)} times"
    if not changes:
        return ["", f"Resumed {times}, with the same versions on the same machine."]
    return ["", f"Resumed {times}; what differed from the first session:", "", *changes]
