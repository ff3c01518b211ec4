from __future__ import annotations

import math

from dfssd.files import read_json
from dfssd.reporting.run_files import read_csv, weight_sizes


def test_columns_of_a_csv_without_its_half_written_row(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("epoch,  train/box_loss\n1, 0.5\n2, what\n3")
    columns = read_csv(path)
    assert columns["epoch"] == [1.0, 2.0] and columns["train/box_loss"][0] == 0.5
    assert math.isnan(columns["train/box_loss"][1])
    assert read_csv(tmp_path / "none.csv") == {}
    path.write_text("epoch,time\n")
    assert read_csv(path) == {}


def test_json_that_is_no_object_is_empty(tmp_path):
    path = tmp_path / "predictions.json"
    assert read_json(path) == {}
    for text, content in (('{"a": 1}', {"a": 1}), ("[1]", {}), ('{"a": ', {})):
        path.write_text(text)
        assert read_json(path) == content


def test_size_of_each_checkpoint(tmp_path):
    assert weight_sizes(tmp_path) == {}
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "student.pt").write_bytes(bytes(1_500_000))
    (tmp_path / "weights" / "student.onnx").write_bytes(bytes(10))
    assert weight_sizes(tmp_path) == {"student": 1.5}
