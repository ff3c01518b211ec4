import io
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from dfssd.datasets.copies import duplicates
from dfssd.datasets.copies.duplicates import (
    Copies,
    describe_all,
    duplicate_groups,
    find_copies,
    join_pairs,
    signature,
    verified,
)
from dfssd.datasets.copies.grain import best_shift, poses
from dfssd.datasets.drawings import draw_image


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


def smooth_and_noisy(seed, shape=(128, 192)):
    """A smooth surface with sensor noise, of which little is left after lossy compression."""
    rng = np.random.default_rng(seed)
    image = cv2.GaussianBlur(rng.normal(120, 12, shape).clip(0, 255), (0, 0), 1) + rng.normal(0, 5, shape)
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture
def noisy(tmp_path):
    """Ten smooth, noisy images, and the JPEG exports of them all."""
    files = [tmp_path / f"{i}.png" for i in range(10)]
    for i, file in enumerate(files):
        Image.fromarray(smooth_and_noisy(i)).save(file)
    return files


@pytest.mark.parametrize("quality", [80, 60, 40])
def test_lossy_exports_of_smooth_noisy_images_are_copies(noisy, tmp_path, quality):
    exports = []
    for file in noisy:
        exports.append(tmp_path / f"{file.stem}_web.jpg")
        Image.fromarray(pixels(file)).save(exports[-1], quality=quality)
    assert duplicate_groups([*noisy, *exports]) == [*range(10), *range(10)]


@pytest.mark.parametrize("pose", range(1, 8))
def test_turned_and_mirrored_copies_are_a_family_but_no_group(plates, tmp_path, pose):
    copy = tmp_path / "copy.jpg"
    Image.fromarray(poses(pixels(plates[3]))[pose]).save(copy, quality=60)
    copies = find_copies([*plates, copy])
    assert copies == Copies(groups=tuple(range(11)), families=(*range(10), 3))
    assert find_copies([copy, *plates]).families == (0, 1, 2, 3, 0, *range(5, 11))


def test_a_family_holds_whole_groups(plates, tmp_path):
    more = []
    for name, change in {
        "turned": np.rot90,
        "turned jpeg": lambda a: jpeg(np.rot90(a), 60),
        "jpeg": lambda a: a,
    }.items():
        more.append(tmp_path / f"{name}.jpg")
        Image.fromarray(np.ascontiguousarray(change(pixels(plates[3])))).save(more[-1], quality=90)
    copies = find_copies([*plates, *more])
    assert copies.groups == (*range(10), 10, 10, 3) and copies.families == (*range(10), 3, 3, 3)
    assert duplicate_groups([*plates, *more]) == list(copies.groups)


def test_other_images_with_an_edge_in_the_same_place_are_no_copies(tmp_path):
    """In place, such images correlate more than lossy copies do."""
    files = []
    for i in range(10):
        image = smooth_and_noisy(i, (200, 200)).astype(int)
        image[90:100] += 80
        image[150:] -= 100
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(files[-1])
    assert find_copies(files) == Copies(tuple(range(10)), tuple(range(10)))


def test_hundreds_of_frames_of_one_scene_take_hundreds_of_comparisons(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    scene = draw_image(rng, 96)[0].astype(float)
    files = [tmp_path / f"{i:03d}.png" for i in range(300)]
    for file in files:
        Image.fromarray((scene + rng.normal(0, 1, scene.shape)).clip(0, 255).astype(np.uint8)).save(file)
    looked = []

    def counted(a, b):
        looked.append(1)
        return best_shift(a, b)

    monkeypatch.setattr("dfssd.datasets.copies.duplicates.best_shift", counted)
    assert set(duplicate_groups(files)) == {0}
    assert 299 <= len(looked) < 600, "of 8,000 candidates"


def test_known_fingerprints_are_not_computed_again(plates, monkeypatch):
    described = list(describe_all(plates))
    expected = find_copies(plates)
    monkeypatch.setattr(duplicates, "describe", None)
    assert find_copies(plates, described) == expected


def test_results_can_be_kept_by_what_they_depend_on(plates, tmp_path):
    described = list(describe_all(plates))
    copies = find_copies(plates, described)
    assert Copies.from_text(copies.to_text()) == copies
    moved = [tmp_path / f"moved {path.name}" for path in plates]
    for path, target in zip(plates, moved):
        shutil.copy(path, target)
    assert signature(described) == signature(describe_all(moved)) != signature(described[::-1])


def test_candidates_that_become_known_meanwhile_are_not_checked():
    checked = []

    def agree(pair):
        checked.append(pair)
        return pair[1] % 2 == 0

    found = [[(j, 0) for j in range(1, 1000)]]
    assert [j for _, j, _ in verified(found, agree, lambda pair: pair[1] % 4 == 0)] == list(range(2, 1000, 4))
    assert not any(j % 4 == 0 for _, j, _ in checked) and len(checked) == 750


def test_none_and_one(plates):
    assert duplicate_groups([]) == []
    assert duplicate_groups(plates[:1]) == [0]
    assert find_copies([]) == Copies((), ()) and find_copies(plates[:1]) == Copies((0,), (0,))


def test_pairs_join_into_groups_named_after_their_first_member():
    assert join_pairs(6, [(3, 4), (1, 4), (0, 5)]) == [0, 1, 2, 1, 1, 0]
    assert join_pairs(2, []) == [0, 1]
