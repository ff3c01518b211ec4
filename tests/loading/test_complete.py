"""A data set from which Ultralytics' reader has dropped an image is refused by the name of that image."""

from __future__ import annotations

from pathlib import Path

import pytest
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import YOLODataset

from dfssd.errors import UserError
from dfssd.loading.complete import check_complete
from dfssd.segmentation.dataset import MaskDataset
from tests.conftest import NAMES, write_images
from tests.segmentation.material import defects, write_mask


def boxes(root: Path) -> tuple[list[Path], list[Path]]:
    images = write_images(root, 4, seed=1)
    return images, [root / "labels" / f"{image.stem}.txt" for image in images]


def masks(root: Path) -> tuple[list[Path], list[Path]]:
    images = write_images(root, 4, seed=1)
    truth = [root / "masks" / f"{image.stem}.png" for image in images]
    for number, file in enumerate(truth):
        write_mask(file, defects(number, 64)[1])
    return images, truth


def read(images: list[Path], kind: type[YOLODataset]) -> YOLODataset:
    listing = images[0].parents[1] / "test.txt"
    listing.write_text("".join(f"{image}\n" for image in images), encoding="utf-8")
    names = dict(enumerate(NAMES if kind is YOLODataset else ("background", "a", "b", "c", "d", "e")))
    data = {"names": names, "channels": 3, "masks_dir": "masks", "nc": len(names)}
    task = "detect" if kind is YOLODataset else "semantic"
    return kind(img_path=str(listing), imgsz=64, augment=False, hyp=get_cfg(), data=data, task=task)


KINDS = {"boxes": (boxes, YOLODataset), "masks": (masks, MaskDataset)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", ["nothing", "image cut", "image gone", "labels broken"])
def test_dropped_image_is_named(tmp_path: Path, kind: str, lost: str) -> None:
    write, dataset = KINDS[kind]
    images, labels = write(tmp_path)
    if lost == "image cut":
        images[2].write_bytes(images[2].read_bytes()[:200])
    elif lost == "image gone":
        images[2].unlink()
    elif lost == "labels broken":
        labels[2].write_text("9 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    found = read(images, dataset)
    if lost == "nothing":
        check_complete(found)
        return
    assert len(found) == 3, "Ultralytics drops it"
    with pytest.raises(UserError, match=f"^1 image cannot be read, or not with the labels .*: {images[2]}; restore"):
        check_complete(found)
