"""Export of a segmentation model, and the proof that the ONNX file computes what the PyTorch file computes.

The twin of :mod:`dfssd.export`. *Raw outputs*: both files get the same letterboxed images, and every pixel is compared,
the padding too; PyTorch runs unfused in fp32 on the CPU. *Metrics*: mean IoU of the defects by both files on the whole
split, both on squares, since the exported input shape is fixed.

Our own networks export logits. Ultralytics' ``*-sem`` models export class ids alone: there the pixels that differ are
counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dfssd.export import Limit, check_formats, export_and_compare, finite, onnx_function, sampled_inputs, split_images
from dfssd.segmentation.evaluate import evaluate_masks
from dfssd.segmentation.model import full_resolution, load_semantic


@dataclass(frozen=True)
class MaskParity:
    """Largest differences between two files over some images.

    Attributes:
        images: Number of images compared.
        max_logit_diff: Largest difference of a logit; None if the ONNX file gives class ids.
        max_score_diff: Largest difference of a class probability, in [0, 1]; None if the ONNX file gives class ids.
        differing_pixels: Share of the pixels whose class is another one, in [0, 1].
        size: Height and width of the ONNX input [px].

    The first two are NaN if an output is NaN, and infinite, with a share of 1, if the outputs have different shapes.
    """

    images: int
    max_logit_diff: float | None
    max_score_diff: float | None
    differing_pixels: float
    size: tuple[int, int]


def export_masks(
    weights: Path,
    data_yaml: Path,
    *,
    out: Path,
    imgsz: int,
    device: str | None,
    batch: int,
    formats: Sequence[str],
    score_tolerance: float,
    miou_tolerance: float,
    split: str = "test",
) -> dict[str, Any]:
    """Export ``weights`` to ONNX at ``out``, compare both files, then write the other formats beside ``out``.

    Nothing is written beside ``weights``; ``out`` appears whole, and only after it has been compared.

    Args:
        weights: The segmentation model, ``.pt``; it is not changed.
        data_yaml: Semantic data YAML whose ``split`` is used for the comparison, a .txt list.
        out: The ONNX file to write (fixed input of one image, ``imgsz`` x ``imgsz``).
        imgsz: Input size [px]; Ultralytics rounds it up to a multiple of the model's stride.
        device: Ultralytics device, for the PyTorch metrics and for formats that need a GPU.
        batch: Images per forward pass of the PyTorch metrics.
        formats: Wanted formats; ``onnx`` is always written, any other is passed on to Ultralytics' exporter.
        score_tolerance: Largest allowed difference of a class probability; for a file that gives class ids, the largest
            allowed share of pixels whose class differs.
        miou_tolerance: Largest allowed difference in the mean IoU of the defects.
        split: Key of the image list in ``data_yaml``.

    Returns:
        ``format``, ``file``, ``size_mb``, ``input``: its shape; ``images``: number compared; ``answers``: ``logits`` or
        ``ids``; ``max_logit_diff`` and ``max_score_diff``: None if the file gives class ids, or if they are not finite;
        ``differing_pixels``: share in [0, 1]; ``miou_fg_torch`` and ``miou_fg_onnx``: None if there is nothing to
        measure; ``tolerance``: ``score``, ``miou``; ``passed``: False if a difference is above its tolerance or if a
        wanted format could not be written; ``failures``: one sentence for each reason; ``other``: ``format``, ``file``
        and ``error`` of each other format.

    Raises:
        UserError: Unknown format, weights that are missing or of another task, other classes than those of the data, no
            readable image in the split, or Ultralytics cannot write ONNX.
    """
    others = check_formats(formats)
    images = split_images(data_yaml, split)
    load_semantic(weights)  # refuses what is no segmentation model before anything is written

    def compare(exported: Path) -> tuple[dict[str, Any], list[Limit]]:
        found = mask_parity(weights, exported, images)
        shared: dict[str, Any] = {"split": split, "imgsz": imgsz, "rect": False}
        miou_torch = evaluate_masks(weights, data_yaml, batch=batch, device=device, **shared)["miou_fg"]
        # onnxruntime from requirements.txt computes on the CPU, whatever the training used
        miou_onnx = evaluate_masks(exported, data_yaml, device="cpu", **shared)["miou_fg"]
        section = {
            "input": [1, 3, *found.size],
            "images": found.images,
            "answers": "ids" if found.max_score_diff is None else "logits",
            "max_logit_diff": finite(found.max_logit_diff),
            "max_score_diff": finite(found.max_score_diff),
            "differing_pixels": found.differing_pixels,
            "miou_fg_torch": miou_torch,
            "miou_fg_onnx": miou_onnx,
            "tolerance": {"score": score_tolerance, "miou": miou_tolerance},
        }
        if found.max_score_diff is None:
            raw = Limit("the share of pixels of another class is", found.differing_pixels, score_tolerance)
        else:
            raw = Limit("class probabilities differ by", found.max_score_diff, score_tolerance)
        return section, [raw, Limit("the two miou_fg differ by", _difference(miou_torch, miou_onnx), miou_tolerance)]

    return export_and_compare(
        weights, data_yaml, task="semantic", out=out, imgsz=imgsz, device=device, others=others, compare=compare
    )


def mask_parity(weights: Path, onnx_file: Path, images: Sequence[Path]) -> MaskParity:
    """Compare what a ``.pt`` and an ONNX file say about each pixel of the same inputs.

    Args:
        weights: ``.pt`` of a segmentation model; run unfused, fp32, on the CPU, its logits scaled to the input.
        onnx_file: ONNX file with one input (1, 3, h, w), RGB in [0, 1], that gives logits (1, nc, h, w) or class ids
            (1, h, w).
        images: Images to letterbox to (h, w); unreadable ones are left out.

    Raises:
        UserError: None of the images can be read, or ``weights`` is no segmentation model.
    """
    network = load_semantic(weights)
    run, size = onnx_function(onnx_file)
    gives_ids = False
    count, differing, pixels = 0, 0, 0
    logit_diff = score_diff = torch.zeros(())
    for image in sampled_inputs(images, size):
        with torch.inference_mode():
            expected = full_resolution(network(torch.from_numpy(image)), size)
        got = torch.from_numpy(run(image))
        gives_ids = got.dim() == 3
        count += 1
        ids = expected.argmax(1)
        if got.shape != (ids if gives_ids else expected).shape:
            return MaskParity(count, math.inf, math.inf, 1.0, size)
        differing += int((ids != (got if gives_ids else got.argmax(1))).sum())
        pixels += ids.numel()
        if not gives_ids:
            # torch.maximum keeps NaN, max() may lose it
            logit_diff = torch.maximum(logit_diff, (expected - got).abs().max())
            score_diff = torch.maximum(score_diff, (expected.softmax(1) - got.softmax(1)).abs().max())
    share = differing / pixels
    if gives_ids:
        return MaskParity(count, None, None, share, size)
    return MaskParity(count, float(logit_diff), float(score_diff), share, size)


def _difference(first: float | None, second: float | None) -> float | None:
    """Of two scores; None if neither could be measured, infinite if only one of them could."""
    if first is None or second is None:
        return None if first is second else math.inf
    return abs(first - second)
