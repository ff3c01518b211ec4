import numpy as np
import pytest

from dfssd.datasets.annotations import BrokenFile, LabelFile, Polygons
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


def test_visible_keypoints_are_not_taken_for_polygons(tmp_path):
    visible = pose(0.7, 0.6, 0.1, 0.12, 0.69, 0.6, 2, 0.72, 0.62, 1)
    assert annotation(tmp_path, visible, visible).problem == KEYPOINTS
    odd = pose(0.7, 0.6, 0.1, 0.12, 0.69, 0.6, 2, 0.72, 0.62, 1, 0, 0, 0)
    assert annotation(tmp_path, odd).problem == KEYPOINTS
    outside = pose(0.7, 0.6, 0.1, 0.12, 0.3, 0.6, 1, 0.72, 0.62, 1)  # the first point is not in the box
    assert annotation(tmp_path, outside).problem is None


@pytest.mark.parametrize(
    ("rows", "columns", "fits", "jumps"),
    [
        ([pose(0.7, 0.6, 0.1, 0.12, 0.69, 0.6, 0.72, 0.62)], 9, True, True),
        ([pose(0.5, 0.5, 0.5, 0.5, 0.4, 0.3, 0.6, 0.7)], 9, True, False),
        ([pose(0.7, 0.6, 0.1, 0.12, 0.69, 0.6, 0, 0)], 9, True, False),  # a hidden keypoint
        ([pose(0.7, 0.6, 0.1, 0.12, 0.69, 0.6, 0.2, 0.2)], 9, False, False),
        ([pose(0.7, 0.6, 0.7, 0.12, 0.69, 0.6, 0.72, 0.62)], 9, False, False),  # the box leaves the image
        (["0 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4"], 9, False, False),
        (["0 0.5 0.5 0.52 0.501 0.519 0.53 0.5 0.529"], 9, False, False),  # an oriented box, rounded
        (["0 0.5 0.5 0.52 0.5 0.52 0.53 0.48 0.55"], 9, True, False),  # any four corners
        (["0 0.5 0.5 0.52 0.5 0.52 0.53 0.48 0.55 0.5 0.5"], 11, False, False),  # closed
        (["0 0.2 0.3 0.25 0.28 0.3 0.3 0.3 0.35 0.25 0.4 0.2 0.35"], 13, True, False),
        (["0 0.1 0.2 0.5 0.2 0.3 0.6"], 7, False, False),
        (["0 0.5 0.5 0.6 0.5 0.5 0.6", "0 0.5 0.5 0.6 0.5 0.6 0.6 0.4 0.4"], 0, False, False),
    ],
)
def test_polygons_tell_whether_they_could_be_keypoints(tmp_path, rows, columns, fits, jumps):
    found = annotation(tmp_path, *rows)
    assert found.problem is None and len(found.labels) == len(rows)
    assert found.polygons == Polygons(columns, fits, jumps)


def test_boxes_are_no_polygons(tmp_path):
    assert annotation(tmp_path, "0 0.5 0.5 0.1 0.1").polygons is None
    assert annotation(tmp_path, "").polygons is None
    assert annotation(tmp_path, pose(0.7, 0.6, 0.1, 0.1, 0.7, 0.6), keypoints=(1, 2)).polygons is None


BOTH = pose(0.5, 0.5, 0.5, 0.5, 0.4, 0.3, 0.6, 0.7)
JUMP = pose(0.7, 0.6, 0.1, 0.12, 0.69, 0.6, 0.72, 0.62)
QUAD = "0 0.9 0.9 0.95 0.9 0.95 0.95 0.9 0.95"


@pytest.mark.parametrize(
    ("rows", "keypoints"),
    [
        ([BOTH], False),
        ([BOTH] * 7, False),
        ([BOTH] * 8, True),
        ([JUMP], True),
        ([BOTH, JUMP, BOTH], True),
        ([BOTH, JUMP, QUAD], False),
        ([JUMP] * 18 + [QUAD] * 2, True),  # points of two files lie outside of their boxes
        ([JUMP] * 17 + [QUAD] * 3, False),
        ([JUMP] * 18 + ["0 0.5 0.5 0.52 0.5 0.52 0.53"], False),  # another number of columns
        ([QUAD] * 20, False),
        (["0 0.5 0.5 0.1 0.1"] * 20, False),
    ],
)
def test_all_files_together_tell_keypoints_from_polygons(tmp_path, rows, keypoints):
    files = [read(tmp_path, row, name=f"{i}.txt") for i, row in enumerate(rows)]
    plain = read(tmp_path, "0 0.5 0.5 0.1 0.1", name="plain.txt")
    *settled, same = settle_keypoints([*files, plain])
    assert [file.annotations[0].problem for file in settled] == [KEYPOINTS if keypoints else None] * len(rows)
    assert [file.file for file in settled] == [file.file for file in files] and len(same.annotations[0].labels) == 1


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("10 20 30 20 30 40 10 40 plane 0", "row of DOTA"),
        ("10 20 30 20 30 40 10 40 plane", "row of DOTA"),
        ("Car 0.00 0 -1.57 564.62 174.59 616.43 224.46 1.61 1.66 0.69 -1.29 39.02 4.17 46.79", "row of KITTI"),
        ("684,8,273,116,0,0,0,0", "commas in the row"),
        ("0 0,5 0,5 0,1 0,1", "commas in the row"),
        ("0 0.5 0.5 0.1 0.1 0.93", "6 columns, expected 5 (class x y w h); remove the confidence column"),
        ("0 0.5 0.5 0.1 0.1 -1.57", "6 columns, expected 5 (class x y w h); the last may be an angle"),
        ("0 0.5 0.5 0.1 0.1 0.5 0.5 7", "8 columns, expected 5 (class x y w h) or an odd"),
    ],
)  # fmt: skip
def test_rows_of_other_formats_are_named(tmp_path, row, problem):
    found = annotation(tmp_path, row)
    assert found.problem.startswith(problem) and found.place == ":1"
