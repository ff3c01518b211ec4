"""Foreign parts of images, and what the cells of a feature map are told about them, pixel by pixel."""

from __future__ import annotations

import pytest
import torch

from dfssd.pretraining.corruption import (
    GAIN,
    GRAINS,
    PER_SIDE,
    SHARE,
    STRENGTH,
    corrupt,
    in_cells,
    outlines,
    standardized,
    uniform,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_each_part_of_a_cell_is_the_mean_of_its_own_pixels() -> None:
    image = torch.arange(16 * 24, dtype=torch.float32).view(1, 1, 16, 24)
    cells = in_cells(image, 8)
    assert cells.shape == (1, PER_SIDE**2, 2, 3)
    for row, column in ((0, 0), (1, 2)):  # the cell
        for down in range(PER_SIDE):
            for right in range(PER_SIDE):  # its part of 2 x 2 px
                y, x = 8 * row + 2 * down, 8 * column + 2 * right
                mean = image[0, 0, y : y + 2, x : x + 2].mean()
                assert cells[0, PER_SIDE * down + right, row, column] == mean


def test_cells_of_every_level_are_told_of_the_same_pixel() -> None:
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 37, 50] = 1.0
    for stride in (8, 16, 32):
        cells = in_cells(image, stride)
        [(part, row, column)] = cells[0].nonzero().tolist()
        side = stride // PER_SIDE
        assert (row, column) == (37 // stride, 50 // stride)
        assert divmod(part, PER_SIDE) == (37 % stride // side, 50 % stride // side)
        assert cells.max() == pytest.approx(1 / side**2)


def test_outlines_have_the_wanted_shares_and_different_grains() -> None:
    parts = outlines(64, (96, 96), generator())
    assert parts.shape == (64, 1, 96, 96) and set(parts.unique().tolist()) == {0.0, 1.0}
    shares = parts.mean((1, 2, 3))
    assert shares.min() > SHARE[0] - 0.03 and shares.max() < SHARE[1] + 0.03
    assert shares.max() - shares.min() > 0.15
    edges = (parts.diff(dim=3) != 0).float().mean((1, 2, 3)) / shares
    assert edges.max() > 2 * edges.min()  # fine ones have more outline for their area
    assert len(GRAINS) > 1


def test_outlines_follow_from_the_generator_alone() -> None:
    first, again, other = (outlines(3, (64, 64), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])


def test_only_the_parts_change() -> None:
    images = torch.rand(8, 3, 64, 64, generator=generator(5))
    parts = outlines(8, (64, 64), generator(6))
    seen = corrupt(images, parts, generator(7))
    inside = parts.expand_as(images) > 0
    assert torch.equal(seen[~inside], images[~inside])
    assert (seen[inside] != images[inside]).float().mean() > 0.99
    assert seen.min() >= 0 and seen.max() <= 1


def test_parts_show_another_image_at_a_strength_and_brightness_within_the_limits() -> None:
    gray = torch.linspace(0.2, 0.5, 6).view(6, 1, 1, 1).expand(6, 3, 32, 32).contiguous()
    everywhere = torch.ones(6, 1, 32, 32)
    seen = corrupt(gray, everywhere, generator(3))
    for number in range(6):
        own, before = gray[number, 0, 0, 0], gray[number - 1, 0, 0, 0]
        value = seen[number, 0, 0, 0]
        assert (seen[number] == value).all()  # even images stay even
        reach = [own + a * (y * g - own) for y in (own, before) for a in STRENGTH for g in GAIN]
        assert min(reach) - 1e-6 <= value <= max(reach) + 1e-6
    assert (seen.flatten(1)[:, 0] - gray.flatten(1)[:, 0]).abs().max() > 0.02


def test_the_noise_of_an_even_surface_is_not_blown_up() -> None:
    even = 0.5 + torch.randn(1, 3, 64, 64, generator=generator()) / 255
    assert standardized(even).std() < 0.15
    striped = torch.tensor([0.2, 0.8]).repeat(32).view(1, 1, 1, 64).expand(1, 3, 64, 64)
    found = standardized(striped)
    assert found.mean().abs() < 1e-5 and 0.9 < found.std() < 1


def test_random_numbers_fill_their_interval() -> None:
    values = uniform(1000, (2.0, 4.0), generator())
    assert values.shape == (1000, 1, 1, 1) and 2 <= values.min() < 2.1 and 3.9 < values.max() <= 4
