"""A small :class:`PseudoLabelDataset` over given images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ultralytics.cfg import get_cfg

from dfssd.trainers.mixed_data import PseudoLabelDataset


def unlabeled_images(
    images: Sequence[Path],
    listing: Path,
    *,
    names: Sequence[str] = ("dark", "bright"),
    imgsz: int = 64,
    augment: bool = True,
    hyp: dict[str, float] | None = None,
    **data: Any,
) -> PseudoLabelDataset:
    """``images``, whose names are written to the file ``listing``, as the stage reads them; ``data`` is added to its
    data dictionary (``pseudo``, ``strong_view``)."""
    listing.write_text("\n".join(map(str, images)), encoding="utf-8")
    return PseudoLabelDataset(
        img_path=str(listing),
        imgsz=imgsz,
        batch_size=4,
        augment=augment,
        hyp=get_cfg(overrides=hyp or {}),
        data={"names": dict(enumerate(names)), "channels": 3, "strong_view": 0.0, **data},
        task="detect",
    )
