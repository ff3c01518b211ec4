"""Sentences in README and docs that quote results have the numbers of the files, to the printed precision.

One function for each subject; it gives the pages and the words that must be found there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest

from tests.docs.number_tables import ROOT, Source

PAGE = "docs/benchmarks.md"
SCORES = ("val_map50_95", "map50_95")
"""Columns of mAP50-95 on the validation and on the test images."""
Quoted = Iterator[tuple[str, str]]


def values(source: Source, column: str, recipe: str, seeds: str) -> list[float]:
    """A column of a grid, seed by seed."""
    return [source.get(column, recipe=recipe, seed=seed).exact for seed in seeds]


def ahead(source: Source, recipe: str, other: str, seeds: str, column: str = "map50_95") -> list[float]:
    """By how much ``recipe`` is above ``other``, seed by seed."""
    return [a - b for a, b in zip(values(source, column, recipe, seeds), values(source, column, other, seeds))]


def default() -> Quoted:
    """The default on CR7-DET at 224 px."""
    grid = Source("cr7-det")
    gains, gaps = (ahead(grid, name, "baseline", "012") for name in ("dfssd", "oracle"))
    recovered = [100 * ours / whole for ours, whole in zip(gains, gaps)]
    yield PAGE, "met with all three seeds ({:.0f}, {:.0f}, and {:.0f} %)".format(*recovered)
    missed = "missed: {:.1f}, {:.1f}, and {:.1f}; the oracle itself has {:.1f}, {:.1f}, and {:.1f} |"
    yield PAGE, missed.format(*(100 * value for value in gains + gaps))
    decided = [
        Source(f"{name}-means", digits=6).get(column, recipe=recipe).exact
        for name, recipe in (("cr7-det-160", "select"), ("cr7-det", "dfssd"))
        for column in ("val_gain", "val_gain_low", "val_gain_high")
    ]
    words = "{:.3f} [{:.3f}, {:.3f}] above the baseline here, and {:.3f} [{:.3f}, {:.3f}] at 224 px (validation)"
    yield "EXPERIMENTS.md", words.format(*decided)
    peer = [100 * gain for gain in ahead(grid, "dfssd", "ultralytics", "12")]
    yield PAGE, "the default: {:.1f} and {:.1f} with the two seeds run so far".format(*peer)
    above = {column: ahead(grid, "dfssd", "teacher", "012", column) for column in SCORES}
    yield PAGE, "the default: by {:.3f}, {:.3f}, and {:.3f} at 224 px".format(*above["map50_95"])
    both = [*above["map50_95"], *above["val_map50_95"]]
    yield PAGE, "(by {:.3f}, {:.3f}, and {:.3f} on test, {:.3f}, {:.3f}, and {:.3f} on validation)".format(*both)
    start = [*ahead(grid, "start-only", "baseline", "0"), gains[0]]
    yield "README.md", "that start brings {:.3f} of the {:.3f} of seed 0".format(*start)
    beyond = [ahead(grid, "dfssd", "start-only", "0", column)[0] for column in SCORES]
    yield PAGE, "bring {:.3f} (validation) and {:.3f} (test) beyond it with seed 0".format(*beyond)
    faded = [ahead(grid, "fade", "dfssd", "1", column)[0] for column in SCORES]
    yield PAGE, "({:+.3f} and {:.3f}), so the default keeps".format(*faded)
    own = [values(grid, column, "baseline", "1")[0] for column in SCORES]
    yield PAGE, "(whose baseline has {:.3f} and {:.3f})".format(*own)


def other_steel() -> Quoted:
    """The default on NEU-DET with a tenth of the labels."""
    grid = Source("neu-det-tenth")
    gains = [ahead(grid, "dfssd", other, "0")[0] for other in ("baseline", "teacher")]
    yield "README.md", "it is {:.3f} above its baseline and {:.3f} above its teacher".format(*gains)
    yield PAGE, "the student is {:.3f} above its baseline and {:.3f} above its teacher".format(*gains)


def screen() -> Quoted:
    """The same at 160 px."""
    grid, means = Source("cr7-det-160"), Source("cr7-det-160-means", digits=6)
    gain = means.get("gain", recipe="select").exact
    yield "README.md", f"the student is {gain:.3f} above its baseline"
    yield PAGE, f"all labels bring half a point, so {int(grid.rows[0]['steps']):,} batches"
    [beyond] = ahead(grid, "select", "start-only", "0")
    yield PAGE, f"ends {beyond:.3f} below `dfssd` (seed 0,"


def quickstart() -> Quoted:
    """The demo."""
    grid = Source("quickstart")
    gains = [100 * gain for gain in ahead(grid, "dfssd", "baseline", "01234", "map50")]
    yield PAGE, f"met with all five ({min(gains):.1f} to {max(gains):.1f})"
    yield PAGE, f"the gains are {min(gains):.1f} to {max(gains):.1f}, in the mean {sum(gains) / 5:.1f}."
    above = [100 * gain for gain in ahead(grid, "dfssd", "teacher", "01234", "map50")]
    yield PAGE, f"with all five, by {sum(above) / 5:.1f} points in the mean"


def published() -> Quoted:
    """The published method on CR7-DET."""
    grid = Source("cr7-det-published")
    names = ("dfssd-paper", "dfssd-paper-online", "baseline")
    decided = [values(grid, "val_map50_95", name, "0")[0] for name in names]
    yield PAGE, "prefers it ({:.3f} vs. {:.3f}; baseline {:.3f})".format(*decided)
    yield PAGE, f"is {ahead(grid, 'teacher', 'dfssd-paper', '0')[0]:.3f} below its teacher"
    yield PAGE, f"the oracle has {100 * ahead(grid, 'oracle', 'baseline', '0')[0]:.1f}."


def terms() -> Quoted:
    """The single terms on NEU-DET, and its split."""
    grid, lists = Source("neu-det"), ROOT / "benchmarks" / "splits" / "neu-det"
    n_train, n_val, n_test = (
        len((lists / f"{part}.txt").read_text(encoding="utf-8").split("\n")) - 1
        for part in ("train_labeled", "val", "test")
    )
    yield PAGE, f"({n_train:,} training, {n_val} validation, and {n_test} test images,"
    yield PAGE, f"and after minutes of training, has {max(float(row['map50']) for row in grid.rows):.3f}."
    steps = [grid.get("steps", recipe=name).exact for name in ("tskd-paper", "teacher")]
    yield PAGE, "{:,.0f} batches and optimizer steps for each student, {:,.0f} for the teacher".format(*steps)


def new_classes() -> Quoted:
    """Three new classes on NEU-DET."""
    today = Source("neu-det-incremental")

    def seeds(mode: str, column: str) -> list[float]:
        return [today.get(column, mode=mode, seed=seed).exact for seed in "012"]

    assert {
        steps for mode in ("sdidd", "sdidd-photos", "erd", "joint") for steps in seeds(mode, "optimizer_steps")
    } == {2460}
    yield PAGE, "All modes make 2,460 optimizer steps from the same base."
    gains: list[list[float]] = []
    shares: list[str] = []
    with_photos: list[str] = []
    for name in ("map50_95_all", "map_all"):
        low, ours, photos, high = (seeds(mode, name) for mode in ("erd", "sdidd", "sdidd-photos", "joint"))
        gains.append([b - a for a, b in zip(low, ours)])
        for texts, scores in ((shares, ours), (with_photos, photos)):
            parts = [100 * (b - a) / (c - a) for a, b, c in zip(low, scores, high)]
            texts.append("{:.0f}, {:.0f}, and {:.0f} %".format(*parts))
    yield PAGE, "by {:.3f}, {:.3f}, and {:.3f} mAP50-95".format(*gains[0])
    yield PAGE, "{:.3f}, {:.3f}, and {:.3f} AP50 of all classes".format(*gains[1])
    yield PAGE, f"It is {shares[0]} of it in mAP50-95, and {shares[1]} in AP50."
    points = "{:.1f}, {:.1f}, and {:.1f}".format(*(100 * gain for gain in gains[0]))
    yield PAGE, f"met with all three seeds: {points} points of mAP50-95"
    yield "docs/new-classes.md", f"above `erd` by {points} points of mAP50-95"
    yield "docs/new-classes.md", f"is missed: {shares[0]}."
    yield PAGE, f"covers {with_photos[0]} of the distance in mAP50-95, and {with_photos[1]} in AP50"
    yield PAGE, f"with unlabeled photos from before {with_photos[0]} |"
    yield "docs/new-classes.md", f"{with_photos[0]} are covered with unlabeled photos from before"
    yield from new_classes_as_published()


def new_classes_as_published() -> Quoted:
    """The same with the published terms, at earlier commits."""
    grid = Source("neu-det-incremental-published")

    def both(mode: str, column: str) -> list[float]:
        return [grid.get(column, mode=mode, seed=seed).exact for seed in "01"]

    steps = [both(mode, "optimizer_steps")[0] for mode in ("sdidd", "joint")]
    yield PAGE, "{:,.0f} optimizer steps; `joint`, which also has the old images, {:,.0f}.".format(*steps)
    lost = [*both("sdidd", "map50_95_forgetting"), *both("erd", "map50_95_forgetting")]
    yield PAGE, "({:.3f} / {:.3f} vs. {:.3f} / {:.3f})".format(*lost)
    gains = [a - b for name in ("map50_95_all", "map_all") for a, b in zip(both("sdidd", name), both("erd", name))]
    yield PAGE, "by {:.3f} and {:.3f}, and level in AP50 ({:+.3f} and {:+.3f},".format(*gains)


def masks() -> Quoted:
    """NEU-Seg."""
    grid, images = Source("neu-seg"), {"official": "3228", "grouped": "3576"}

    def number(column: str, split: str, role: str = "baseline") -> float:
        return grid.get(column, split=split, labeled=images[split], role=role).exact

    def gain(column: str, split: str, student: str = "student") -> float:
        return number(column, split, student) - number(column, split)

    tested, leaking = (number(name, "official") for name in ("test_images", "leaking_test_images"))
    yield PAGE, f"(3,228 / 402 / {tested:.0f} images for training, validation, and test)"
    yield PAGE, f"test images {leaking:.0f} have a rotated, mirrored,"
    yield "docs/masks.md", f"Of the {tested:.0f} official test images of NEU-Seg, {leaking:.0f} have such a twin"
    yield PAGE, f"(3,576 / 447 / {number('test_images', 'grouped'):.0f}), where none has"
    steps = [number("optimizer_steps", split) for split in images]
    yield PAGE, "4 epochs ({:,.0f} / {:,.0f} optimizer steps) for every network".format(*steps)
    [few] = [row for row in grid.rows if row["labeled"] == "358" and row["role"] == "student"]
    yield PAGE, f"{few['labeled']} labeled and {int(few['unlabeled']):,} unlabeled images"
    yield PAGE, f"teacher `mffmetal-60`, {few['optimizer_steps']} steps each"
    yield (
        PAGE,
        f"{gain('miou_fg', 'grouped'):+.3f} on the grouped test (validation {gain('val_miou_fg', 'grouped'):+.3f})"
        f", none on the official one (validation {gain('val_miou_fg', 'official', 'student_trained'):+.3f},",
    )
    miou = {role: grid.get("miou_fg", labeled="358", role=role).exact for role in ("teacher", "baseline", "student")}
    yield PAGE, "has {student:.3f}, the baseline {baseline:.3f}, and the teacher {teacher:.3f}:".format(**miou)


SUBJECTS = (default, other_steel, screen, quickstart, published, terms, new_classes, masks)


def flat(page: str) -> str:
    """Text of a page in one line, without emphasis."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").replace("*", "").split())


@pytest.mark.parametrize(("page", "words"), list(chain.from_iterable(subject() for subject in SUBJECTS)))
def test_sentences_agree_with_their_source(page: str, words: str) -> None:
    assert words in flat(page)
