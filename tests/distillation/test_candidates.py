"""What a teacher has found, decoded on the host: the boxes of Ultralytics' head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ultralytics.utils.ops import xywh2xyxy

from dfssd.distillation.candidates import Candidates
from dfssd.distillation.outputs import Outputs
from tests.distillation.test_pair import model

LEVELS, STRIDES = [(8, 12), (4, 6), (2, 3)], [8, 16, 32]


@pytest.mark.parametrize("name", ["yolov8n.yaml", "yolo26n.yaml"])
def test_candidates_are_the_anchors_above_the_threshold_as_the_head_decodes_them(name: str) -> None:
    head = model(name).eval().model[-1]
    head.end2end = False
    g = torch.Generator().manual_seed(0)
    raw = {
        "boxes": 2 * torch.randn(3, 4 * head.reg_max, 126, generator=g),
        "scores": torch.randn(3, 3, 126, generator=g),
        "feats": [torch.zeros(3, 1, *size) for size in LEVELS],
    }
    decoded = head._inference(raw)
    teacher = Outputs([], raw["boxes"], raw["scores"], LEVELS)
    scores = decoded[1:, 4:].amax(1)
    threshold = float(scores.flatten().sort().values[-20])
    found = Candidates(raw["boxes"], teacher.confidence, slice(1, 3), threshold).decoded(LEVELS, STRIDES)
    image, anchor = (scores > threshold).nonzero(as_tuple=True)
    assert len(image) == 19
    rows = decoded[1:].transpose(1, 2)[image, anchor]
    assert np.array_equal(found[:, 6], image)
    assert np.allclose(found[:, :4], xywh2xyxy(rows[:, :4]), atol=1e-4)
    assert np.allclose(found[:, 4], rows[:, 4:].amax(1)) and np.array_equal(found[:, 5], rows[:, 4:].argmax(1))


def test_half_precision_rounds_logits_and_not_coordinates() -> None:
    boxes = torch.zeros(1, 64, 126)
    boxes[0, 15] = 30.0  # left side: all in the last bin; the others: uniform
    scores = torch.full((1, 2, 126), 2.0)
    both = []
    for dtype in (torch.float32, torch.bfloat16):
        teacher = Outputs([], boxes.to(dtype), scores.to(dtype), LEVELS)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = Candidates(teacher.boxes, teacher.confidence, slice(0, 1), 0.5).decoded(LEVELS, STRIDES)
        both.append(found[:, :4])
    assert len(both[0]) == 126 and np.array_equal(*both)


def test_nothing_above_the_threshold() -> None:
    teacher = Outputs([], torch.zeros(2, 64, 126), torch.full((2, 2, 126), -9.0), LEVELS)
    assert Candidates(teacher.boxes, teacher.confidence, slice(1, 2), 0.5).decoded(LEVELS, STRIDES).shape == (0, 7)
