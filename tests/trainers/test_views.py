"""Strong views: same geometry, other pixels, repeatable, and the teacher's view beside them in a batch."""

from __future__ import annotations

import random
from typing import cast

import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg

from dfssd.batches import IGNORED, TRUTH, HostBatch, LoadedBatch, decode
from dfssd.trainers.mixed_data import MixedDataset, PseudoLabelDataset
from dfssd.trainers.views import StrongView
from tests.batch_fields import check_fields
from tests.tiny_dataset import unlabeled_images


def picture() -> torch.Tensor:
    image = torch.full((3, 96, 128), 120, dtype=torch.uint8)
    image[:, 20:60, 30:90] = 230
    return image


@pytest.mark.parametrize("strength", [0, -1, 1.5])
def test_strength_out_of_range(strength: float) -> None:
    with pytest.raises(ValueError, match="must be in"):
        StrongView(strength)


def test_shape_type_and_input_stay() -> None:
    image = picture()
    for _ in range(10):
        out = StrongView(1.0)(image)
        assert out.shape == image.shape and out.dtype == torch.uint8
    assert torch.equal(image, picture())


def test_nothing_moves() -> None:
    """The bright block of every strong view lies where it lay: the edges are the strongest at the same rows."""
    view = StrongView(1.0)
    random.seed(0)
    mean = torch.stack([view(picture()).float() for _ in range(60)]).mean(0)[0]
    rows = mean[:, 40:80].mean(1).diff().abs()
    columns = mean[30:50].mean(0).diff().abs()
    assert sorted(rows.topk(2).indices.tolist()) == [19, 59]
    assert sorted(columns.topk(2).indices.tolist()) == [29, 89]


def test_stronger_means_more_change() -> None:
    def change(strength: float) -> float:
        random.seed(1)
        view = StrongView(strength)
        return float(np.mean([(view(picture()).float() - picture().float()).abs().mean() for _ in range(60)]))

    assert change(1.0) > 2 * change(0.3) > 0


def test_repeatable_from_the_seed_and_different_each_time() -> None:
    view = StrongView(1.0)
    random.seed(3)
    first, second = view(picture()), view(picture())
    random.seed(3)
    assert torch.equal(view(picture()), first) and not torch.equal(first, second)


def plain(squares, listing, strength: float) -> PseudoLabelDataset:
    images = sorted((squares.parent / "plain" / "images").glob("*.png"))
    return unlabeled_images(images, listing, strong_view=strength)


def test_batch_holds_the_weak_views_of_unlabeled_images_only(squares, tmp_path) -> None:
    from ultralytics.data.dataset import YOLODataset

    labeled = YOLODataset(
        img_path=str(squares.parent / "train" / "images"),
        imgsz=64,
        batch_size=4,
        augment=True,
        hyp=get_cfg(),
        data={"names": {0: "dark", 1: "bright"}, "channels": 3},
        task="detect",
    )
    mixed = MixedDataset(labeled, plain(squares, tmp_path / "list.txt", 1.0))
    random.seed(0)
    batch = mixed.collate_fn([mixed[0], mixed[8], mixed[1], mixed[9]])
    assert batch["labeled"].tolist() == [True, False, True, False]
    assert batch["img"].shape == (4, 3, 64, 64) and batch["weak_img"].shape == (2, 3, 64, 64)
    assert not torch.equal(batch["weak_img"][0], batch["img"][1])
    sizes = {"N": 4, "U": 2, "H": 64, "W": 64}
    assert check_fields(batch, LoadedBatch) == {**sizes, "R": len(batch["cls"])}
    ready, truth = decode(cast(LoadedBatch, {**batch, "img": batch["img"].float() / 255}), nc=2)
    assert check_fields(ready, HostBatch) == {
        **sizes,
        "M": len(ready["cls"]),
        "K": len(batch["cls"]) - len(ready["cls"]),
    }
    assert truth.shape == (0, 7) and (ready["ignore_source"] >= 0).all(), "nothing is known but the photos themselves"


def test_without_strength_there_is_one_view(squares, tmp_path) -> None:
    sample = plain(squares, tmp_path / "list.txt", 0.0)[0]
    assert "weak_img" not in sample and "img" in sample


def test_true_boxes_of_unlabeled_images_travel_past_the_classes(squares, tmp_path) -> None:
    images = sorted((squares.parent / "train" / "images").glob("*.png"))
    dataset = unlabeled_images(images, tmp_path / "list.txt", augment=False)
    ids = dataset[0]["cls"].flatten()
    assert sorted(ids[ids != 2 + IGNORED].tolist()) == [2 + TRUTH, 2 + TRUTH + 1]
    assert len(MixedDataset(dataset, None).labels[0]["cls"]) == 0, "nobody but the meter sees them"


def test_operations_are_chosen_independently() -> None:
    """At strength 0.5 one view in four is the image itself: (1 - 0.4)(1 - 0.2)(1 - 0.2)(1 - 0.15)(1 - 0.25)."""
    random.seed(0)
    view = StrongView(0.5)
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8))
    unchanged = np.mean([torch.equal(view(image), image) for _ in range(1000)])
    assert unchanged == pytest.approx(0.245, abs=0.05)
