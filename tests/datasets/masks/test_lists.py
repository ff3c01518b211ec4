from pathlib import Path

import pytest

from dfssd.datasets.class_names import NameList
from dfssd.datasets.masks.lists import agreed_names, read_class_names, read_parts
from dfssd.errors import UserError
from tests.datasets.material import write_label


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "background\npit\nlong scratch\n"),
        ("classes.txt", "\ufeffbackground\r\npit \r\nlong scratch\r\n\r\n"),
        ("labels.txt", "0 background\n1 pit\n2 long scratch\n"),
        ("class_names.txt", "2: long scratch\n0: background\n1: pit\n"),
        ("obj.names", "background\npit\nlong scratch"),
        ("labels.txt", "__ignore__\nbackground\npit\nlong scratch\n"),
        ("labelmap.txt", "# label:color:parts:actions\nbackground:0,0,0::\npit:9,0,0::\nlong scratch:0,9,0::\n"),
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, pit\n2, long scratch\n"),
    ],
)
def test_lists_of_class_names(tmp_path, name, text):
    file = tmp_path / name
    file.write_bytes(text.encode())
    assert read_class_names(file) == NameList(("background", "pit", "long scratch"), file)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("readme.txt", "background\npit\n"),
        ("_classes.csv", "filename, pit\na.png, 1\n"),
        ("classes.md", "background\n"),
    ],
)
def test_other_files_are_no_lists(tmp_path, name, text):
    assert read_class_names(write_label(tmp_path / name, text)) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("背景\n划痕\n".encode("gbk"), r"classes\.txt: the class names are not UTF-8; save the file as UTF-8"),
        (b"0 background\n2 pit\n", r"classes\.txt: the ids of the classes must be 0 to 1 without gaps"),
        (b"pit\nPit\n", r"duplicate class name 'Pit'"),
        (b"", r"no class names in .*classes\.txt"),
    ],
)
def test_wrong_lists_are_refused(tmp_path, content, message):
    (tmp_path / "classes.txt").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_class_names(tmp_path / "classes.txt")


def test_lists_have_to_agree():
    long, short, other = (
        NameList(names, Path(name))
        for names, name in (
            (("background", "pit", "dent"), "a.txt"),
            (("background", "pit"), "b.txt"),
            (("background", "dent"), "c.txt"),
        )
    )
    assert agreed_names([short, long]) == long.names and agreed_names([]) is None
    with pytest.raises(UserError, match=r"a\.txt and c\.txt disagree: id 1 is 'pit' in the first and 'dent' in the"):
        agreed_names([long, other])
    with pytest.raises(UserError, match=r"d\.txt: id 0 is the background of masks, and 'pit' does not look like it"):
        agreed_names([NameList(("pit", "dent"), Path("d.txt"))])


IMAGES = [Path("/data", "images", name) for name in ("a/1.png", "b/1.png", "b/2.png", "v1.2.jpg")]


def parts_of(tmp_path, *rows, name="val.txt", images=IMAGES):
    return read_parts([write_label(tmp_path / name, *rows)], images, tmp_path)


@pytest.mark.parametrize(
    ("row", "image"),
    [
        ("2", 2),
        ("2.png", 2),
        ("./images/b/2.png", 2),
        ("images\\b\\2.png", 2),
        ("b/1", 1),
        ("images/a/1.png masks/a/1.png", 0),
        ("v1.2", 3),
        ("../images/b/2.png", 2),
    ],
)
def test_a_line_names_an_image_by_the_end_of_its_path(tmp_path, row, image):
    assert parts_of(tmp_path, row).part == {IMAGES[image]: "val"}


def test_a_line_that_fits_two_images_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"val\.txt:2: '1\.png' may be .*a/1\.png and .*b/1\.png; write more"):
        parts_of(tmp_path, "2", "1.png")


def test_lines_without_image_are_told_and_texts_without_any_are_no_lists(tmp_path):
    found = parts_of(tmp_path, "2", "7", "8")
    assert found.warnings == [f"{tmp_path / 'val.txt'}: 2 listed images are not in the data (7, 8)"]
    assert not parts_of(tmp_path, "7", "8").used
    assert not parts_of(tmp_path, "2", name="notes.txt").used


def test_an_image_in_two_lists_is_refused(tmp_path):
    files = [write_label(tmp_path / name, "2") for name in ("test.txt", "train.txt")]
    with pytest.raises(UserError, match=r"b/2\.png is listed in both .*test\.txt and .*train\.txt; keep it in one"):
        read_parts(files, IMAGES, tmp_path)


def test_image_sets_of_masks_come_before_those_of_boxes(tmp_path):
    sets = {"Main/train.txt": "2", "Segmentation/val.txt": "2", "Segmentation/trainval.txt": "2\nv1.2"}
    files = [write_label(tmp_path / "ImageSets" / name, text) for name, text in sets.items()]
    found = read_parts(files, IMAGES, tmp_path)
    assert found.part == {IMAGES[2]: "val", IMAGES[3]: "train"} and found.used == files[1:]
    assert found.unlisted(IMAGES[0]) and not found.unlisted(IMAGES[3])


def test_only_lists_of_training_images_are_complete(tmp_path):
    assert not parts_of(tmp_path, "2").unlisted(IMAGES[3])
    assert parts_of(tmp_path, "2", name="train.txt").unlisted(IMAGES[3])
