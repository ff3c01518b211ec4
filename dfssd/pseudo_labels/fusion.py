"""Fusion of several predictions for one image: by several teachers, or of flipped and resized views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dfssd.pseudo_labels.records import ImagePrediction


def fuse(predictions: Sequence[ImagePrediction], *, iou: float = 0.55, score_floor: float = 0.0) -> ImagePrediction:
    """Weighted boxes fusion (Solovyev et al., arXiv:1910.13302) of several predictions of the same image.

    Boxes of one class are processed by falling score; each joins the cluster whose fused box it overlaps most, if by
    more than ``iou``, or opens a new one. A cluster of boxes b_i with scores s_i from M of the V predictions becomes::

        box = sum_i s_i b_i / sum_i s_i   (corners),        score = mean_i(s_i) M / V

    With one box per prediction the score is sum_i s_i / V: the mean over all V predictions, where one
    without the box counts as 0 (``box_and_model_avg`` in the library). So it is on the scale of a single teacher's
    score, thresholds fit both, and a box that only one of several predictions contains is not trusted: with 4, a box
    with 0.9 in one of them falls to 0.225. Since each prediction was itself cut at ``score_floor``, the fused score is
    below the true mean by at most ``score_floor`` (V - M) / V. The other rules are not used: the plain average
    (``avg``) counts two overlapping boxes of one prediction twice, and ``max`` favors the least reliable view.

    Args:
        predictions: V >= 1 predictions; a single one is returned unchanged.
        iou: Overlap above which two boxes of a class are one, in [0, 1]; 0.55 is the paper's.
        score_floor: Boxes and fused boxes below are dropped, in [0, 1].

    Returns:
        The fused boxes by falling score.

    Raises:
        ValueError: There are no predictions, or they are not of one image.
    """
    if len({(p.image, p.width, p.height) for p in predictions}) != 1:
        raise ValueError(f"predictions of one image are fused, not of {[str(p.image) for p in predictions]}")
    if len(predictions) == 1:
        return predictions[0]
    from ensemble_boxes import weighted_boxes_fusion  # imports a compiler, thus only when needed

    corners, scores, classes = weighted_boxes_fusion(
        [_corners(p.boxes_xywhn) for p in predictions],
        [p.scores for p in predictions],
        [p.classes for p in predictions],
        iou_thr=iou,
        skip_box_thr=score_floor,
        conf_type="box_and_model_avg",
    )
    kept = scores >= score_floor
    corners = corners[kept].clip(0, 1)
    return replace(
        predictions[0],
        classes=classes[kept].astype(np.int64),
        scores=scores[kept].clip(0, 1),
        boxes_xywhn=np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1),
    )


def _corners(boxes_xywhn: np.ndarray) -> np.ndarray:
    """(n, 4) xywh center format -> (n, 4) corners, clipped to 0-1 against rounding."""
    half = boxes_xywhn[:, 2:] / 2
    return np.concatenate([boxes_xywhn[:, :2] - half, boxes_xywhn[:, :2] + half], axis=1).clip(0, 1)
