import numpy as np
import pytest
from ultralytics.data.utils import verify_image_label

from dfssd.datasets.label_files import format_labels, read_label_file
from dfssd.errors import UserError
from tests.datasets.material import write_label, write_picture


def read(tmp_path, text, n_classes=3):
    return read_label_file(write_label(tmp_path / "a.txt", text), n_classes)


def test_rows_are_read_as_they_are(tmp_path):
    boxes = read(tmp_path, "1 0.5 0.5 0.25 0.5\n\n 2  0.1 0.2 0.1 0.1 \n")
    np.testing.assert_array_equal(boxes, np.array([[1, 0.5, 0.5, 0.25, 0.5], [2, 0.1, 0.2, 0.1, 0.1]], np.float32))


def test_an_empty_file_means_defect_free(tmp_path):
    assert read(tmp_path, "\n").shape == (0, 5)


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeff0 0.5 0.5 0.1 0.1\r\n1 0.5 0.5 0.2 0.2\r\n".encode())
    assert read_label_file(file, 2)[:, 0].tolist() == [0, 1]


def test_repeated_rows_count_once(tmp_path):
    assert len(read(tmp_path, "0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0.1")) == 1


def test_a_polygon_becomes_its_box(tmp_path):
    np.testing.assert_allclose(read(tmp_path, "1 0.1 0.2 0.5 0.2 0.3 0.6"), [[1, 0.3, 0.4, 0.4, 0.4]], atol=1e-6)


def test_rounding_beyond_the_border_is_cut_off(tmp_path):
    np.testing.assert_allclose(read(tmp_path, "0 1.005 0.5 0.1 0.2"), [[0, 0.9775, 0.5, 0.045, 0.2]], atol=1e-6)
    np.testing.assert_allclose(read(tmp_path, "0 0.02 0.5 0.1 0.2"), [[0, 0.035, 0.5, 0.07, 0.2]], atol=1e-6)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1 0.1 0.93", "6 columns, expected 5"),
        ("0 0.5 0.5 0.1", "4 columns, expected 5"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "8 columns"),
        ("3 0.5 0.5 0.1 0.1", "class id 3 is out of range, the data set has 3 classes"),
        ("-1 0.5 0.5 0.1 0.1", "class id -1 is not a whole number"),
        ("0.5 0.5 0.5 0.1 0.1", "class id 0.5 is not a whole number"),
        ("0 120 80 30 20", "coordinates outside 0-1"),
        ("0 0.5 -0.02 0.1 0.1", "coordinates outside 0-1"),
        ("0 nan 0.5 0.1 0.1", "contains NaN"),
        ("0 0.5 0.5 inf 0.1", "contains NaN or infinity"),
        ("0 0.5 0.5 0 0.1", "box without area"),
        ("pit 0.5 0.5 0.1 0.1", "not all columns are numbers"),
        ("1 0.1 0.2 0.5 0.2 0.3 1.6", "polygon coordinates outside 0-1"),
    ],
)
def test_a_wrong_line_is_reported_with_file_and_line(tmp_path, line, message):
    with pytest.raises(UserError, match=rf"a\.txt:2: .*{message}"):
        read(tmp_path, f"0 0.5 0.5 0.1 0.1\n{line}")


def test_boxes_and_polygons_in_one_file_are_rejected_as_ultralytics_does(tmp_path):
    with pytest.raises(UserError, match=r"a\.txt:2: boxes \(5 columns\) and polygons"):
        read(tmp_path, "0 0.5 0.5 0.1 0.1\n1 0.1 0.2 0.5 0.2 0.3 0.6")


def test_a_file_that_is_no_text_is_reported(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="cannot be read as a text file"):
        read_label_file(tmp_path / "a.txt", 3)


def test_any_id_is_accepted_while_the_names_are_unknown(tmp_path):
    assert read(tmp_path, "41 0.5 0.5 0.1 0.1", None)[0, 0] == 41


def test_written_labels_pass_the_verifier_of_ultralytics_unchanged(tmp_path):
    boxes = np.array([[0, 0.123456, 0.5, 1 / 3, 0.2], [2, 0.5, 0.5, 1, 1]], np.float32)
    file = write_label(tmp_path / "a.txt", format_labels(boxes))
    image = write_picture(tmp_path / "a.png", 0)
    _, read_back, _, _, _, _, found, _, corrupt, _ = verify_image_label(
        (str(image), str(file), "", False, 3, 0, 0, False)
    )
    assert (found, corrupt) == (1, 0)
    np.testing.assert_array_equal(read_back, boxes)
