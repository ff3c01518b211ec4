"""Write and draw the distance maps of the boundary loss: ``python scripts/boundary.py data=NEU-Seg.zip out=boundary``.

For each image with a mask, ``out/<part>/<stem>.npy``: float32, (classes without the background, height, width), signed
distances to the border of each class [px], below 0 inside; beside some of them a picture. A table sums them up.

Arguments:
  data=         images with masks: a folder, a .zip, a data set YAML, a card of data/, or demo
  out=boundary  folder to write to: a new or empty one, or that of an earlier call, whose files are overwritten
  limit=8       8 images, evenly from the list; default: all
  pictures=8    number of pictures
  names=, skip_bad=, data_dir= as for train.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfssd import log
from dfssd.config import KEYS, defaults, nearest, parse_arguments
from dfssd.errors import UserError, report_problems
from dfssd.process import prepare_process
from dfssd.wording import counted

DEFAULTS: dict[str, Any] = {
    "data": None,
    "out": "boundary",
    "limit": None,
    "pictures": 8,
    "names": None,
    **{key: value for key, value in defaults().items() if key in {"skip_bad", "data_dir"}},
}


def settings(argv: Sequence[str]) -> dict[str, Any]:
    """All arguments, checked."""
    given = parse_arguments(list(argv))
    for key in given:
        if key not in DEFAULTS:
            raise UserError(f"unknown key '{key}'{nearest(key, DEFAULTS)}")
    own = {**DEFAULTS, **given}
    own["out"] = str(own["out"])
    for key, value in own.items():
        if problem := KEYS[key].check.problem(value) if key in KEYS else None:
            raise UserError(f"{key}={value} {problem}")
    if own["data"] is None:
        raise UserError("data is missing: data=NEU-Seg.zip, a data set YAML, a folder, a card of data/, or demo")
    if type(own["pictures"]) is not int or own["pictures"] < 0:
        raise UserError(f"pictures={own['pictures']} must be a whole number >= 0")
    return own


@log.console()
def main(argv: Sequence[str]) -> int:
    """The command ``scripts/boundary.py``; returns its exit code."""
    prepare_process()
    try:
        if {"-h", "--help", "help"} & set(argv):
            print(__doc__)
            return 0
        own = settings(argv)
        from dfssd.datasets.masks.loading import load_masks
        from dfssd.reporting.tables import format_number, format_share, markdown_table
        from dfssd.segmentation.inspection import write_distances

        names = [own["names"]] if isinstance(own["names"], str) else own["names"]
        dataset = load_masks(own["data"], Path(own["data_dir"]), names=names, skip_bad=own["skip_bad"])
        for warning in dataset.account.warnings:
            log.LOGGER.warning(warning)
        out = Path(own["out"])
        count, classes = write_distances(dataset, out, limit=own["limit"], pictures=own["pictures"])
        rows = [
            [c.name, c.images, format_number(c.least, 1), format_number(c.greatest, 1), format_share(c.empty)]
            for c in classes
        ]
        print("\n".join(markdown_table(["class", "images", "least [px]", "greatest [px]", "empty maps"], rows)))
        print(f"{counted(count, 'image')} of {dataset.name}, {min(count, own['pictures'])} with a picture: {out}")
    except UserError as e:
        return report_problems(e)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0
