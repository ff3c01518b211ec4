from collections import Counter

import numpy as np
import pytest
import yaml
from PIL import Image

from dfssd.datasets.account import Role
from dfssd.datasets.masks.files import read_mask
from dfssd.errors import UserError
from tests.configured import load_masks
from tests.datasets.material import picture, voc_xml, write_label, write_picture, zipped
from tests.segmentation.material import ids, write_mask


@pytest.fixture
def root(tmp_path):
    return tmp_path / "set"


def load(root, **changes):
    return load_masks(str(root), root.parent / "sets", **changes)


def pairs(root, images="images/{}.jpg", masks="masks/{}.png", names="abcd", first=0):
    for seed, name in enumerate(names, first):
        write_picture(root / images.format(name), seed)
        write_mask(root / masks.format(name), ids(seed, nc=3))
    return root


def check(dataset, root=None):
    """Every file has one role, every mask is that of its image."""
    account = dataset.account
    assert len(dataset.items) + len(account.files) == account.counted
    assert len({file.path for file in account.files}) == len(account.files)
    if root is not None:
        files = {path for path in root.rglob("*") if path.is_file()}
        assert {item.source for item in dataset.items} | {file.path for file in account.files} == files
    return Counter(item.split for item in dataset.items), account.roles()


def test_pascal_voc(root):
    pairs(root, "JPEGImages/{}.jpg", "SegmentationClass/{}.png", "abcde")
    write_picture(root / "JPEGImages" / "f.jpg", 9)
    write_label(root / "Annotations" / "a.xml", voc_xml([("pit", 1, 1, 9, 9)]))
    write_mask(root / "SegmentationObject" / "a.png", ids(1))
    for name, text in {"train": "a\nb\nc", "val": "d", "trainval": "a\nb\nc\nd"}.items():
        write_label(root / "ImageSets" / "Segmentation" / f"{name}.txt", text)
    write_label(root / "ImageSets" / "Main" / "val.txt", "a")
    dataset = load(root)
    splits, roles = check(dataset, root)
    assert splits == {"train": 3, "val": 1} and roles == {Role.MASK: 4, Role.SPLIT_LIST: 3, Role.LEFT_OUT: 6}
    left = {file.path.name: file.reason for file in dataset.account.left_out}
    assert left["val.txt"] == "a list of images for another task"
    assert left["e.jpg"] == left["f.jpg"] == "no list of images names it" and "boxes" in left["a.xml"]
    assert any(text.startswith("2 images are left out, since no list") for text in dataset.account.warnings)


def test_mvtec(root):
    for i in range(3):
        write_picture(root / "train" / "good" / f"{i}.png", i)
        write_picture(root / "test" / "hole" / f"{i}.png", 10 + i)
        write_mask(root / "ground_truth" / "hole" / f"{i}_mask.png", np.uint8(255) * (ids(i) == 2))
    dataset = load(root)
    splits, roles = check(dataset, root)
    assert splits == {"train": 3, "test": 3} and roles == {Role.MASK: 3}
    for item in dataset.items:
        i = int(item.source.stem)
        assert np.array_equal(read_mask(item.mask), (ids(i) == 2) if item.split == "test" else np.zeros((48, 64)))
        assert item.pixels[1] == (np.count_nonzero(ids(i) == 2) if item.split == "test" else 0)
    told = "; ".join(dataset.account.warnings)
    assert "3 images without masks show no defect" in told and "255 of the masks is taken for defects" in told


def test_good_parts_of_another_layout_need_masks(root):
    pairs(root, "images/hole/{}.png", "masks/hole/{}.png")
    write_picture(root / "images" / "good" / "x.png", 7)
    with pytest.raises(UserError, match=r"good/x\.png: has no mask"):
        load(root)


def test_roboflow(root):
    for first, part in enumerate(("train", "valid", "test")):
        pairs(root / part, "{}_jpg.rf.0a.jpg", "{}_jpg.rf.0a_mask.png", "ab", 2 * first)
        write_label(root / part / "_classes.csv", "Pixel Value, Class", "0, background", "1, pit", "2, dent")
    write_label(root / "README.dataset.txt", "Exported")
    dataset = load(root)
    splits, roles = check(dataset, root)
    assert splits == {"train": 2, "val": 2, "test": 2} and dataset.names == ("background", "pit", "dent")
    assert roles == {Role.MASK: 6, Role.CLASS_LIST: 3, Role.LEFT_OUT: 1}
    write_label(root / "test" / "_classes.csv", "Pixel Value, Class", "0, background", "1, dent", "2, pit")
    with pytest.raises(UserError, match=r"test/_classes\.csv and .*train/_classes\.csv disagree: id 1 .* names="):
        load(root)
    assert load(root, names=["plain", "x", "y"]).names == ("plain", "x", "y")


def test_lists_with_image_and_mask(root):
    pairs(root)
    write_label(root / "train.txt", *(f"images/{n}.jpg masks/{n}.png" for n in "abc"))
    write_label(root / "val.txt", "images/d.jpg masks/d.png")
    assert check(load(root), root) == ({"train": 3, "val": 1}, {Role.MASK: 4, Role.SPLIT_LIST: 2})


def test_a_list_that_contradicts_a_folder_is_refused(root):
    pairs(root, "images/train/{}.jpg", "masks/train/{}.png")
    write_label(root / "test.txt", "a")
    with pytest.raises(UserError, match=r"a\.jpg lies in a folder called train, but .*test\.txt lists it for test"):
        load(root)


def test_masks_of_the_same_ids_in_two_folders_are_one(root):
    pairs(root)
    for seed, name in enumerate("abcd"):
        write_mask(root / "gt" / f"{name}.bmp", ids(seed, nc=3))
    dataset = load(root)
    assert check(dataset, root) == ({None: 4}, {Role.MASK: 8})
    write_mask(root / "gt" / "b.bmp", ids(2, nc=3))
    with pytest.raises(UserError, match=r"b\.jpg: has masks that differ, .*gt/b\.bmp and .*masks/b\.png; remove one"):
        load(root)
    dataset = load(root, skip_bad=True)
    assert check(dataset, root)[1] == {Role.MASK: 6, Role.LEFT_OUT: 3} and len(dataset.items) == 3


def test_a_mask_without_image_is_refused_by_name(root):
    write_mask(pairs(root) / "masks" / "e.png", ids(1))
    with pytest.raises(UserError, match=r"1 problem .*masks/e\.png: a mask without an image of the same name; add the"):
        load(root)
    dataset = load(root, skip_bad=True)
    assert check(dataset, root) == ({None: 4}, {Role.MASK: 4, Role.LEFT_OUT: 1})
    assert [file.name for file, _ in dataset.skipped] == ["e.png"]


def test_a_lone_folder_test_is_told(root):
    pairs(root, "images/line/{}.jpg", "masks/line/{}.png", "abc")
    pairs(root, "images/test/{}.jpg", "masks/test/{}.png", "xy", 5)
    dataset = load(root)
    assert check(dataset, root)[0] == {None: 3, "test": 2}
    (warning,) = dataset.account.warnings
    assert "2 images are test images since the folder is called test" in warning and "train" in warning
    pairs(root, "images/train/{}.jpg", "masks/train/{}.png", "v", 9)
    assert not load(root).account.warnings


def test_a_folder_test_of_all_images_is_no_test_part(root):
    pairs(root / "test")
    dataset = load(root)
    assert check(dataset, root)[0] == {None: 4} and "is not taken for the test part" in dataset.account.warnings[0]


def test_boxes_given_as_masks_are_told(root):
    write_picture(root / "images" / "a.jpg", 1)
    write_label(root / "labels" / "a.txt", "0 0.5 0.5 0.1 0.1")
    with pytest.raises(UserError, match=r"no masks for 1 image .*, but labels of boxes such as .*labels/a\.txt"):
        load(root)
    write_label(root / "data.yaml", "train: images", "names: [pit]")
    with pytest.raises(UserError, match=r"data\.yaml has no entry masks_dir:; .*boxes needs a recipe for boxes"):
        load(root)


def test_hidden_files_links_and_earlier_imports_are_no_images(root):
    pairs(root / "real")
    (root / "images").symlink_to(root / "real" / "images")
    write_picture(root / "real" / "images" / "@eaDir" / "a.jpg" / "SYNOPHOTO_THUMB_M.jpg", 3)
    (root / "real" / "masks" / "loop").symlink_to(root / "real")
    (root / "real" / "images" / "._a.jpg").write_bytes(b"\0\5\x16\7")
    first = load_masks(str(root / "real"), root / "real" / "sets")
    assert check(first) == ({None: 4}, {Role.MASK: 4})
    assert {kind: first.account.outside[kind] for kind in ("thumbnails", "hidden")} == {"thumbnails": 1, "hidden": 1}
    again = load_masks(str(root / "real"), root / "real" / "sets")
    assert again.items == first.items


def test_cameras_with_more_than_8_bits_are_scaled(root):
    for seed in range(4):
        deep = np.asarray(picture(seed).convert("L")).astype(np.uint16) << 4
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(deep).save(root / "images" / f"{seed}.png")
        write_mask(root / "masks" / f"{seed}.png", ids(seed))
    dataset = load(root)
    for item in dataset.items:
        with Image.open(item.image) as image:
            assert np.array_equal(np.asarray(image), np.asarray(picture(int(item.source.stem)).convert("L")))
    assert any("12-bit" in text for text in dataset.account.warnings)


def test_images_that_training_would_read_otherwise_are_written_anew(root):
    pairs(root, names="bcd")
    pairs(root, "images/{}.tif", names="a", first=3)
    picture(3).save(root / "images" / "a.tif", save_all=True, append_images=[picture(4)])
    dataset = load(root)
    suffixes = {item.source.name: item.image.suffix for item in dataset.items}
    assert suffixes == {"a.tif": ".png", "b.jpg": ".jpg", "c.jpg": ".jpg", "d.jpg": ".jpg"}
    with Image.open(dataset.items[0].image) as image:
        assert np.array_equal(np.asarray(image), np.asarray(picture(3)))
    assert any("only the first page is used" in text for text in dataset.account.warnings)


def test_masks_drawn_before_the_camera_turned_its_images(root):
    tags = Image.Exif()
    tags[0x0112] = 6
    (root / "images").mkdir(parents=True)
    for seed in range(4):
        picture(seed).save(root / "images" / f"{seed}.jpg", exif=tags)
        write_mask(root / "masks" / f"{seed}.png", ids(seed))
    dataset = load(root)
    assert all(item.size == (48, 64) for item in dataset.items)
    assert all(np.array_equal(read_mask(i.mask), np.rot90(ids(int(i.source.stem)), -1)) for i in dataset.items)
    assert "4 masks have the size of their images before the EXIF orientation" in dataset.account.warnings[0]
    tags[0x0112] = 3
    picture(9).save(root / "images" / "9.jpg", exif=tags)
    write_mask(root / "masks" / "9.png", ids(9))
    with pytest.raises(UserError, match=r"9\.jpg: is turned by its EXIF orientation, and its mask .* fits both ways"):
        load(root)
    dataset = load(root, skip_bad=True)
    assert len(dataset.items) == 4 and check(dataset, root)
    assert {path.name for path in dataset.items[0].image.parent.iterdir()} == {f"{seed}.jpg" for seed in range(4)}


def test_messages_and_reasons_of_a_zip_name_its_members(root):
    write_mask(pairs(root) / "masks" / "e.png", ids(1))
    write_label(root / "notes.md", "x")
    file = zipped(root, root.parent / "set.zip")
    with pytest.raises(UserError, match=f"{file}/masks/e.png: a mask without an image"):
        load(file)
    dataset = load(file, skip_bad=True)
    assert {item.source for item in dataset.items} == {file / "images" / f"{name}.jpg" for name in "abcd"}
    assert {own.path for own in dataset.account.left_out} == {file / "masks" / "e.png", file / "notes.md"}
    assert ".unpacked" not in repr((dataset.account, dataset.skipped))
    assert check(dataset)[1] == {Role.MASK: 4, Role.LEFT_OUT: 2}


def described(root, **entries):
    content = {"train": "images", "names": ["background", "pit", "dent"], **entries}
    return write_label(root / "data.yaml", yaml.safe_dump(content))


def test_files_that_a_yaml_does_not_list_are_left_out_and_told(root):
    pairs(root, "images/train/{}.jpg", "masks/train/{}.png")
    pairs(root, "images/old/{}.jpg", "masks/old/{}.png", "xy", 5)
    write_label(root / "list.txt", *(f"./images/train/{name}.jpg" for name in "abcd"))
    file = described(root, train="list.txt")
    write_label(root / "classes.txt", "background", "dent")
    dataset = load(root)
    roles = {Role.MASK: 4, Role.DESCRIPTION: 1, Role.SPLIT_LIST: 1, Role.CLASS_LIST: 1, Role.LEFT_OUT: 4}
    assert check(dataset, root) == ({"train": 4}, roles)
    told = "; ".join(dataset.account.warnings)
    assert "4 image files beside the listed ones are left out" in told and "other class names than" in told
    alone = load(file)
    assert alone.items[0].source == root / "images" / "train" / "a.jpg"
    assert check(alone) == ({"train": 4}, {Role.MASK: 4, Role.DESCRIPTION: 1, Role.SPLIT_LIST: 1})


def test_masks_of_a_yaml_are_paired_by_name_where_ultralytics_finds_none(root):
    pairs(root, "test/hole/{}.png", "ground_truth/hole/{}_mask.png")
    write_picture(root / "train" / "good" / "x.png", 7)
    dataset = load(described(root, train=["train", "test"], masks_dir="ground_truth"))
    assert check(dataset) == ({"train": 5}, {Role.MASK: 4, Role.DESCRIPTION: 1})
    assert [bool(item.classes) for item in dataset.items] == [item.source.stem != "x" for item in dataset.items]


def test_two_masks_at_the_place_of_a_yaml_must_agree(root):
    pairs(root)
    write_mask(root / "masks" / "a.bmp", ids(0, nc=3))
    assert check(load(described(root)))[1] == {Role.MASK: 5, Role.DESCRIPTION: 1}
    write_mask(root / "masks" / "a.bmp", ids(1, nc=3))
    with pytest.raises(UserError, match=r"a\.jpg: has masks that differ, .*a\.bmp and .*a\.png"):
        load(described(root))


def test_two_descriptions_that_disagree_are_refused(root):
    pairs(root)
    described(root)
    (root / "old.yaml").write_text((root / "data.yaml").read_text().replace("pit", "hole"))
    with pytest.raises(UserError, match=r"data\.yaml and .*old\.yaml describe the data differently \(names:\)"):
        load(root)


def test_unlabeled_images_that_are_images_already_are_used_once(root):
    pairs(root)
    write_picture(root / "images" / "unlabeled" / "u.jpg", 8)
    dataset = load(root, unlabeled=str(root / "images"))
    assert Counter(item.split for item in dataset.items) == {None: 4, "unlabeled": 1}
    assert "5 images of unlabeled= are images of set already" in dataset.account.warnings[-1]
    extra = write_picture(root.parent / "more" / "v.jpg", 9)
    dataset = load(root, unlabeled=[str(root / "images"), str(extra.parent)])
    assert dataset.items[-1].image == extra and check(dataset)[0] == {None: 4, "unlabeled": 2}
