"""Rows of a ``results.csv`` that two versions have written."""

from __future__ import annotations

import math
from pathlib import Path

from dfssd.trainers.results_csv import fit_columns, read_results_csv


def test_a_new_file_takes_all_columns(tmp_path: Path) -> None:
    assert fit_columns(tmp_path / "results.csv", {"loss": 1, "map": 0.5}) == {"loss": 1, "map": 0.5}


def test_columns_of_an_earlier_version_stay(tmp_path: Path) -> None:
    """Else the values would move into other columns, without a word."""
    file = tmp_path / "results.csv"
    file.write_text("epoch,time,loss,val/u_box_loss,map\n1,2,3,0,0.5\n", encoding="utf-8")
    fitted = fit_columns(file, {"map": 0.6, "loss": 2.5, "new": 1})
    assert list(fitted) == ["loss", "val/u_box_loss", "map"]
    assert fitted["loss"] == 2.5 and fitted["map"] == 0.6 and math.isnan(fitted["val/u_box_loss"])
    with open(file, "a", encoding="utf-8") as f:
        f.write(",".join(map(str, [2, 4, *fitted.values()])) + "\n")
    assert [row["map"] for row in read_results_csv(file)] == ["0.5", "0.6"]
