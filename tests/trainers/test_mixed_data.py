"""Mixed batches: composition, coverage, disjoint ranks, and continuation after a resume."""

import numpy as np
import pytest

from dfssd.batches import IGNORED, widen_tiles
from dfssd.trainers.sampler import MixedSampler, batch_composition
from tests.thresholds import class_thresholds
from tests.tiny_dataset import unlabeled_images


def sampler(**changes) -> MixedSampler:
    settings = {"labeled_per_batch": 3, "unlabeled_per_batch": 5, "batches": 7, "seed": 4}
    return MixedSampler(20, 50, **{**settings, **changes})


def test_every_batch_has_the_composition_and_labeled_first() -> None:
    indices = np.array(list(sampler())).reshape(7, 8)
    assert (indices[:, :3] < 20).all()
    assert (indices[:, 3:] >= 20).all() and indices.max() < 70


def test_each_image_is_seen_equally_often() -> None:
    s = sampler()
    seen = np.bincount([i for _ in range(20) for i in s], minlength=70)  # 420 labeled and 700 unlabeled draws
    assert (seen[:20] == 21).all()
    assert (seen[20:] == 14).all()


def test_epochs_differ_and_a_resumed_run_continues_the_streams() -> None:
    whole = sampler()
    epochs = [list(whole) for _ in range(4)]
    assert epochs[0] != epochs[1]
    resumed = sampler()
    resumed.epoch = 2
    assert [list(resumed), list(resumed)] == epochs[2:]


def test_set_epoch_does_not_disturb_the_streams() -> None:
    plain, notified = sampler(), sampler()
    first = list(notified)
    notified.set_epoch(0)
    assert [first, list(notified)] == [list(plain), list(plain)]


def test_ranks_take_disjoint_slices_that_make_up_the_global_batch() -> None:
    alone = np.array(list(sampler(labeled_per_batch=4, unlabeled_per_batch=4))).reshape(7, 8)
    ranks = [
        np.array(list(sampler(labeled_per_batch=2, unlabeled_per_batch=2, rank=r, world=2))).reshape(7, 4)
        for r in range(2)
    ]
    for batch, a, b in zip(alone, *ranks):
        assert sorted(batch) == sorted([*a, *b])


@pytest.mark.parametrize("world", [1, 2, 4])
def test_an_epoch_shows_every_image_once_in_an_order_that_no_number_of_processes_changes(world: int) -> None:
    """Numbered over all nodes: with two nodes of two processes, local numbers would show half of the images twice."""
    alone = MixedSampler(16, 16, labeled_per_batch=4, unlabeled_per_batch=4, batches=4, seed=3)
    share = 4 // world
    ranks = [
        MixedSampler(16, 16, labeled_per_batch=share, unlabeled_per_batch=share, batches=4, seed=3, rank=r, world=world)
        for r in range(world)
    ]
    for _ in range(2):
        whole = np.array(list(alone)).reshape(4, 2, 4)
        parts = np.concatenate([np.array(list(rank)).reshape(4, 2, share) for rank in ranks], axis=2)
        assert np.array_equal(parts, whole) and sorted(parts.ravel()) == list(range(32))


def test_labeled_only_batches_and_sets_smaller_than_a_batch() -> None:
    only = MixedSampler(2, 0, labeled_per_batch=4, unlabeled_per_batch=0, batches=3, seed=0)
    indices = list(only)
    assert len(indices) == len(only) == 12
    assert np.bincount(indices).tolist() == [6, 6]


@pytest.mark.parametrize(
    ("batch", "share", "expected"),
    [(16, 0.5, (8, 8)), (16, 0.75, (4, 12)), (16, 0.0, (16, 0)), (2, 0.99, (1, 1)), (16, 0.001, (15, 1))],
)
def test_batch_composition(batch: int, share: float, expected: tuple[int, int]) -> None:
    assert batch_composition(batch, share) == expected


def test_image_without_accepted_box_is_never_background_whatever_the_augmentation(tmp_path) -> None:
    """The anchors on an ignored image lie in ignore boxes after mosaic, scale, shift and flip.

    What remains are slivers narrower than a tenth of a tile, 1 % of an image, at the edge of a mosaic.
    """
    import torch
    from PIL import Image

    from dfssd.pseudo_labels.files import write_pseudo_labels
    from dfssd.pseudo_labels.records import ImagePrediction
    from tests.distillation.anchors import ignored_anchors

    size, paths = 256, []
    for k in range(12):
        paths.append(tmp_path / "images" / f"{k}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        Image.new("RGB", (200, 150 + 10 * k), (255, 255, 255)).save(paths[-1])
    nothing = (np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros((0, 4), np.float32))
    rows = [ImagePrediction(p, 200, 150 + 10 * k, *nothing) for k, p in enumerate(paths)]
    write_pseudo_labels(tmp_path / "pseudo", rows, class_thresholds(3), ["a", "b", "c"])
    dataset = unlabeled_images(
        paths,
        tmp_path / "list.txt",
        names="abc",
        imgsz=size,
        hyp={"hsv_v": 0.0, "hsv_s": 0.0, "hsv_h": 0.0},
        pseudo=str(tmp_path / "pseudo"),
    )
    centers = (torch.arange(size // 8) + 0.5) / (size // 8)
    points = torch.stack(torch.meshgrid(centers, centers, indexing="xy"), -1).reshape(-1, 2)
    lost = total = 0
    for k in range(60):
        sample = dataset[k % len(dataset)]
        assert (sample["cls"] == 3 + IGNORED).all() and sample["score"].shape == (len(sample["cls"]),)
        boxes = torch.from_numpy(widen_tiles(sample["bboxes"].numpy(), sample["score"].numpy()))
        mask = ignored_anchors(boxes, torch.zeros(len(boxes)), 1, [(size // 8, size // 8)])[0]
        pixels = (points * size).long()
        content = sample["img"][:, pixels[:, 1], pixels[:, 0]].float().mean(0) > 200  # the padding is gray 114
        total += int(content.sum())
        lost += int((content & ~mask).sum())
    assert total > 10_000
    assert lost <= total / 10_000


def test_labeled_only_fills_the_batches_with_labeled_images_once_and_for_all() -> None:
    sampler = MixedSampler(10, 20, labeled_per_batch=2, unlabeled_per_batch=6, batches=5)
    list(sampler)
    for _ in range(2):  # said twice, it changes nothing more
        sampler.labeled_only()
    indices = list(sampler)
    assert len(indices) == len(sampler) == 40 and max(indices) < 10


def test_tiles_of_online_photos_carry_their_number(squares, tmp_path) -> None:
    images = sorted((squares.parent / "plain" / "images").glob("*.png"))
    dataset = unlabeled_images(images, tmp_path / "list.txt")
    samples = [dataset[k % len(images)] for k in range(16)]  # a mosaic takes its other photos from the latest ones
    assert all((sample["cls"] == 2 + IGNORED).all() for sample in samples)
    photos = [set(sample["score"].tolist()) for sample in samples]
    assert max(map(len, photos)) > 1 and set.union(*photos) == set(range(len(images)))
