"""Whole batches of labeled and unlabeled images, against what Ultralytics makes of the same random numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image

from dfssd.batches import IGNORED, TRUTH, decode
from dfssd.benchmark.operators import count_operators
from dfssd.loading.color import sample_gains
from dfssd.loading.geometry import draw
from dfssd.loading.loader import DeviceLoader, NotOnDeviceError
from dfssd.loading.store import release_stores
from dfssd.pseudo_labels.files import write_pseudo_labels
from dfssd.pseudo_labels.records import ImagePrediction
from dfssd.trainers.mixed_data import MixedDataset, PseudoLabelDataset
from dfssd.trainers.sampler import MixedSampler
from tests.loading.replay import arguments_with, dataset, replayed, write_images
from tests.thresholds import class_thresholds

CPU = torch.device("cpu")
GEOMETRY = {"degrees": 10.0, "shear": 5.0, "flipud": 0.5, "fliplr": 0.5, "mosaic": 0.5, "mixup": 0.5}
COLORS = {"hsv_h": 0.1, "hsv_s": 0.7, "hsv_v": 0.4}


@pytest.fixture(autouse=True)
def no_store_stays():
    yield
    release_stores()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("parts")
    sizes = ((100, 60), (40, 90), (70, 70), (64, 48), (120, 110))
    return write_images(root / "labeled"), write_images(root / "unlabeled", sizes)


@pytest.fixture
def pseudo(folders: tuple[Path, Path], tmp_path: Path) -> Path:
    """Pseudo-labels of the unlabeled images: an accepted and an ignored box, an ignored box, and nothing, in turn."""
    rng = np.random.default_rng(3)
    rows = []
    for number, file in enumerate(sorted(folders[1].glob("*.png"))):
        scores = ([0.9, 0.3], [0.3], [])[number % 3]
        centers, extents = rng.uniform(0.3, 0.7, (len(scores), 2)), rng.uniform(0.1, 0.5, (len(scores), 2))
        boxes = np.concatenate([centers, extents], 1).astype(np.float32)
        with Image.open(file) as image:
            width, height = image.size
        rows.append(
            ImagePrediction(file, width, height, np.arange(len(scores)) % 2, np.array(scores, np.float32), boxes)
        )
    thresholds = class_thresholds(2, tau_low=0.1, tau0=0.5, tau_max=0.9, decay=0.9)
    write_pseudo_labels(tmp_path / "pseudo", rows, thresholds, ["a", "b"])
    return tmp_path / "pseudo"


def mixed(
    folders: tuple[Path, Path],
    pseudo: Path | str,
    strong_view: float = 0.0,
    unlabeled_mosaic: float | None = None,
    **arguments: Any,
) -> MixedDataset:
    data = {"pseudo": str(pseudo), "strong_view": strong_view, "mosaic": unlabeled_mosaic}
    labeled = dataset(folders[0], **arguments)
    if unlabeled_mosaic is not None:
        arguments = {**arguments, "mosaic": unlabeled_mosaic}
    return MixedDataset(labeled, dataset(folders[1], kind=PseudoLabelDataset, data=data, **arguments))


def tensors(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize(
    ("colors", "unlabeled_mosaic"),
    [({}, None), (COLORS, None), ({}, 0.0)],
    ids=["gray levels", "colors", "mosaics of labeled images alone"],
)
def test_a_batch_equals_that_of_ultralytics(
    folders, pseudo: Path, monkeypatch: pytest.MonkeyPatch, colors, unlabeled_mosaic: float | None
) -> None:
    data = mixed(folders, pseudo, unlabeled_mosaic=unlabeled_mosaic, **GEOMETRY, **colors)
    args = arguments_with(**GEOMETRY, **colors)
    views = data.device_views(args, CPU)
    images = np.array([0, 3, 6, 2, 7, 8, 9, 10, 11, 7])
    batch = views.batch(images, np.random.default_rng(5))

    rng = np.random.default_rng(5)
    parts = np.where(images[:, None] < 7, [0, 7], [7, 12])
    chances = np.full(len(images), views.settings.mosaic)
    if unlabeled_mosaic is not None:
        chances[images >= 7] = unlabeled_mosaic
    draws = draw(rng, images, parts, views.settings, chances)
    assert draws.mosaic[: len(images)][images < 7].any()
    gains = sample_gains(rng, len(images), (1.0, 1.0, 1.0)) if colors else None
    samples = replayed(data, draws, views.settings, monkeypatch, gains, first=(0, 7))
    expected = MixedDataset.collate_fn(samples)

    assert set(expected) - set(batch) == {"ratio_pad"}, "how the letterbox has padded is for validation alone"
    assert {name: value.dtype for name, value in tensors(batch).items()} == {
        name: value.dtype for name, value in tensors(expected).items()
    }
    for name in ("cls", "score", "batch_idx", "labeled"):
        assert torch.equal(batch[name], expected[name]), name
    assert batch["im_file"] == expected["im_file"] and batch["ori_shape"] == expected["ori_shape"]
    assert (batch["bboxes"] - expected["bboxes"]).abs().max() < 1e-4
    difference = (batch["img"].int() - expected["img"].int()).abs()
    # a gray level more before the colors change is a few of them afterwards
    assert difference.max() <= (12 if colors else 1) and (difference > 0).float().mean() < (1e-2 if colors else 2e-3)
    kinds = expected["cls"].view(-1)
    assert (kinds < 2).any() and (kinds == 2 + IGNORED).any(), "no pseudo box, or no tile, was in the batch"


def test_truth_rows_and_tiles_go_through(folders, tmp_path: Path) -> None:
    """Online labels: each photo is all tiles, which carry its number, and its true boxes."""
    data = mixed(folders, "", **GEOMETRY)
    views = data.device_views(arguments_with(**GEOMETRY), CPU)
    loaded = views.batch(np.array([0, 1, 7, 8, 9, 10, 11]), np.random.default_rng(0))
    kinds = loaded["cls"].view(-1) - 2
    assert ((kinds == IGNORED) & (loaded["score"] >= 0)).any() and (kinds >= TRUTH).any()
    assert set(loaded["score"][kinds == IGNORED].tolist()) <= set(range(5))
    batch, truth = decode(loaded, nc=2)
    assert len(truth) and (truth[:, 6] >= 2).all(), "only unlabeled images have true boxes beside"
    assert (batch["batch_idx"] < 2).all() and (batch["ignore_batch_idx"] >= 2).all()


def test_the_student_sees_a_strong_view_and_the_teacher_the_same_pixels_without_it(folders) -> None:
    data = mixed(folders, "", strong_view=1.0, **GEOMETRY)
    images = np.array([0, 1, 7, 8, 9, 10])
    args = arguments_with(**GEOMETRY)
    batch = data.device_views(args, CPU).batch(images, np.random.default_rng(1))
    plain = mixed(folders, "", **GEOMETRY).device_views(args, CPU).batch(images, np.random.default_rng(1))
    assert torch.equal(batch["weak_img"], plain["img"][2:]) and "weak_img" not in plain
    assert torch.equal(batch["img"][:2], plain["img"][:2])
    assert (batch["img"][2:] != batch["weak_img"]).flatten(1).any(1).sum() >= 2
    only_labeled = data.device_views(args, CPU).batch(np.array([0, 1]), np.random.default_rng(1))
    assert "weak_img" not in only_labeled and only_labeled["labeled"].all()


def test_closing_the_mosaic_ends_mosaic_and_mixup(folders) -> None:
    data = mixed(folders, "", **{**GEOMETRY, "mosaic": 1.0, "mixup": 1.0})
    args = arguments_with(**{**GEOMETRY, "mosaic": 1.0, "mixup": 1.0})
    views = data.device_views(args, CPU)
    assert (views.settings.mosaic, views.settings.mixup) == (1.0, 1.0)
    before = views.batch(np.arange(4), np.random.default_rng(0))
    data.close_mosaic(arguments_with())
    assert (views.settings.mosaic, views.settings.mixup, views.settings.degrees) == (0.0, 0.0, 10.0)
    after = views.batch(np.arange(4), np.random.default_rng(0))
    assert not torch.equal(before["img"], after["img"])


def test_channels_are_swapped_as_often_as_asked(folders) -> None:
    images = np.arange(7).repeat(30)
    data = MixedDataset(dataset(folders[0]))
    straight = data.device_views(arguments_with(), CPU).batch(images, np.random.default_rng(0))["img"]
    swapped = data.device_views(arguments_with(bgr=0.25), CPU).batch(images, np.random.default_rng(0))["img"]
    differs = (straight != swapped).flatten(1).any(1)
    assert torch.equal(straight[differs].flip(1), swapped[differs])
    assert abs(differs.float().mean() - 0.25) < 0.12


def test_ultralytics_own_augmentations_are_made(folders) -> None:
    certain = [A.ToGray(p=1.0)]
    data = MixedDataset(dataset(folders[0], augmentations=certain))
    seen = data.device_views(arguments_with(augmentations=certain), CPU).batch(np.arange(7), np.random.default_rng(0))
    assert torch.equal(seen["img"][:, 0], seen["img"][:, 1]) and torch.equal(seen["img"][:, 0], seen["img"][:, 2])


@pytest.mark.parametrize(
    ("augmentations", "reason"),
    [
        ([A.RandomFog(p=1.0)], r"^augmentations= has what the device cannot do \(RandomFog .*\)$"),
        ([A.Rotate(p=1.0)], r"^augmentations= moves pixels$"),
    ],
)
def test_what_the_device_cannot_do_is_told(folders, augmentations, reason: str) -> None:
    data = MixedDataset(dataset(folders[0], augmentations=augmentations))
    with pytest.raises(NotOnDeviceError, match=reason):
        data.device_views(arguments_with(), CPU)


def test_labels_with_outlines_are_told(folders) -> None:
    data = MixedDataset(dataset(folders[0]))
    data.datasets[0].labels[2]["segments"] = [np.zeros((4, 2), np.float32)]
    with pytest.raises(NotOnDeviceError, match="outlines"):
        data.device_views(arguments_with(), CPU)


def sampler(epoch: int = 0, **changes: Any) -> MixedSampler:
    settings = {"labeled_per_batch": 2, "unlabeled_per_batch": 2, "batches": 3, "seed": 4}
    made = MixedSampler(7, 5, **{**settings, **changes})
    made.epoch = epoch
    return made


def loader(folders, order: MixedSampler, **arguments: Any) -> DeviceLoader:
    arguments = {**GEOMETRY, **COLORS, **arguments}
    data = mixed(folders, "", strong_view=1.0, **arguments)
    return DeviceLoader(data, order, data.device_views(arguments_with(**arguments), CPU), batch=4)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(value, tensors(b)[name]) for name, value in tensors(a).items())


def test_an_epoch_after_a_resume_is_that_of_a_training_without(folders) -> None:
    whole = loader(folders, sampler())
    epochs = [list(whole) for _ in range(3)]
    assert [len(epoch) for epoch in epochs] == [len(whole)] * 3 == [3] * 3
    resumed = loader(folders, sampler(epoch=1))
    for epoch in epochs[1:]:
        assert all(same(a, b) for a, b in zip(epoch, resumed, strict=True))
    assert not any(same(a, b) for a, b in zip(epochs[0], epochs[1], strict=True))
    assert not same(*epochs[0][:2])


def test_processes_and_seeds_differ(folders) -> None:
    first = next(iter(loader(folders, sampler())))
    for other in ({"rank": 1, "world": 2}, {"seed": 5}):
        assert not same(first, next(iter(loader(folders, sampler(**other)))))
    rng = [np.random.default_rng((4, rank, 0, 0)).random() for rank in (0, 1)]
    assert rng[0] != rng[1]


def test_it_has_what_ultralytics_and_the_stages_ask_a_loader_for(folders) -> None:
    order = sampler()
    made = loader(folders, order)
    first = iter(made)
    assert order.epoch == 0, "nothing is taken before the first batch is asked for"
    next(first)
    made.reset()
    assert (made.num_workers, made.drop_last, made.batch_size, len(made.dataset)) == (0, False, 4, 12)
    order.labeled_only()
    assert all(batch["labeled"].all() for batch in made)
    made.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(iter(made))


def test_operators_of_a_batch_do_not_depend_on_its_size_and_nothing_waits(folders) -> None:
    data = mixed(folders, "", **GEOMETRY, **COLORS)
    views = data.device_views(arguments_with(**{**GEOMETRY, **COLORS, "mixup": 1.0}), CPU)
    views.batch(np.array([0, 7]), np.random.default_rng(0))  # constants of the device are made once
    sizes = (np.repeat([0, 7], n) for n in (2, 12))
    counts = [count_operators(partial(views.batch, images, np.random.default_rng(0))) for images in sizes]
    assert counts[0].launched == counts[1].launched <= 80
    assert counts[0].waits == counts[1].waits == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("beside", [False, True])
def test_a_gpu_makes_the_same_batch_and_the_host_never_waits(folders, beside: bool) -> None:
    data = mixed(folders, "", **GEOMETRY, **COLORS)
    args = arguments_with(**GEOMETRY, **COLORS)
    images = np.array([0, 3, 6, 8, 9, 11])
    expected = data.device_views(args, CPU).batch(images, np.random.default_rng(2))
    views = data.device_views(args, torch.device("cuda", 0))
    if beside:
        views.store = replace(views.store, pixels=views.store.pixels.cpu().pin_memory(), beside=True)
    views.batch(images, np.random.default_rng(1))  # constants of the device are made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch = views.batch(images, np.random.default_rng(2))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert batch["img"].is_cuda and batch["bboxes"].is_pinned()
    assert torch.equal(batch["bboxes"], expected["bboxes"]) and torch.equal(batch["cls"], expected["cls"])
    difference = (batch["img"].cpu().int() - expected["img"].int()).abs()
    assert difference.max() <= 12 and (difference > 0).float().mean() < 1e-2


def test_images_beside_the_device_make_the_same_batches(folders) -> None:
    data = mixed(folders, "", **GEOMETRY)
    views = data.device_views(arguments_with(**GEOMETRY), CPU)
    images = np.array([0, 5, 8])
    expected = views.batch(images, np.random.default_rng(0))
    views.store = replace(views.store, beside=True)
    assert same(expected, views.batch(images, np.random.default_rng(0)))
    views.store.pixels.zero_()
    assert not same(expected, views.batch(images, np.random.default_rng(0)))
