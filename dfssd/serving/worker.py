"""One thread that computes the images of all requests: those that come together at once, if the network can."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from dfssd.deployment.networks import Network

Observer = Callable[[int, float], None]
"""Gets the number of images that were computed at once, and the time that it took [s]."""


@dataclass(frozen=True)
class _Job:
    image: np.ndarray
    boxes: Future[np.ndarray] = field(default_factory=Future)


class Worker:
    """Computes images in the order in which they come.

    Attributes:
        most: Images that are computed at once.
    """

    def __init__(self, network: Network, *, most: int, wait: float, observe: Observer) -> None:
        """Start the thread.

        Args:
            network: What finds the boxes.
            most: Images at once, at least 1; less where the network takes fewer.
            wait: How long a batch that is not full waits for another image [s].
            observe: Told of everything that was computed.
        """
        self.network, self.wait, self.observe = network, wait, observe
        self.most = most if network.batch is None else min(most, network.batch)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="dfssd network", daemon=True)
        self._thread.start()

    def find(self, image: np.ndarray) -> Future[np.ndarray]:
        """The boxes of an image, later; the future has the error of a network that fails on it.

        Args:
            image: (h, w, 3) uint8, BGR, without a :meth:`~dfssd.deployment.networks.Network.problem`.
        """
        job = _Job(image)
        self._jobs.put(job)
        return job.boxes

    @property
    def alive(self) -> bool:
        """Whether images are computed."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Compute what is waiting, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        last = False
        while not last:
            jobs, last = self._next()
            # a request that was given up does not have to be computed
            jobs = [job for job in jobs if job.boxes.set_running_or_notify_cancel()]
            if jobs:
                self._compute(jobs)

    def _next(self) -> tuple[list[_Job], bool]:
        """The next batch, and whether it is the last one."""
        first = self._jobs.get()
        if first is None:
            return [], True
        jobs, end = [first], time.monotonic() + self.wait
        while len(jobs) < self.most:
            try:
                job = self._jobs.get(timeout=max(end - time.monotonic(), 0))
            except queue.Empty:
                break
            if job is None:
                return jobs, True
            jobs.append(job)
        return jobs, False

    def _compute(self, jobs: Sequence[_Job]) -> None:
        """The boxes of a batch; of one on which the network fails, image by image."""
        start = time.perf_counter()
        try:
            found = self.network.find([job.image for job in jobs])
        # whatever a network raises concerns these images only
        except Exception as e:
            if len(jobs) == 1:
                jobs[0].boxes.set_exception(e)
                return
            for job in jobs:
                self._compute([job])
            return
        self.observe(len(jobs), time.perf_counter() - start)
        for job, boxes in zip(jobs, found, strict=True):
            job.boxes.set_result(boxes)
