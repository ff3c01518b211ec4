"""Numbers in README and docs/benchmarks.md are those of the files they come from, to the printed precision.

A table names its source in a comment before it: ``<!-- from benchmarks/<file>.csv: <name> -->``. ``TABLES`` maps
its rows and columns to those of the source (:mod:`tests.docs.number_tables`). A table of measurements without a
source needs a comment ``<!-- not checked: why -->``.
Not checked, since no file holds them: precision and recall of pseudo-labels (``classes``), the speed of a step, shares
of the gradient. Intervals of one seed cannot be derived from its CSV file: they are compared with the generated
table. Those of several seeds are in ``<grid>-means.csv``, which is recomputed from the rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

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

CR7, NEU, STEPS, SEG = map(Source, ("cr7-det-published", "neu-det", "neu-det-incremental", "neu-seg"))
QUICK = Source("quickstart")
DEFAULT, DEFAULT_MEANS = Source("cr7-det"), Source("cr7-det-means", digits=6)
SCREEN, SCREEN_MEANS = Source("cr7-det-160"), Source("cr7-det-160-means", digits=6)
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


def modes(row: str, header: str) -> Expected:
    """Class-incremental learning: seeds 0 and 1."""
    metric, part = header.split()
    column = f"{'map' if metric == 'AP50' else 'map50_95'}_{part}"
    if row == "base":  # every row of a seed has the values from before the step
        return [STEPS.get(f"{column}_before", mode="joint", seed=s) for s in "01"] if part == "old" else NO_VALUE
    return [STEPS.get(column, mode=row, seed=seed) for seed in "01"]


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
    ("docs/benchmarks.md", "cr7-det-160"): Table(
        "cr7-det-160-means",
        ("teacher", "baseline", "online-cwd", "select", "start-only", "oracle"),
        means_of(SCREEN_MEANS, "0.1"),
    ),
    ("docs/benchmarks.md", "quickstart-seeds"): Table("quickstart", tuple("01234"), quickstart_by_seed),
    ("docs/benchmarks.md", "quickstart"): Table(
        "quickstart-means",
        ("teacher", "baseline", "dfssd"),
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
        "neu-det-incremental", ("base", "finetune", "freeze", "erd", "sdidd", "joint"), modes
    ),
    ("docs/benchmarks.md", "networks"): Table(
        "neu-seg", ("teacher", "baseline", "student", "compare1", "compare2"), networks
    ),
}
PAGES = {"README.md": README, "docs/benchmarks.md": BENCHMARKS}
MASKS = (ROOT / "docs" / "masks.md").read_text(encoding="utf-8")


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


def flat(text: str) -> str:
    """``text`` in one line, without emphasis."""
    return " ".join(text.replace("*", "").split())


def sentences() -> list[tuple[str, str]]:
    """(page, words) of sentences that quote the files."""
    val = {name: CR7.get("val_map50_95", recipe=name).exact for name in CELLS}
    test = {name: CR7.get("map50_95", recipe=name).exact for name in CELLS}
    decided = ("dfssd-paper", "dfssd-paper-online", "baseline")

    def ahead_of(recipe: str, other: str, seeds: str, column: str = "map50_95") -> list[float]:
        """Differences of the default's grid, seed by seed."""
        return [
            DEFAULT.get(column, recipe=recipe, seed=s).exact - DEFAULT.get(column, recipe=other, seed=s).exact
            for s in seeds
        ]

    gains, gaps = (ahead_of(name, "baseline", "01") for name in ("dfssd", "oracle"))
    recovered = [100 * ours / whole for ours, whole in zip(gains, gaps, strict=True)]
    start = ahead_of("start-only", "baseline", "0") + gains[:1]
    in_all = [100 * value for value in gains + gaps]
    beyond = [ahead_of("dfssd", "start-only", "0", column)[0] for column in ("val_map50_95", "map50_95")]
    faded = [ahead_of("fade", "dfssd", "1", column)[0] for column in ("val_map50_95", "map50_95")]
    above = [*ahead_of("dfssd", "teacher", "01"), *ahead_of("dfssd", "teacher", "01", "val_map50_95")]
    quick = {
        other: [
            100 * (QUICK.get("map50", recipe="dfssd", seed=s).exact - QUICK.get("map50", recipe=other, seed=s).exact)
            for s in "01234"
        ]
        for other in ("baseline", "teacher")
    }
    least, most, mean = min(quick["baseline"]), max(quick["baseline"]), sum(quick["baseline"]) / 5
    own = [DEFAULT.get(column, recipe="baseline", seed="1").exact for column in ("val_map50_95", "map50_95")]
    alone = {name: SCREEN.get("map50_95", recipe=name, seed="0").exact for name in ("select", "start-only")}
    lost = {
        mode: [STEPS.get("map50_95_forgetting", mode=mode, seed=s).exact for s in "01"] for mode in ("sdidd", "erd")
    }
    ahead = {
        column: [
            STEPS.get(column, mode="sdidd", seed=s).exact - STEPS.get(column, mode="erd", seed=s).exact for s in "01"
        ]
        for column in ("map_all", "map50_95_all")
    }
    few = {role: SEG.get("miou_fg", labeled="358", role=role).exact for role in ("teacher", "baseline", "student")}

    def gain(column: str, split: str, student: str = "student") -> float:
        labeled = {"official": "3228", "grouped": "3576"}[split]
        roles = [SEG.get(column, split=split, labeled=labeled, role=role).exact for role in (student, "baseline")]
        return roles[0] - roles[1]

    def seg(column: str, split: str, labeled: str) -> int:
        return round(SEG.get(column, split=split, labeled=labeled, role="baseline").exact)

    lists = ROOT / "benchmarks" / "splits" / "neu-det"
    n_train, n_val, n_test = (
        len((lists / f"{part}.txt").read_text(encoding="utf-8").split("\n")) - 1
        for part in ("train_labeled", "val", "test")
    )
    official, grouped = (seg("optimizer_steps", split, n) for split, n in (("official", "3228"), ("grouped", "3576")))
    [few_row] = [row for row in SEG.rows if row["labeled"] == "358" and row["role"] == "student"]
    steps = {mode: STEPS.get("optimizer_steps", mode=mode, seed="0").exact for mode in ("sdidd", "joint")}
    page = "docs/benchmarks.md"
    return [
        (page, f"({n_train:,} training, {n_val} validation, and {n_test} test images,"),
        (page, f"(3,228 / 402 / {seg('test_images', 'official', '3228')} images for training, validation, and test)"),
        (page, f"test images {seg('leaking_test_images', 'official', '3228')} have a rotated, mirrored,"),
        ("docs/masks.md", f"Of the {seg('test_images', 'official', '3228')} official test images of NEU-Seg, "),
        ("docs/masks.md", f"NEU-Seg, {seg('leaking_test_images', 'official', '3228')} have such a twin"),
        (page, f"(3,576 / 447 / {seg('test_images', 'grouped', '3576')}), where none has"),
        (page, f"4 epochs ({official:,} / {grouped:,} optimizer steps) for every network"),
        (page, f"{few_row['labeled']} labeled and {int(few_row['unlabeled']):,} unlabeled images"),
        (page, f"teacher `mffmetal-60`, {few_row['optimizer_steps']} steps each"),
        (
            page,
            f"{steps['sdidd']:,.0f} optimizer steps; `joint`, which also has the old images, {steps['joint']:,.0f}.",
        ),
        (
            "README.md",
            f"the student is {SCREEN_MEANS.get('gain', recipe='select').exact:.3f} above its baseline",
        ),
        ("README.md", "that start brings {:.3f} of the {:.3f} of seed 0".format(*start)),
        (page, "run so far ({:.0f} and {:.0f} %)".format(*recovered)),
        (page, f"the default: {100 * ahead_of('dfssd', 'ultralytics', '1')[0]:.1f} with the one seed run so far"),
        (page, "missed: {:.1f} and {:.1f}; the oracle itself has {:.1f} and {:.1f} |".format(*in_all)),
        (page, "(by {:.3f} and {:.3f} on test, {:.3f} and {:.3f} on validation)".format(*above)),
        (page, "the default: by {:.3f} and {:.3f} with two seeds".format(*above[:2])),
        (page, "bring {:.3f} (validation) and {:.3f} (test) beyond it with seed 0".format(*beyond)),
        (page, "({:+.3f} and {:.3f}), so the default keeps".format(*faded)),
        (page, f"met with all five ({least:.1f} to {most:.1f})"),
        (page, f"the gains are {least:.1f} to {most:.1f}, in the mean {mean:.1f}."),
        (page, f"with all five, by {sum(quick['teacher']) / 5:.1f} points in the mean"),
        (page, "(whose baseline has {:.3f} and {:.3f})".format(*own)),
        (page, f"all labels bring half a point, so {int(SCREEN.rows[0]['steps']):,} batches"),
        (page, f"ends {alone['select'] - alone['start-only']:.3f} below `dfssd` (seed 0,"),
        (page, "prefers it ({:.3f} vs. {:.3f}; baseline {:.3f})".format(*map(val.__getitem__, decided))),
        (page, f"is {test['teacher'] - test['dfssd-paper']:.3f} below its teacher"),
        (page, f"the oracle has {100 * (test['oracle'] - test['baseline']):.1f}."),
        (page, f"and after minutes of training, has {max(float(row['map50']) for row in NEU.rows):.3f}."),
        (page, "({:.3f} / {:.3f} vs. {:.3f} / {:.3f})".format(*lost["sdidd"], *lost["erd"])),
        (
            page,
            "by {:.3f} and {:.3f}, and level in AP50 ({:+.3f} and {:+.3f},".format(
                *ahead["map50_95_all"], *ahead["map_all"]
            ),
        ),
        (
            page,
            f"{gain('miou_fg', 'grouped'):+.3f} on the grouped test (validation {gain('val_miou_fg', 'grouped'):+.3f})"
            f", none on the official one (validation {gain('val_miou_fg', 'official', 'student_trained'):+.3f},",
        ),
        (page, "has {student:.3f}, the baseline {baseline:.3f}, and the teacher {teacher:.3f}:".format(**few)),
        (
            page,
            f"{NEU.get('steps', recipe='tskd-paper').exact:,.0f} batches and optimizer steps for each student, "
            f"{NEU.get('steps', recipe='teacher').exact:,.0f} for the teacher",
        ),
    ]


@pytest.mark.parametrize(("page", "words"), sentences())
def test_sentences_agree_with_their_source(page: str, words: str) -> None:
    assert words in flat({**PAGES, "docs/masks.md": MASKS}[page])
