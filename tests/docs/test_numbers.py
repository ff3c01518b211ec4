"""Numbers in README and docs/benchmarks.md are those of the files they come from, to the printed precision.

A table names its source in a comment before it: ``<!-- from benchmarks/<file>.csv: <name> -->``. ``TABLES`` maps
its rows and columns to those of the source (:mod:`tests.docs.number_tables`). A table of measurements without a
source needs a comment ``<!-- not checked: why -->``.
Not checked, since no file holds them: precision and recall of pseudo-labels (``classes``), the speed of a step, shares
of the gradient. Intervals of one seed cannot be derived from its CSV file: they are compared with the generated
table. Those of several seeds are in ``<grid>-means.csv``, which is recomputed from the rows. Numbers in sentences:
:mod:`tests.docs.test_sentences`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pytest

from tests.docs.number_tables import (
    NO_VALUE,
    NUMBER,
    ROOT,
    Expected,
    Source,
    Table,
    Value,
    cells_of,
    disagreements,
    marked,
    means_of,
    recomputed,
)

README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")

CR7, NEU, SEG = map(Source, ("cr7-det-published", "neu-det", "neu-seg"))
STEPS, STEPS_PUBLISHED = map(Source, ("neu-det-incremental", "neu-det-incremental-published"))
DEFAULT, QUICK = map(Source, ("cr7-det", "quickstart"))
DEFAULT_MEANS, SCREEN_MEANS, TENTH_MEANS = (
    Source(f"{name}-means", digits=6) for name in ("cr7-det", "cr7-det-160", "neu-det-tenth")
)
CELLS = ("teacher", "baseline", "ultralytics", "dfssd-paper", "dfssd-paper-online", "oracle")


def classes(row: str, header: str) -> Expected:
    """AP50-95 of a class by a network."""
    recipe = {"Ultralytics": "ultralytics", "published": "dfssd-paper", "online": "dfssd-paper-online"}.get(
        header, header
    )
    return [CR7.get(f"ap50_95 {row}", recipe=recipe)]


def default_by_seed(row: str, header: str) -> Expected:
    """The default on CR7-DET: scores of each seed, then differences over the seeds."""
    kind, _, seed = header.partition(" ")
    if kind != "seed":
        return means_of(DEFAULT_MEANS, "0.1")(row, header)
    run = any((known["recipe"], known["seed"]) == (row, seed) for known in DEFAULT.rows)
    return [DEFAULT.get("map50_95", recipe=row, seed=seed)] if run else NO_VALUE


def quickstart_by_seed(row: str, header: str) -> Expected:
    """The quickstart: scores of the networks with one seed, and what the student gains."""
    network, metric = header.rsplit(", ", 1)
    column = {"mAP50": "map50", "mAP50-95": "map50_95"}[metric]

    def score(recipe: str) -> Value:
        return QUICK.get(column, recipe=recipe, seed=row)

    if network == "student - baseline":
        return [score("dfssd") - score("baseline")]
    role = network.partition(" ")[0]
    return [score("dfssd" if role == "student" else role)]


def modes_of(source: Source, seeds: str) -> Callable[[str, str], Expected]:
    """Class-incremental learning: each cell has the values of all seeds."""

    def modes(row: str, header: str) -> Expected:
        metric, part = header.split()
        column = f"{'map' if metric == 'AP50' else 'map50_95'}_{part}"
        if row == "base":  # every row of a seed has the values from before the step
            return [source.get(f"{column}_before", mode="joint", seed=s) for s in seeds] if part == "old" else NO_VALUE
        return [source.get(column, mode=row, seed=seed) for seed in seeds]

    return modes


def networks(row: str, header: str) -> Expected:
    """Segmentation: the official split, the grouped one, size and relative latency."""
    whole = {"official": "3228", "grouped": "3576"}  # rows with all masks
    columns = {
        "official: mIoU of defects": ("official", ["miou_fg"]),
        "with background": ("official", ["miou_all"]),
        "grouped: mIoU of defects": ("grouped", ["miou_fg"]),
        "inclusion / patches / scratches": ("grouped", ["iou_inclusion", "iou_patches", "iou_scratches"]),
        "with background, grouped": ("grouped", ["miou_all"]),
        "parameters": ("grouped", ["params"]),
    }
    if header == "latency":
        times = [SEG.get("latency_ms", split="grouped", labeled="3576", role=role) for role in (row, "student")]
        return [times[0] / times[1]]
    split, names = columns[header]
    if split == "official" and row.startswith("compare"):
        return NO_VALUE
    return [SEG.get(name, split=split, labeled=whole[split], role=row) for name in names]


TABLES: Mapping[tuple[str, str], Table] = {
    ("README.md", "headline"): Table(
        "cr7-det", ("teacher", "baseline", "ultralytics", "dfssd", "oracle"), default_by_seed
    ),
    ("docs/benchmarks.md", "cr7-det"): Table("cr7-det-published", CELLS, cells_of(CR7, "cr7-det-published")),
    ("docs/benchmarks.md", "cr7-det-default"): Table(
        "cr7-det-means",
        ("teacher", "baseline", "ultralytics", "start-only", "dfssd", "fade", "oracle"),
        means_of(DEFAULT_MEANS, "0.1"),
    ),
    ("docs/benchmarks.md", "neu-det-tenth"): Table(
        "neu-det-tenth-means",
        ("teacher", "baseline", "start-only", "dfssd", "oracle"),
        means_of(TENTH_MEANS, "0.1"),
    ),
    ("docs/benchmarks.md", "cr7-det-160"): Table(
        "cr7-det-160-means",
        ("teacher", "baseline", "online-cwd", "select", "start-only", "oracle"),
        means_of(SCREEN_MEANS, "0.1"),
    ),
    ("docs/benchmarks.md", "quickstart-seeds"): Table("quickstart", tuple("01234"), quickstart_by_seed),
    ("docs/benchmarks.md", "quickstart"): Table(
        "quickstart-means",
        ("teacher", "baseline", "start-only", "dfssd", "oracle"),
        means_of(Source("quickstart-means", digits=6), "20"),
    ),
    ("docs/benchmarks.md", "classes"): Table(
        "cr7-det-published",
        tuple(c.partition(" ")[2] for c in CR7.rows[0] if c.startswith("ap50_95 ")),
        classes,
        ("precision / recall of the accepted boxes",),
    ),
    ("docs/benchmarks.md", "neu-det"): Table(
        "neu-det",
        (
            "teacher",
            "baseline",
            "ultralytics",
            "crd",
            "ded",
            "drd",
            "crd+ded",
            "tskd-paper",
            "hwjs",
            "cwd",
            "mgd",
            "pkd",
            "ld",
        ),
        cells_of(NEU, "neu-det"),
    ),
    ("docs/benchmarks.md", "modes"): Table(
        "neu-det-incremental", ("base", "erd", "sdidd", "sdidd-photos", "joint"), modes_of(STEPS, "012")
    ),
    ("docs/benchmarks.md", "modes-published"): Table(
        "neu-det-incremental-published",
        ("base", "finetune", "freeze", "erd", "sdidd", "joint"),
        modes_of(STEPS_PUBLISHED, "01"),
    ),
    ("docs/benchmarks.md", "networks"): Table(
        "neu-seg", ("teacher", "baseline", "student", "compare1", "compare2"), networks
    ),
}
PAGES = {"README.md": README, "docs/benchmarks.md": BENCHMARKS}


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_tables_agree_with_their_source(page: str, name: str) -> None:
    assert disagreements(PAGES[page], name, TABLES[page, name]) == []


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_any_number_that_changes_is_noticed(page: str, name: str) -> None:
    """Each checked number, one after the other, with its last digit changed: the comparison above can fail."""
    text, table = PAGES[page], TABLES[page, name]
    header = marked(text)[name][1][0]
    start = text.index(f": {name} -->")
    lines = text[start:].split("\n\n", 1)[0].splitlines()[3:]
    changed = 0
    for line in lines:
        cells = line.split("|")
        for column in range(2, len(cells) - 1):
            if header[column - 1] in table.unchecked:
                continue
            for match in NUMBER.finditer(cells[column]):
                end = match.end()
                digit = "5" if cells[column][end - 1] in "012" else "0"
                wrong = cells[column][: end - 1] + digit + cells[column][end:]
                other = "|".join([*cells[:column], wrong, *cells[column + 1 :]])
                assert disagreements(text.replace(line, other), name, table), (line, wrong)
                changed += 1
    assert changed >= 10


@pytest.mark.parametrize("page", PAGES)
def test_every_table_with_decimals_has_a_source_or_says_why_not(page: str) -> None:
    text = PAGES[page]
    assert {name for where, name in TABLES if where == page} == set(marked(text))
    assert "<!-- from" not in re.sub(r"<!-- from benchmarks/[\w-]+\.csv: [\w-]+ -->\n\|", "", text)
    for before, table in re.findall(r"(^.*\n)?((?:^\|.*\n)+)", text, re.M):
        cells = [cell for line in table.splitlines()[2:] for cell in line.split("|")[2:-1]]
        if any(re.search(r"[+-]?\d\.\d{2,}", cell) for cell in cells):
            assert before.startswith(("<!-- from ", "<!-- not checked: ")), table


def test_means_follow_from_the_rows() -> None:
    for file in (ROOT / "benchmarks").glob("*-means.csv"):
        rows = Source(file.stem.removesuffix("-means"))
        assert recomputed(rows, Source(file.stem)) == [], file.name
