import numpy as np

from tests.datasets.material import neu, voc_xml, write_picture
from tests.datasets.reading import read_folder


def test_boxes_are_normalized_and_names_sorted(tmp_path):
    source = read_folder(neu(tmp_path))
    assert source.names == ("crazing", "patches", "scratches")
    boxes = [item.boxes for item in source.items]
    np.testing.assert_allclose(boxes[0], [[2, 0.25, 0.25, 0.5, 0.5]])  # 1-based, inclusive pixels
    np.testing.assert_allclose(boxes[1], [[0, 0.5, 0.5, 0.5, 0.5], [1, 0.5, 0.5, 1, 1]])
    assert boxes[2].shape == (0, 5)


def test_given_names_set_the_ids(tmp_path):
    source = read_folder(neu(tmp_path), ["scratches", "patches", "crazing", "pits"], None)
    assert source.names == ("scratches", "patches", "crazing", "pits")
    assert source.items[0].boxes[0, 0] == 0


def test_an_unknown_class_is_reported_with_its_file(tmp_path):
    source = read_folder(neu(tmp_path), ["scratches", "patches"], None)
    assert [reason for _, reason in source.problems] == [
        f"{tmp_path / 'ANNOTATIONS' / 'plate_1.xml'}: class 'crazing' is not among the names (scratches, patches); "
        "add it to names="
    ]


def test_wrong_files_are_reported_and_the_others_read(tmp_path):
    root = neu(tmp_path)
    for i, text in enumerate(
        (
            "<annotation><object>",
            voc_xml([("pit", 1, 1, 500, 20)]),
            voc_xml([("pit", 9, 9, 8, 20)]).replace(">8<", ">x<"),
        )
    ):
        write_picture(root / "IMAGES" / f"bad_{i}.jpg", 10 + i)
        (root / "ANNOTATIONS" / f"bad_{i}.xml").write_text(text)
    source = read_folder(root)
    assert len(source.items) == 3 and source.names == ("crazing", "patches", "scratches")
    reasons = [reason for _, reason in source.problems]
    assert "bad_0.xml: is not valid XML (no element found" in reasons[0]
    assert "bad_1.xml: box x1 y1 x2 y2 = 0 0 500 20 reaches outside the image (64x48 px)" in reasons[1]
    assert "bad_2.xml: " in reasons[2] and "xmax" in reasons[2]


def test_an_entity_bomb_is_rejected(tmp_path):
    root = neu(tmp_path)
    bomb = '<!DOCTYPE a [<!ENTITY b "boom">]><annotation>&b;</annotation>'
    (root / "ANNOTATIONS" / "plate_0.xml").write_text(bomb)
    assert "plate_0.xml" in read_folder(root).problems[0][1]


def test_an_image_without_annotation_is_unlabeled(tmp_path):
    root = neu(tmp_path)
    write_picture(root / "IMAGES" / "extra.jpg", 9)
    assert [i.boxes is None for i in read_folder(root).items] == [True, False, False, False]
