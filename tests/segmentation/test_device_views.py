"""Views of masks made for a whole batch against those that the data sets make one by one."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfssd.benchmark.operators import Operators, count_operators
from dfssd.loading.loader import NotOnDeviceError
from dfssd.loading.store import MACHINE, release_stores
from dfssd.segmentation.dataset import MaskDataset, MixedMaskDataset, UnlabeledDataset
from dfssd.segmentation.device_views import MaskViews
from dfssd.segmentation.symmetries import POSES
from tests.segmentation.material import mask_data
from tests.segmentation.test_dataset import dataset
from tests.segmentation.test_symmetries import posed

CPU = torch.device("cpu")
SIDE = 64


@pytest.fixture(autouse=True)
def no_store_stays():
    release_stores()
    yield
    release_stores()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that fill the square, wide ones, tall ones, and one that is larger; some pixels are ignored."""
    root = tmp_path_factory.mktemp("data")
    file = mask_data(root, side=SIDE, train=4, unlabeled=3)
    for i, box in {1: (0, 0, 64, 40), 2: (0, 0, 33, 64)}.items():
        for folder in ("images/train", "masks/train", "images/unlabeled"):
            path = root / folder / f"{i}.png"
            Image.open(path).crop(box).save(path)
    for folder, how in (("images", Image.Resampling.BILINEAR), ("masks", Image.Resampling.NEAREST)):
        path = root / folder / "train" / "3.png"
        Image.open(path).resize((100, 90), how).save(path)
    path = root / "masks/train/0.png"
    mask = np.array(Image.open(path))
    mask[:5, 20:40] = 255
    Image.fromarray(mask).save(path)
    return file


def mixed(file: Path, **data) -> MixedMaskDataset:
    return MixedMaskDataset(
        dataset(MaskDataset, file, "train", SIDE, **data), dataset(UnlabeledDataset, file, "unlabeled", SIDE, **data)
    )


class Chosen:
    """In the place of a random generator: given poses, and colors that change or do not."""

    def __init__(self, poses: np.ndarray, seed: int = 0):
        self.poses, self._rng = poses, np.random.default_rng(seed)

    def integers(self, high: int, size: int) -> np.ndarray:
        assert high == POSES and size == len(self.poses)
        return self.poses

    def __getattr__(self, name: str):
        return getattr(self._rng, name)


@pytest.mark.parametrize("pose", range(POSES))
def test_every_image_in_every_pose_is_that_of_the_data_set(file: Path, pose: int) -> None:
    """The data set's own view without a symmetry, turned by numpy."""
    data = mixed(file, jitter=0.0, boundary=True)
    plain = mixed(file, jitter=0.0, boundary=True, symmetries=False)
    images = np.arange(len(data))
    batch = data.device_views(None, CPU).batch(images, Chosen(np.full(len(images), pose)))
    samples = [plain[i] for i in images]
    assert set(batch) == {*samples[0], "labeled"} - {"ori_shape"}
    for i, sample in enumerate(samples):
        for key in ("semantic_mask", "kd_pixels"):
            assert np.array_equal(batch[key][i], posed(sample[key].numpy(), pose)), (i, key)
            assert batch[key].dtype == sample[key].dtype
        for c in range(3):
            assert np.array_equal(batch["img"][i, c], posed(sample["img"][c].numpy(), pose)), i
            found, expected = batch["boundary_maps"][i, c].numpy(), posed(sample["boundary_maps"][c].numpy(), pose)
            np.testing.assert_allclose(found, expected, atol=2e-5)
        assert batch["im_file"][i] == sample["im_file"] and bool(batch["labeled"][i]) == bool(sample["labeled"])
    assert batch["img"].dtype == torch.uint8 and batch["img"].is_contiguous()
    assert batch["boundary_maps"][:4].any() and not batch["boundary_maps"][4:].any()
    assert (batch["semantic_mask"][4:] == 255).all() and batch["kd_pixels"][4:].any()


def test_each_image_of_a_batch_has_a_pose_of_its_own_and_an_image_may_come_twice(file: Path) -> None:
    data, plain = mixed(file, jitter=0.0), mixed(file, jitter=0.0, symmetries=False)
    images, poses = np.array([2, 0, 2, 1, 6, 5]), np.array([7, 1, 0, 4, 2, 3])
    batch = data.device_views(None, CPU).batch(images, Chosen(poses))
    for i, pose, mask, image in zip(images, poses, batch["semantic_mask"], batch["img"], strict=True):
        assert np.array_equal(mask, posed(plain[i]["semantic_mask"].numpy(), pose))
        assert np.array_equal(image[1], posed(plain[i]["img"][1].numpy(), pose))
    assert "boundary_maps" not in batch


def test_poses_are_equally_frequent_and_colors_change_as_often_as_told(file: Path) -> None:
    data = mixed(file, jitter=0.3)
    views = data.device_views(None, CPU)
    upright = views.store.pixels[views.numbers[0], 1:-1, 1:-1, 3].numpy()
    by_pose = {posed(upright, pose).tobytes(): pose for pose in range(POSES)}
    assert len(by_pose) == POSES
    colors = mixed(file, jitter=0.0, symmetries=False)[0]["img"].numpy()
    counts, changed, n = np.zeros(POSES, int), 0, 0
    for seed in range(60):
        batch = views.batch(np.zeros(20, np.int64), np.random.default_rng(seed))
        for mask, image in zip(batch["semantic_mask"].numpy().astype(np.uint8), batch["img"].numpy(), strict=True):
            pose = by_pose[np.ascontiguousarray(mask).tobytes()]
            counts[pose] += 1
            changed += not np.array_equal(image, np.stack([posed(c, pose) for c in colors]))
            n += 1
    assert abs(counts - n / 8).max() < 4 * np.sqrt(n / 8)
    assert abs(changed / n - 0.3) < 4 * np.sqrt(0.3 * 0.7 / n)


def test_colors_are_distributed_as_in_the_views_of_the_data_set(file: Path) -> None:
    """Mean and spread of the mean gray over many views of one image."""
    data = mixed(file, jitter=1.0)
    random.seed(0)
    slow = np.array([data[0]["img"].float().mean() for _ in range(300)])
    views = data.device_views(None, CPU)
    fast = [
        views.batch(np.zeros(30, np.int64), np.random.default_rng(k))["img"].float().mean((1, 2, 3)) for k in range(10)
    ]
    found = torch.cat(fast).numpy()
    assert abs(found.mean() - slow.mean()) < 4 * slow.std() * np.sqrt(2 / 300)
    assert 0.85 < found.std() / slow.std() < 1.15


def test_the_student_sees_a_strong_view_and_the_teacher_the_same_pixels_without_it(file: Path) -> None:
    images = np.array([0, 3, 4, 5, 6])
    views = mixed(file, strong_view=1.0).device_views(None, CPU)
    batch = views.batch(images, np.random.default_rng(1))
    plain = mixed(file).device_views(None, CPU).batch(images, np.random.default_rng(1))
    assert torch.equal(batch["weak_img"], plain["img"][2:]) and "weak_img" not in plain
    assert torch.equal(batch["img"][:2], plain["img"][:2])
    assert (batch["img"][2:] != batch["weak_img"]).flatten(1).any(1).sum() >= 2
    assert "weak_img" not in views.batch(np.array([0, 1]), np.random.default_rng(1))


def test_a_batch_follows_from_its_random_numbers(file: Path) -> None:
    views = mixed(file).device_views(None, CPU)
    first, second, other = (views.batch(np.arange(7), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first["img"], second["img"]) and not torch.equal(first["img"], other["img"])


def test_operators_do_not_grow_with_the_batch_and_none_waits(file: Path) -> None:
    views = mixed(file, jitter=0.0, boundary=True).device_views(None, CPU)

    def count(*images: int) -> Operators:
        return count_operators(lambda: views.batch(np.array(images), np.random.default_rng(0)))

    small, large = count(0, 5), count(0, 1, 2, 3, 0, 1, 5, 6, 4)
    assert small.launched == large.launched <= 20 and small.waits == large.waits == 0


def test_masks_that_change_are_read_again(file: Path) -> None:
    data = mixed(file, jitter=0.0, symmetries=False, boundary=True)
    path = Path(data.datasets[0].id_files[0])
    before = path.read_bytes()
    numbers = np.zeros(1, np.int64)
    first = data.device_views(None, CPU).batch(numbers, Chosen(numbers))
    try:
        Image.fromarray(np.full((SIDE, SIDE), 3, np.uint8)).save(path)
        second = data.device_views(None, CPU).batch(numbers, Chosen(numbers))
    finally:
        path.write_bytes(before)
    assert (second["semantic_mask"] == 3).all() and not (first["semantic_mask"] == 3).all()
    assert first["boundary_maps"].any() and not second["boundary_maps"].any()


def test_a_later_training_finds_images_and_maps(file: Path, monkeypatch) -> None:
    alone = MaskViews(mixed(file, boundary=True).datasets[:1], CPU)
    monkeypatch.setattr("dfssd.segmentation.device_views.store_maps", None)
    student = mixed(file, boundary=True).device_views(None, CPU)
    assert student.maps is not None and alone.maps is not None
    assert student.maps.values.data_ptr() == alone.maps.values.data_ptr()
    assert not student.maps.rows[4:].any() and student.maps.rows[:4].any()


def test_maps_that_do_not_fit_leave_the_views_to_processes(file: Path) -> None:
    images = 7 * (SIDE + 2) ** 2 * 4
    memory = replace(MACHINE, free=lambda device: 2 * images)
    parts = mixed(file, boundary=True).datasets
    with pytest.raises(NotOnDeviceError, match=r"distance maps take 0\.0 GiB"):
        MaskViews(parts, CPU, memory=memory)
    MaskViews(mixed(file).datasets, CPU, memory=memory)

    def full(size: int, device: torch.device) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(NotOnDeviceError, match="distance maps take"):
        MaskViews(parts, CPU, memory=replace(MACHINE, there=full))  # the images are there already
    with pytest.raises(NotOnDeviceError, match="images of 64 px"):
        release_stores()
        MaskViews(parts, CPU, memory=replace(MACHINE, free=lambda device: 10))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("free", [1 << 60, 0])
def test_views_on_a_gpu_are_those_on_the_cpu(file: Path, free: int) -> None:
    """From images on the GPU, and from images beside it."""
    gpu = torch.device("cuda", 0)
    memory = replace(MACHINE, free=lambda device: free if device == gpu else 1 << 60)
    data = mixed(file, jitter=0.5, boundary=free > 0)
    images = np.arange(7)
    expected = data.device_views(None, CPU).batch(images, np.random.default_rng(0))
    found = MaskViews(data.datasets, gpu, memory=memory).batch(images, np.random.default_rng(0))
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[key].is_cuda and found[key].dtype == value.dtype
            torch.testing.assert_close(found[key].cpu(), value, rtol=0, atol=1 if key == "img" else 0)
