import numpy as np
import pytest

from dfssd.datasets.annotations import BrokenFile, LabelFile
from dfssd.datasets.label_files import read_label_file
from dfssd.datasets.readers.yolo import KEYPOINTS, read_yolo, settle_keypoints
from tests.datasets.material import write_label


def read(tmp_path, *rows, keypoints=None, name="a.txt"):
    found = read_yolo(write_label(tmp_path / name, *rows), keypoints)
    assert isinstance(found, LabelFile) and found.format == "yolo" and len(found.annotations) == 1
    return found


def annotation(tmp_path, *rows, keypoints=None):
    return read(tmp_path, *rows, keypoints=keypoints).annotations[0]


def pose(x, y, w, h, *points):
    return " ".join(map(str, (0, x, y, w, h, *points)))


def test_rows_are_read_as_they_are(tmp_path):
    found = annotation(tmp_path, "1 0.523456789 0.5 0.25 0.3", "", "0 0.1 0.2 0.1 0.1")
    assert found.labels == (1, 0) and found.normalized and found.image is None and found.problem is None
    assert found.boxes.dtype == np.float64
    assert found.boxes.tolist() == [[0.523456789, 0.5, 0.25, 0.3], [0.1, 0.2, 0.1, 0.1]]


def test_an_empty_file_means_defect_free(tmp_path):
    found = annotation(tmp_path, "")
    assert found.labels == () and found.boxes.shape == (0, 4) and found.problem is None


def test_boxes_are_those_of_the_file_of_labels_to_the_last_bit(tmp_path):
    rng = np.random.default_rng(1)
    rows = [f"{i % 3} " + " ".join(f"{v:.17g}" for v in rng.uniform(0.01, 1, 4)) for i in range(200)]
    found = annotation(tmp_path, *rows)
    assert np.array_equal(found.boxes.astype(np.float32), read_label_file(tmp_path / "a.txt", 3)[:, 1:])
    assert found.labels == tuple(i % 3 for i in range(200))


def test_a_wrong_line_is_named(tmp_path):
    found = annotation(tmp_path, "0 0.5 0.5 0.1 0.1", "", "0 120 80 30 20")
    assert found.where == f"{tmp_path / 'a.txt'}:3" and found.problem.startswith("coordinates outside 0-1")
    assert len(found.labels) == len(found.boxes) == 0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("0 0.5 0.5 0.1 0.1".encode("utf-16"), "is not UTF-8; save it as UTF-8"),
        ("0 0.5 0.5 0.1 0.1 # Öl".encode("latin-1"), "is not UTF-8; save it as UTF-8"),
    ],
)
def test_other_encodings_are_refused(tmp_path, content, problem):
    (tmp_path / "a.txt").write_bytes(content)
    assert read_yolo(tmp_path / "a.txt").annotations[0].problem == problem


def test_a_file_that_cannot_be_opened_is_told(tmp_path):
    found = read_yolo(tmp_path / "a.txt")
    assert isinstance(found, BrokenFile) and found.problem.startswith("cannot be read (No such file or directory)")


def test_known_keypoints_stand_behind_the_box(tmp_path):
    rows = "1 0.5 0.5 0.2 0.2 0.4 0.4 2 0.9 0.9 0 0 0 0", "0 0.3 0.3 0.2 0.2 0.3 0.3 1 0.3 0.3 1 0 0 0"
    found = annotation(tmp_path, *rows, keypoints=(3, 3))
    assert found.labels == (1, 0) and found.boxes.tolist() == [[0.5, 0.5, 0.2, 0.2], [0.3, 0.3, 0.2, 0.2]]
    found = annotation(tmp_path, *rows, keypoints=(2, 2))
    assert found.problem.startswith("14 columns, expected 9 (class x y w h and 2 keypoints of 2 values, as kpt_shape")
    assert annotation(tmp_path, "1 0.5 0.5 0.2 0.2", keypoints=(2, 2)).boxes.tolist() == [[0.5, 0.5, 0.2, 0.2]]


def test_keypoints_without_a_shape_are_not_taken_for_polygons(tmp_path):
    found = annotation(tmp_path, pose(0.7, 0.6, 0.1, 0.12, 0.69, 0.6, 0.72, 0.62))
    assert found.problem == KEYPOINTS and found.labels == ()
    visible = pose(0.7, 0.6, 0.1, 0.12, 0.69, 0.6, 2, 0.72, 0.62, 1)
    assert annotation(tmp_path, visible).problem == KEYPOINTS
    odd = pose(0.7, 0.6, 0.1, 0.12, 0.69, 0.6, 2, 0.72, 0.62, 1, 0, 0, 0)
    assert annotation(tmp_path, odd).problem == KEYPOINTS


@pytest.mark.parametrize(
    "row",
    [
        "0 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4",  # a rectangle, or an oriented box
        "0 0.5 0.5 0.52 0.5 0.52 0.53 0.5 0.53",
        "0 0.2 0.3 0.25 0.28 0.3 0.3 0.3 0.35 0.25 0.4 0.2 0.35",
        "0 0 0 0 1 1 1 1 0",
        "0 0.1 0.2 0.5 0.2 0.3 0.6",
    ],
)
def test_polygons_stay_polygons(tmp_path, row):
    found = annotation(tmp_path, row)
    assert found.problem is None and len(found.labels) == 1


def test_files_that_could_be_both_follow_those_that_are_not(tmp_path):
    both = read(tmp_path, pose(0.5, 0.5, 0.5, 0.5, 0.4, 0.3, 0.6, 0.7), name="both.txt")
    polygon = read(tmp_path, "0 0.9 0.9 0.95 0.9 0.95 0.95 0.9 0.95", name="polygon.txt")
    keypoints = read(tmp_path, pose(0.7, 0.6, 0.1, 0.12, 0.69, 0.6, 0.72, 0.62), name="pose.txt")
    assert both.annotations[0].ambiguous and both.annotations[0].problem is None
    assert not polygon.annotations[0].ambiguous
    assert settle_keypoints([both, polygon]) == [both, polygon]
    problems = [file.annotations[0].problem for file in settle_keypoints([both, keypoints, polygon])]
    assert problems == [KEYPOINTS, KEYPOINTS, None]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("10 20 30 20 30 40 10 40 plane 0", "row of DOTA"),
        ("10 20 30 20 30 40 10 40 plane", "row of DOTA"),
        ("Car 0.00 0 -1.57 564.62 174.59 616.43 224.46 1.61 1.66 0.69 -1.29 39.02 4.17 46.79", "row of KITTI"),
        ("684,8,273,116,0,0,0,0", "commas in the row"),
        ("0 0,5 0,5 0,1 0,1", "commas in the row"),
        ("0 0.5 0.5 0.1 0.1 0.93", "6 columns, expected 5"),
        ("0 0.5 0.5 0.1 0.1 0.5 0.5 7", "8 columns, expected 5 (class x y w h) or an odd"),
    ],
)  # fmt: skip
def test_rows_of_other_formats_are_named(tmp_path, row, problem):
    found = annotation(tmp_path, row)
    assert found.problem.startswith(problem) and found.place == ":1"
