import numpy as np
import pytest
import yaml
from ultralytics.data.utils import check_det_dataset

from dfssd.datasets.material import of_images
from dfssd.datasets.yaml_files import read_entries
from dfssd.errors import UserError
from tests.datasets.material import write_label, write_picture
from tests.datasets.reading import read_yaml


@pytest.fixture
def root(tmp_path):
    for i, name in enumerate(("train/a", "train/b", "val/c", "test/d")):
        write_picture(tmp_path / "images" / f"{name}.png", i)
        write_label(tmp_path / "labels" / f"{name}.txt", f"{i % 2} 0.5 0.5 0.1 0.1")
    write_picture(tmp_path / "more" / "e f.png", 5)
    return tmp_path


def described(root, **entries):
    content = {"train": "images/train", "val": "images/val", "names": ["pit", "dent"], **entries}
    file = root / "set.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return file


def splits(source):
    return {item.image.name: item.split for item in source.items}


def test_folders_are_found_as_ultralytics_finds_them(root):
    file = described(root, path=str(root), test="images/test", names={0: "pit", 1: "dent"})
    source = read_yaml(file)
    assert source.names == ("pit", "dent")
    assert splits(source) == {"a.png": "train", "b.png": "train", "c.png": "val", "d.png": "test"}
    theirs = check_det_dataset(str(file))
    assert theirs["names"] == dict(enumerate(source.names))
    assert {str(item.image.parent) for item in source.items if item.split == "val"} == {theirs["val"]}


def test_paths_are_relative_to_the_yaml_not_to_the_working_directory(root, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert len(read_yaml(described(root)).items) == 3
    assert len(read_yaml(described(root, path=".")).items) == 3


def test_lists_of_folders_and_text_lists(root):
    (root / "list.txt").write_text(f"./images/train/a.png\n\n{root / 'images' / 'test' / 'd.png'}\n")
    source = read_yaml(described(root, train=["list.txt", "images/train"]))
    assert splits(source) == {"a.png": "train", "d.png": "train", "b.png": "train", "c.png": "val"}


def test_unlabeled_images_need_no_labels_and_keep_them_if_known(root):
    source = read_yaml(described(root, unlabeled=["more", "images/test"]), missing=np.zeros((0, 5), np.float32))
    found = {item.image.name: item.boxes for item in source.items if item.split == "unlabeled"}
    assert found["e f.png"] is None
    assert len(found["d.png"]) == 1


def test_nc_stands_in_for_names(root):
    assert read_yaml(described(root, names=None, nc=2)).names == ("class_0", "class_1")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"train": None}, "has no entry train:"),
        ({"val": "images/valid"}, r"val: images/valid does not exist"),
        ({"names": None}, "neither names: nor a valid nc:"),
        ({"names": {0: "pit", 2: "dent"}}, "the ids in names: must be 0 to 1"),
        ({"names": ["pit", "pit"]}, "duplicate class name 'pit'"),
        ({"nc": 3}, "nc: 3 but 2 names"),
        ({"val": "images/train"}, "is in both train: and val:"),
    ],
)
def test_a_wrong_description_is_reported(root, entries, message):
    with pytest.raises(UserError, match=message):
        read_yaml(described(root, **entries))


def test_a_list_with_a_missing_image_is_reported_with_its_line(root):
    (root / "list.txt").write_text("./images/train/a.png\n./images/train/gone.png\n")
    with pytest.raises(UserError, match=r"list\.txt:2: image \./images/train/gone\.png does not exist"):
        read_yaml(described(root, train="list.txt"))


def test_wrong_labels_are_problems_with_file_and_line(root):
    write_label(root / "labels" / "train" / "a.txt", "7 0.5 0.5 0.1 0.1")
    (image, reason), *_ = read_yaml(described(root)).problems
    assert image.name == "a.png" and "a.txt:1: class id 7 is out of range" in reason


def test_the_paths_of_another_machine_are_looked_for_inside_an_imported_folder(root):
    (root / "data").mkdir()
    (root / "images").rename(root / "data" / "images")
    (root / "labels").rename(root / "data" / "labels")
    file = described(root / "data", path="/elsewhere/set", train="../images/train", val="images/val")
    assert len(read_entries(file, None, root).images) == 3
    with pytest.raises(UserError, match="points outside of the data set"):
        read_entries(described(root / "data", val="../../../x"), None, root)


def test_pattern_of_unlabeled_images(root, monkeypatch):
    """The images among its files count; others are told apart, and a pattern without images is refused."""
    (root / "more" / "notes.docx").touch()
    found = of_images([str(root / "more" / "*")])
    assert [image.name for image in found.images] == ["e f.png"]
    assert [file.path.name for file in found.files] == ["notes.docx"]
    monkeypatch.chdir(root)
    assert [image.name for image in of_images(["**/e*.png"]).images] == ["e f.png"]
    with pytest.raises(UserError, match=r"unlabeled=more/\*\.tif contains no image"):
        of_images(["more/*.tif"])


def test_extra_unlabeled_images(root):
    (root / "bad.txt").write_text("more/e f.png\n")
    found = of_images([str(root / "more"), str(root / "bad.txt")])
    assert {image.name: split for image, split in (found.described or {}).items()} == {"e f.png": "unlabeled"}
    assert [file.path.name for file in found.files] == ["bad.txt"]
    with pytest.raises(UserError, match=r"unlabeled=.*nowhere does not exist"):
        of_images([str(root / "nowhere")])
    (root / "empty").mkdir()
    with pytest.raises(UserError, match="contains no image"):
        of_images([str(root / "empty")])
