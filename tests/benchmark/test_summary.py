"""Means over seeds, paired intervals, and the table that shows them."""

from __future__ import annotations

import csv
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from dfssd.benchmark.rows import COLUMNS, Row
from dfssd.benchmark.summary import Difference, Mean, Recovered, difference, mean_of, recovered, student_t, summaries
from dfssd.benchmark.table import csv_rows, markdown, write_tables
from dfssd.reporting.tables import csv_text
from tests.evaluation.test_detections import random_detections

CELLS = ["baseline", "ultralytics", "dfssd", "other", "oracle"]


def row(recipe: str, value: float, seed: int = 0, labeled: float = 0.1, **values) -> Row:
    known = {"map50_95": value, "map50": value + 0.2, "steps": 80, "optimizer_steps": 20, **values}
    return Row(recipe, labeled, seed, {key: known.get(key) for key in COLUMNS[3:]})


def seeds(recipe: str, *values: float) -> dict[int, Row]:
    return {seed: row(recipe, value, seed) for seed, value in enumerate(values)}


def read(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))


def cells_of(text: str, cell: str) -> dict[str, str]:
    """The line of a cell in the first table of a page, by column."""
    lines = [[part.strip() for part in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    return dict(zip(lines[0], next(line for line in lines if line[0] == cell)))


def test_mean_and_standard_deviation():
    found = mean_of([0.1, 0.2, 0.3])
    assert (found.value, found.sd) == pytest.approx((0.2, 0.1)) and str(found) == "0.200 ± 0.100"
    assert mean_of([0.4]) == Mean(0.4) and str(Mean(0.4)) == "0.400"


def test_t_interval_by_hand():
    """Differences 1, 2, 3: mean 2, sd 1, standard error 1/sqrt(3), t(2, 97.5 %) = 4.3027."""
    assert student_t([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.30265 / 3**0.5, 2 + 4.30265 / 3**0.5), abs=1e-4)
    low, high = student_t([0.0, 2.0])  # t(1, 97.5 %) = 12.706, standard error 1
    assert (low, high) == pytest.approx((1 - 12.7062, 1 + 12.7062), abs=1e-3)


def test_difference_is_paired_by_seed():
    ours, base = seeds("dfssd", 0.33, 0.44, 0.55), seeds("baseline", 0.30, 0.40, 0.50)  # gains .03 .04 .05
    gap = difference(ours, base)
    assert gap is not None and gap.kind == "seeds"
    half = 4.30265 * 0.01 / 3**0.5
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.04, 0.04 - half, 0.04 + half), abs=1e-6)
    assert str(gap) == "+0.040 [+0.015, +0.065] (3 of 3)"
    del base[1], base[2]
    assert difference(ours, base) == Difference(pytest.approx(0.03), above=1)  # one common seed, no detections
    assert difference(ours, {}) is None


def test_seeds_above_and_below_are_counted_among_those_that_both_have():
    gap = difference(seeds("dfssd", 0.31, 0.40, 0.49, 0.9), seeds("baseline", 0.30, 0.40, 0.50))
    assert gap is not None and (gap.above, gap.seeds) == (1, 3) and str(gap).endswith(" (1 of 3)")


def test_difference_on_validation_is_that_of_its_own_column():
    ours, base = (
        {s: row("x", 0.5, s, val_map50_95=v) for s, v in enumerate(vals)} for vals in ((0.4, 0.6), (0.3, 0.3))
    )
    gap = difference(ours, base, "val_map50_95")
    assert gap is not None and gap.value == pytest.approx(0.2) and gap.kind == "seeds"
    base[1] = row("x", 0.5, 1, val_map50_95=None)  # one seed is left, and no bootstrap: its images are not the test's
    assert difference(ours, base, "val_map50_95") == Difference(pytest.approx(0.1), above=1)


def test_one_seed_takes_the_test_images(tmp_path):
    worse, better = random_detections(skill=0.5), random_detections(skill=0.5)
    better = replace(better, tp=better.tp | (better.conf > 0.9)[:, None])
    better.write(tmp_path / "a.npz")
    worse.write(tmp_path / "b.npz")
    replace(worse, images=worse.images[::-1]).write(tmp_path / "c.npz")
    a, b = (replace(row("x", value), detections=tmp_path / f) for value, f in ((0.34, "a.npz"), (0.30, "b.npz")))
    gap = difference({0: a}, {0: b})
    assert gap is not None and gap.kind == "images" and 0 < gap.low < gap.high
    assert str(gap).startswith("+0.040 [+0.") and str(gap).endswith("]*")
    other = difference({0: a}, {0: replace(b, detections=tmp_path / "c.npz")})
    assert other == Difference(pytest.approx(0.04), above=1)


def test_recovered_share_is_a_ratio_of_means():
    base, ours, oracle = seeds("baseline", 0.3, 0.2), seeds("dfssd", 0.36, 0.24), seeds("oracle", 0.4, 0.4)
    found = recovered(ours, base, oracle)
    assert found is not None and found.value == pytest.approx(1 / 3)  # (.06 + .04) / (.1 + .2); mean of ratios: .4
    assert recovered(ours, base, {0: oracle[0]}) == Recovered(pytest.approx(0.6))
    assert recovered(ours, base, {}) is None
    for oracle in (seeds("oracle", 0.3, 0.1), seeds("oracle", 0.4, 0.1), seeds("oracle", 0.4, 0.2)):
        assert recovered(ours, base, oracle) is None, "an oracle that is no better in each seed measures nothing"


def test_interval_of_the_recovered_share_by_hand():
    """Equal distances: the share is a mean of gains in units of the distance, and so is its interval."""
    base, oracle = seeds("baseline", 0.3, 0.3, 0.3), seeds("oracle", 0.5, 0.5, 0.5)
    found = recovered(seeds("dfssd", 0.33, 0.34, 0.35), base, oracle)
    half = 4.30265 * 0.01 / 3**0.5 / 0.2
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-5)
    assert str(found) == "20% [8%, 32%]"


def test_ends_of_the_recovered_share_are_where_the_t_test_turns():
    base = seeds("baseline", 0.30, 0.31, 0.29, 0.30)
    ours, oracle = seeds("dfssd", 0.33, 0.35, 0.31, 0.34), seeds("oracle", 0.36, 0.37, 0.34, 0.38)
    found = recovered(ours, base, oracle)
    assert found is not None and found.low is not None and found.high is not None
    assert found.low < found.value < found.high
    for share in (found.low, found.high):
        rest = [ours[s].map50_95 - base[s].map50_95 - share * (oracle[s].map50_95 - base[s].map50_95) for s in range(4)]
        t = statistics.fmean(rest) / (statistics.stdev(rest) / math.sqrt(4))
        assert abs(t) == pytest.approx(3.18245, abs=1e-4)  # t(3, 97.5 %)


def test_share_of_a_distance_that_may_be_nothing_has_no_interval():
    found = recovered(seeds("dfssd", 0.31, 0.32), seeds("baseline", 0.30, 0.30), seeds("oracle", 0.31, 0.40))
    assert found == Recovered(pytest.approx(3 / 11)) and str(found) == "27%"


def three_seeds() -> list[Row]:
    rows = [row("baseline", v, s, val_map50_95=v + 0.1) for s, v in enumerate((0.30, 0.32, 0.31))]
    rows += [row("dfssd", v, s, val_map50_95=v + 0.08) for s, v in enumerate((0.34, 0.38, 0.36))]
    rows += [row("ultralytics", v, s, val_map50_95=0.4) for s, v in enumerate((0.35, 0.33))]
    return rows + [row("oracle", 0.41, s, 1.0, val_map50_95=0.5) for s in range(3)]


def test_table_of_three_seeds(tmp_path):
    """Gains .04, .06, .05 on test and .02, .04, .03 on val; t(2) = 4.30265, standard error .01 / sqrt(3)."""
    write_tables(three_seeds(), "g", tmp_path, cells=CELLS, commands=["python x", "python y"])
    text = (tmp_path / "g.md").read_text()
    assert cells_of(text, "dfssd") == {
        "cell": "dfssd",
        "seeds": "3",
        "val mAP50-95": "0.440 ± 0.020",
        "val against baseline": "+0.030 [+0.005, +0.055] (3 of 3)",
        "test mAP50-95": "0.360 ± 0.020",
        "test mAP50": "0.560 ± 0.020",
        "batches / optimizer steps": "80 / 20",
        "against baseline": "+0.050 [+0.025, +0.075] (3 of 3)",
        "against ultralytics": "+0.020 [-0.361, +0.401] (1 of 2)",
        "baseline to oracle recovered": "50% [20%, 100%]",  # distances .11, .09, .10
    }
    assert cells_of(text, "baseline")["against baseline"] == "-"
    assert "Fieller" in text and "Student's t" in text and "bootstrap" not in text and "Not run: other." in text
    assert "```\npython x\npython y\n```" in text
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["g-means.csv", "g.csv", "g.md", "g.png"]


def test_means_have_what_the_table_shows(tmp_path):
    write_tables(three_seeds(), "g", tmp_path, cells=CELLS, commands=[])
    [line] = [line for line in read(tmp_path / "g-means.csv") if line["recipe"] == "dfssd"]
    numbers = {key: float(value) for key, value in line.items() if value and key != "recipe"}
    expected = {"labeled": 0.1, "seeds": 3, "val_map50_95": 0.44, "map50_95": 0.36, "map50_95_sd": 0.02, "steps": 80}
    expected |= {"gain": 0.05, "gain_low": 0.025159, "gain_high": 0.074841, "gain_above": 3, "gain_seeds": 3}
    expected |= {"ultralytics_gain": 0.02, "ultralytics_gain_above": 1, "ultralytics_gain_seeds": 2, "recovered": 0.5}
    assert {key: numbers[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    [base] = [line for line in read(tmp_path / "g-means.csv") if line["recipe"] == "baseline"]
    assert base["gain"] == base["gain_low"] == base["recovered"] == ""


def test_table_of_several_seeds_and_shares(tmp_path):
    rows = [row("baseline", v, s, x) for x in (0.1, 50) for s, v in ((0, 0.30), (1, 0.32))]
    rows += [row("dfssd", v, s, x, steps=80 + s) for x in (0.1, 50) for s, v in ((0, 0.34), (1, 0.38))]
    rows += [row("oracle", 0.41, s, 1.0) for s in (0, 1)]
    write_tables(rows, "g", tmp_path, cells=CELLS, commands=["python x"])
    text = (tmp_path / "g.md").read_text()
    assert "## 10 % of the labels" in text and "## 50 labeled images" in text
    line = cells_of(text, "dfssd")
    # gains .04 and .06: mean .05, standard error .01, t = 12.706
    assert line["against baseline"] == "+0.050 [-0.077, +0.177] (2 of 2)" and line["val mAP50-95"] == "-"
    assert line["batches / optimizer steps"] == "80 to 81 / 20" and line["baseline to oracle recovered"] == "50%"
    assert len(read(tmp_path / "g.csv")) == 10
    assert [line["steps"] for line in read(tmp_path / "g-means.csv") if line["recipe"] == "dfssd"] == ["80 to 81"] * 2


def test_baseline_from_scratch_stands_above_the_pretrained_one():
    rows = [row("baseline", 0.38), row("baseline_scratch", 0.36), row("teacher", 0.45)]
    first, scratch, last = summaries(rows, 0.1, ["baseline", "dfssd"])
    assert [line.cell for line in (first, scratch, last)] == ["teacher", "baseline_scratch", "baseline"]
    assert scratch.gain and scratch.gain.value == pytest.approx(-0.02) and last.gain is None


def test_guard_is_reported():
    rows = [row("baseline", 0.3), row("dfssd", 0.3, chosen="baseline")]
    lines = markdown(rows, {0.1: summaries(rows, 0.1, ["dfssd"])}, "g", cells=["dfssd"], commands=["x"])
    assert any("In dfssd the guard kept the baseline's weights" in line for line in lines)


def test_unknown_values_are_empty_in_the_csv():
    header, line = csv_text(*csv_rows([row("dfssd", 0.3, steps=None)]), show=str).splitlines()
    assert header.split(",") == list(COLUMNS)
    assert dict(zip(COLUMNS, line.split(",")))["steps"] == ""
