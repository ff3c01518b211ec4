"""Export of a segmentation model: every pixel is compared, the padding too, and the mean IoU of the defects.

See :mod:`dfssd.evaluation.export` for how. Our own networks export logits. Ultralytics' ``*-sem`` models export class
ids alone: there the pixels that differ are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dfssd.evaluation.export import (
    ExportRequest,
    Limit,
    export_and_compare,
    finite,
    paired_outputs,
    running_max,
    score_both,
)
from dfssd.evaluation.settings import EvalSettings
from dfssd.results.sections import MaskTolerance
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
        size: Height and width of the ONNX input [px].

    The first two are NaN if an output is NaN, and infinite, with a share of 1, if the outputs have different shapes.
    """

    images: int
    max_logit_diff: float | None
    max_score_diff: float | None
    differing_pixels: float
    size: tuple[int, int]

    @property
    def gives_ids(self) -> bool:
        """Whether the ONNX file gives class ids instead of logits."""
        return self.max_score_diff is None


def export_masks(request: ExportRequest, tolerance: MaskTolerance) -> dict[str, Any]:
    """Export a segmentation model to ONNX, compare both files, then write the other formats.

    Args:
        request: What to export; Ultralytics rounds ``imgsz`` up to a multiple of the model's stride.
        tolerance: Allowed differences.

    Returns:
        Beside what :func:`~dfssd.evaluation.export.export_and_compare` records: ``input``: its shape; ``images``:
        number compared; ``answers``: ``logits`` or ``ids``; ``max_logit_diff`` and ``max_score_diff``: None if the file
        gives class ids, or if they are not finite; ``differing_pixels``: share in [0, 1]; ``miou_fg_torch`` and
        ``miou_fg_onnx``: None if there is nothing to measure; ``tolerance``: ``score``, ``miou``.

    Raises:
        UserError: Unknown format, weights that are missing or of another task, other classes than those of the data, no
            readable image in the split, or Ultralytics cannot write ONNX.
    """
    load_semantic(request.weights)  # rejects other models before anything is written

    def miou_fg(weights: Path, settings: EvalSettings) -> float | None:
        return evaluate_masks(weights, settings)["miou_fg"]

    def compare(exported: Path, images: Sequence[Path]) -> tuple[dict[str, Any], list[Limit]]:
        found = mask_parity(request.weights, exported, images)
        scores = score_both(miou_fg, request, exported)
        section = {
            "input": [1, 3, *found.size],
            "images": found.images,
            "answers": "ids" if found.gives_ids else "logits",
            "max_logit_diff": finite(found.max_logit_diff),
            "max_score_diff": finite(found.max_score_diff),
            "differing_pixels": found.differing_pixels,
            "miou_fg_torch": scores.torch,
            "miou_fg_onnx": scores.onnx,
            "tolerance": tolerance.model_dump(),
        }
        if found.gives_ids:
            raw = Limit("the share of pixels whose class differs is", found.differing_pixels, tolerance.score)
        else:
            raw = Limit("class probabilities differ by", found.max_score_diff, tolerance.score)
        return section, [raw, Limit("the two miou_fg differ by", scores.difference, tolerance.miou)]

    return export_and_compare(request, task="semantic", compare=compare)


def mask_parity(weights: Path, onnx_file: Path, images: Sequence[Path]) -> MaskParity:
    """Compare the outputs of a ``.pt`` and an ONNX file at each pixel of the same inputs.

    Args:
        weights: ``.pt`` of a segmentation model; run unfused, fp32, on the CPU, its logits scaled to the input.
        onnx_file: ONNX file with one input (1, 3, h, w), RGB in [0, 1], that gives logits (1, nc, h, w) or class ids
            (1, h, w).
        images: Images to letterbox to (h, w); unreadable ones are left out.

    Raises:
        UserError: None of the images can be read, or ``weights`` is no segmentation model.
    """
    network = load_semantic(weights)

    def logits(pixels: Tensor, size: tuple[int, int]) -> Tensor:
        return full_resolution(network(pixels), size)

    size, pairs = paired_outputs(logits, onnx_file, images)
    gives_ids = False
    count, differing, pixels = 0, 0, 0
    logit_diff = score_diff = 0.0
    for expected, found in pairs:
        gives_ids = found.dim() == 3
        count += 1
        ids = expected.argmax(1)
        if found.shape != (ids if gives_ids else expected).shape:
            return MaskParity(count, math.inf, math.inf, 1.0, size)
        differing += int((ids != (found if gives_ids else found.argmax(1))).sum())
        pixels += ids.numel()
        if not gives_ids:
            logit_diff = running_max(logit_diff, expected - found)
            score_diff = running_max(score_diff, expected.softmax(1) - found.softmax(1))
    share = differing / pixels
    if gives_ids:
        return MaskParity(count, None, None, share, size)
    return MaskParity(count, logit_diff, score_diff, share, size)
