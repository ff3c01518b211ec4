"""Photometric transforms of a batch against albumentations: pixels for given parameters, and what is drawn."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import albumentations as A
import numpy as np
import pytest
import torch
from albumentations.augmentations.pixel.functional import add_noise as add_noise_to_one
from scipy import stats
from ultralytics.data.augment import Albumentations

from dfssd.benchmark.operators import count_operators
from dfssd.loading.filters import convolve
from dfssd.loading.photometric import Change, PhotometricViews, add_noise, blend, blend_values
from dfssd.segmentation.views import Views
from dfssd.trainers.views import StrongView
from tests.loading.pictures import arrays, batch, difference, grays, noise, smooth

IMAGES = [noise(48, 64), smooth(48, 64), grays(48, 64), smooth(48, 64, 1)]
SHAPE = (48, 64)

FIXED: list[A.BasicTransform] = [
    A.RandomBrightnessContrast((0.2, 0.2), (-0.3, -0.3), p=1),
    A.RandomBrightnessContrast((-0.25, -0.25), (0.4, 0.4), p=1),
    A.GaussianBlur((5, 5), (1.3, 1.3), p=1),
    A.GaussianBlur((4, 4), (1.3, 1.3), p=1),
    A.GaussianBlur(0, (0.9, 0.9), p=1),
    A.MotionBlur((7, 7), allow_shifted=False, angle_range=(30, 30), direction_range=(0.4, 0.4), p=1),
    A.Blur((5, 5), p=1),
    A.MedianBlur((5, 5), p=1),
    A.CLAHE((3, 3), p=1),
    A.CLAHE((2, 2), (4, 2), p=1),
    A.ToGray(p=1),
]
"""Transforms whose ranges leave nothing to chance."""


def changed(view: PhotometricViews, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    changes = view.sample(np.random.default_rng(seed), len(images), (images.shape[2], images.shape[3]))
    return view.apply(images, changes, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("transform", FIXED, ids=lambda t: type(t).__name__)
def test_pixels_are_those_of_albumentations(transform: A.BasicTransform) -> None:
    expected = np.stack([transform(image=image)["image"] for image in IMAGES])
    found = arrays(changed(PhotometricViews([transform]), batch(*IMAGES)))
    assert difference(found, expected) <= 1
    assert difference(found, np.stack(IMAGES)) > 5


@pytest.mark.parametrize("transform", [A.ToGray(p=1), A.CLAHE((3, 3), p=1)], ids=lambda t: type(t).__name__)
def test_blue_first(transform: A.BasicTransform) -> None:
    """Ultralytics gives BGR to albumentations, which takes it for RGB: red is weighed as blue."""
    expected = np.stack([transform(image=image[..., ::-1])["image"][..., ::-1] for image in IMAGES])
    assert difference(arrays(changed(PhotometricViews([transform], bgr=True), batch(*IMAGES))), expected) <= 1
    assert difference(arrays(changed(PhotometricViews([transform]), batch(*IMAGES))), expected) > 1


def test_color_jitter() -> None:
    """Any of the 24 orders, each image its own."""
    factors = {"brightness": 1.2123, "contrast": 0.7812, "saturation": 1.2345, "hue": 0.0511}
    transform = A.ColorJitter(**{k: (v, v) for k, v in factors.items()}, p=1)
    orders = list(itertools.permutations(range(4)))
    images = [smooth(48, 64), noise(48, 64)]
    each = [np.stack([transform.apply(image, **factors, order=list(o)) for o in orders]) for image in images]
    view = PhotometricViews([transform])
    hits = []
    for i, found in enumerate(arrays(changed(view, batch(*images * 100)))):
        off = np.abs(found.astype(int) - each[i % 2].astype(int)).reshape(24, -1)
        best = int(off.mean(1).argmin())
        assert np.mean(off[best] > 0) < 1e-3
        hits.append(best)
    assert len(set(hits)) > 16, "orders are drawn (some give equal images)"


def test_blend_is_brightness_contrast_and_saturation() -> None:
    values = blend_values(np.array([0.8, 1.2, 0.77, 1.2]), np.array([0, 1, 2, 2]))
    image = smooth(8, 8)
    found = arrays(blend(batch(*[image] * 4), torch.from_numpy(values)))
    weighted = (image @ np.array([0.299, 0.587, 0.114])).round()[..., None]
    expected = [
        np.floor(0.8 * image),
        np.floor(1.2 * image - 0.2 * weighted.mean()),
        np.round(0.77 * image + 0.23 * weighted),
        np.round(1.2 * image - 0.2 * weighted),
    ]
    assert difference(found, np.clip(np.stack(expected), 0, 255)) <= 1


def test_noise() -> None:
    """The noise is the same in all channels, and cut off to whole levels, as in albumentations."""
    values = np.random.default_rng(0).normal(0, 9, (4, 48, 64)).astype(np.float32)
    expected = [
        add_noise_to_one(image, np.broadcast_to(n[..., None], image.shape))
        for image, n in zip(IMAGES, values, strict=True)
    ]
    assert np.array_equal(arrays(add_noise(batch(*IMAGES), torch.from_numpy(values)[:, None])), np.stack(expected))
    gray = [np.full((64, 64, 3), 128, np.uint8)] * 50
    transform = A.GaussNoise((0.05, 0.05), per_channel=False, p=1)
    view = PhotometricViews([transform])
    found = arrays(changed(view, batch(*gray))).astype(int) - 128
    assert np.array_equal(found[..., 0], found[..., 2])
    transform.set_random_seed(0)
    other = np.stack([transform(image=image)["image"] for image in gray]).astype(int) - 128
    assert found.std() == pytest.approx(other.std(), rel=0.01)
    assert abs(found.mean()) < 0.1
    assert np.mean(found == 0) == pytest.approx(np.mean(other == 0), abs=0.002)
    assert np.array_equal(arrays(changed(view, batch(*gray))).astype(int) - 128, found), "seeded by the generator"
    assert not np.array_equal(arrays(changed(view, batch(*gray), 1)).astype(int) - 128, found)


def test_holes() -> None:
    transform = A.CoarseDropout((3, 3), (0.1, 0.1), (0.25, 0.25), fill=114, p=1)
    images = batch(*IMAGES)
    view = PhotometricViews([transform])
    changes = view.sample(np.random.default_rng(0), 4, SHAPE)
    found = arrays(view.apply(images, changes))
    for image, result, holes in zip(IMAGES, found, changes[0].values, strict=True):
        assert np.array_equal(result, transform.apply(image, holes=holes, seed=0))
        assert (holes[:, 3] - holes[:, 1]).tolist() == [4, 4, 4]
        assert (holes[:, 2] - holes[:, 0]).tolist() == [16, 16, 16]
        assert np.all(result == 114, -1).sum() > 64


def strong(strength: float) -> tuple[dict[str, Any], PhotometricViews]:
    transforms = StrongView(strength).transform.transforms
    return {type(t).__name__: t for t in transforms}, PhotometricViews(transforms)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_operations_are_chosen_as_often(strength: float) -> None:
    n = 4000
    names, view = strong(strength)
    found = [len(c.rows) / n for c in view.sample(np.random.default_rng(0), n, SHAPE)]
    assert [t.p for t in names.values()] == [p * strength for p in (0.8, 0.4, 0.4, 0.3, 0.5)]
    for frequency, t in zip(found, names.values(), strict=True):
        assert frequency == pytest.approx(t.p, abs=4 * (t.p * (1 - t.p) / n) ** 0.5)


def drawn(transform: A.BasicTransform, n: int = 3000) -> list[dict[str, Any]]:
    """What albumentations draws."""
    transform.set_random_seed(1)
    image = np.zeros((*SHAPE, 3), np.uint8)
    empty = {"shape": image.shape}
    return [
        transform.get_params() | transform.get_params_dependent_on_data(empty, {"image": image})
        if type(transform).get_params_dependent_on_data is not A.BasicTransform.get_params_dependent_on_data
        else transform.get_params()
        for _ in range(n)
    ]


def sampled(transform: A.BasicTransform, n: int = 3000) -> list[Change]:
    transform.p = 1
    return PhotometricViews([transform]).sample(np.random.default_rng(0), n, SHAPE)


def assert_alike(a: Any, b: Any) -> None:
    """Two samples of a number come from one distribution."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    assert len(a) > 900
    assert stats.ks_2samp(a, b).pvalue > 1e-3
    assert a.mean() == pytest.approx(b.mean(), abs=5 * b.std() * len(a) ** -0.5)
    assert a.std() == pytest.approx(b.std(), rel=0.08)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_exposure_is_drawn_as_by_albumentations(strength: float) -> None:
    t = strong(strength)[0]["RandomBrightnessContrast"]
    tables = sampled(t)[0].values[:, 0]
    expected = [np.clip(np.arange(256) * p["alpha"] + p["beta"], 0, 255).astype(np.uint8) for p in drawn(t)]
    for level in (30, 128, 220):
        assert_alike(tables[:, level], np.stack(expected)[:, level])
    weak = strong(0.25)[0]["RandomBrightnessContrast"]
    with pytest.raises(AssertionError):
        assert_alike(sampled(weak)[0].values[:, 0, 128], np.stack(expected)[:, 128])


def kernel_facts(kernels: list[np.ndarray]) -> np.ndarray:
    """Largest weight, number of weights, and center of mass of kernels."""
    facts = []
    for k in kernels:
        k2 = np.outer(k, k) if k.ndim == 1 else k
        y, x = (np.arange(len(k2)) - len(k2) // 2,) * 2
        facts.append((k2.max(), np.count_nonzero(k2), (k2.sum(1) * y).sum(), (k2.sum(0) * x).sum()))
    return np.array(facts)


@pytest.mark.parametrize("transform", [A.GaussianBlur((3, 5)), A.MotionBlur((3, 7)), A.MotionBlur((3, 3))], ids=str)
def test_kernels_are_drawn_as_by_albumentations(transform: A.BasicTransform) -> None:
    found = kernel_facts(list(sampled(transform)[0].values))
    expected = kernel_facts([p["kernel"] for p in drawn(transform)])
    for i in range(4 if isinstance(transform, A.MotionBlur) else 2):
        assert_alike(found[:, i], expected[:, i])


def test_one_of_two_blurs() -> None:
    """Half of the blurred images get each, all in one convolution."""
    t = strong(1)[0]["OneOf"]
    t.p = 1
    (change,) = PhotometricViews([t]).sample(np.random.default_rng(0), 3000, SHAPE)
    assert change.operation is convolve
    assert sorted(change.rows) == list(range(3000))
    by_motion = [len(set(k[k > 0].round(6))) == 1 for k in change.values]
    assert np.mean(by_motion) == pytest.approx(0.5, abs=0.05)
    other = A.OneOf([A.MedianBlur((3, 3), p=0.2), A.Blur((3, 3), p=0.6)], p=1)
    median, box = PhotometricViews([other]).sample(np.random.default_rng(0), 3000, SHAPE)
    assert len(box.rows) / 3000 == pytest.approx(0.75, abs=0.05)
    assert not set(median.rows) & set(box.rows)


def test_sizes_are_drawn_as_by_albumentations() -> None:
    for t in (A.Blur((3, 7)), A.MedianBlur((3, 7))):
        expected = np.unique([p["kernel"] for p in drawn(t)], return_counts=True)
        assert expected[0].tolist() == [3, 5, 7]
        changes = sampled(t)
        sizes = (
            [np.count_nonzero(k[3]) for k in changes[0].values]
            if len(changes) == 1
            else [cast(partial, c.operation).keywords["size"] for c in changes for _ in c.rows]
        )
        found = np.unique(sizes, return_counts=True)
        assert found[0].tolist() == [3, 5, 7]
        assert found[1] / 3000 == pytest.approx(expected[1] / 3000, abs=0.05)


def test_noise_and_clip_limit_are_drawn_as_by_albumentations() -> None:
    names, _ = strong(1)
    noisy, contrast = names["GaussNoise"], names["CLAHE"]
    assert_alike(sampled(noisy)[0].values, [p["noise_map"].std() for p in drawn(noisy, 1000)])
    # Drawn for 48 x 64: 6 x 8 pixels a tile make every limit the same, so this one has larger tiles.
    large = PhotometricViews([A.CLAHE((1, 4), p=1)]).sample(np.random.default_rng(0), 3000, (2048, 2048))[0]
    assert_alike(large.values, [int(p["clip_limit"] * 256) for p in drawn(contrast)])


def test_holes_are_drawn_as_by_albumentations() -> None:
    t = strong(1)[0]["CoarseDropout"]
    found = sampled(t)[0].values
    real = [h[(h[:, 2] > h[:, 0])] for h in found]
    expected = [p["holes"] for p in drawn(t)]
    assert_alike([len(h) for h in real], [len(h) for h in expected])
    for i in range(4):
        assert_alike(np.concatenate(real)[:, i], np.concatenate(expected)[:, i])
    assert np.concatenate(real)[:, :2].min() == 0
    assert np.concatenate(real)[:, 2].max() == 64
    assert np.concatenate(real)[:, 3].max() == 48


def test_jitter_of_masks_is_drawn_as_by_albumentations() -> None:
    t = Views(symmetries=False, jitter=1).transform.transforms[0]
    changes = sampled(t)
    expected = drawn(t)
    # blends before the hue, the hue, blends after it
    assert [c.values.shape[1:] for c in changes] == [(4,)] * 3 + [(5, 256)] + [(4,)] * 3
    steps = np.concatenate([c.values for c in changes if c.values.shape[1:] == (4,)])
    for kind, name in enumerate(("brightness", "contrast", "saturation")):
        mine = steps[((steps[:, 1] != 0) == (kind == 1)) & ((steps[:, 2] != 0) == (kind == 2))]
        assert len(mine) == 3000, "each image once"
        assert_alike(mine[:, 0], [p[name] for p in expected])
    # Of green, between cyan and blue: it grows with the hue.
    assert_alike(np.round(changes[3].values[:, 1, 105] * 30), [np.floor(105 + 180 * p["hue"]) - 90 for p in expected])
    first = np.bincount([p["order"].index(3) for p in expected], minlength=4) / 3000
    hits = [len(c.rows) / 3000 for c in changes]
    assert first == pytest.approx([0.25] * 4, abs=0.04)
    assert hits == pytest.approx([0.75, 0.5, 0.25, 1, 0.25, 0.5, 0.75], abs=0.04)


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_strong_views_look_as_those_of_albumentations(strength: float) -> None:
    """Mean, contrast, and sharpness of many views of one image."""
    image = smooth(32, 32, 3) // 2 + noise(32, 32) // 4
    view = StrongView(strength)
    expected = arrays(torch.stack([view(batch(image)[0]) for _ in range(1500)]))
    found = arrays(changed(strong(strength)[1], batch(*[image] * 1500)))
    for fact in (
        lambda x: x.mean((1, 2, 3)),
        lambda x: x.std((1, 2, 3)),
        lambda x: np.abs(np.diff(x.astype(int), axis=2)).mean((1, 2, 3)),
    ):
        assert_alike(fact(found), fact(expected))


def test_transforms_of_ultralytics() -> None:
    """Four of its transforms have a probability of 1 %, the others none."""
    view = PhotometricViews(Albumentations(p=1.0).transform, bgr=True)
    assert [(type(t).__name__, t.p) for t in view.transforms] == [
        ("Blur", 0.01),
        ("MedianBlur", 0.01),
        ("ToGray", 0.01),
        ("CLAHE", 0.01),
    ]
    changes = view.sample(np.random.default_rng(0), 20000, SHAPE)
    assert sum(len(c.rows) for c in changes) == pytest.approx(800, abs=120)
    assert len(changes) == 6, "medians of three sizes"


def test_what_nothing_hits_stays_as_it_is() -> None:
    _, view = strong(0.5)
    images = batch(*IMAGES * 8)
    changes = view.sample(np.random.default_rng(5), len(images), SHAPE)
    before = images.clone()
    out = view.apply(images, changes, torch.Generator())
    assert torch.equal(images, before), "the given images are not changed"
    hit = np.unique(np.concatenate([c.rows for c in changes]))
    assert 0 < len(hit) < len(images)
    same = (out == images).flatten(1).all(1).numpy()
    assert same[np.setdiff1d(np.arange(len(images)), hit)].all()
    assert not same[hit].all()
    none = PhotometricViews([A.Blur(p=0)])
    assert none.transforms == []
    assert none.sample(np.random.default_rng(0), 4, SHAPE) == []
    copy = none.apply(images, [])
    assert torch.equal(copy, images)
    assert copy.data_ptr() != images.data_ptr()


def everything() -> list[A.BasicTransform | A.BaseCompose]:
    return [*StrongView(1).transform.transforms, A.ColorJitter(p=1), A.MedianBlur((3, 3), p=1), A.ToGray(p=1)]


def test_cost_does_not_depend_on_the_batch() -> None:
    transforms = everything()
    for t in transforms:
        t.p = 1
    view = PhotometricViews(transforms)
    counts = []
    for n in (16, 48):
        images = batch(*[noise(32, 32)] * n)
        changes = view.sample(np.random.default_rng(0), n, (32, 32))
        assert len(changes) == 5 + 7 + 1 + 1
        apply = partial(view.apply, images, changes, torch.Generator())
        apply()
        counts.append(count_operators(apply))
    assert counts[0].launched == counts[1].launched <= 340
    assert counts[0].waits == counts[1].waits == 0
    view = strong(1)[1]
    changes = view.sample(np.random.default_rng(0), 48, (32, 32))
    assert count_operators(partial(view.apply, images, changes, torch.Generator())).launched <= 115


@pytest.mark.parametrize(
    "transform",
    [
        A.HorizontalFlip(p=0.5),
        A.RandomGamma(p=0.1),
        A.OneOf([A.RandomGamma(p=0.5)], p=1),
        A.RandomBrightnessContrast(brightness_by_max=False),
        A.GaussNoise(per_channel=True),
        A.CoarseDropout(fill="random"),
        A.ToGray(method="max"),
        A.SomeOf([A.Blur()], n=1, p=1),
    ],
    ids=str,
)
def test_what_is_not_known_is_refused(transform: A.BasicTransform | A.BaseCompose) -> None:
    with pytest.raises(ValueError, match="cannot be applied to a batch"):
        PhotometricViews([transform])


def test_only_a_compose_that_always_applies() -> None:
    for make in (lambda parts: A.Compose(parts, p=0.5), lambda parts: A.SomeOf(parts, n=1, p=1)):
        with pytest.raises(ValueError, match="must be a Compose with p=1"):
            PhotometricViews(make([A.Blur(p=1)]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu() -> None:
    """The pixels are those of the CPU, and the host never waits."""
    quiet: Callable[[Any], bool] = lambda t: not isinstance(t, A.GaussNoise)  # noqa: E731
    view = PhotometricViews([t for t in everything() if quiet(t)])
    images = batch(*IMAGES * 4)
    changes = view.sample(np.random.default_rng(0), len(images), SHAPE)
    on_gpu = images.cuda()
    view.apply(on_gpu, changes)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = view.apply(on_gpu, changes)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    off = (found.cpu().int() - view.apply(images, changes).int()).abs()
    assert off.float().mean() < 0.02
    noisy = PhotometricViews([A.GaussNoise((0.05, 0.05), per_channel=False, p=1)])
    assert changed_on(noisy, on_gpu) > 1


def changed_on(view: PhotometricViews, images: torch.Tensor) -> float:
    changes = view.sample(np.random.default_rng(0), len(images), SHAPE)
    generator = torch.Generator(images.device).manual_seed(0)
    return float((view.apply(images, changes, generator).float() - images.float()).std())
