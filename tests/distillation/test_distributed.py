"""Two processes (gloo): each sees its own images, and both end up with the same student and adapters."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel

from dfssd.distillation.pair import state_hash
from dfssd.pseudo_labels.online import OnlineLabeler
from dfssd.trainers.sampler import MixedSampler
from tests.distillation.test_growth import grown_pair
from tests.distillation.test_pair import make_batch, make_pair
from tests.processes import METHOD
from tests.thresholds import class_thresholds

pytestmark = pytest.mark.train

TSKD = {
    name: {"weight": 1.0, "schedule": "constant", "share": 0.1}
    for name in ("crd_cls", "crd_dfl", "ded", "ded_structure", "drd_pixel", "drd_instance")
}


def work(rank: int, folder: str, changes: dict) -> None:
    """One training step of one process; leaves gradients, weights and seen images in ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    # every anchor of a random teacher has a score of about 1e-5: all are accepted
    labeler = OnlineLabeler(class_thresholds(3, tau_low=1e-6, tau0=1e-6, tau_max=1e-6), iou=0.6)
    make = grown_pair if "new" in changes else make_pair
    pair = make(labeler=labeler, weigh_boxes=True, **changes)
    model = DistributedDataParallel(pair, find_unused_parameters=True)  # as Ultralytics wraps a distillation model
    optimizer = torch.optim.SGD([p for p in pair.parameters() if p.requires_grad], lr=0.01)
    teacher = state_hash(pair.teacher_model)
    batch = make_batch([True, False])
    batch["cls"][0] = changes.get("old", 0)  # labels: the first of the new classes, where there are any
    torch.manual_seed(rank)
    batch["img"] = torch.rand(2, 3, 64, 64)
    pair.probe = True  # measured inside the forward pass, it must not disturb the gradient exchange
    model(batch)[0].sum().backward()
    optimizer.step()
    found = len(pair.labels.bboxes)
    pair.trust = 0.0  # the guard has switched the teacher off: its adapters must not be waited for
    optimizer.zero_grad()
    model(batch)[0].sum().backward()
    optimizer.step()
    sampler = MixedSampler(8, 8, labeled_per_batch=1, unlabeled_per_batch=1, batches=4, seed=0, rank=rank, world=2)
    state = {
        "seen": list(sampler),
        "image": batch["img"],
        "found": found,
        "weights": [pair.weight(name) for name in pair.weights],
        "teacher": state_hash(pair.teacher_model) == teacher,
        "student": {n: p.detach() for n, p in pair.student_model.named_parameters()},
        "adapters": {n: p.detach() for n, p in pair.projector.named_parameters()},
    }
    torch.save(state, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@pytest.mark.parametrize(
    "changes",
    [{}, {"terms": TSKD, "balance": True}, {"old": 3, "new": 2}],
    ids=["dfssd", "tskd", "sdidd"],
)
def test_two_processes_stay_the_same_and_share_the_images(tmp_path: Path, changes: dict) -> None:
    start_processes(work, args=(str(tmp_path), changes), nprocs=2, start_method=METHOD)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    assert not torch.equal(first["image"], second["image"])
    assert not set(first["seen"]) & set(second["seen"])
    for part in ("student", "adapters"):
        for name, value in first[part].items():
            assert torch.allclose(value, second[part][name], atol=1e-7), name
    assert first["found"] > 0 and second["found"] > 0
    assert first["weights"] == second["weights"], "measured on different images, agreed upon"
    assert "balance" not in changes or 1.0 not in first["weights"]
    assert first["teacher"] and second["teacher"]
