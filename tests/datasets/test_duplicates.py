import io
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from dfssd.datasets.drawings import draw_image
from dfssd.datasets.duplicates import duplicate_groups, join_pairs


@pytest.fixture
def plates(tmp_path):
    """Ten different textures of 200 px, and the folder for copies of them."""
    paths = []
    for i in range(10):
        image, _ = draw_image(np.random.default_rng(i), 200)
        paths.append(tmp_path / f"plate {i}.png")
        Image.fromarray(image).save(paths[-1])
    return paths


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def with_copy(plates, change):
    copy = plates[0].with_name("copy.png")
    Image.fromarray(change(pixels(plates[3]))).save(copy)
    return duplicate_groups([*plates, copy])


def jpeg(image, quality):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def test_different_textures_stay_apart(plates):
    assert duplicate_groups(plates) == list(range(10))


def test_equal_bytes_are_one_group(plates):
    copies = [plates[2].with_name(f"copy {i}.png") for i in range(2)]
    for copy in copies:
        shutil.copy(plates[2], copy)
    assert duplicate_groups([copies[0], *plates, copies[1]]) == [0, 1, 2, 0, *range(4, 11), 0]


@pytest.mark.parametrize(
    "change",
    [
        lambda a: jpeg(a, 60),
        lambda a: np.clip(a * 0.8 + 10, 0, 255).astype(np.uint8),
        lambda a: cv2.resize(a, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    ],
    ids=["jpeg", "darker", "half the resolution"],
)
def test_a_changed_copy_is_found(plates, change):
    assert with_copy(plates, change) == [*range(10), 3]


def test_overlapping_crops_of_one_scene_are_found(plates):
    scene = pixels(plates[3])
    Image.fromarray(scene[:, :-6]).save(plates[3])
    assert with_copy(plates, lambda _: scene[:, 6:]) == [*range(10), 3]


def test_the_same_layout_on_another_texture_is_no_copy(tmp_path):
    """Punched strips share the hole and the hash, not the grain: this is what must not chain together."""
    paths = []
    for i in range(12):
        image, _ = draw_image(np.random.default_rng(100 + i), 200)
        image = np.full_like(image, 140) + (image - cv2.GaussianBlur(image, (0, 0), 8)).astype(np.int8) // 4
        cv2.ellipse(image, (100, 60), (40, 20), 0, 0, 360, 10, -1)
        cv2.ellipse(image, (100, 150), (40, 20), 0, 0, 360, 10, -1)
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image.astype(np.uint8)).save(paths[-1])
    assert len(set(duplicate_groups(paths))) == 12


def test_flat_images_are_no_copies_of_each_other(tmp_path):
    paths = []
    for gray in range(100, 140):
        paths.append(tmp_path / f"{gray}.png")
        Image.fromarray(np.full((64, 64), gray, np.uint8)).save(paths[-1])
    assert len(set(duplicate_groups(paths))) == 40


def test_none_and_one(plates):
    assert duplicate_groups([]) == []
    assert duplicate_groups(plates[:1]) == [0]


def test_pairs_join_into_groups_named_after_their_first_member():
    assert join_pairs(6, [(3, 4), (1, 4), (0, 5)]) == [0, 1, 2, 1, 1, 0]
    assert join_pairs(2, []) == [0, 1]
