"""The families of detectors whose boxes become pseudo-labels: how each one sees an image, and what it returns.

A YOLO sees an image in its own shape with gray around it, and finds an object from several places of a grid; RT-DETR
sees it stretched to a square, and finds it once, by one of its queries. Everything that differs is described here, so
that inference (:mod:`dfssd.pseudo_labels.detector`) and the order of classes
(:func:`dfssd.distillation.compatibility.align_teacher`) are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.head import Detect, RTDETRDecoder, v10Detect
from ultralytics.utils.ops import xywh2xyxy


@dataclass(frozen=True)
class Family:
    """What a kind of detector has of its own.

    Attributes:
        stretched: The image fills the square, whatever its shape; otherwise it keeps its shape, with gray around it.
        repeats: An object may be found more than once: overlapping boxes of a class have to be thinned out.
        rows: ``(output, side)`` -> (B, A, 6): x1, y1, x2, y2 [px of the square of that side], score, class; by falling
            score unless ``repeats``.
        class_layers: Head -> its layers whose rows are the classes.
    """

    stretched: bool
    repeats: bool
    rows: Callable[[Tensor, int], Tensor]
    class_layers: Callable[[Any], Iterator[nn.Module]]


def _of_grid(output: Tensor, side: int) -> Tensor:
    """(B, 4 + nc, A): center, width and height [px], and a score for each class, of which the best counts."""
    found = output.transpose(1, 2)
    score, cls = found[..., 4:].max(-1, keepdim=True)
    return torch.cat([xywh2xyxy(found[..., :4]), score, cls.float()], -1)


def _of_one_to_one(output: Tensor, side: int) -> Tensor:
    """(B, A, 6), as wanted."""
    return output


def _of_queries(output: Tensor, side: int) -> Tensor:
    """(B, A, 6): center, width and height [shares of the image], score, class."""
    return torch.cat([xywh2xyxy(output[..., :4]) * side, output[..., 4:]], -1)


def _of_convolutions(head: Any) -> Iterator[nn.Module]:
    for branch in ("cv3", "one2one_cv3"):
        for level in getattr(head, branch, None) or ():
            yield level[-1]


def _of_transformer(head: Any) -> Iterator[nn.Module]:
    yield from (head.denoising_class_embed, head.enc_score_head, *head.dec_score_head)


GRID = Family(stretched=False, repeats=True, rows=_of_grid, class_layers=_of_convolutions)
ONE_TO_ONE = Family(stretched=False, repeats=False, rows=_of_one_to_one, class_layers=_of_convolutions)
QUERIES = Family(stretched=True, repeats=False, rows=_of_queries, class_layers=_of_transformer)


def family_of(head: Any) -> Family | None:
    """The family of a detector by its last layer; None if its boxes cannot be used.

    Heads that segment, estimate poses, or read prompts are subclasses of YOLO's, and are none. A YOLO with a one-to-one
    branch (YOLOv10, YOLO26) belongs to the grid if told so (``end2end=False``), unless it has lost its other branch.
    """
    if type(head) is RTDETRDecoder:
        return QUERIES
    if type(head) not in {Detect, v10Detect}:
        return None
    return ONE_TO_ONE if head.end2end else GRID


def keep_classes(head: Any, rows: list[int]) -> None:
    """Let ``head``, of one of the families, score only the classes ``rows``, in that order."""
    family = family_of(head)
    assert family is not None
    for layer in family.class_layers(head):
        for name, own in list(layer.named_parameters(recurse=False)):
            setattr(layer, name, nn.Parameter(own.detach()[rows].clone(), requires_grad=False))
        for count in ("out_channels", "out_features", "num_embeddings"):
            if hasattr(layer, count):
                setattr(layer, count, len(rows))
    head.nc = len(rows)
    if isinstance(head, Detect):
        head.no = len(rows) + 4 * head.reg_max
