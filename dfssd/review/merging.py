"""A data set with the labels of a review: what becomes of each annotation, and the folder that is written."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dfssd.datasets.annotations import Annotation
from dfssd.datasets.geometry import rows, same_boxes
from dfssd.datasets.images.files import safe_names
from dfssd.datasets.images.pixels import ImageFacts
from dfssd.datasets.label_files import format_labels
from dfssd.datasets.records import DetectionSet, Item
from dfssd.errors import UserError
from dfssd.files import link_or_copy, write_text, write_yaml
from dfssd.review import ACCOUNT
from dfssd.review.folders import new_folder
from dfssd.review.incoming import Incoming
from dfssd.review.names import ReviewNames
from dfssd.trust.texts import in_table
from dfssd.wording import counted

LABELED, DEFECT_FREE, REPLACED = "labeled", "defect-free", "replaced"
ALIKE, KEPT, LATER, LEFT_OUT = "labeled alike", "kept", "later", "left out"
"""What becomes of an annotation: new labels, none on purpose, new labels for old ones; no change, since the image had
these labels, or had others; not reviewed yet (``first=``); left out with a reason."""


@dataclass(frozen=True)
class Outcome:
    """What became of an annotation.

    Attributes:
        where: File and place.
        image: Its image; None if it was not found.
        what: :data:`LABELED` and the like.
        boxes: Number of boxes of the annotation; None if they cannot be used.
        reason: Why, where that is not plain.
    """

    where: str
    image: Path | None
    what: str
    boxes: int | None = None
    reason: str = ""


@dataclass
class Merged:
    """A data set with reviewed labels.

    Attributes:
        dataset: Its images, those that were reviewed with their new labels.
        outcomes: What became of each annotation.
        reviewed: Images with new labels: (n, 5) rows.
    """

    dataset: DetectionSet
    outcomes: list[Outcome] = field(default_factory=list)
    reviewed: dict[Path, np.ndarray] = field(default_factory=dict)

    @property
    def labeled(self) -> dict[str, list[Item]]:
        """The images with labels by part: train, val, test."""
        found: dict[str, list[Item]] = {part: [] for part in ("train", "val", "test")}
        for item in self.dataset.items:
            if _labels_before(item) is not None:
                found[item.split or "train"].append(item)
        return {part: items for part, items in found.items() if items}

    @property
    def unlabeled(self) -> list[Path]:
        """The other images that a run can use; in a given val or test part, images without labels serve for nothing."""
        others = (item for item in self.dataset.items if _labels_before(item) is None)
        return [item.image for item in others if item.split not in ("val", "test")]

    @property
    def parts(self) -> dict[str, int]:
        """Number of images by part, the unlabeled ones last."""
        return {part: len(items) for part, items in self.labeled.items()} | {"unlabeled": len(self.unlabeled)}

    @property
    def counts(self) -> Counter[str]:
        """Number of annotations by what became of them."""
        return Counter(outcome.what for outcome in self.outcomes)


Sizes = Callable[[Sequence[Path]], Mapping[Path, ImageFacts | str]]
"""Facts of images as training reads them, or why one cannot be used."""


def merge(
    dataset: DetectionSet,
    incoming: Incoming,
    facts: Sizes,
    *,
    left_out: Sequence[Path] = (),
    first: int | None = None,
    overwrite: bool = False,
) -> Merged:
    """Give the images of a data set the labels of a review.

    Args:
        dataset: The data set; unlabeled images may have known boxes, which are hidden and do not count.
        incoming: The annotations; several of one image count once if they hold the same boxes.
        facts: Sizes of images.
        left_out: Images that a run has left out, for the message.
        first: Annotations whose name states a place in the review beyond this one are not reviewed yet.
        overwrite: New labels replace others that an image has already; else these are kept.

    Returns:
        The data set and the account. What cannot be used is :data:`LEFT_OUT`.
    """
    names, others = ReviewNames([item.image for item in dataset.items]), ReviewNames(left_out)
    merged = Merged(dataset)
    merged.outcomes += [Outcome(where, None, LEFT_OUT, reason=reason) for where, reason in incoming.problems]
    of_image: dict[Path, list[Annotation]] = defaultdict(list)
    for own in incoming.annotations:
        found = names.find(own.image or "")
        if first is not None and found.rank is not None and found.rank > first:
            merged.outcomes.append(Outcome(own.where, None, LATER))
        elif len(found.images) == 1:
            of_image[found.images[0]].append(own)
        else:
            merged.outcomes.append(Outcome(own.where, None, LEFT_OUT, reason=_not_found(own, found.images, others)))
    sizes = facts(list(of_image))
    by_path = {item.image: item for item in dataset.items}
    items = dict(by_path)
    for image, said in of_image.items():
        outcome = _settle(by_path[image], said, sizes[image], dataset.names, merged.reviewed, overwrite)
        merged.outcomes.append(outcome)
        if image in merged.reviewed:
            split = by_path[image].split
            items[image] = replace(
                by_path[image], boxes=merged.reviewed[image], split="train" if split == "unlabeled" else split
            )
    merged.dataset = DetectionSet(dataset.name, dataset.names, tuple(items.values()))
    return merged


def _not_found(own: Annotation, images: Sequence[Path], others: ReviewNames) -> str:
    if images:
        return f"'{own.image}' may be {' or '.join(map(str, images))}; rename one of them"
    if len(found := others.find(own.image or "").images) == 1:
        return f"{found[0]} is not used by the run: a copy of a labeled image, or of one in val or test"
    return f"there is no image '{own.image}' in the data; pass the run or the data that it comes from"


def _settle(
    item: Item,
    said: Sequence[Annotation],
    facts: ImageFacts | str,
    names: Sequence[str],
    reviewed: dict[Path, np.ndarray],
    overwrite: bool,
) -> Outcome:
    """Decide what becomes of all that is said about one image; new labels are added to ``reviewed``."""
    own = said[0]
    if isinstance(facts, str):
        return Outcome(own.where, item.image, LEFT_OUT, reason=facts)
    size = facts.width, facts.height
    parts = []
    for annotation in said:
        try:
            parts.append(rows(annotation, size, names, resize=False))
        except ValueError as e:
            return Outcome(annotation.where, item.image, LEFT_OUT, reason=str(e))
    boxes = parts[0]
    for annotation, part in zip(said, parts, strict=True):
        if not same_boxes(boxes, part, size):
            reason = f"{annotation.where} has other boxes; keep one of them"
            return Outcome(own.where, item.image, LEFT_OUT, len(boxes), reason)
    before = _labels_before(item)
    if before is not None:
        if same_boxes(boxes, before, size):
            return Outcome(own.where, item.image, ALIKE, len(boxes))
        if not overwrite:
            reason = f"the image is labeled already ({item.split or 'train'}, {counted(len(before), 'box')})"
            return Outcome(own.where, item.image, KEPT, len(boxes), reason)
    reviewed[item.image] = boxes
    if before is not None:
        return Outcome(own.where, item.image, REPLACED, len(boxes), f"{counted(len(before), 'box')} before")
    return Outcome(own.where, item.image, LABELED if len(boxes) else DEFECT_FREE, len(boxes))


def _labels_before(item: Item) -> np.ndarray | None:
    """The labels that count so far; those of images in the split "unlabeled" are hidden."""
    return None if item.split == "unlabeled" else item.boxes


def write_data_set(merged: Merged, out: Path) -> Path:
    """Write the labeled images with their labels as a YOLO data set, and a list of the unlabeled ones.

    Images are linked where the file system allows it, else copied; unlabeled ones stay where they are.

    Args:
        merged: The data set.
        out: Folder to make; must not exist, or be empty.

    Returns:
        The data set YAML, for ``data=``.

    Raises:
        UserError: The folder cannot be written, or holds something.
    """
    with new_folder(out) as folder:
        entries: dict[str, object] = {}
        for part, items in merged.labeled.items():
            images, labels = (folder / kind / part for kind in ("images", "labels"))
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for item, name in zip(items, safe_names([item.image for item in items]), strict=True):
                assert item.boxes is not None
                link_or_copy(item.image, images / name)
                (labels / f"{Path(name).stem}.txt").write_bytes(format_labels(item.boxes).encode())
            entries[part] = f"images/{part}"
        if merged.unlabeled:
            write_text(folder / "unlabeled.txt", "".join(f"{image}\n" for image in merged.unlabeled))
            entries["unlabeled"] = "unlabeled.txt"
        write_text(folder / ACCOUNT, _table(merged.outcomes))
        write_yaml(folder / "data.yaml", {**entries, "names": dict(enumerate(merged.dataset.names))})
    return out / "data.yaml"


def check_outcomes(merged: Merged, *, skip_bad: bool) -> None:
    """Raise :class:`UserError` about everything that cannot be used, unless it may be left out."""
    bad = [f"{outcome.where}: {outcome.reason}" for outcome in merged.outcomes if outcome.what == LEFT_OUT]
    if bad and not skip_bad:
        shown, more = bad[:10], len(bad) - 10
        hint = "correct the annotations, or pass skip_bad=true to leave these out; nothing was written"
        rest = f"and {more} more; {hint}" if more > 0 else hint
        raise UserError(*shown, rest)
    if not merged.reviewed:
        counts = ", ".join(f"{number} {what}" for what, number in merged.counts.items()) or "no annotation"
        raise UserError(f"nothing new to learn from: {counts}; nothing was written")


def _table(outcomes: Sequence[Outcome]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image", "what", "boxes", "reason", "annotation"))
    for own in outcomes:
        boxes = "" if own.boxes is None else own.boxes
        row = ["" if own.image is None else str(own.image), own.what, boxes, own.reason, own.where]
        writer.writerow(map(in_table, row))
    return text.getvalue()
