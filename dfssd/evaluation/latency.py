"""Latency of several networks, timed in turn, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def latency(
    models: Mapping[str, nn.Module],
    sides: Mapping[str, int],
    *,
    device: torch.device,
    rounds: int = 50,
    warm_up: int = 10,
) -> dict[str, dict[str, Any]]:
    """Time the forward pass of several networks, one image at a time.

    Only the network is timed: no reading, scaling or writing of images. In each round every network runs once, each
    time starting with another one, so that other load on the machine affects all of them alike.

    Args:
        models: Name -> network in evaluation mode on ``device``.
        sides: Name -> side of its square input [px].
        device: Where to run.
        rounds: Timed runs of each network.
        warm_up: Runs of each before.

    Returns:
        Name -> ``median_ms``, ``low_ms`` and ``high_ms`` (quartiles), ``imgsz``, ``rounds``, ``device``, ``threads``.
    """
    images = {name: torch.rand(1, 3, sides[name], sides[name], device=device) for name in models}
    times: dict[str, list[float]] = {name: [] for name in models}
    names = list(models)
    with torch.inference_mode():
        for number in range(warm_up + rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                _wait(device)
                start = time.perf_counter()
                models[name](images[name])
                _wait(device)
                if number >= warm_up:
                    times[name].append((time.perf_counter() - start) * 1e3)
    result = {}
    for name, values in times.items():
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        where = {"rounds": rounds, "device": str(device), "threads": torch.get_num_threads()}
        result[name] = {"median_ms": median, "low_ms": low, "high_ms": high, "imgsz": sides[name], **where}
    return result


def _wait(device: torch.device) -> None:
    """Wait until a GPU has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
