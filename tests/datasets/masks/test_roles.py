from pathlib import Path

import pytest

from dfssd.datasets.masks.roles import defect_free, pair_masks, sort_files
from tests.datasets.material import write_picture
from tests.segmentation.material import ids, write_mask

ROOT = Path("/data")


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/train/a.jpg", "annotations/train/a.png"),
        ("train/images/a.jpg", "train/masks/a.png"),
        ("train_images/a.jpg", "train_masks/a.png"),
        ("Source Images/a.bmp", "Ground Truth/a.png"),
        ("JPEGImages/a.jpg", "SegmentationClass/a.png"),
        ("JPEGImages/a.jpg", "SegmentationClassPNG/a.png"),
        ("images/a.jpg", "mask_png/a.png"),
        ("images/A.JPG", "gt/a.png"),
        ("a.jpg", "a_mask.png"),
        ("a.png", "a_GT.png"),
        ("Part5.jpg", "Part5_label.bmp"),
        ("a_image.png", "a_mask.png"),
        ("images/a.jpg", "masks/a.jpg.png"),
        ("images/a.jpg", "masks/mask_a.png"),
        ("test/broken/000.png", "ground_truth/broken/000_mask.png"),
        ("images/train/a.jpg", "masks/a.png"),
        ("images/a.jpg", "masks/train/a.png"),
        ("images/train/line 1/a.jpg", "masks/line 1/a.png"),
        ("images/testing/a.jpg", "masks/test/a.png"),
    ],
)
def test_names_that_belong_together(image, mask):
    found = pair_masks([ROOT / image], [ROOT / mask], ROOT)
    assert found.masks == {ROOT / image: [ROOT / mask]} and not found.alone and not found.unclear


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.jpg", "masks/b.png"),
        ("images/train/a.jpg", "masks/test/a.png"),
        ("images/broken/0.jpg", "masks/scratch/0.png"),
        ("images/a1.jpg", "masks/a.png"),
        ("images/a.jpg", "masks/a2.png"),
    ],
)
def test_names_that_do_not(image, mask):
    found = pair_masks([ROOT / image], [ROOT / mask], ROOT)
    assert not found.masks and found.alone == [ROOT / mask] and not found.unclear


def test_a_nearer_image_comes_first():
    """The stem before the stem without "mask", the same folder before others."""
    images = [ROOT / "images" / name for name in ("part.png", "part_mask.png", "train/part.png")]
    masks = [ROOT / "masks" / name for name in ("part.png", "part_mask.png", "train/part.png")]
    assert pair_masks(images, masks, ROOT).masks == {image: [mask] for image, mask in zip(images, masks, strict=True)}


def test_of_two_images_none_is_chosen():
    images = [ROOT / "images" / line / "1.png" for line in ("a", "b")]
    found = pair_masks(images, [ROOT / "masks" / "1.png"], ROOT)
    assert found.unclear == {ROOT / "masks" / "1.png": images} and not found.masks


def test_two_masks_of_an_image_are_both_named():
    image = ROOT / "images" / "1.png"
    masks = [ROOT / folder / "1.png" for folder in ("gt", "masks")]
    assert pair_masks([image], masks, ROOT).masks == {image: masks}


def sorted_names(root):
    """Names of photographs, of pairs, and of masks that fit no image."""
    found, _ = sort_files(sorted(path for path in root.rglob("*") if path.is_file()))
    pairs = {
        image.relative_to(root).as_posix(): [mask.relative_to(root).as_posix() for mask in masks]
        for image, masks in found.pairing.masks.items()
    }
    return [image.relative_to(root).as_posix() for image in found.images], pairs, found.pairing.alone


def test_masks_in_folders_without_a_telling_name(tmp_path):
    for i in range(3):
        write_picture(tmp_path / "camera" / f"{i}.png", i)
        write_mask(tmp_path / "by hand" / f"{i}.png", ids(i))
    images, pairs, alone = sorted_names(tmp_path)
    assert pairs == {f"camera/{i}.png": [f"by hand/{i}.png"] for i in range(3)} and list(pairs) == images and not alone


def test_masks_beside_photographs_of_the_same_stem(tmp_path):
    """As in the magnetic tile defects: exp1.jpg and exp1.png."""
    for i in range(3):
        write_picture(tmp_path / "MT_Blowhole" / f"exp{i}.jpg", i)
        write_mask(tmp_path / "MT_Blowhole" / f"exp{i}.png", ids(i))
    assert sorted_names(tmp_path)[1] == {f"MT_Blowhole/exp{i}.jpg": [f"MT_Blowhole/exp{i}.png"] for i in range(3)}


def test_one_photograph_among_the_drawn_leaves_a_doubt(tmp_path):
    for i in range(3):
        write_picture(tmp_path / "a" / f"{i}.png", i)
        if i < 2:
            write_mask(tmp_path / "b" / f"{i}.png", ids(i))
    write_picture(tmp_path / "b" / "2.png", 9)
    images, pairs, _ = sorted_names(tmp_path)
    assert len(images) == 6 and not pairs


def test_photographs_in_folders_called_like_masks(tmp_path):
    for i in range(3):
        write_picture(tmp_path / "labels" / f"{i}.png", i)
        write_mask(tmp_path / "masks" / f"{i}.png", ids(i))
    assert sorted_names(tmp_path)[1] == {f"labels/{i}.png": [f"masks/{i}.png"] for i in range(3)}


def test_photographs_called_like_masks(tmp_path):
    for name in ("n95", "n95_mask"):
        write_picture(tmp_path / "images" / f"{name}.png", len(name))
        write_mask(tmp_path / "masks" / f"{name}.png", ids(1))
    pairs = {f"images/{name}.png": [f"masks/{name}.png"] for name in ("n95", "n95_mask")}
    assert sorted_names(tmp_path)[1] == pairs
    (tmp_path / "masks" / "n95_mask.png").unlink()
    images, found, _ = sorted_names(tmp_path)
    assert images == list(pairs) and list(found) == ["images/n95.png"]


def test_a_kind_of_part_called_like_a_folder_of_masks(tmp_path):
    for kind in ("label", "cable"):
        write_picture(tmp_path / "images" / kind / "0.png", len(kind) + ord(kind[0]))
        write_mask(tmp_path / "masks" / kind / "0.png", ids(1))
    assert sorted_names(tmp_path)[1] == {f"images/{k}/0.png": [f"masks/{k}/0.png"] for k in ("cable", "label")}


def test_instances_and_pictures_of_masks_are_no_masks(tmp_path):
    write_picture(tmp_path / "JPEGImages" / "a.jpg", 1)
    write_picture(tmp_path / "SegmentationClassVisualization" / "a.jpg", 2)
    for folder in ("SegmentationClass", "SegmentationObject"):
        write_mask(tmp_path / folder / "a.png", ids(1))
    found, _ = sort_files(sorted(path for path in tmp_path.rglob("*") if path.is_file()))
    assert found.pairing.masks == {tmp_path / "JPEGImages" / "a.jpg": [tmp_path / "SegmentationClass" / "a.png"]}
    assert [file.parent.name for file in found.shown] == ["SegmentationClassVisualization", "SegmentationObject"]


def test_good_parts_have_no_masks_beside_ground_truth_only():
    images = [ROOT / "train" / "good" / "0.png", ROOT / "test" / "broken" / "1.png"]
    assert defect_free(images, [ROOT / "ground_truth" / "broken" / "0_mask.png"], ROOT) == {images[0]}
    assert not defect_free(images, [ROOT / "masks" / "broken" / "0_mask.png"], ROOT)
