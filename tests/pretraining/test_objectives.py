"""What the objectives are, by values worked out by hand, and that a network learns by them without collapsing."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfssd.pretraining.corruption import in_cells
from dfssd.pretraining.objectives import GRID, Features, ForeignParts, Objective, feature_loss, spread

CHANNELS, STRIDES = (32, 32, 32), (8, 16, 32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 2, seed: int = 1) -> Tensor:
    return torch.rand(n, 3, 64, 96, generator=generator(seed))


def maps(seed: int = 2) -> list[Tensor]:
    return [
        torch.randn(2, c, 64 // s, 96 // s, generator=generator(seed)).requires_grad_()
        for c, s in zip(CHANNELS, STRIDES, strict=True)
    ]


def test_untrained_answer_costs_what_chance_costs() -> None:
    objective = ForeignParts(CHANNELS, STRIDES)
    for head in objective.heads:
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    _, (parts, clean) = objective.prepare(images(), generator())
    losses = objective(maps(), (parts, clean))
    assert losses["where"].item() == pytest.approx(math.log(2))
    expected = []
    for stride in STRIDES:
        wanted, weight = in_cells(clean, stride), in_cells(parts, stride) + 0.1
        distance = torch.where(wanted.abs() < 1, 0.5 * wanted**2, wanted.abs() - 0.5)
        expected.append((distance * weight).sum() / weight.sum())
    assert losses["what"].item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_right_answer_in_every_cell_costs_nothing_and_a_shifted_one_does() -> None:
    objective = ForeignParts(CHANNELS, STRIDES)
    for head in objective.heads:
        head.weight.data = torch.eye(32)[:, :, None, None]
        nn.init.zeros_(head.bias)
    _, (parts, clean) = objective.prepare(images(), generator())
    sharp = F.interpolate(F.max_pool2d(parts, 8), scale_factor=8)  # whole parts of cells of all levels
    right = [torch.cat([40 * in_cells(sharp, s) - 20, in_cells(clean, s)], 1) for s in STRIDES]
    losses = objective(right, (sharp, clean))
    assert losses["where"].item() < 1e-6 and losses["what"].item() == 0
    shifted = objective([feat.roll(1, 3) for feat in right], (sharp, clean))
    assert shifted["where"].item() > 0.1 and shifted["what"].item() > 0.01


@pytest.mark.parametrize("kind", ["foreign parts", "features"])
def test_every_level_and_every_added_layer_gets_a_gradient(kind: str) -> None:
    objective: Objective = ForeignParts(CHANNELS, STRIDES)
    if kind == "features":
        objective = Features(CHANNELS, STRIDES, lambda x: F.avg_pool2d(x, GRID), 3)
    feats = maps()
    _, targets = objective.prepare(images(), generator())
    sum(objective(feats, targets).values()).backward()
    for tensor in [*feats, *objective.parameters()]:
        assert tensor.grad is not None and tensor.grad.isfinite().all() and tensor.grad.abs().sum() > 0


def test_feature_loss_by_hand() -> None:
    right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
    across, back = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1), -right
    assert feature_loss(right, right).item() == pytest.approx(0, abs=1e-6)
    assert feature_loss(3 * right, right).item() == pytest.approx(0.1 * (2 - 0.5) / 2)
    assert feature_loss(across, right).item() == pytest.approx(0.9 * 1 + 0.1 * (0.5 + 0.5) / 2)
    assert feature_loss(back, right).item() == pytest.approx(0.9 * 2 + 0.1 * (2 - 0.5) / 2)


def test_features_are_compared_on_the_grid_and_on_coarser_levels() -> None:
    """Each level holds the true features of its own cells: nothing to learn; of another place: something."""
    objective = Features((3, 3, 3), STRIDES, lambda x: F.avg_pool2d(x, GRID), 3)
    objective.projectors = nn.ModuleList(nn.Identity() for _ in STRIDES)
    seen, targets = objective.prepare(images(), generator())
    assert torch.equal(seen, images()) and not targets.requires_grad
    right = [F.avg_pool2d(images(), stride) for stride in STRIDES]
    assert objective(right, targets)["features"].item() == pytest.approx(0, abs=1e-6)
    assert objective([feat.roll(1, 2) for feat in right], targets)["features"].item() > 1e-4


def test_foundation_model_is_no_part_of_the_objective() -> None:
    source = nn.Conv2d(3, 4, GRID, GRID)
    objective = Features(CHANNELS, STRIDES, source, 4)
    own = {id(p) for p in objective.parameters()}
    assert own and not own & {id(p) for p in source.parameters()}
    copied = copy.deepcopy(objective)
    assert copied._source == [] and objective._source == [source]


def test_spread_of_features() -> None:
    even = torch.randn(4, 64, 20, 20, generator=generator())
    assert spread(even) == pytest.approx(1, abs=0.02)
    assert spread(torch.ones(4, 64, 20, 20)) == pytest.approx(0, abs=1e-6)
    assert spread(torch.rand(4, 64, 1, 1).expand(4, 64, 20, 20)[:1]) == pytest.approx(0, abs=1e-6)
    assert 0.1 < spread(even + 3) < 0.5


def test_network_learns_without_collapsing() -> None:
    """In some steps the losses fall, and the places of an image stay different; a constant target makes them alike."""

    def train(objective: Objective | None) -> tuple[float, float, float]:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1))
        added = list(objective.parameters()) if objective else []
        optimizer = torch.optim.Adam([*network.parameters(), *added], 0.01)
        rng, values, feat = generator(3), [], torch.empty(0)
        squares = torch.full((8, 3, 64, 64), 0.5)
        for number in range(8):
            squares[number, :, 8 * number : 8 * number + 8, 16:40] = number / 8
        for _ in range(60):
            if objective is None:
                feat = network(squares)
                loss = F.mse_loss(feat, torch.ones_like(feat))
            else:
                seen, targets = objective.prepare(squares, rng)
                feat = network(seen)
                loss = sum(objective([feat], targets).values(), torch.zeros(()))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            values.append(loss.item())
        return sum(values[:5]) / 5, sum(values[-5:]) / 5, spread(feat)

    first, last, spreads = train(ForeignParts((32,), (8,)))
    assert last < 0.8 * first and spreads > 0.2
    _, _, collapsed = train(None)
    assert collapsed < 0.1
