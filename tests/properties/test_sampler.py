"""The batches of a training, whatever their sizes: composition, fairness, ranks, resume."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dfssd.trainers.sampler import MixedSampler, batch_composition


@dataclass(frozen=True)
class Layout:
    """Sizes of a sampler; the unlabeled part is empty if no batch takes from it."""

    n_labeled: int
    n_unlabeled: int
    labeled_per_batch: int
    unlabeled_per_batch: int
    batches: int
    seed: int
    world: int = 1

    def sampler(self, rank: int = 0) -> MixedSampler:
        return MixedSampler(
            self.n_labeled,
            self.n_unlabeled,
            labeled_per_batch=self.labeled_per_batch,
            unlabeled_per_batch=self.unlabeled_per_batch,
            batches=self.batches,
            seed=self.seed,
            rank=rank,
            world=self.world,
        )

    def epoch(self, sampler: MixedSampler) -> np.ndarray:
        """The next epoch of a sampler, (batches, images per batch)."""
        indices = list(sampler)
        assert len(indices) == len(sampler)
        return np.array(indices).reshape(self.batches, self.labeled_per_batch + self.unlabeled_per_batch)


small = st.integers(1, 7)
layouts = st.builds(Layout, st.integers(1, 20), st.integers(1, 20), small, st.integers(0, 5), small, st.integers(0, 9))
EPOCHS = 4


@given(layouts)
def test_every_batch_has_its_composition_labeled_first(layout: Layout) -> None:
    sampler = layout.sampler()
    for _ in range(EPOCHS):
        is_labeled = layout.epoch(sampler) < layout.n_labeled
        assert is_labeled[:, : layout.labeled_per_batch].all() and not is_labeled[:, layout.labeled_per_batch :].any()


@given(layouts)
def test_every_image_is_seen_equally_often(layout: Layout) -> None:
    sampler = layout.sampler()
    seen = Counter(np.concatenate([layout.epoch(sampler).ravel() for _ in range(EPOCHS)]).tolist())
    total = layout.n_labeled + layout.n_unlabeled
    assert set(seen) <= set(range(total))
    labeled = [seen[i] for i in range(layout.n_labeled)]
    unlabeled = [seen[i] for i in range(layout.n_labeled, total)]
    assert max(labeled) - min(labeled) <= 1 and max(unlabeled) - min(unlabeled) <= 1


@given(small, small, st.integers(0, 9))
def test_an_epoch_as_long_as_the_labeled_part_shows_each_image_once(per_batch: int, batches: int, seed: int) -> None:
    layout = Layout(per_batch * batches, 3, per_batch, 2, batches, seed)
    sampler = layout.sampler()
    for _ in range(EPOCHS):
        labeled = layout.epoch(sampler)[:, :per_batch]
        assert sorted(labeled.ravel().tolist()) == list(range(layout.n_labeled))


@given(layouts, st.integers(2, 4))
def test_ranks_share_what_one_process_would_take(layout: Layout, world: int) -> None:
    """The batches of all ranks together are those of one process with batches ``world`` times as large."""
    split = replace(layout, world=world)
    whole = replace(
        layout,
        labeled_per_batch=world * layout.labeled_per_batch,
        unlabeled_per_batch=world * layout.unlabeled_per_batch,
    )
    ranks, one = [split.sampler(rank) for rank in range(world)], whole.sampler()
    for _ in range(EPOCHS):
        together = np.concatenate([split.epoch(rank) for rank in ranks], axis=1)
        assert np.array_equal(np.sort(together, axis=1), np.sort(whole.epoch(one), axis=1))


@given(layouts, st.integers(0, EPOCHS - 1))
def test_resumed_sampler_goes_on_where_it_stopped(layout: Layout, epoch: int) -> None:
    through, resumed = layout.sampler(), layout.sampler()
    epochs = [layout.epoch(through) for _ in range(EPOCHS)]
    resumed.epoch = epoch
    assert np.array_equal(layout.epoch(resumed), epochs[epoch])


@given(layouts, st.integers(0, 3))
def test_labeled_only_keeps_the_size_of_a_batch(layout: Layout, before: int) -> None:
    sampler = layout.sampler()
    for _ in range(before):
        layout.epoch(sampler)
    sampler.labeled_only()
    assert (layout.epoch(sampler) < layout.n_labeled).all()


@given(st.integers(2, 64), st.floats(0, 1, exclude_max=True))
def test_composition_adds_up_and_leaves_none_out(batch: int, share: float) -> None:
    labeled, unlabeled = batch_composition(batch, share)
    assert labeled + unlabeled == batch and labeled >= 1
    assert unlabeled == 0 if share == 0 else unlabeled >= 1
    assert abs(unlabeled - share * batch) <= 1
