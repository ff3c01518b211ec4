import numpy as np
import pytest

from dfssd.errors import UserError
from tests.configured import preprocess


def picture(width: int = 80, height: int = 40) -> np.ndarray:
    """A gray ramp with a dark 20x10 px box whose top left corner is at (30, 10)."""
    image = np.tile(np.linspace(80, 160, width), (height, 1)).astype(np.uint8)
    image[10:20, 30:50] = 60
    return np.repeat(image[..., None], 3, axis=2)


BOX = np.array([[3, 40 / 80, 15 / 40, 20 / 80, 10 / 40]], dtype=np.float32)


def test_everything_is_off_by_default():
    assert not preprocess().changes_pixels
    image, boxes = preprocess().apply(picture(), BOX)
    np.testing.assert_array_equal(image, picture())
    np.testing.assert_allclose(boxes, BOX, atol=1e-6)


def test_resize_sets_the_longer_side_and_keeps_relative_boxes():
    image, boxes = preprocess(resize=40).apply(picture(), BOX)
    assert image.shape == (20, 40, 3)
    np.testing.assert_allclose(boxes, BOX, atol=1e-6)


def test_normalize_stretches_to_the_full_range_and_leaves_a_flat_image():
    image, _ = preprocess(normalize=True).apply(picture(), BOX)
    assert (image.min(), image.max()) == (0, 255)
    flat = np.full((20, 20, 3), 90, np.uint8)
    np.testing.assert_array_equal(preprocess(normalize=True).apply(flat, None)[0], flat)


def test_clahe_raises_local_contrast_and_repeats_exactly():
    once, _ = preprocess(clahe=True).apply(picture(), BOX)
    again, _ = preprocess(clahe=True).apply(picture(), BOX)
    np.testing.assert_array_equal(once, again)
    assert once.std() > picture().std()


def test_crop_moves_and_cuts_boxes():
    image, boxes = preprocess(crop=[40, 0, 80, 40]).apply(picture(), BOX)
    assert image.shape == (40, 40, 3)
    np.testing.assert_allclose(boxes, [[3, 5 / 40, 15 / 40, 10 / 40, 10 / 40]], atol=1e-6)


def test_crop_drops_a_box_of_which_almost_nothing_is_left():
    _, boxes = preprocess(crop=(49, 0, 80, 40)).apply(picture(), BOX)
    assert boxes.shape == (0, 5)


def test_crop_outside_the_image_is_an_error():
    with pytest.raises(UserError, match=r"crop=\[0, 0, 90, 40\].*80x40 px"):
        preprocess(crop=[0, 0, 90, 40]).apply(picture(), BOX)


def test_pad_makes_a_square_with_gray_and_the_image_in_the_middle():
    image, boxes = preprocess(pad=True).apply(picture(), BOX)
    assert image.shape == (80, 80, 3)
    assert (image[:20] == 114).all() and (image[60:] == 114).all()
    np.testing.assert_allclose(boxes, [[3, 40 / 80, 35 / 80, 20 / 80, 10 / 80]], atol=1e-6)


def test_all_steps_together_keep_the_box_on_its_pixels():
    image, boxes = preprocess(crop=[10, 0, 80, 40], resize=140, normalize=True, pad=True).apply(picture(), BOX)
    assert image.shape == (140, 140, 3)
    x, y, w, h = boxes[0, 1:] * 140
    inside = image[int(y - h / 2) + 2 : int(y + h / 2) - 2, int(x - w / 2) + 2 : int(x + w / 2) - 2]
    assert inside.max() < 10


def test_unlabeled_images_stay_unlabeled():
    assert preprocess(resize=40).apply(picture(), None)[1] is None


@pytest.mark.parametrize(
    "steps",
    [
        {},
        {"resize": 50},
        {"crop": [20, 10, 90, 60]},
        {"pad": True},
        {"resize": 77, "crop": [20, 10, 90, 60], "pad": True},
    ],
    ids=lambda steps: " ".join(steps) or "nothing",
)
def test_boxes_of_prepared_images_lead_back_to_the_original(steps):
    boxes = np.array([[0, 0.5, 0.5, 0.3, 0.25]], np.float32)
    made = preprocess(**steps)
    prepared, moved = made.apply(np.zeros((80, 100, 3), np.uint8), boxes)
    height, width = prepared.shape[:2]
    x, y, w, h = moved[0, 1:] * [width, height, width, height]
    corners = np.array([[x - w / 2, y - h / 2, x + w / 2, y + h / 2, 0.9, 0]])
    assert made.back(corners, (100, 80))[0] == pytest.approx([35, 30, 65, 50, 0.9, 0], abs=0.5)
