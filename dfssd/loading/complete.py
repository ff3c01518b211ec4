"""Whether a data set of Ultralytics holds all images that it was asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfssd.datasets.data_state import Named
from dfssd.errors import UserError


def check_complete(dataset: Any) -> None:
    """Check that no image of the lists of a data set was dropped.

    Ultralytics' reader leaves out images that it cannot read, and those whose labels it refuses, with a line in its
    log. Numbers of images would then be wrong, and networks would be compared on different ones.

    Args:
        dataset: An Ultralytics data set, whose lists are ``.txt`` files; others pass.

    Raises:
        UserError: Images are missing; the message names the first ones.
    """
    lists = dataset.img_path if isinstance(dataset.img_path, list) else [dataset.img_path]
    read, dropped = set(map(str, dataset.im_files)), Named()
    for file in map(Path, lists):
        if file.suffix != ".txt":
            continue
        for image in filter(None, file.read_text(encoding="utf-8-sig").split("\n")):
            name = image if not image.startswith("./") else str(file.parent / image)
            if str(Path(name)) not in read and name not in read:
                dropped.add(image)
    if dropped.count:
        raise UserError(
            f"{dropped.amount('image')} cannot be read, or not with the labels that are there now: {dropped}; restore "
            "the data, or prepare it anew with skip_bad=true"
        )
