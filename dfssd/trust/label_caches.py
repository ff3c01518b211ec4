"""What Ultralytics has read from label files stays in the memory of this process.

Ultralytics keeps it in ``labels/train.cache`` beside the user's labels, a pickle that it loads again before it looks at
anything in it: whoever may write there may run programs. Here no such file is read or written, and the trainings and
tests of a run still read the labels once.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

from ultralytics.data import dataset

MOST = 16
"""Lists of images whose labels are kept: those of a run are about five."""

_kept: OrderedDict[str, bytes] = OrderedDict()
"""By Ultralytics' hash of the paths, sizes, and times of all images and label files."""


def _load_or_scan(self: Any, cache_path: Path, cache_hash: str) -> tuple[dict[str, Any], bool]:
    """In place of Ultralytics' method: what was read from these files before, and whether it was."""
    if cache_hash in _kept:
        _kept.move_to_end(cache_hash)
        return pickle.loads(_kept[cache_hash]), True
    return self.cache_labels(cache_path), False


def _save(prefix: str, path: Path, x: dict[str, Any], version: str) -> None:
    """In place of ``save_dataset_cache_file``; a copy is kept, since the caller goes on with ``x``."""
    x["version"] = version
    _kept[x["hash"]] = pickle.dumps(x, pickle.HIGHEST_PROTOCOL)
    while len(_kept) > MOST:
        _kept.popitem(last=False)


def install() -> None:
    """Let Ultralytics keep labels here."""
    module: Any = dataset
    module.save_dataset_cache_file = _save
    module.YOLODataset._load_or_scan_cache = _load_or_scan
