from dataclasses import replace

import numpy as np
import pytest

from dfssd.evaluation.bootstrap import intervals
from dfssd.segmentation.metrics import PixelCounts, confusion_matrix, segmentation_scores


def random_masks(seed, nc=4, n=3, ignored=0.1):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, nc, (n, 20, 30)).astype(np.uint8)
    truth[rng.random(truth.shape) < ignored] = 255
    return truth, rng.integers(0, nc, truth.shape)


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_a_count_pixel_by_pixel(seed):
    truth, prediction = random_masks(seed)
    pairs = [(int(t), int(p)) for t, p in zip(truth.ravel(), prediction.ravel()) if t != 255]
    iou = []
    for k in range(4):
        both = sum(t == k and p == k for t, p in pairs)
        iou.append(both / sum(k in (t, p) for t, p in pairs))
    scores = segmentation_scores(confusion_matrix(truth, prediction, 4))
    assert scores.iou == pytest.approx(iou)
    assert scores.miou_fg == pytest.approx(sum(iou[1:]) / 3)
    assert scores.miou_all == pytest.approx(sum(iou) / 4)
    assert scores.pixel_accuracy == pytest.approx(sum(t == p for t, p in pairs) / len(pairs))


def test_a_hand_worked_case():
    truth = np.array([[0, 0, 1, 1], [2, 2, 255, 255]])
    prediction = np.array([[0, 1, 1, 1], [2, 0, 1, 2]])
    confusion = confusion_matrix(truth, prediction, 3)
    assert confusion.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]
    scores = segmentation_scores(confusion)
    assert scores.iou == pytest.approx((1 / 3, 2 / 3, 1 / 2))
    assert scores.miou_fg == pytest.approx(7 / 12) and scores.pixel_accuracy == pytest.approx(4 / 6)


def test_matrices_add_up_over_images():
    truth, prediction = random_masks(0)
    parts = sum(confusion_matrix(t, p, 4) for t, p in zip(truth, prediction))
    assert np.array_equal(parts, confusion_matrix(truth, prediction, 4))
    mean_of_images = np.mean(
        [segmentation_scores(confusion_matrix(t, p, 4)).miou_fg for t, p in zip(truth, prediction)]
    )
    assert segmentation_scores(parts).miou_fg != pytest.approx(mean_of_images, abs=1e-9)


def test_a_perfect_prediction_scores_one():
    truth, _ = random_masks(0, ignored=0)
    scores = segmentation_scores(confusion_matrix(truth, truth, 4))
    assert (scores.miou_fg, scores.miou_all, scores.pixel_accuracy) == (1, 1, 1)


def test_ignored_pixels_count_for_nothing():
    truth, prediction = random_masks(1)
    before = confusion_matrix(truth, prediction, 4)
    prediction[truth == 255] = 3
    assert np.array_equal(confusion_matrix(truth, prediction, 4), before)
    assert before.sum() == (truth != 255).sum()


def test_an_absent_class_is_left_out_unless_it_is_predicted():
    truth = np.array([0, 0, 1, 1])
    assert segmentation_scores(confusion_matrix(truth, truth, 3)).iou == (1, 1, None)
    assert segmentation_scores(confusion_matrix(truth, truth, 3)).miou_fg == 1
    wrong = segmentation_scores(confusion_matrix(truth, np.array([0, 2, 1, 1]), 3))
    assert wrong.iou == (0.5, 1, 0) and wrong.miou_fg == 0.5


def test_nothing_to_measure_gives_none():
    scores = segmentation_scores(confusion_matrix(np.full(5, 255), np.zeros(5, int), 3))
    assert scores.iou == (None, None, None)
    assert (scores.miou_fg, scores.miou_all, scores.pixel_accuracy) == (None, None, None)
    assert segmentation_scores(confusion_matrix(np.zeros(5, int), np.zeros(5, int), 3)).miou_fg is None


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"a prediction of \(2, 3\) for a mask of \(3, 2\); scale it to the mask"):
        confusion_matrix(np.zeros((3, 2), int), np.zeros((2, 3), int), 2)
    with pytest.raises(ValueError, match="ids 0 to 4 in the mask"):
        confusion_matrix(np.array([0, 4]), np.array([0, 1]), 4)
    with pytest.raises(ValueError, match="ids -1 to 0 in the prediction"):
        confusion_matrix(np.array([0, 1]), np.array([0, -1]), 4)
    with pytest.raises(ValueError, match="a confusion matrix is square"):
        segmentation_scores(np.zeros((2, 3), int))


def counts_of(seed: int, nc: int = 4) -> tuple[PixelCounts, np.ndarray]:
    """Pixel counts of six images, and their confusion matrices."""
    truth, prediction = random_masks(seed, nc, n=6)
    truth[truth == 1] = 2  # class 1 is never true
    confusions = np.stack([confusion_matrix(t, p, nc) for t, p in zip(truth, prediction)])
    hits = np.stack([np.diagonal(confusion) for confusion in confusions])
    names = tuple(f"{i}.png" for i in range(6))
    return PixelCounts(hits, confusions.sum(2), confusions.sum(1), names), confusions


def test_scores_of_drawn_images_are_those_of_their_added_matrices():
    counts, confusions = counts_of(0)
    draws = np.array([[1] * 6, [3, 0, 2, 1, 0, 0], [0, 0, 0, 0, 0, 6]])
    found = counts.scores(draws)
    for row, draw in enumerate(draws):
        whole = segmentation_scores((draw[:, None, None] * confusions).sum(0))
        assert (found["miou_fg"][row], found["miou_all"][row]) == pytest.approx((whole.miou_fg, whole.miou_all))
    assert counts.scores()["miou_fg"] == found["miou_fg"][:1]


def test_draw_without_any_defect_has_no_score():
    nothing = np.array([[5, 0], [5, 0]])
    counts = PixelCounts(nothing, nothing, nothing, ("a.png", "b.png"))
    assert np.isnan(counts.scores()["miou_fg"][0]) and counts.scores()["miou_all"][0] == 1


def test_pixel_counts_are_read_as_written(tmp_path):
    counts, _ = counts_of(1)
    counts.write(tmp_path / "test" / "pixels.npz")
    again = PixelCounts.read(tmp_path / "test" / "pixels.npz")
    assert again.images == counts.images and again.same_truth(counts)
    assert all(np.array_equal(getattr(again, name), getattr(counts, name)) for name in ("hits", "true", "found"))
    assert not again.same_truth(counts_of(2)[0])


def test_interval_of_two_segmentation_networks():
    worse, _ = counts_of(0)
    better = replace(worse, hits=worse.hits + (worse.true - worse.hits) // 2)
    found = intervals({"a": better, "b": worse}, [("a", "b")], rounds=200)["a", "b"]
    for name, (low, high) in found.items():
        assert 0 < low < better.scores()[name][0] - worse.scores()[name][0] < high
