"""The thread that computes: what goes together, what is left out, and how it ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dfssd.serving.worker import Worker
from tests.serving.networks import Bright, until

IMAGES = [np.full((20, 30, 3), gray, np.uint8) for gray in range(6)]
RED = np.full((20, 20, 3), (0, 0, 255), np.uint8)


def worker_of(network: Bright, seen: list[int], **options: float) -> Worker:
    own = {"most": 4, "wait": 0, **options}
    return Worker(network, observe=lambda images, seconds: seen.append(images), **own)


@pytest.mark.parametrize(
    ("batch", "most", "sizes"),
    [
        (None, 4, [1, 4, 1]),
        (None, 1, [1] * 6),
        (1, 4, [1] * 6),
        (3, 4, [1, 3, 2]),
        (8, 2, [1, 2, 2, 1]),
    ],
)
def test_images_that_wait_go_together(tmp_path: Path, batch: int | None, most: int, sizes: list[int]) -> None:
    """As many as the network takes, and no more than is asked for; the first one has begun before the others come."""
    network, seen = Bright(tmp_path, batch=batch), list[int]()
    network.go.clear()
    worker = worker_of(network, seen, most=most)
    futures = [worker.find(IMAGES[0])]
    until(futures[0].running)
    futures += [worker.find(image) for image in IMAGES[1:]]
    network.go.set()
    worker.close()
    assert [len(future.result(0)) for future in futures] == [0] * 6
    assert seen == network.seen == sizes and not worker.alive


def test_batch_waits_for_others(tmp_path: Path) -> None:
    network, seen = Bright(tmp_path, batch=None), list[int]()
    worker = worker_of(network, seen, most=3, wait=30)
    futures = [worker.find(image) for image in IMAGES[:3]]
    assert [future.result(20).shape for future in futures] == [(0, 6)] * 3 and seen == [3]
    futures = [worker.find(image) for image in IMAGES[:2]]
    worker.close()  # which does not wait for a third one
    assert [future.done() for future in futures] == [True, True] and seen == [3, 2]


def test_image_that_was_given_up_is_not_computed(tmp_path: Path) -> None:
    network, seen = Bright(tmp_path), list[int]()
    network.go.clear()
    worker = worker_of(network, seen)
    first, second, third = (worker.find(image) for image in IMAGES[:3])
    assert second.cancel()
    network.go.set()
    worker.close()
    assert first.done() and third.done() and network.seen == [1, 1]


def test_failure_stays_with_its_image(tmp_path: Path) -> None:
    network, seen = Bright(tmp_path, batch=None), list[int]()
    worker = worker_of(network, seen, most=3, wait=30)
    good, bad, other = worker.find(IMAGES[0]), worker.find(RED), worker.find(IMAGES[1])
    with pytest.raises(RuntimeError, match="all is red"):
        bad.result(20)
    assert len(good.result(20)) == len(other.result(20)) == 0
    assert network.seen == [3, 1, 1, 1] and seen == [1, 1]
    worker.close()
