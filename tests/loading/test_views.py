"""Views made on the device, image by image against those that Ultralytics makes from the same random numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.data.dataset import YOLODataset

from dfssd.benchmark.operators import count_operators
from dfssd.loading import sampling
from dfssd.loading.geometry import Draws, GeometrySettings, LabelTable, Rows, arrange, draw, move_boxes
from dfssd.loading.sampling import CanvasMaps, mix, read_views
from dfssd.loading.store import Images, ImageStore, open_store, release_stores
from tests.loading.replay import SIDE, dataset, replayed, write_images

CPU = torch.device("cpu")
ALL = {"degrees": 25.0, "translate": 0.3, "scale": 0.6, "shear": 12.0}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("views"))


@pytest.fixture(autouse=True)
def no_store_stays():
    yield
    release_stores()


class Ours:
    """Our side of the comparison: the images and labels of a data set, and the views of given random numbers."""

    def __init__(self, data: YOLODataset, **arguments: Any):
        self.data = data
        self.store: ImageStore = open_store([Images.of_dataset(data)], data.imgsz, CPU)
        self.sizes = self.store.sizes[self.store.numbers(data.im_files)]
        hyp = {"mosaic": 0.5, "mixup": 0.5, "degrees": 0.0, "translate": 0.1, "scale": 0.5, "shear": 0.0}
        hyp |= {"perspective": 0.0, "flipud": 0.5, "fliplr": 0.5} | arguments
        self.settings = GeometrySettings.of_arguments(type("Arguments", (), hyp), data.imgsz)

    def draws(self, views: int, seed: int = 0) -> Draws:
        rng = np.random.default_rng(seed)
        own = rng.integers(0, len(self.data), views)
        return draw(rng, own, np.tile([0, len(self.data)], (views, 1)), self.settings)

    def views(self, draws: Draws) -> tuple[torch.Tensor, Rows]:
        canvases = arrange(draws, self.sizes, self.settings)
        stored, places = self.store.fetch(self.store.numbers(self.data.im_files)[canvases.images])
        maps = CanvasMaps(canvases, places, self.settings, CPU)
        seen = mix(read_views(stored, maps), canvases)
        return seen, move_boxes(canvases, LabelTable.of_labels(self.data.labels, self.sizes), self.settings)


def compare(ours: Ours, draws: Draws, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Check boxes and return the differences of all pixels, in gray levels."""
    seen, rows = ours.views(draws)
    expected = replayed(ours.data, draws, ours.settings, monkeypatch)
    assert (np.diff(rows.view) >= 0).all()
    for view, sample in enumerate(expected):
        mine = rows.view == view
        assert np.array_equal(rows.values[mine, 0], sample["cls"].numpy().reshape(-1)), view
        assert np.abs(rows.boxes[mine] - sample["bboxes"].numpy()).max(initial=0) < 1e-4, view
    theirs = torch.stack([sample["img"] for sample in expected])
    assert theirs.shape == seen.shape and seen.dtype == torch.uint8
    return np.abs(seen.numpy().astype(int) - theirs.numpy())


CASES = [
    {},
    ALL,
    {**ALL, "perspective": 0.001},
    {"mosaic": 1.0, "mixup": 0.0},
    {"mosaic": 0.0, "mixup": 0.0, **ALL},
    {"degrees": 180.0, "scale": 0.9},
    {"translate": 0.9, "scale": 0.0},
]


@pytest.mark.parametrize("arguments", CASES, ids=str)
def test_views_equal_those_of_ultralytics(images: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict) -> None:
    script = {"fliplr": 0.5, "flipud": 0.5, "mosaic": 0.5, "mixup": 0.5}
    ours = Ours(dataset(images, **{**arguments, **script}), **arguments)
    draws = ours.draws(40)
    difference = compare(ours, draws, monkeypatch)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("side", [64, 65, 97])
def test_odd_sides_and_small_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    folder = write_images(tmp_path, ((side, side), (side + 1, side), (2 * side, 11), (11, 3 * side), (12, 12)))
    ours = Ours(dataset(folder, side, fliplr=0.5, flipud=0.5, **ALL), **ALL)
    assert compare(ours, ours.draws(30), monkeypatch).max() <= 1


def test_images_without_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_images(tmp_path, ((64, 64), (50, 40)))  # the second one has none
    ours = Ours(dataset(folder, fliplr=0.5, flipud=0.5))
    draws = ours.draws(8)
    compare(ours, replace(draws, images=np.ones_like(draws.images)), monkeypatch)
    rows = ours.views(replace(draws, images=np.ones_like(draws.images)))[1]
    assert rows.boxes.shape == (0, 4) and rows.values.shape == (0, 2) and rows.view.shape == (0,)


@pytest.mark.parametrize("what", ["center", "angle", "scale", "shear", "shift", "ratio", "flips", "images", "mosaic"])
def test_each_random_number_matters(images: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Otherwise the comparisons above could not fail."""
    ours = Ours(dataset(images, fliplr=0.5, flipud=0.5), **ALL)
    draws = ours.draws(12)
    value = getattr(draws, what)
    if what == "images":
        changed = (value + 1) % len(ours.data)
    elif what == "center":
        changed = value[:, ::-1]
    else:
        changed = ~value if value.dtype == bool else value + 0.5
    expected, seen = ours.views(draws), ours.views(replace(draws, **{what: changed}))
    assert (expected[0].int() - seen[0].int()).abs().float().mean() > 1


def test_mixed_views_keep_their_share(images: Path) -> None:
    ours = Ours(dataset(images), mixup=1.0)
    draws = replace(ours.draws(6), view=np.arange(12) % 6)
    alone = ours.views(replace(draws, ratio=np.ones(6)))[0].float()
    other = ours.views(replace(draws, ratio=np.zeros(6)))[0].float()
    half = ours.views(replace(draws, ratio=np.full(6, 0.5)))[0].float()
    assert ((alone + other) / 2 - half).abs().max() <= 1 and (alone - other).abs().mean() > 10


def test_operators_do_not_depend_on_the_batch_and_nothing_waits(images: Path) -> None:
    ours = Ours(dataset(images), **ALL)
    launched = []
    for views in (4, 20):
        draws = ours.draws(views)
        canvases = arrange(draws, ours.sizes, ours.settings)

        def batch(canvases=canvases) -> None:
            stored, places = ours.store.fetch(canvases.images)
            mix(read_views(stored, CanvasMaps(canvases, places, ours.settings, CPU)), canvases)

        counted = count_operators(batch)
        assert counted.waits == 0
        launched.append(counted.launched)
    assert launched[0] == launched[1] <= 50


@pytest.mark.parametrize("arguments", [{}, {"scale": 0.9, "translate": 0.5}], ids=str)
def test_the_short_way_without_rotation_and_shear_is_the_long_way(images: Path, arguments: dict) -> None:
    ours = Ours(dataset(images), **arguments)
    canvases = arrange(ours.draws(30), ours.sizes, ours.settings)
    maps = CanvasMaps(canvases, canvases.images, ours.settings, CPU)
    assert maps.separable
    short = read_views(ours.store.pixels, maps)
    maps.separable = False
    assert torch.equal(read_views(ours.store.pixels, maps), short)
    rotated = Ours(dataset(images), **ALL)
    canvases = arrange(rotated.draws(3), rotated.sizes, rotated.settings)
    assert not CanvasMaps(canvases, canvases.images, rotated.settings, CPU).separable


def test_a_large_batch_is_cut_without_a_difference(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Ours(dataset(images), **ALL)
    draws = ours.draws(9)
    whole = ours.views(draws)[0]
    monkeypatch.setitem(sampling.MOST_READ, "cpu", 4 * SIDE * SIDE * 2)
    assert torch.equal(ours.views(draws)[0], whole)


def test_more_pixels_than_short_numbers_count(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Ours(dataset(images), **ALL)
    draws = ours.draws(5)
    canvases = arrange(draws, ours.sizes, ours.settings)
    expected = ours.views(draws)[0]
    assert CanvasMaps(canvases, canvases.images, ours.settings, CPU).tables.dtype == torch.int32
    monkeypatch.setattr(sampling, "SHORT", 0)
    assert CanvasMaps(canvases, canvases.images, ours.settings, CPU).tables.dtype == torch.int64
    assert torch.equal(ours.views(draws)[0], expected)


def test_the_fourth_byte_moves_with_its_pixel(images: Path) -> None:
    """Turned by a right angle and moved by whole pixels, ids come out as they went in."""
    data = dataset(images)
    ours = Ours(data)
    ours.store.pixels[..., 3] = ours.store.pixels[..., 0]
    n = len(data)
    zero = np.zeros(n)
    draws = Draws(
        images=np.arange(n)[:, None].repeat(4, 1),
        mosaic=zero > 0,
        center=np.zeros((n, 2), int),
        perspective=np.zeros((n, 2)),
        angle=zero,
        scale=zero + 1,
        shear=np.zeros((n, 2)),
        shift=ours.sizes[:, ::-1] / 2,
        view=np.arange(n),
        ratio=np.zeros(0),
        flips=np.zeros((n, 2), bool),
    )
    canvases = arrange(draws, ours.sizes, ours.settings)
    seen = read_views(ours.store.pixels, CanvasMaps(canvases, canvases.images, ours.settings, CPU), channels=4)
    assert torch.equal(seen.permute(0, 2, 3, 1), ours.store.pixels[:, 1:-1, 1:-1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_sees_the_same(images: Path) -> None:
    ours = Ours(dataset(images), **ALL)
    draws = ours.draws(20)
    canvases = arrange(draws, ours.sizes, ours.settings)
    gpu = torch.device("cuda", 0)
    maps = CanvasMaps(canvases, canvases.images, ours.settings, gpu)
    seen = mix(read_views(ours.store.pixels.to(gpu), maps), canvases)[:, :3].cpu()
    difference = (seen.int() - ours.views(draws)[0].int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-3
