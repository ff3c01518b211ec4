"""``review import``: the reviewed labels and those of a run, or of a data set, become the data set of the next run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dfssd.config import KEYS
from dfssd.datasets.images.facts import probe_files, store_in
from dfssd.datasets.images.pixels import ImageFacts
from dfssd.datasets.importing import as_list
from dfssd.datasets.records import DetectionSet, check_names
from dfssd.detection.data import read_data
from dfssd.errors import UserError
from dfssd.review.folders import check_free
from dfssd.review.incoming import read_incoming
from dfssd.review.merging import Merged, check_outcomes, merge, write_data_set
from dfssd.review.offered import Reviewed, compare_with_offered
from dfssd.review.run import ReviewedRun, is_run
from dfssd.runs.key_names import configure_data
from dfssd.trust.limits import limits


@dataclass(frozen=True)
class Imported:
    """What was written.

    Attributes:
        file: The data set YAML.
        merged: The data set and the account.
        notes: What was taken in a certain way.
        unconfirmed: Boxes of YOLO that still had the score of a prediction.
        compared: What has become of the boxes that were offered.
        keys: Keys of the run that a next one needs, too, ``data`` first.
    """

    file: Path
    merged: Merged
    notes: tuple[str, ...]
    unconfirmed: int
    compared: Reviewed
    keys: Mapping[str, Any]


def import_review(
    sources: Sequence[str],
    data: str,
    out: Path,
    *,
    unlabeled: str | Sequence[str] | None = None,
    names: str | Sequence[str] | None = None,
    first: int | None = None,
    overwrite: bool = False,
    skip_bad: bool,
) -> Imported:
    """Write a data set with the labels of a review.

    Args:
        sources: What the annotation tool has exported: files, folders, or zip files.
        data: A run folder, whose images, labels, and division into train, val, and test are kept; or what a run takes
            as ``data=``.
        out: Folder to make; must not exist, or be empty.
        unlabeled: Additional unlabeled images, as for a run; not with a run, which knows its own.
        names: Class names in id order; with a run those of the run, and new ones behind them.
        first: The number of images that were reviewed, if those behind them in the order of the export were not.
        overwrite: New labels replace others that an image has already.
        skip_bad: Leave out annotations that cannot be used instead of stopping.

    Raises:
        UserError: Something cannot be read or used, or there is nothing new in it; nothing is written then.
    """
    check_free(out)
    incoming = read_incoming([Path(source) for source in sources])
    run = ReviewedRun.open(Path(data)) if is_run(Path(data).expanduser()) else None
    dataset, data_dir = _run_data(run, unlabeled, names) if run else _source_data(data, unlabeled, names)

    def facts(images: Sequence[Path]) -> Mapping[Path, ImageFacts | str]:
        return dict(zip(images, probe_files(store_in(data_dir), images), strict=True))

    left_out = run.left_out if run else ()
    merged = merge(dataset, incoming, facts, left_out=left_out, first=first, overwrite=overwrite)
    check_outcomes(merged, skip_bad=skip_bad)
    compared = compare_with_offered(run.folder if run else None, merged.reviewed, _sizes(facts, merged.reviewed))
    file = write_data_set(merged, out)
    keys = {"data": str(file), **(kept_keys(run) if run else {})}
    return Imported(file, merged, tuple(incoming.notes), incoming.unconfirmed, compared, keys)


def _run_data(
    run: ReviewedRun, unlabeled: str | Sequence[str] | None, names: str | Sequence[str] | None
) -> tuple[DetectionSet, Path]:
    if unlabeled is not None:
        raise UserError(f"unlabeled={unlabeled}: the run {run.folder} knows its unlabeled images; leave it out")
    dataset = run.data_set()
    if names is not None:
        wanted = check_names(as_list(names), "names=")
        if wanted[: len(dataset.names)] != dataset.names:
            raise UserError(f"names=: those of the run come first ({', '.join(dataset.names)}); add new ones behind")
        dataset = replace(dataset, names=wanted)
    return dataset, run.data_dir


def _source_data(
    data: str, unlabeled: str | Sequence[str] | None, names: str | Sequence[str] | None
) -> tuple[DetectionSet, Path]:
    most = {f"limits.{name}": value for name, value in asdict(limits()).items()}  # those of this command
    given = {"data": data, "unlabeled": unlabeled, "names": names, **most}
    config = configure_data({key: value for key, value in given.items() if value is not None})
    return read_data(config), Path(config["data_dir"]).resolve()


def kept_keys(run: ReviewedRun) -> dict[str, Any]:
    """What the user typed for the run, without what chose its data, its folder, and the baseline of another run."""
    given = dict(run.config.given)
    for name in list(given):
        key = KEYS.get(name)
        if key is not None and (key.selects or (key.set_by_grid and not isinstance(given[name], bool))):
            del given[name]
    return {key: value for key, value in given.items() if value is not None}


def _sizes(
    facts: Callable[[Sequence[Path]], Mapping[Path, ImageFacts | str]], images: Collection[Path]
) -> dict[Path, tuple[int, int]]:
    """Width and height of readable images [px]."""
    found = facts(list(images))
    return {image: (own.width, own.height) for image, own in found.items() if not isinstance(own, str)}
