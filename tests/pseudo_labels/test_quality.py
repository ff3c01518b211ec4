"""Precision and recall of pseudo-labels, on boxes whose overlap is plain to see."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dfssd.pseudo_labels.quality import count_matches, find_matches, pseudo_label_quality
from dfssd.pseudo_labels.records import PseudoImage

NAMES = ["dents", "pits", "punching"]
LEFT, RIGHT, FAR = [0.2, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2], [0.85, 0.85, 0.2, 0.2]


def pseudo(image: str, *rows: tuple[int, float, str, list[float]]) -> PseudoImage:
    return PseudoImage(
        image=Path(image),
        width=100,
        height=100,
        label=None,
        classes=np.array([r[0] for r in rows], dtype=np.int64),
        scores=np.array([r[1] for r in rows], dtype=np.float32),
        boxes_xywhn=np.array([r[3] for r in rows], dtype=np.float32).reshape(-1, 4),
        zones=np.array([r[2] for r in rows], dtype=np.str_),
    )


def true(*rows: tuple[int, list[float]]) -> np.ndarray:
    return np.array([[c, *box] for c, box in rows], dtype=np.float32).reshape(-1, 5)


def test_hand_worked_counts():
    images = [
        pseudo("a.jpg", (0, 0.9, "accept", LEFT), (0, 0.8, "accept", FAR), (1, 0.9, "accept", RIGHT)),
        pseudo("b.jpg", (0, 0.9, "accept", RIGHT)),
    ]
    truth = {Path("a.jpg"): true((0, LEFT), (0, RIGHT)), Path("b.jpg"): true((1, RIGHT))}
    quality = pseudo_label_quality(images, truth, NAMES)
    assert quality == {
        "iou": 0.5,
        "images": 2,
        "precision": 1 / 4,
        "recall": 1 / 3,
        "per_class": {
            "dents": {"precision": 1 / 3, "recall": 1 / 2, "tp": 1, "fp": 2, "fn": 1},
            "pits": {"precision": 0.0, "recall": 0.0, "tp": 0, "fp": 1, "fn": 1},
            "punching": {"precision": None, "recall": None, "tp": 0, "fp": 0, "fn": 0},
        },
    }


def test_only_accepted_boxes_of_images_with_truth_count():
    images = [
        pseudo("a.jpg", (0, 0.9, "ignore", LEFT), (0, 0.05, "background", FAR)),
        pseudo("unknown.jpg", (0, 0.9, "accept", LEFT)),
    ]
    quality = pseudo_label_quality(images, {Path("a.jpg"): true((0, LEFT))}, NAMES)
    assert (quality["images"], quality["precision"], quality["recall"]) == (1, None, 0.0)


def test_image_known_to_be_free_of_defects():
    quality = pseudo_label_quality([pseudo("a.jpg", (0, 0.9, "accept", LEFT))], {Path("a.jpg"): true()}, NAMES)
    assert (quality["precision"], quality["recall"]) == (0.0, None)


def test_a_true_box_is_found_once_and_the_higher_score_chooses_first():
    shifted = [0.22, 0.5, 0.2, 0.2]
    assert count_matches(np.array([LEFT, LEFT]), np.array([0.9, 0.8]), np.array([LEFT]), 0.5) == 1
    # the first box takes its best partner, so the second one finds the other
    assert count_matches(np.array([LEFT, shifted]), np.array([0.8, 0.9]), np.array([LEFT, shifted]), 0.5) == 2


def test_which_boxes_match():
    boxes, scores = np.array([LEFT, FAR, LEFT, RIGHT]), np.array([0.5, 0.9, 0.8, 0.1])
    matched = find_matches(boxes, scores, np.array([RIGHT, LEFT]), 0.5)
    assert matched.tolist() == [False, False, True, True]
    assert find_matches(boxes, scores, np.zeros((0, 4)), 0.5).tolist() == [False] * 4
    assert find_matches(np.zeros((0, 4)), np.zeros(0), boxes, 0.5).shape == (0,)


def test_overlap_at_the_limit_matches():
    half = [0.2, 0.45, 0.2, 0.1]
    assert count_matches(np.array([half]), np.array([0.9]), np.array([LEFT]), 0.499) == 1
    assert count_matches(np.array([half]), np.array([0.9]), np.array([LEFT]), 0.501) == 0


def test_no_images():
    assert pseudo_label_quality([], {}, NAMES)["precision"] is None
