"""Training samples with and without masks, and the batches made of them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from ultralytics.cfg import get_cfg

from dfssd.datasets.copies.grain import poses
from dfssd.segmentation.boundary import distance_maps
from dfssd.segmentation.dataset import MaskDataset, MixedMaskDataset, UnlabeledDataset
from dfssd.trainers.mixed_data import build_mixed_loader
from dfssd.trainers.sampler import MixedSampler
from tests.configured import DEFAULTS
from tests.segmentation.material import mask_data


def dataset(kind: type, file: Path, part: str, imgsz: int = 64, *, augment: bool = True, **data):
    views = {"symmetries": DEFAULTS.seg.symmetries, "jitter": DEFAULTS.seg.jitter}
    content = {**yaml.safe_load(file.read_text()), **views, **data, "channels": 3}
    path = str(file.parent / f"{part}.txt")
    options = {"batch_size": 2, "stride": 8, "pad": 0.0, "rect": not augment, "hyp": get_cfg()}
    return kind(img_path=path, imgsz=imgsz, augment=augment, data=content, task="semantic", **options)


def test_image_mask_and_maps_of_a_sample_belong_together(tmp_path: Path) -> None:
    data = dataset(MaskDataset, mask_data(tmp_path), "train", jitter=0.0, boundary=True)
    image = np.asarray(Image.open(data.im_files[1]))
    mask = np.asarray(Image.open(data.mask_files[1]))
    maps, seen = distance_maps(mask, 4), set()
    random.seed(1)
    for _ in range(30):
        sample = data[1]
        k = next(k for k, m in enumerate(poses(mask)) if np.array_equal(m, sample["semantic_mask"]))
        seen.add(k)
        for c in range(3):
            assert np.array_equal(sample["img"][c], poses(image[..., c])[k])
            assert np.allclose(sample["boundary_maps"][c], poses(maps[c])[k], atol=1e-3)
    assert len(seen) > 4 and sample["boundary_maps"].dtype == torch.float32 and sample["kd_pixels"].all()


@pytest.mark.parametrize("most", [0, 64 * 64 * 4 * 3, 1 << 28])
def test_maps_are_computed_once_where_they_fit(tmp_path: Path, monkeypatch, most: int) -> None:
    """The first image's three maps fit, those of the others do not, or all do."""
    monkeypatch.setattr("dfssd.segmentation.dataset.MOST_MAPS", most)
    computed: list[int] = []

    def compute(mask: np.ndarray, nc: int) -> np.ndarray:
        computed.append(1)
        return distance_maps(mask, nc)

    monkeypatch.setattr("dfssd.segmentation.dataset.distance_maps", compute)
    data = dataset(MaskDataset, mask_data(tmp_path, train=3), "train", jitter=0.0, boundary=True)
    for _ in range(2):
        for i in range(3):
            sample = data[i]
            expected = distance_maps(sample["semantic_mask"].numpy(), 4)
            assert len({row for row in range(3) if expected[row].any()}) == 3
            np.testing.assert_allclose(sample["boundary_maps"], expected, atol=2e-5)
    assert len(computed) == {0: 6, 64 * 64 * 4 * 3: 1 + 2 * 2, 1 << 28: 3}[most]


def test_maps_of_a_mask_that_lacks_classes_and_fills_no_square(tmp_path: Path) -> None:
    file = mask_data(tmp_path, train=1)
    Image.open(tmp_path / "images/train/0.png").crop((0, 0, 64, 40)).save(tmp_path / "images/train/0.png")
    mask = np.zeros((40, 64), np.uint8)
    mask[5:30, 7:20] = 2
    mask[:4, 30:] = 255
    Image.fromarray(mask).save(tmp_path / "masks/train/0.png")
    data = dataset(MaskDataset, file, "train", boundary=True)
    for _ in range(12):
        sample = data[0]
        found, expected = sample["boundary_maps"].numpy(), distance_maps(sample["semantic_mask"].numpy(), 4)
        np.testing.assert_allclose(found, expected, atol=2e-5)
        assert found[1].any() and not found[[0, 2]].any()


def test_maps_are_computed_on_request_only(tmp_path: Path) -> None:
    assert "boundary_maps" not in dataset(MaskDataset, mask_data(tmp_path), "train")[0]


def test_size_of_an_image_that_no_32_divides(tmp_path: Path) -> None:
    file = mask_data(tmp_path, side=40)
    assert dataset(MaskDataset, file, "train", 40)[0]["img"].shape == (3, 40, 40)
    sample = dataset(MaskDataset, file, "val", 40, augment=False)[0]
    assert sample["img"].shape == (3, 40, 40) and sample["semantic_mask"].shape == (40, 40)


def test_long_side_is_scaled_and_the_rest_ignored(tmp_path: Path) -> None:
    file = mask_data(tmp_path, train=1)
    image, mask = tmp_path / "images/train/0.png", tmp_path / "masks/train/0.png"
    for path in (image, mask):
        Image.open(path).crop((0, 0, 64, 32)).save(path)
    sample = dataset(MaskDataset, file, "train", 32)[0]
    assert sample["img"].shape == (3, 32, 32)
    assert int((sample["semantic_mask"] == 255).sum()) == 32 * 16
    assert torch.equal(sample["kd_pixels"], sample["semantic_mask"] != 255)


def test_ignored_pixels_of_a_mask_are_not_distilled_but_unlabeled_images_are(tmp_path: Path) -> None:
    file = mask_data(tmp_path)
    path = tmp_path / "masks/train/0.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[:8] = 255
    Image.fromarray(mask).save(path)
    assert int((~dataset(MaskDataset, file, "train")[0]["kd_pixels"]).sum()) == 8 * 64
    sample = dataset(UnlabeledDataset, file, "unlabeled", boundary=True)[0]
    assert (sample["semantic_mask"] == 255).all() and sample["kd_pixels"].all()
    assert not sample["boundary_maps"].any()
    Image.open(tmp_path / "images/unlabeled/0.png").crop((0, 0, 64, 40)).save(tmp_path / "images/unlabeled/0.png")
    assert int(dataset(UnlabeledDataset, file, "unlabeled")[0]["kd_pixels"].sum()) == 40 * 64


def test_strong_view_is_for_unlabeled_images_and_moves_nothing(tmp_path: Path) -> None:
    file, plain = mask_data(tmp_path), {"jitter": 0.0, "symmetries": False}
    assert "weak_img" not in dataset(MaskDataset, file, "train", strong_view=1.0, **plain)[0]
    assert "weak_img" not in dataset(UnlabeledDataset, file, "unlabeled", strong_view=0.0, **plain)[0]
    data = dataset(UnlabeledDataset, file, "unlabeled", strong_view=1.0, **plain)
    image = torch.from_numpy(np.asarray(Image.open(data.im_files[1])).transpose(2, 0, 1).copy())
    random.seed(0)
    samples = [data[1] for _ in range(8)]
    assert all(torch.equal(sample["weak_img"], image) and sample["kd_pixels"].all() for sample in samples)
    changed = [float((sample["img"] != image).float().mean()) for sample in samples]
    assert max(changed) > 0.5 and len(set(changed)) > 4
    assert all(sample["img"].dtype == torch.uint8 and sample["img"].shape == image.shape for sample in samples)


def test_batch_holds_weak_views_of_its_unlabeled_images_alone(tmp_path: Path) -> None:
    file = mask_data(tmp_path)
    mixed = MixedMaskDataset(
        dataset(MaskDataset, file, "train", strong_view=1.0),
        dataset(UnlabeledDataset, file, "unlabeled", strong_view=1.0),
    )
    batch = mixed.collate_fn([mixed[i] for i in (0, 4, 5)])
    assert batch["weak_img"].shape == (2, 3, 64, 64) and batch["img"].shape == (3, 3, 64, 64)
    assert len(batch["im_file"]) == 3 and batch["labeled"].tolist() == [True, False, False]
    assert "weak_img" not in mixed.collate_fn([mixed[i] for i in (0, 1)])


@pytest.mark.train
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.train)])
def test_batches_mix_both_kinds(tmp_path: Path, workers: int) -> None:
    file = mask_data(tmp_path)
    mixed = MixedMaskDataset(
        dataset(MaskDataset, file, "train", boundary=True), dataset(UnlabeledDataset, file, "unlabeled", boundary=True)
    )
    sampler = MixedSampler(4, 3, labeled_per_batch=2, unlabeled_per_batch=1, batches=2)
    loader = build_mixed_loader(mixed, sampler, batch=3, workers=workers, pin_memory=False)
    batches = list(loader)
    assert len(batches) == 2
    for batch in batches:
        assert batch["labeled"].tolist() == [True, True, False]
        assert batch["img"].shape == (3, 3, 64, 64) and batch["img"].dtype == torch.uint8
        assert batch["boundary_maps"].shape == (3, 3, 64, 64) and len(batch["im_file"]) == 3
        assert (batch["semantic_mask"][2] == 255).all() and batch["kd_pixels"].all()
    loader.close()
