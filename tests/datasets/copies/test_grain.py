from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dfssd.datasets.copies.grain import SIDE, agree_in_place, best_shift, grain, grain_of, gray_image, poses, spectrum
from dfssd.datasets.drawings import draw_image
from dfssd.errors import UserError


def noise(seed, scale=20):
    return np.random.default_rng(seed).normal(128, scale, (SIDE, SIDE)).clip(0, 255).astype(np.uint8)


def test_poses_are_the_eight_symmetries_of_the_square():
    image = np.arange(9).reshape(3, 3)
    found = poses(image)
    assert len({pose.tobytes() for pose in found}) == 8
    assert np.array_equal(found[0], image)
    for other in (np.fliplr(image), np.flipud(image), image.T, np.rot90(image, 2)):
        assert any(np.array_equal(other, pose) for pose in found)


def test_grain_has_mean_0_and_norm_1_and_a_flat_image_has_none():
    texture = grain(noise(0))
    assert abs(texture.mean()) < 1e-6 and np.linalg.norm(texture) == pytest.approx(1, abs=1e-3)
    assert not grain(np.full((SIDE, SIDE), 77, np.uint8)).any()


def test_grain_is_blind_to_shading_and_contrast():
    image = noise(0).astype(float)
    shaded = (image * 0.5 + np.linspace(0, 90, SIDE)).astype(np.uint8)
    assert (grain(noise(0)) * grain(shaded)).sum() > 0.95 > 0.1 > abs((grain(noise(0)) * grain(noise(1))).sum())


def test_the_best_shift_is_found_and_told_apart_from_none():
    texture = grain(noise(0))
    shifted = np.roll(texture, (3, -7), (0, 1))
    assert best_shift(spectrum(texture), spectrum(texture)) == (pytest.approx(1, abs=1e-4), True)
    assert best_shift(spectrum(texture), spectrum(shifted)) == (pytest.approx(1, abs=1e-4), False)
    assert best_shift(spectrum(texture), spectrum(grain(noise(1))))[0] < 0.1


def test_images_that_share_an_edge_correlate_but_do_not_agree_in_place():
    a, b = (noise(seed, 3).astype(int) for seed in range(2))
    for image in (a, b):
        image[:, 60:] -= 90
        image[40:] += 60
    a, b = (grain(image.clip(0, 255).astype(np.uint8)) for image in (a, b))
    assert (a * b).sum() > 0.2
    assert agree_in_place(a, a, 0.2, 0.9) and not agree_in_place(a, b, 0.2, 0.5)


def test_agreement_needs_both_correlation_and_area():
    a, b = grain(noise(0)), grain(noise(1))
    half = a.copy()
    half[:, SIDE // 2 :] = b[:, SIDE // 2 :]
    assert agree_in_place(a, half, 0.4, 0.5) and not agree_in_place(a, half, 0.4, 0.6)
    assert not agree_in_place(a, half, 0.6, 0.5)


@pytest.mark.parametrize("suffix", [".jp2", ".pgm"])
def test_files_that_pillow_is_not_asked_for_are_read_by_opencv(tmp_path, suffix):
    image, _ = draw_image(np.random.default_rng(0), 200)
    (tmp_path / f"a{suffix}").write_bytes(cv2.imencode(suffix, image)[1].tobytes())
    Image.fromarray(image).save(tmp_path / "b.png")
    assert (grain_of(tmp_path / f"a{suffix}") * grain_of(tmp_path / "b.png")).sum() > 0.9


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG no image"])
def test_a_file_that_cannot_be_decoded_is_named(tmp_path, content):
    file = tmp_path / "a.png"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png: cannot be decoded"):
        gray_image(file)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"gone\.png: cannot be read \(No such file"):
        gray_image(Path("/nowhere/gone.png"))
