"""Export of a detector: every decoded box and class score is compared, those of background anchors too, and mAP50-95.

See :mod:`dfssd.evaluation.export` for how.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfssd.deployment.infer import suppressed
from dfssd.detection.evaluate import evaluate
from dfssd.evaluation.detections import PREDICTIONS, Detections
from dfssd.evaluation.errors import match, recall_by_size
from dfssd.evaluation.export import Differences, Limit, finite
from dfssd.evaluation.export_options import NMS_SCORE
from dfssd.evaluation.exported import ExportedNetwork, Size, paired_outputs, running_max
from dfssd.evaluation.settings import EvalSettings
from dfssd.results.sections import BoxTolerance, SizeRecall

SURE = 0.1
"""Score from which the finished boxes of a file with ``nms=true`` are compared: weaker ones come and go by rounding."""


@dataclass(frozen=True)
class BoxParity:
    """Largest differences between two files over some images.

    Attributes:
        images: Number of images compared.
        max_box_diff_px: Largest difference of a box edge (x1, y1, x2, y2) [px of the letterboxed input].
        max_score_diff: Largest difference of a class score, in [0, 1].

    Both are NaN if an output is NaN, and infinite if the outputs have different shapes, or other boxes are left.
    """

    images: int
    max_box_diff_px: float
    max_score_diff: float


class BoxComparison:
    """The comparison of detectors (:class:`~dfssd.evaluation.export.Comparison`)."""

    score_name = "map50_95"

    def __init__(self, weights: Path, tolerance: BoxTolerance, save_dir: Path):
        """Take the ``.pt`` to compare with, the allowed differences, and a folder to keep predictions in."""
        self.weights, self.save_dir = weights, save_dir
        self.tolerance, self.score_limit = tolerance.model_dump(), tolerance.map50_95

    def outputs(self, exported: ExportedNetwork, images: Sequence[Path]) -> Differences:
        """Boxes and scores, before any threshold."""
        found = box_parity(self.weights, exported, images)
        recorded = {
            "images": found.images,
            "max_box_diff_px": finite(found.max_box_diff_px),
            "max_score_diff": finite(found.max_score_diff),
        }
        return Differences(
            recorded,
            (
                Limit("box edges [px] differ by", found.max_box_diff_px, self.tolerance["box_px"]),
                Limit("class scores differ by", found.max_score_diff, self.tolerance["score"]),
            ),
        )

    def score(self, name: str, weights: Path, settings: EvalSettings) -> float | None:
        """mAP50-95; what was predicted is kept in the folder."""
        found = evaluate(weights, settings, save_dir=self.save_dir / name, keep_detections=True)
        value: float | None = found["map50_95"]
        return value

    def sizes(self, name: str, thresholds: Sequence[float], imgsz: int) -> tuple[SizeRecall, ...]:
        """Recall by size of the defects."""
        file = self.save_dir / name / PREDICTIONS
        if not file.is_file():
            return ()
        found = Detections.read(file)
        return recall_by_size(found, match(found, np.array(thresholds)), imgsz)

    def forget(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.save_dir, ignore_errors=True)


def box_parity(weights: Path, exported: ExportedNetwork, images: Sequence[Path]) -> BoxParity:
    """Compare all raw decoded outputs, (1, 4 + classes, anchors), of a ``.pt`` and an exported file on the same inputs.

    Where the file suppresses overlapping boxes itself, (1, boxes, 6), those that are sure are compared with what is
    left of the outputs of the ``.pt``.

    Args:
        weights: ``.pt`` of a detector; run unfused, fp32, on the CPU.
        exported: The exported file.
        images: Images to letterbox to the size of its input; unreadable ones are left out.

    Raises:
        UserError: None of the images can be read.
    """
    from dfssd.trust.checkpoints import open_yolo

    network: Any = open_yolo(weights, task="detect").model
    network = network.float().cpu().eval()

    def decoded(pixels: Tensor, _: Size) -> Tensor:
        result = network(pixels)
        output: Tensor = result[0] if isinstance(result, (tuple, list)) else result
        return output

    count, box_diff, score_diff = 0, 0.0, 0.0
    for expected, found in paired_outputs(decoded, exported, images):
        count += 1
        if found.shape[-1] == 6 != expected.shape[-1]:
            expected, found = _sure_boxes(_finished(expected)), _sure_boxes(found[0])
        if expected.shape != found.shape:
            return BoxParity(count, math.inf, math.inf)
        box_diff = running_max(box_diff, _edges(expected) - _edges(found))
        score_diff = running_max(score_diff, expected[:, 4:] - found[:, 4:])
    return BoxParity(count // len(exported.sizes), box_diff, score_diff)


def _finished(outputs: Tensor) -> Tensor:
    """Rows x1, y1, x2, y2, score, class id that are left of decoded outputs (1, 4 + classes, anchors)."""
    score, class_id = outputs[0, 4:].max(0)
    rows = torch.cat([_edges(outputs)[0].T, score[:, None], class_id[:, None].float()], 1)
    return torch.from_numpy(suppressed(rows[rows[:, 4] > NMS_SCORE].numpy().astype(np.float32)))


def _sure_boxes(rows: Tensor) -> Tensor:
    """Finished boxes in the form of decoded outputs: (1, 4 + 2, boxes), ordered by class, score, and place."""
    kept = rows[rows[:, 4] > SURE]
    center, half = (kept[:, :2] + kept[:, 2:4]) / 2, (kept[:, 2:4] - kept[:, :2]) / 2
    columns = torch.cat([center, 2 * half, kept[:, 4:]], 1)
    order = sorted(range(len(columns)), key=lambda i: (columns[i, 5].item(), -round(columns[i, 4].item(), 3)))
    return columns[order].T[None]


def _edges(outputs: Tensor) -> Tensor:
    """Boxes (1, 4, anchors) as x1, y1, x2, y2 [px] from decoded outputs whose first rows are center x, y, w, h."""
    center, half = outputs[:, :2], outputs[:, 2:4] / 2
    return torch.cat([center - half, center + half], dim=1)
