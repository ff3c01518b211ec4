"""Two processes (gloo) with half a batch each make the gradient of one process with the whole batch."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing import start_processes
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.torch_utils import unwrap_model

from dfssd.distillation.outputs import Outputs
from dfssd.distillation.terms import TERMS
from dfssd.distributed import group
from dfssd.distributed.replica import Replica, share_normalizers
from dfssd.pseudo_labels.meter import HealthMeter
from dfssd.pseudo_labels.online import OnlineLabeler
from dfssd.trainers.loss_record import LossRecord
from tests.configured import pair as build_pair
from tests.distillation.test_terms import FIXED, SHAPE, changed, leaves, make_batch, make_outputs
from tests.processes import METHOD
from tests.thresholds import class_thresholds
from tests.tiny_detection import NAMES, save_detector

BOXES = (4, 0, 1, 2)
"""Boxes in the images of a batch: the processes have different numbers of them."""

EQUAL = {
    "cwd", "erd_box", "ld", "logit_mse", "mgd", "response_cls", "response_dfl", "response_giou", "sdidd_box",
    "sdidd_cls",
}  # fmt: skip
"""Terms whose value for a batch is the mean over its parts; docs/scale.md lists the others."""

DEFAULT = {name: {"weight": 1.0, "schedule": "constant"} for name in ("cwd", "response_cls", "response_dfl")}
"""The terms of the default recipe."""


def images_of(rank: int | None) -> list[int]:
    """The images of a process in a batch of two labeled and two unlabeled ones; None: all."""
    return [0, 1, 2, 3] if rank is None else [rank, 2 + rank]


def batch_of(rank: int | None) -> dict[str, Any]:
    """The part of a batch."""
    chosen = images_of(rank)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 64, 64, generator=generator)
    boxes = [torch.rand(n, 4, generator=generator) * 0.3 + 0.3 for n in BOXES]
    own = [boxes[i] if i < 2 else boxes[i][:0] for i in chosen]
    count = [len(b) for b in own]
    n = sum(count)
    return {
        "img": images[chosen],
        "cls": torch.cat([torch.arange(k) % 3 for k in count])[:, None].float(),
        "bboxes": torch.cat(own),
        "batch_idx": torch.arange(len(chosen)).repeat_interleave(torch.tensor(count)).float(),
        "labeled": torch.tensor([i < 2 for i in chosen]),
        "score": torch.ones(n),
        "ignore_source": torch.zeros(0),
        "ignore_bboxes": torch.zeros(0, 4),
        "ignore_batch_idx": torch.zeros(0),
    }


def network(file: Path) -> Any:
    """A detector that can be trained."""
    found = load_checkpoint(file)[0].float().requires_grad_(True)
    found.args = get_cfg()
    return found


def training(model: Any) -> Any:
    """The model in training, with frozen normalizations."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


def plain(file: Path, rank: int | None, *, shared: bool = True) -> dict[str, Any]:
    """A step of Ultralytics' own loss, as its trainer makes it."""
    model = training(network(file))
    if rank is not None:
        model = Replica(model, find_unused_parameters=True, device_ids=[None])
        if shared:
            share_normalizers(unwrap_model(model))
    loss, items = model(batch_of(rank))
    (loss.sum() * group.world()).backward()
    return {"gradients": gradients(model), "items": {name: group.mean_of(v) for name, v in items.items()}}


def distilled(folder: Path, rank: int | None) -> dict[str, Any]:
    """A step of the pair with the terms of the default recipe and boxes that the teacher finds."""
    labeler = OnlineLabeler(class_thresholds(3, tau0=0.3, decay=0.5), iou=0.6)
    teacher, student = network(folder / "teacher.pt").eval(), network(folder / "student.pt")
    pair = training(build_pair(teacher, student, terms=DEFAULT, labeler=labeler, weigh_boxes=True))
    model: Any = pair if rank is None else Replica(pair, find_unused_parameters=True)
    vector, items = model(batch_of(rank))
    (vector.sum() * group.world()).backward()
    meter, record = HealthMeter(NAMES), LossRecord()
    meter.add_batch(pair.labels, 2 // group.world(), pair.agreement, np.zeros((0, 7)))
    record.add(items)
    meter.share(group.total)
    record.share(group.total, group.world())
    return {
        "gradients": gradients(model),
        "items": record.means,
        "thresholds": labeler.thresholds.state_dict(),
        "health": meter.summary(),
    }


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in unwrap_model(model).named_parameters() if p.grad is not None}


def terms(rank: int | None) -> dict[str, Any]:
    """Value of each term, and its gradient for the outputs of the student."""
    chosen = images_of(rank)
    boxes = make_batch(4)
    kept = torch.cat(
        [torch.arange(3 * i, 3 * i + n) for i, n in zip(range(4), (1, 3, 0, 2), strict=True) if i in chosen]
    )
    batch = {k: v[kept] for k, v in boxes.items() if not k.startswith("ignore")}
    batch["batch_idx"] = torch.tensor([float(chosen.index(int(i))) for i in batch["batch_idx"]])
    batch |= {k: v for k, v in boxes.items() if k.startswith("ignore")}
    found = {}
    for name, kind in TERMS.items():
        torch.manual_seed(0)
        term = kind(SHAPE, **FIXED.get(name, {}))

        def part(x: torch.Tensor) -> torch.Tensor:
            return x.detach()[chosen].requires_grad_()

        student: Outputs = changed(make_outputs(False, 1, 4), part)
        value = term(student, changed(make_outputs(True, 2, 4), part), batch)
        value.backward()
        found[name] = {
            "value": group.mean_of(value),
            "adapters": [group.mean_of(p.grad) for p in term.parameters() if p.grad is not None],
            "outputs": [None if x.grad is None else x.grad / group.world() for x in leaves(student)],
        }
    return found


def work(rank: int, folder: str) -> None:
    """What one of two processes computes; left in ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=120)
    )
    place = Path(folder)
    student = place / "student.pt"
    made = {
        "plain": plain(student, rank),
        "each its own": plain(student, rank, shared=False),
        "distilled": distilled(place, rank),
        "terms": terms(rank),
    }
    torch.save(made, place / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The step of one process, and those of two."""
    folder = tmp_path_factory.mktemp("joint")
    for seed, name in enumerate(("teacher", "student")):
        save_detector(folder / f"{name}.pt", seed)
    start_processes(work, args=(str(folder),), nprocs=2, start_method=METHOD)
    first, second = (torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    alone = {
        "plain": plain(folder / "student.pt", None),
        "distilled": distilled(folder, None),
        "terms": terms(None),
    }
    return alone, first, second


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Greatest difference of two gradients, as a share of the norm of each parameter's own."""
    assert found.keys() == expected.keys() and len(found) > 50
    least = max(float(g.norm()) for g in expected.values()) * 1e-3
    return max(float((found[n] - g).norm()) / max(float(g.norm()), least) for n, g in expected.items())


@pytest.mark.train
@pytest.mark.parametrize("kind", ["plain", "distilled"])
def test_gradient_is_that_of_the_joint_batch(steps: Any, kind: str) -> None:
    alone, first, second = (step[kind] for step in steps)
    assert distance(first["gradients"], alone["gradients"]) < 1e-5
    assert all(torch.equal(g, second["gradients"][n]) for n, g in first["gradients"].items())
    for name, value in alone["items"].items():
        assert float(first["items"][name]) == pytest.approx(float(value), rel=1e-5), name


@pytest.mark.train
def test_normalizers_of_their_own_make_another_gradient(steps: Any) -> None:
    """As Ultralytics has them: a box counts more where there are few."""
    alone, first, _ = steps
    assert distance(first["each its own"]["gradients"], alone["plain"]["gradients"]) > 0.1


@pytest.mark.train
def test_thresholds_and_health_are_those_of_the_joint_batch(steps: Any) -> None:
    alone, first, second = (step["distilled"] for step in steps)
    assert first["thresholds"] == second["thresholds"] and sum(first["thresholds"]["batches"]) > 0
    assert first["thresholds"]["ema"] == pytest.approx(alone["thresholds"]["ema"], rel=1e-5)
    assert first["health"] == pytest.approx(alone["health"], nan_ok=True, rel=1e-5) and alone["health"]["accepted"] > 0


@pytest.mark.train
def test_which_terms_are_a_mean_over_parts_of_the_batch(steps: Any) -> None:
    alone, first, second = (step["terms"] for step in steps)
    equal = set()
    for name, joint in alone.items():
        parts = [joint["value"] - first[name]["value"]]
        parts += [a - b for a, b in zip(joint["adapters"], first[name]["adapters"], strict=True)]
        for rank, own in enumerate((first[name], second[name])):
            pairs = zip(joint["outputs"], own["outputs"], strict=True)
            parts += [a[images_of(rank)] - b for a, b in pairs if a is not None and b is not None]
        size = max(float(x.abs().max()) for x in (joint["value"], *(x for x in joint["outputs"] if x is not None)))
        if max(float(part.abs().max()) for part in parts) < 1e-5 * size:
            equal.add(name)
    assert equal == EQUAL
