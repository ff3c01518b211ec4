"""Training images follow from their places alone: whatever was made before, by however many processes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import Mosaic
from ultralytics.data.dataset import YOLODataset

from dfssd.trainers.draws import Draw, Part, seed_all, seeded
from dfssd.trainers.mixed_data import MixedDataset, SeededLoader, build_mixed_loader
from dfssd.trainers.sampler import Draws, MixedSampler
from tests.conftest import NAMES

VIEWS = {"mosaic": 0.8, "mixup": 0.3, "cutmix": 0.2, "degrees": 5.0}


def images(squares: Path, *, cache: str | None = None, **arguments: Any) -> YOLODataset:
    return YOLODataset(
        img_path=str(squares.parent / "train" / "images"),
        imgsz=64,
        batch_size=1,
        cache=cache,
        hyp=get_cfg(overrides={**VIEWS, **arguments}),
        data={"names": dict(enumerate(NAMES)), "channels": 3},
        task="detect",
    )


def three_numbers() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_numbers_follow_from_the_place_and_the_sources_go_on() -> None:
    seed_all((3, 0, 1))
    first = three_numbers()
    seed_all((3, 0, 1))
    with seeded((1, 2, 3, 4, 5)):
        inside = three_numbers()
    assert three_numbers() == first, "as if the block had not been"
    with seeded((1, 2, 3, 4, 5)):
        assert three_numbers() == inside
    for other in ((1, 2, 3, 5, 4), (2, 2, 3, 4, 5), (1, 2, 3, 4)):
        with seeded(other):
            assert not set(three_numbers()) & set(inside)
    seed_all((3, 0, 2))
    assert not set(three_numbers()) & set(first)


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize(("per_batch", "rank", "world"), [((2, 3), 0, 1), ((3, 1), 1, 2)])
def test_images_drawn_lately_are_those_of_the_batches_before(
    every: int, per_batch: tuple[int, int], rank: int, world: int
) -> None:
    settings = {"labeled_per_batch": per_batch[0], "unlabeled_per_batch": per_batch[1], "batches": 4, "seed": 7}
    sampler = MixedSampler(9, 11, **settings, rank=rank, world=world)
    batches = np.array([list(sampler) for _ in range(5)]).reshape(20, sum(per_batch))
    for part, columns in enumerate((slice(None, per_batch[0]), slice(per_batch[0], None))):
        for batch in range(20):
            seen = batches[batch::-every][::-1, columns].ravel() - (0, 9)[part]
            for most in (1, 4, 9):
                assert sampler.lately(part, batch, most=most, every=every).tolist() == seen[-most:].tolist()
    sampler.labeled_only()
    assert not len(sampler.lately(1, 3, most=4, every=1))


def test_draws_are_the_images_of_the_sampler_with_their_places() -> None:
    settings = {"labeled_per_batch": 2, "unlabeled_per_batch": 1, "batches": 3, "seed": 7}
    plain, sampler = MixedSampler(9, 11, **settings), MixedSampler(9, 11, **settings)
    endless = iter(Draws(sampler, (4, 4), 1))
    drawn = [next(endless) for _ in range(6)]
    assert [draw.image for batch in drawn for draw in batch] == [*plain, *plain]
    places = [draw.place for batch in drawn for draw in batch]
    assert len(set(places)) == 18 and places[4] == (7, 0, 0, 1, 1) and places[-1] == (7, 0, 1, 2, 2)
    for batch in drawn:
        assert all(draw.image in draw.near for draw in batch[:2]) and batch[2].image - 9 in batch[2].near


def test_mosaics_choose_among_the_images_drawn_lately(squares: Path, monkeypatch) -> None:
    dataset = images(squares, mosaic=1.0, mixup=0.0, cutmix=0.0)
    chosen: list[int] = []
    read = YOLODataset.get_image_and_label

    def note(self: YOLODataset, number: int) -> dict[str, Any]:
        chosen.append(number)
        return read(self, number)

    monkeypatch.setattr(YOLODataset, "get_image_and_label", note)
    part = Part(dataset)
    for number in range(30):
        with part.drawing(Draw(0, (number,), np.array([2, 5]))):
            assert dataset[0]["img"].shape == (3, 64, 64)
    assert chosen[::4] == [0] * 30 and set(chosen) == {0, 2, 5}
    whole = Part(images(squares, cache="ram", mosaic=1.0))
    [mosaic] = [t for t in whole.dataset.transforms.transforms[0].transforms if isinstance(t, Mosaic)]
    assert mosaic.dataset is whole.dataset, "with all images in memory, of all images"


def loader(squares: Path, workers: int, epoch: int = 0, **arguments: Any) -> SeededLoader:
    sampler = MixedSampler(8, 0, labeled_per_batch=2, unlabeled_per_batch=0, batches=3, seed=5)
    sampler.epoch = epoch
    data = MixedDataset(images(squares, **arguments))
    return build_mixed_loader(data, sampler, batch=2, workers=workers, pin_memory=False)


def epochs_of(made: SeededLoader, count: int) -> list[torch.Tensor]:
    """All pixels and boxes of epochs; the global sources are disturbed in between."""
    found = []
    for _ in range(count):
        three_numbers()
        found.append(torch.cat([torch.cat([b["img"].flatten(), b["bboxes"].flatten()]) for b in made]))
    made.close()
    return found


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.train)])
def test_epochs_after_a_resume_are_those_of_a_training_without(squares: Path, workers: int) -> None:
    noisy = {"augmentations": [A.GaussNoise(p=0.5), A.RandomGamma(p=0.5)]}
    whole = epochs_of(loader(squares, workers, **noisy), 3)
    resumed = epochs_of(loader(squares, workers, epoch=1, **noisy), 2)
    assert all(map(torch.equal, whole[1:], resumed))
    assert whole[0].shape != whole[1].shape or not torch.equal(whole[0], whole[1])
    if workers:
        alone = epochs_of(loader(squares, 0, mosaic=0.0), 2)
        assert all(map(torch.equal, alone, epochs_of(loader(squares, workers, mosaic=0.0), 2)))
