import io
import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dfssd.datasets.copies import twins
from dfssd.datasets.copies.grain import poses
from dfssd.datasets.copies.twins import Leak, find_leaks, find_twins, twin_groups
from dfssd.datasets.drawings import draw_image


def texture(seed, size=200):
    return draw_image(np.random.default_rng(seed), size)[0]


def save(path, pixels, quality=None):
    Image.fromarray(pixels).save(path, **({"quality": quality} if quality else {}))
    return path


@pytest.fixture
def plates(tmp_path):
    """Eight different textures of 200 px."""
    return [save(tmp_path / f"plate {i}.jpg", texture(i), 90) for i in range(8)]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def test_different_textures_are_no_twins(plates):
    assert find_twins(plates) == []


@pytest.mark.parametrize("pose", range(8))
def test_a_copy_in_any_pose_is_found_after_compression(plates, tmp_path, pose):
    copy = save(tmp_path / "copy.jpg", poses(pixels(plates[3]))[pose], 50)
    assert find_twins([*plates, copy]) == [(3, 8)]
    assert find_twins([copy, *plates]) == [(0, 4)]


@pytest.mark.parametrize(
    "change",
    [
        lambda a: np.clip(a * 0.8 + 10, 0, 255).astype(np.uint8),
        lambda a: cv2.resize(a, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        lambda a: a // 8 + 100,
    ],
    ids=["darker", "half the resolution", "faint"],
)
def test_a_rotated_copy_is_found_when_changed(plates, tmp_path, change):
    copy = save(tmp_path / "copy.jpg", change(np.rot90(pixels(plates[3]))), 80)
    assert find_twins([*plates, copy]) == [(3, 8)]


@pytest.mark.parametrize("bits", [16, 14])
def test_a_rotated_copy_of_more_than_8_bits_is_found(tmp_path, bits):
    """Pillow alone would cut all values above 255, that is nearly all of them."""
    deep = [texture(i).astype(np.uint16) << (bits - 8) for i in range(4)]
    files = [save(tmp_path / f"{i}.png", image) for i, image in enumerate([*deep, np.rot90(deep[2]).copy()])]
    assert find_twins(files) == [(2, 4)]


def test_images_that_are_not_square_are_compared_as_well(tmp_path):
    files = [save(tmp_path / f"{i}.png", texture(i)[:120]) for i in range(4)]
    files.append(save(tmp_path / "copy.png", np.ascontiguousarray(texture(2)[:120].T)))
    assert find_twins(files) == [(2, 4)]


def test_a_composite_is_a_twin_of_both_its_sources(plates, tmp_path):
    half = np.rot90(pixels(plates[1])).copy()
    half[:, 90:] = pixels(plates[6])[:, 90:]
    twins = find_twins([*plates, save(tmp_path / "half.jpg", half, 80)])
    assert twins == [(1, 8), (6, 8)]
    assert twin_groups(9, twins) == [0, 1, 2, 3, 4, 5, 1, 7, 1]


def test_a_small_common_part_makes_no_twins(plates, tmp_path):
    other = pixels(plates[1]).copy()
    other[:60, :60] = pixels(plates[6])[:60, :60]
    assert find_twins([*plates, save(tmp_path / "other.jpg", other, 80)]) == [(1, 8)]


def test_an_edge_in_the_same_place_makes_no_twins(tmp_path):
    """Photographs of one line have the edge of the strip where it always is: this must not chain them together."""
    files = []
    for i in range(10):
        image = np.random.default_rng(i).normal(120, 4, (200, 200))
        image[90:100] += 80
        image[150:] -= 60
        files.append(save(tmp_path / f"{i}.jpg", image.clip(0, 255).astype(np.uint8), 80))
    assert find_twins(files) == []


def test_flat_images_are_no_twins_and_equal_files_are(tmp_path):
    files = [save(tmp_path / f"{gray}.png", np.full((64, 64), gray, np.uint8)) for gray in range(100, 120)]
    assert find_twins(files) == []
    copies = [Path(shutil.copy(files[3], tmp_path / f"copy {i}.png")) for i in range(2)]
    assert find_twins([*files, *copies]) == [(3, 20), (3, 21), (20, 21)]


def test_shifted_crops_are_twins_as_for_boxes(tmp_path):
    scene = texture(3)
    assert find_twins([save(tmp_path / "a.png", scene[:, :-6]), save(tmp_path / "b.png", scene[:, 6:])]) == [(0, 1)]


def test_none_and_one(plates):
    assert find_twins([]) == [] and find_twins(plates[:1]) == []


def test_files_are_read_in_any_encoding(plates, tmp_path):
    stream = io.BytesIO()
    Image.fromarray(np.fliplr(pixels(plates[0]))).convert("RGB").save(stream, "PNG")
    (tmp_path / "wrong suffix.jpg").write_bytes(stream.getvalue())
    assert find_twins([*plates, tmp_path / "wrong suffix.jpg"]) == [(0, 8)]


def test_leaks_are_test_images_with_a_twin_in_training():
    images = [Path(f"/x/{part}/{i}.jpg") for part in ("train", "test") for i in range(4)]
    trained, tested = images[:4], images[4:]
    twins = [(0, 1), (0, 5), (1, 5), (4, 6), (2, 7)]
    leaks = find_leaks(tested, trained, images, twins)
    assert leaks == [Leak(images[5], (images[0], images[1])), Leak(images[7], (images[2],))]
    assert find_leaks(tested, trained[3:], images, twins) == []


@pytest.fixture
def many(plates, tmp_path, monkeypatch):
    """More images than are compared exhaustively: eight textures, a turned copy, the same file again, a composite."""
    monkeypatch.setattr(twins, "EXHAUSTIVE", 10)
    turned = save(tmp_path / "turned.jpg", np.rot90(pixels(plates[3])).copy(), 60)
    again = Path(shutil.copy(plates[3], tmp_path / "again.jpg"))
    half = pixels(plates[1]).copy()
    half[:, 90:] = pixels(plates[6])[:, 90:]
    return [*plates, turned, again, save(tmp_path / "half.jpg", half, 80)]


def test_beyond_the_limit_copies_of_whole_images_are_found_in_all_poses(many, caplog):
    assert find_twins(many) == [(3, 8), (3, 9), (8, 9)]
    assert "11 labeled images: copies are looked for, but not parts" in caplog.text


def test_beyond_the_limit_labeled_images_are_compared_exhaustively(many, caplog):
    caplog.set_level(logging.INFO, logger="dfssd")
    assert find_twins(many, [True] * 8 + [False, False, True]) == [(1, 10), (3, 8), (3, 9), (6, 10), (8, 9)]
    assert "2 unlabeled images: copies are looked for, not parts" in caplog.text


def test_below_the_limit_everything_is_compared_exhaustively(many, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="dfssd")
    monkeypatch.setattr(twins, "EXHAUSTIVE", 11)
    assert find_twins(many) == [(1, 10), (3, 8), (3, 9), (6, 10), (8, 9)]
    assert not caplog.text
