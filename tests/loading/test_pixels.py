"""Transfers in one piece, tables, and bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dfssd.loading.pixels import apply_tables, in_chunks, to_device


def test_arrays_keep_shape_and_type() -> None:
    arrays = [
        np.arange(5, dtype=np.uint8),
        np.arange(6.0).reshape(2, 3).T,
        np.zeros((0, 4), np.float32),
        np.array([[-1, 7]], np.int64),
        np.array([1, 2, 3], np.int16),
    ]
    moved = to_device(arrays, torch.device("cpu"))
    for a, b in zip(arrays, moved, strict=True):
        assert b.numpy().dtype == a.dtype
        assert np.array_equal(b.numpy(), a)
        assert b.shape == a.shape
    assert len({t.untyped_storage().data_ptr() for t in moved}) == 1, "one transfer"
    assert to_device([], torch.device("cpu")) == []


def test_tables_of_images_and_channels() -> None:
    pixels = torch.tensor([[[[0, 255]], [[1, 2]]], [[[3, 4]], [[5, 6]]]], dtype=torch.uint8)
    tables = torch.arange(4 * 256, dtype=torch.float32).view(2, 2, 256)
    assert apply_tables(pixels, tables).flatten().tolist() == [0, 255, 257, 258, 515, 516, 773, 774]
    shared = apply_tables(pixels, tables[:, :1]).flatten().tolist()
    assert shared == [0, 255, 1, 2, 515, 516, 517, 518]


@pytest.mark.parametrize(("pixels", "calls"), [(1, 5), (12, 3), (24, 2), (30, 1), (999, 1)])
def test_chunks(pixels: int, calls: int) -> None:
    images, values = torch.rand(5, 3, 2, 3), torch.rand(5)
    sizes = []

    def scaled(part: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        sizes.append(part.shape[0] * 6)
        return part * factors.view(-1, 1, 1, 1)

    assert torch.equal(in_chunks(scaled, images, values, pixels=pixels), images * values.view(-1, 1, 1, 1))
    assert len(sizes) == calls
    assert max(sizes) <= max(pixels, 6)
