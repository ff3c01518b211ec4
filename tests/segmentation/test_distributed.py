"""Two processes (gloo): each sees its own images, and both end up with the same student."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from dfssd.segmentation.boundary import distance_maps
from dfssd.segmentation.criterion import BatchLoss
from dfssd.segmentation.model import build_model
from dfssd.segmentation.selftest import SegmentationSelfTest
from tests.configured import segmentation_loss
from tests.processes import METHOD
from tests.segmentation.material import defects

pytestmark = pytest.mark.train


def batch_of(rank: int) -> dict:
    """Two images, the second one without a mask."""
    image, mask = defects(rank, 32)
    known = torch.from_numpy(mask.astype("int32"))
    torch.manual_seed(10 + rank)
    return {
        "img": torch.stack([torch.from_numpy(image).permute(2, 0, 1) / 255, torch.rand(3, 32, 32)]),
        "semantic_mask": torch.stack([known, torch.full_like(known, 255)]),
        "boundary_maps": torch.stack([torch.from_numpy(distance_maps(mask, 4)), torch.zeros(3, 32, 32)]),
        "teacher_logits": torch.randn(2, 4, 32, 32),
        "kd_pixels": torch.ones(2, 32, 32, dtype=torch.bool),
    }


def student() -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model("mffmetal-6", 4).eval()  # statistics of a batch are each process's own
    model.criterion = BatchLoss(segmentation_loss())
    return model


def work(rank: int, folder: str) -> None:
    """One training step of one process; leaves its weights in ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    model = student()
    selftest = SegmentationSelfTest(model.criterion, None, steps=1)  # it measures inside the forward pass
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    wrapped(batch_of(rank))[0].backward()
    optimizer.step()
    selftest.check_batch(0)
    state = {"weights": dict(model.state_dict()), "applicable": sorted(model.criterion.applicable)}
    torch.save(state, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


def test_two_processes_make_the_step_of_the_mean_gradient(tmp_path: Path) -> None:
    start_processes(work, args=(str(tmp_path),), nprocs=2, start_method=METHOD)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    assert first["applicable"] == second["applicable"] == ["boundary", "ce", "dice", "kd"]
    alone = student()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.01)
    for rank in (0, 1):
        (alone(batch_of(rank))[0] / 2).backward()
    optimizer.step()
    before, after = student().state_dict(), alone.state_dict()
    assert any(not torch.equal(before[name], value) for name, value in after.items())
    for name, value in after.items():
        assert torch.equal(first["weights"][name], second["weights"][name]), name
        assert torch.allclose(first["weights"][name], value, atol=1e-6), name
