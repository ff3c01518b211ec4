"""Export of a segmentation model: every pixel is compared, the padding too, and the mean IoU of the defects.

See :mod:`dfssd.evaluation.export` for how. Our own networks export logits. Ultralytics' ``*-sem`` models export class
ids alone: there the pixels that differ are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dfssd.evaluation.export import Differences, Limit, finite
from dfssd.evaluation.exported import ExportedNetwork, Size, paired_outputs, running_max
from dfssd.evaluation.settings import EvalSettings
from dfssd.results.sections import MaskTolerance, SizeRecall
from dfssd.segmentation.evaluate import evaluate_masks
from dfssd.segmentation.model import full_resolution, load_semantic


@dataclass(frozen=True)
class MaskParity:
    """Largest differences between two files over some images.

    Attributes:
        images: Number of images compared.
        max_logit_diff: Largest difference of a logit; None if the ONNX file gives class ids.
        max_score_diff: Largest difference of a class probability, in [0, 1]; None if the ONNX file gives class ids.
        differing_pixels: Share of the pixels whose classes differ, in [0, 1].

    The first two are NaN if an output is NaN, and infinite, with a share of 1, if the outputs have different shapes.
    """

    images: int
    max_logit_diff: float | None
    max_score_diff: float | None
    differing_pixels: float

    @property
    def gives_ids(self) -> bool:
        """Whether the ONNX file gives class ids instead of logits."""
        return self.max_score_diff is None


class MaskComparison:
    """The comparison of segmentation models (:class:`~dfssd.evaluation.export.Comparison`)."""

    score_name = "miou_fg"

    def __init__(self, weights: Path, tolerance: MaskTolerance):
        """Take the ``.pt`` to compare with, and the allowed differences.

        Raises:
            UserError: It is missing, or no segmentation model.
        """
        load_semantic(weights)
        self.weights = weights
        self.tolerance, self.score_limit = tolerance.model_dump(), tolerance.miou

    def outputs(self, exported: ExportedNetwork, images: Sequence[Path]) -> Differences:
        """Every pixel."""
        found = mask_parity(self.weights, exported, images)
        recorded = {
            "images": found.images,
            "answers": "ids" if found.gives_ids else "logits",
            "max_logit_diff": finite(found.max_logit_diff),
            "max_score_diff": finite(found.max_score_diff),
            "differing_pixels": found.differing_pixels,
        }
        if found.gives_ids:
            limit = Limit("the share of pixels whose class differs is", found.differing_pixels, self.tolerance["score"])
        else:
            limit = Limit("class probabilities differ by", found.max_score_diff, self.tolerance["score"])
        return Differences(recorded, (limit,))

    def score(self, name: str, weights: Path, settings: EvalSettings) -> float | None:
        """Mean IoU of the defects."""
        value: float | None = evaluate_masks(weights, settings)["miou_fg"]
        return value

    def sizes(self, name: str, thresholds: Sequence[float], imgsz: int) -> tuple[SizeRecall, ...]:
        """Nothing: masks are counted by pixels."""
        return ()

    def forget(self) -> None:
        """Nothing is kept."""


def mask_parity(weights: Path, exported: ExportedNetwork, images: Sequence[Path]) -> MaskParity:
    """Compare the outputs of a ``.pt`` and an exported file at each pixel of the same inputs.

    Args:
        weights: ``.pt`` of a segmentation model; run unfused, fp32, on the CPU, its logits scaled to the input.
        exported: A file that gives logits (1, nc, h, w) or class ids (1, h, w).
        images: Images to letterbox to (h, w); unreadable ones are left out.

    Raises:
        UserError: None of the images can be read, or ``weights`` is no segmentation model.
    """
    network = load_semantic(weights)

    def logits(pixels: Tensor, size: Size) -> Tensor:
        return full_resolution(network(pixels), size)

    gives_ids = False
    count, differing, pixels = 0, 0, 0
    logit_diff = score_diff = 0.0
    for expected, found in paired_outputs(logits, exported, images):
        gives_ids = found.dim() == 3
        count += 1
        ids = expected.argmax(1)
        if found.shape != (ids if gives_ids else expected).shape:
            return MaskParity(count, math.inf, math.inf, 1.0)
        differing += int((ids != (found if gives_ids else found.argmax(1))).sum())
        pixels += ids.numel()
        if not gives_ids:
            logit_diff = running_max(logit_diff, expected - found)
            score_diff = running_max(score_diff, expected.softmax(1) - found.softmax(1))
    share = differing / pixels
    images_compared = count // len(exported.sizes)
    if gives_ids:
        return MaskParity(images_compared, None, None, share)
    return MaskParity(images_compared, logit_diff, score_diff, share)
