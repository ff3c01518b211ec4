"""Validation counts where the predictions are, and decodes a mask once."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfssd.benchmark.operators import count_operators
from dfssd.datasets.records import IGNORE
from dfssd.segmentation import validator
from dfssd.segmentation.metrics import confusion_matrix
from dfssd.segmentation.validator import MaskMetrics, MaskValidator, native_classes, pair_counts, true_mask
from dfssd.trainers.validation_data import forget

CPU = torch.device("cpu")


def some_ids(nc: int, n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(nc)
    truth, found = (torch.randint(0, nc, (n, 30, 17), generator=generator) for _ in range(2))
    truth[torch.rand(truth.shape, generator=generator) < 0.2] = IGNORE
    return truth.to(torch.uint8), found


@pytest.mark.parametrize("nc", [2, 4, 255])
@pytest.mark.parametrize("most", [1, 1 << 26])
def test_products_count_as_counting_does_and_make_nobody_wait(nc: int, most: int, monkeypatch) -> None:
    monkeypatch.setattr(validator, "MOST_ONE_HOT", most)
    truth, found = some_ids(nc)
    expected = confusion_matrix(truth.numpy(), found.numpy(), nc)
    assert np.array_equal(pair_counts(truth, found, nc).numpy(), expected)
    counted = []
    operators = count_operators(lambda: counted.append(validator._by_products(truth, found, nc)))
    assert np.array_equal(counted[0].numpy(), expected) and counted[0].dtype == torch.int64
    assert operators.waits == 0


def test_half_precision_around_does_not_round_the_counts() -> None:
    truth = torch.zeros(1, 300, 300, dtype=torch.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        assert validator._by_products(truth, truth, 2).tolist() == [[90_000, 0], [0, 0]]


def test_images_of_one_shape_are_scaled_together_as_alone() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 64, 64)
    letterbox = ((1.6, 1.6), (0.0, 12.0))
    for output in (logits, logits.argmax(1)):
        together = native_classes(output, (25, 40), letterbox)
        for one, ids in zip(output, together, strict=True):
            assert torch.equal(native_classes(one[None], (25, 40), letterbox)[0], ids)
    assert torch.equal(native_classes(logits, (64, 64), ((1.0, 1.0), (0.0, 0.0))), logits.argmax(1))


def test_a_mask_is_read_once_and_again_when_its_file_changes(tmp_path: Path, monkeypatch) -> None:
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        Image.fromarray(np.full((4, 5), i, np.uint8)).save(file)
    reads: list[str] = []

    def read(file: Path) -> np.ndarray:
        reads.append(file.name)
        return np.array(Image.open(file))

    forget()
    monkeypatch.setattr(validator, "MOST_KEPT", 2 * 20)

    def get(i: int) -> torch.Tensor:
        return true_mask(str(files[i]), partial(read, files[i]), CPU)

    for i in (0, 1, 0, 1):
        assert (get(i) == i).all()
    assert reads == ["0.png", "1.png"]
    for _ in range(2):
        assert (get(2) == 2).all()
    assert reads[2:] == ["2.png", "2.png"], "there is no room for a third one"
    forget()
    get(2)
    get(2)
    assert reads[4:] == ["2.png"]
    Image.fromarray(np.full((4, 5), 9, np.uint8)).save(files[2])
    os.utime(files[2], ns=(1, 1))
    assert (get(2) == 9).all()
    forget()


class Data:
    """The part of a dataset that a validation needs: masks of two shapes."""

    def __init__(self, folder: Path):
        rng = np.random.default_rng(0)
        self.masks = [rng.integers(0, 4, shape).astype(np.uint8) for shape in [(32, 32), (32, 32), (16, 32), (32, 32)]]
        self.im_files = [f"{i}.jpg" for i in range(len(self.masks))]
        self.labels = [{"mask_file": str(folder / f"{i}.png")} for i in range(len(self.masks))]
        for mask, label in zip(self.masks, self.labels, strict=True):
            mask[0, :3] = IGNORE
            Image.fromarray(mask).save(label["mask_file"])

    def load_mask(self, number: int) -> np.ndarray:
        return np.array(Image.open(self.labels[number]["mask_file"]))


def test_a_batch_of_several_shapes_counts_as_its_images_one_by_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = Data(tmp_path)
    watch = MaskValidator.__new__(MaskValidator)
    watch.dataset, watch.device, watch.nc, watch.seen = data, CPU, 4, 0
    watch.metrics = MaskMetrics(dict(enumerate("abcd")))
    watch._index = {file: i for i, file in enumerate(data.im_files)}
    watch._output = torch.randn(4, 4, 32, 32)
    order = [2, 0, 1, 3]
    boxed = [((1.0, 1.0), (0.0, 8.0 if i == 2 else 0.0)) for i in order]
    batch = {"img": torch.zeros(4, 3, 32, 32), "im_file": [data.im_files[i] for i in order], "ratio_pad": boxed}
    watch.update_metrics(torch.zeros(0), batch)
    expected = np.zeros((4, 4), int)
    for i, one, ratio_pad in zip(order, watch._output, boxed, strict=True):
        found = native_classes(one[None], data.masks[i].shape, ratio_pad)[0]
        expected += confusion_matrix(data.masks[i], found.numpy(), 4)
    assert np.array_equal(watch.metrics.matrix.numpy(), expected) and expected.sum() == 3 * 1024 + 512 - 4 * 3
    assert watch.seen == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_counts_as_the_cpu_does() -> None:
    truth, found = some_ids(4)
    counted = pair_counts(truth.cuda(), found.cuda(), 4)
    assert counted.is_cuda and torch.equal(counted.cpu(), pair_counts(truth, found, 4))
