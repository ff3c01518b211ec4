"""A table of means over seeds is compared with ``<grid>-means.csv``, and that file with the rows it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfssd.benchmark.table import write_tables
from tests.benchmark.test_summary import CELLS, three_seeds
from tests.docs.number_tables import NUMBER, Source, Table, disagreements, means_of, recomputed

TEXT = """
<!-- from benchmarks/g-means.csv: g -->
| test images | seeds | val mAP50-95 | test mAP50-95 | mAP50 | batches | val vs. baseline | vs. baseline | vs. Ultralytics | baseline to oracle |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| baseline | 3 | 0.410 ± 0.010 | 0.310 ± 0.010 | 0.510 ± 0.010 | 80 | - | - | -0.030 [-0.284, +0.224] (0 of 2) | - |
| **dfssd** | 3 | 0.440 ± 0.020 | **0.360 ± 0.020** | 0.560 ± 0.020 | 80 | +0.030 [+0.005, +0.055] (3 of 3) | +0.050 [+0.025, +0.075] (3 of 3) | +0.020 [-0.361, +0.401] (1 of 2) | 50 % [20 %, 100 %] |
"""  # noqa: E501


@pytest.fixture
def written(tmp_path: Path) -> Path:
    rows = [row for row in three_seeds() if row.recipe != "oracle" or row.seed < 3]
    for row in rows:
        row.values["optimizer_steps"] = 80
    write_tables(rows, "g", tmp_path, cells=CELLS, commands=[])
    return tmp_path


def table_of(folder: Path) -> Table:
    return Table("g-means", ("baseline", "dfssd"), means_of(Source("g-means", folder, digits=6), "0.1"))


def test_table_agrees_and_any_number_that_changes_is_noticed(written):
    table = table_of(written)
    assert disagreements(TEXT, "g", table) == []
    start = TEXT.index("| baseline")
    for match in NUMBER.finditer(TEXT, start):
        digit = "5" if TEXT[match.end() - 1] in "012" else "0"
        wrong = TEXT[: match.end() - 1] + digit + TEXT[match.end() :]
        assert disagreements(wrong, "g", table), match


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (" ± 0.010 | 80", " | 80"),
        ("[-0.284, +0.224] ", ""),
        ("(0 of 2) | - |", "(0 of 2) | 0 % |"),
        ("50 % [20 %, 100 %]", "50 %"),
    ],
)
def test_number_that_is_missing_or_added_is_noticed(written, old, new):
    assert old in TEXT and disagreements(TEXT.replace(old, new), "g", table_of(written))


def test_means_follow_from_the_rows(written):
    assert recomputed(Source("g", written), Source("g-means", written)) == []
    file = written / "g-means.csv"
    text = file.read_text()
    for old, new in [("0.36,", "0.37,"), ("0.075", "0.085"), ("dfssd,0.1,3", "dfssd,0.1,2")]:
        assert old in text
        file.write_text(text.replace(old, new, 1))
        assert recomputed(Source("g", written), Source("g-means", written)), old
    file.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    assert recomputed(Source("g", written), Source("g-means", written)) == ["3 rows, not 4"]
