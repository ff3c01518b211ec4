"""Which images stand in which batch of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from dfssd.trainers.draws import Draw

_KEPT_ORDERS = 8
"""Permutations that a sampler keeps: those that the last batches have used."""


class MixedSampler(Sampler[int]):
    """Endless permutations of both parts, cut into batches of a fixed composition.

    Batch ``b`` of epoch ``e`` takes the next ``labeled_per_batch`` labeled and ``unlabeled_per_batch`` unlabeled
    images of two streams; each stream runs through its part in a fresh permutation again and again, without regard to
    epochs, so every image is seen equally often. The streams depend on (seed, position) alone: a resumed run continues
    exactly where it stopped, and the ranks of a multi-GPU run take disjoint slices of each batch.
    """

    def __init__(
        self,
        n_labeled: int,
        n_unlabeled: int,
        *,
        labeled_per_batch: int,
        unlabeled_per_batch: int,
        batches: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        """Set the sizes of the parts [images], the batch composition per process and the batches per epoch."""
        self.parts = ((0, n_labeled, labeled_per_batch), (n_labeled, n_unlabeled, unlabeled_per_batch))
        self.batches, self.seed, self.rank, self.world = batches, seed, rank, world
        self.epoch = 0
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def __len__(self) -> int:
        """Images per epoch and process."""
        return self.batches * sum(per_batch for _, _, per_batch in self.parts)

    def labeled_only(self) -> None:
        """From the next epoch on fill the batches with labeled images alone."""
        (offset, n, labeled), (after, others, unlabeled) = self.parts
        self.parts = ((offset, n, labeled + unlabeled), (after, others, 0))

    def set_epoch(self, epoch: int) -> None:
        """Ignored: Ultralytics calls it once per epoch, when loader workers may already be an epoch ahead.

        The sampler counts its own epochs; :attr:`epoch` is set once, before the first batch.
        """

    def _stream(self, part: int, positions: np.ndarray) -> np.ndarray:
        """Images of a part, counted within it, at positions of its stream."""
        n = self.parts[part][1]
        picked = np.empty(len(positions), dtype=np.int64)
        blocks = positions // n
        for block in np.unique(blocks).tolist():
            here = blocks == block
            picked[here] = self._order(part, block)[positions[here] % n]
        return picked

    def _order(self, part: int, block: int) -> np.ndarray:
        """The permutation that is pass number ``block`` through a part."""
        if (part, block) not in self._orders:
            while len(self._orders) >= _KEPT_ORDERS:
                del self._orders[next(iter(self._orders))]
            order = np.random.default_rng((self.seed, part, block)).permutation(self.parts[part][1])
            self._orders[part, block] = order
        return self._orders[part, block]

    def _positions(self, part: int, batches: np.ndarray) -> np.ndarray:
        """Positions in the stream of a part that this process takes in batches, counted from the first epoch."""
        per_batch = self.parts[part][2]
        start = (batches * self.world + self.rank) * per_batch
        positions: np.ndarray = (start[:, None] + np.arange(per_batch)[None]).ravel()
        return positions

    def __iter__(self) -> Iterator[int]:
        """Indices of one epoch, batch after batch, labeled ones first within each batch."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        batches = epoch * self.batches + np.arange(self.batches)
        columns = [
            np.reshape(offset + self._stream(part, self._positions(part, batches)), (self.batches, per_batch))
            for part, (offset, _, per_batch) in enumerate(self.parts)
        ]
        yield from np.concatenate(columns, axis=1).ravel().tolist()

    def lately(self, part: int, batch: int, *, most: int, every: int) -> np.ndarray:
        """The images of a part, counted within it, that were drawn up to a batch and in it.

        Args:
            part: 0 for labeled images, 1 for unlabeled ones.
            batch: Number of the batch, counted from the first epoch.
            most: Number of images, >= 1; the latest ones.
            every: Of the batches before, count each ``every``-th one: those that one of so many loader processes made.
        """
        if not (per_batch := self.parts[part][2]):
            return np.zeros(0, np.int64)
        wanted = -(-most // per_batch)
        batches = np.arange(batch, max(-1, batch - wanted * every), -every)[::-1]
        return self._stream(part, self._positions(part, batches))[-most:]


class Draws:
    """The batches of a sampler one epoch after another, without end, as :class:`Draw` objects."""

    def __init__(self, sampler: MixedSampler, most: Sequence[int], every: int):
        """Set where the batches come from.

        Args:
            sampler: Order of the images.
            most: Images of each part that a mosaic chooses from.
            every: Loader processes, >= 1.
        """
        self.sampler, self.most, self.every = sampler, most, every

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self.sampler.batches

    def __iter__(self) -> Iterator[list[Draw]]:
        """Batch after batch; the sampler counts the epochs."""
        while True:
            epoch = self.sampler.epoch
            order = np.fromiter(self.sampler, np.int64).reshape(self.sampler.batches, -1)
            for number, images in enumerate(order.tolist()):
                yield self._batch(epoch, number, images)

    def _batch(self, epoch: int, number: int, images: Sequence[int]) -> list[Draw]:
        sampler = self.sampler
        batch = epoch * sampler.batches + number
        near = [sampler.lately(part, batch, most=most, every=self.every) for part, most in enumerate(self.most)]
        first_unlabeled = sampler.parts[1][0]
        place = (sampler.seed, sampler.rank, epoch, number)
        return [
            Draw(image, (*place, in_batch), near[image >= first_unlabeled]) for in_batch, image in enumerate(images)
        ]


def batch_composition(batch: int, unlabeled_share: float) -> tuple[int, int]:
    """Labeled and unlabeled images in a batch of ``batch``; at least one of each when the share is above 0.

    Args:
        batch: Images per batch, at least 2 if ``unlabeled_share`` > 0.
        unlabeled_share: Share of unlabeled images, in [0, 1).
    """
    unlabeled = round(batch * unlabeled_share)
    if unlabeled_share > 0:
        unlabeled = min(max(unlabeled, 1), batch - 1)
    return batch - unlabeled, unlabeled
