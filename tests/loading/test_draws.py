"""The random geometry has the distributions of Ultralytics."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from ultralytics.data.augment import Mosaic, RandomPerspective

from dfssd.loading.geometry import GeometrySettings, LabelTable, arrange, draw, move_boxes
from dfssd.loading.sampling import CanvasMaps, mix, read_views
from dfssd.loading.store import Images, open_store, release_stores
from tests.loading.replay import dataset, write_images

SIDE = 32
SIZES = np.array([[32, 32], [20, 32], [32, 7]])
N = 4000
UNLIKELY = 1e-4


def settings(**changes) -> GeometrySettings:
    given = {"mosaic": 0.7, "mixup": 0.3, "degrees": 20.0, "translate": 0.2, "scale": 0.4, "shear": 9.0}
    given |= {"perspective": 0.001, "flipud": 0.2, "fliplr": 0.6}
    return GeometrySettings.of_arguments(SimpleNamespace(**{**given, **changes}), SIDE)


def drawn(seed: int = 0, **changes):
    views = np.arange(N) % 3
    return draw(np.random.default_rng(seed), views, np.tile([0, 3], (N, 1)), settings(**changes))


@pytest.mark.parametrize("scale", [0.4, (0.3, 2.0)])
def test_matrices(scale) -> None:
    ours = arrange(drawn(mosaic=1.0, scale=scale), SIZES, settings(mosaic=1.0, scale=scale))
    random.seed(1)
    theirs = RandomPerspective(20.0, 0.2, scale, 9.0, 0.001, size=(SIDE, SIDE))
    canvas = np.zeros((2 * SIDE, 2 * SIDE, 3), np.uint8)
    pairs = [theirs._compute_affine_matrix(canvas, (SIDE, SIDE)) for _ in range(N)]
    expected = np.stack([matrix for matrix, _ in pairs])
    for i in range(3):
        for j in range(3):
            assert ks_2samp(ours.matrix[:N, i, j], expected[:, i, j]).pvalue > UNLIKELY, (i, j)
    assert ks_2samp(ours.scale[:N], [s for _, s in pairs]).pvalue > UNLIKELY
    narrower = arrange(drawn(mosaic=1.0, degrees=15.0), SIZES, settings(mosaic=1.0))
    assert ks_2samp(narrower.matrix[:N, 0, 1], expected[:, 0, 1]).pvalue < UNLIKELY


@pytest.mark.parametrize("side", [32, 33])
def test_centers_of_mosaics(side: int) -> None:
    rng = np.random.default_rng(0)
    ours = draw(rng, np.zeros(N, int), np.tile([0, 3], (N, 1)), GeometrySettings.of_arguments(_named(), side))
    random.seed(1)
    image = np.zeros((8, 8, 3), np.uint8)
    theirs = Mosaic(SimpleNamespace(cache="ram", __len__=None), imgsz=side, p=1.0)
    theirs.get_indexes = lambda: [0, 0, 0]
    theirs.dataset = SimpleNamespace(get_image_and_label=lambda _: {"img": image})
    layouts = [theirs.get_params({"img": image})["layout"][3] for _ in range(N)]
    for axis, name in enumerate(("x1a", "y1a")):
        expected = np.array([layout[name] for layout in layouts])
        assert ks_2samp(ours.center[:, axis], expected).pvalue > UNLIKELY
        assert abs(int(ours.center[:, axis].min()) - expected.min()) <= 1
        assert abs(int(ours.center[:, axis].max()) - expected.max()) <= 1


def _named() -> SimpleNamespace:
    names = ("mosaic", "mixup", "degrees", "translate", "shear", "perspective", "flipud", "fliplr")
    return SimpleNamespace(scale=0.0, **dict.fromkeys(names, 0.0))


def test_chances_and_images() -> None:
    draws = drawn()
    error = 4 * 0.5 / np.sqrt(N)
    assert abs(draws.mosaic[:N].mean() - 0.7) < error
    assert abs(len(draws.ratio) / N - 0.3) < error
    assert np.abs(draws.flips.mean(0) - (0.6, 0.2)).max() < error
    assert (draws.images[:N, 0] == np.arange(N) % 3).all(), "each view starts from its own image"
    assert np.abs(np.bincount(draws.images[:N, 1:].ravel()) / (3 * N) - 1 / 3).max() < error
    assert ks_2samp(draws.ratio, np.random.default_rng(5).beta(32, 32, N)).pvalue > UNLIKELY


def test_mosaics_and_mixups_stay_in_their_part() -> None:
    views = np.concatenate([np.arange(5), np.arange(5, 12)])
    parts = np.where(views[:, None] < 5, [0, 5], [5, 12])
    draws = draw(np.random.default_rng(0), views, parts, settings(mixup=1.0))
    assert ((draws.images < 5).all(1) == (draws.view < 5)).all() and len(draws.view) == 24


def test_whole_views_have_the_statistics_of_ultralytics(tmp_path: Path) -> None:
    """Mean gray, boxes per view, their size, and how often they touch an edge, over many views of both."""
    count = 800
    arguments = {"mosaic": 0.6, "mixup": 0.2, "degrees": 10.0, "fliplr": 0.5}
    data = dataset(write_images(tmp_path), **arguments)
    random.seed(0)
    np.random.seed(0)
    theirs = [data[k % len(data)] for k in range(count)]
    store = open_store([Images.of_dataset(data)], data.imgsz, torch.device("cpu"))
    sizes = store.sizes[store.numbers(data.im_files)]
    given = GeometrySettings.of_arguments(SimpleNamespace(**{**vars(_hyp()), **arguments}), data.imgsz)
    parts = np.tile([0, len(data)], (count, 1))
    draws = draw(np.random.default_rng(0), np.arange(count) % len(data), parts, given)
    canvases = arrange(draws, sizes, given)
    stored, places = store.fetch(store.numbers(data.im_files)[canvases.images])
    images = mix(read_views(stored, CanvasMaps(canvases, places, given, torch.device("cpu"))), canvases)
    rows = move_boxes(canvases, LabelTable.of_labels(data.labels, sizes), given)
    release_stores()

    def close(ours, expected) -> bool:
        ours, expected = np.asarray(ours, float), np.asarray(expected, float)
        error = np.sqrt(ours.var() / len(ours) + expected.var() / len(expected))
        return bool(abs(ours.mean() - expected.mean()) < 4 * error)

    boxes = np.concatenate([sample["bboxes"].numpy() for sample in theirs])
    assert close(images.float().mean((1, 2, 3)), [sample["img"].float().mean() for sample in theirs])
    assert close(images.float().std((1, 2, 3)), [sample["img"].float().std() for sample in theirs])
    assert close(np.bincount(rows.view, minlength=count), [len(sample["bboxes"]) for sample in theirs])
    for column in range(4):
        assert close(rows.boxes[:, column], boxes[:, column])
    touching = [(b[:, :2] - b[:, 2:] / 2 <= 1e-6).any(1) for b in (rows.boxes, boxes)]
    assert close(*touching)
    assert not close(rows.boxes[:, 2] * 1.2, boxes[:, 2]), "a fifth more would not be noticed"


def _hyp() -> SimpleNamespace:
    from ultralytics.cfg import get_cfg

    return SimpleNamespace(**vars(get_cfg()))
