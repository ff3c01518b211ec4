"""Copies between host and device: all values come through, in one piece, with their types and shapes."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from dfssd.benchmark.operators import count_operators
from dfssd.distillation.transfer import Reading, to_device

ARRAYS = {
    "boxes": np.random.default_rng(0).random((3, 5, 4)).astype(np.float32),
    "none": np.zeros((2, 0, 4), np.float32),
    "flags": np.array([True, False, True]),
    "classes": np.array([[2**40], [-1]]),
    "strided": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],
}
CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_arrays_arrive_as_they_are(device: str) -> None:
    moved = to_device(ARRAYS, torch.device(device))
    assert list(moved) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert moved[name].device.type == device and moved[name].shape == array.shape
        assert np.array_equal(moved[name].cpu().numpy(), array) and moved[name].cpu().numpy().dtype == array.dtype
    storages = {tensor.untyped_storage().data_ptr() for tensor in moved.values()}
    assert len(storages) == 1, "one buffer for all"


def test_number_of_arrays_does_not_change_the_number_of_operators() -> None:
    counts = [
        count_operators(partial(to_device, arrays, torch.device("cpu"))).launched
        for arrays in ({"boxes": ARRAYS["boxes"]}, ARRAYS)
    ]
    assert counts[0] == counts[1] <= 2


def test_type_without_a_place_is_refused() -> None:
    with pytest.raises(KeyError):
        to_device({"double": np.zeros(2)}, torch.device("cpu"))


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_reading_gives_the_values_of_the_moment(device: str) -> None:
    values = torch.rand(4, 3, device=device)
    reading = Reading(values * 2)
    _ = torch.rand(64, 64, device=device) @ torch.rand(64, 64, device=device)
    assert np.array_equal(reading.numpy(), (values * 2).cpu().numpy())
