"""Checking and writing of images with masks: the import of a source, completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dfssd.datasets.account import Account
from dfssd.datasets.images.files import map_files, safe_names
from dfssd.datasets.images.pixels import ImageFacts, pixel_remarks, suffix_for_training, write_plain
from dfssd.datasets.importing import Listing, check_problems, conversion, relative_to
from dfssd.datasets.masks.descriptions import MASKS_DIR
from dfssd.datasets.masks.files import fitted, is_gray_png, read_mask, write_ids
from dfssd.datasets.masks.sources import MaskSource, Pair, some
from dfssd.datasets.records import IGNORE
from dfssd.errors import UserError
from dfssd.files import file_digest, link_or_copy
from dfssd.wording import are, counted

Facts = Mapping[Path, ImageFacts | str]
"""What is known of each image, or why it cannot be used."""


@dataclass(frozen=True)
class ImportRules:
    """How a source is imported.

    Attributes:
        skip_bad: Unusable images are left out instead of failing.
        depth: Bits that the camera uses, in files with more than 8.
        in_place: The files of the source stay where they are, as those of an unpacked zip file do not: images without
            masks need not be linked, and messages name the files as they are.
        need_defects: A source of which no mask shows a defect is refused.
    """

    skip_bad: bool
    depth: int
    in_place: bool
    need_defects: bool = True


@dataclass(frozen=True)
class _Imported:
    """An image that is imported.

    Attributes:
        pair: Where it comes from.
        facts: What is known of it.
        path: ``<part>/<file name>`` in the imported data set; None: it stays where it is.
        pixels: Number of pixels of each class id, 0 to 254; empty without a mask.
        ignored: The mask has ignored pixels, but no defect.
        frame: How the mask lies on an image that training turns, see :func:`dfssd.datasets.masks.files.fitted`.
        written: Digests of the files of image and mask; None for what is not written.
    """

    pair: Pair
    facts: ImageFacts
    path: Path | None
    pixels: list[int]
    ignored: bool
    frame: str
    written: tuple[str | None, str | None] = (None, None)


def convert(
    source: MaskSource, facts: Facts, target: Path, name: str, where: Path | str, root: Path, rules: ImportRules
) -> None:
    """Check all pairs and write ``target/{images,masks,items.jsonl,dataset.json}``.

    Args:
        source: What the source holds.
        facts: Of each image of its pairs.
        target: Folder to write.
        name: Short name of the data set.
        where: What the user passed, for messages.
        root: Folder that the source was read from.
        rules: How to import.

    Raises:
        UserError: Something cannot be used, or the folder not be written.
    """
    if source.names is not None and len(source.names) < 2:
        raise UserError(
            f"{where}: only one class, '{source.names[0]}'; masks need the background and at least one more class"
        )
    paths = _new_paths(source.pairs, facts, rules)
    with conversion(target) as partial:
        for part in {path.parent for path in paths if path is not None}:
            (partial / "images" / part).mkdir(parents=True)
            (partial / MASKS_DIR / part).mkdir(parents=True)
        usable, problems = _write_pairs(source, facts, partial, paths, name, rules.depth)
        check_problems(problems, len(usable), where, rules.skip_bad)
        if rules.need_defects:
            source.warnings += _check_defects(usable, where)
        source.warnings += pixel_remarks([(one.pair.image, one.facts) for one in usable], rules.depth)
        names = source.names or _numbered([one.pixels for one in usable])
        account = source.account({one.pair.image for one in usable}, problems)
        if not rules.in_place:
            account = _members_named(account, root, where)
            problems = [(file, reason.replace(str(root), str(where))) for file, reason in problems]
        rows: list[list[object]] = [
            [
                None if one.path is None else one.path.as_posix(),
                one.pair.split,
                one.pixels[: len(names)] if one.pair.known else None,
                relative_to(one.pair.image, root),
                one.facts.size,
                *one.written,
            ]
            for one in usable
        ]
        Listing(name, names, rows, tuple(problems), account, rules.depth).write(partial, root)


def _write_pairs(
    source: MaskSource, facts: Facts, partial: Path, paths: Sequence[Path | None], name: str, depth: int
) -> tuple[list[_Imported], list[tuple[Path, str]]]:
    """Write all pairs; those that are imported, and all problems as (file, reason)."""

    def write(job: tuple[Pair, Path | None]) -> _Imported | str:
        pair, path = job
        own = facts[pair.image]
        if isinstance(own, str):
            return f"{pair.image}: {own}"
        try:
            return _write_pair(source, pair, own, partial, path, depth)
        except UserError as e:
            return str(e)

    written = map_files(write, list(zip(source.pairs, paths, strict=True)), f"Importing {name}")
    usable, unclear = _frames([one for one in written if isinstance(one, _Imported)], source, partial)
    refused = [(pair.image, why) for pair, why in zip(source.pairs, written, strict=True) if isinstance(why, str)]
    return usable, [*source.problems, *refused, *unclear]


def _new_paths(pairs: Sequence[Pair], facts: Facts, rules: ImportRules) -> list[Path | None]:
    """``<split>/<file name>`` of each image, the stem unique in its split; None for one that stays where it is."""
    root = Path(os.path.commonpath([pair.image.parent for pair in pairs])) if pairs else Path()
    members: dict[str, list[int]] = {}
    named: list[Path] = []
    for i, pair in enumerate(pairs):
        own = facts[pair.image]
        suffix = pair.image.suffix.lower() if isinstance(own, str) else suffix_for_training(pair.image, own)
        named.append(pair.image.relative_to(root).with_name(pair.image.stem + suffix))
        stays = rules.in_place and not pair.known and isinstance(own, ImageFacts) and own.plain
        if not (stays and suffix == pair.image.suffix.lower() and str(pair.image).isprintable()):
            members.setdefault(pair.split or "all", []).append(i)
    paths: list[Path | None] = [None] * len(pairs)
    for part, own_members in members.items():
        for i, name in zip(own_members, safe_names([named[i] for i in own_members]), strict=True):
            paths[i] = Path(part, name)
    return paths


def _write_pair(
    source: MaskSource, pair: Pair, facts: ImageFacts, partial: Path, path: Path | None, depth: int
) -> _Imported:
    """Check an image and its masks, and write both to the folder ``partial``.

    Raises:
        UserError: The image or the mask cannot be used, or two masks differ.
    """
    if path is None:
        return _Imported(pair, facts, path, [], False, "")
    pixels: list[int] = []
    frame = ""
    own = partial / MASKS_DIR / path.with_suffix(".png")
    if pair.masks:
        mask = pair.masks[0]
        ids = read_mask(mask)
        for other in pair.masks[1:]:
            if not np.array_equal(ids, read_mask(other)):
                raise UserError(
                    f"{pair.image}: has masks that differ, {mask} and {other}; remove one, or name the folder of the "
                    "right ones as masks_dir: in a data set YAML, data=<yaml>"
                )
        ids, frame = fitted(ids, mask, pair.image, facts)
        pixels = _write_mask(ids, mask, own, source, frame)
    elif pair.clean:
        write_ids(np.zeros((facts.height, facts.width), np.uint8), own)
        pixels = [facts.width * facts.height, *[0] * (IGNORE - 1)]
    target = partial / "images" / path
    if facts.plain:
        link_or_copy(pair.image, target)
    else:
        write_plain(pair.image, target, depth)
    ignored = bool(pair.masks) and not any(pixels[1:]) and pixels[0] < facts.width * facts.height
    written = (facts.sha256 if facts.plain else file_digest(target), file_digest(own) if pair.known else None)
    return _Imported(pair, facts, path, pixels, ignored, frame, written)


def _write_mask(ids: np.ndarray, mask: Path, target: Path, source: MaskSource, frame: str) -> list[int]:
    """Check the ids of a mask and write it with class ids; number of pixels per id, 0 to 254."""
    nc = IGNORE if source.names is None else len(source.names)
    allowed = (source.table < nc) | (source.table == IGNORE)
    if wrong := [i for i in np.unique(ids).tolist() if not 0 <= i <= 255 or not allowed[int(i)]]:
        shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
        named = f" ({', '.join(source.names)}; the first is the background)" if source.names else ""
        raise UserError(f"{mask}: contains the ids {shown}; correct them: 0 to {nc - 1}{named}, or {IGNORE} = ignored")
    classes = source.table[ids.astype(np.uint8)]
    if frame != "stored" and ids.dtype == np.uint8 and (classes == ids).all() and is_gray_png(mask):
        link_or_copy(mask, target)
    else:
        write_ids(classes, target)
    return [int(n) for n in np.bincount(classes.ravel(), minlength=256)[:IGNORE]]


def _frames(
    written: list[_Imported], source: MaskSource, partial: Path
) -> tuple[list[_Imported], list[tuple[Path, str]]]:
    """Those of the imported images of which it is known how the mask lies, and (image, reason) of the others.

    Where the size of a mask fits an image before and after it is turned, the other images of the source count: their
    masks were all drawn on turned pixels, or there is a doubt. Warnings go to ``source``.
    """
    stored = [one for one in written if one.frame == "stored"]
    either = [one for one in written if one.frame == "either"]
    if stored:
        source.warnings.append(
            f"{counted(len(stored), 'mask has the size of its image', 'masks have the size of their images')} before "
            f"the EXIF orientation is applied, and {are(len(stored))} turned likewise: "
            f"{some([one.pair.masks[0] for one in stored])}"
        )
    if not stored or not either:
        if either:
            shown = some([one.pair.image for one in either])
            source.warnings.append(
                f"{counted(len(either), 'image is', 'images are')} turned by the EXIF orientation, and the size of "
                f"the mask does not show whether it was drawn on the turned pixels, which is assumed: {shown}"
            )
        return written, []
    problems = []
    for one in either:
        assert one.path is not None  # only an image with a mask has a frame
        (partial / "images" / one.path).unlink()
        (partial / MASKS_DIR / one.path.with_suffix(".png")).unlink()
        why = (
            f"is turned by its EXIF orientation, and its mask {one.pair.masks[0]} fits both ways, while "
            f"{stored[0].pair.masks[0]} was drawn on the stored pixels; save the image turned, without the orientation"
        )
        problems.append((one.pair.image, f"{one.pair.image}: {why}"))
    return [one for one in written if one.frame != "either"], problems


def _check_defects(imported: Sequence[_Imported], where: Path | str) -> list[str]:
    """A warning of masks that hold ignored pixels but no defect, if there are any.

    Raises:
        UserError: No mask shows a defect.
    """
    counts = [one.pixels for one in imported if one.pixels]
    if not any(any(pixels[1:]) for pixels in counts):
        raise UserError(
            f"{where}: no mask shows a defect, only 0 (background) and perhaps {IGNORE} (ignored); write classes "
            "as 1, 2, ..., or describe the data in a .yaml with label_mapping: {255: 1}"
        )
    if hidden := [one.pair.masks[0] for one in imported if one.ignored]:
        return [
            f"{len(hidden):,} of {counted(len(counts), 'mask')} {'holds' if len(hidden) == 1 else 'hold'} only 0 and "
            f"{IGNORE}, which means ignored, such as {min(hidden)}; if {IGNORE} is a defect, use a .yaml with "
            f"label_mapping: {{{IGNORE}: 1}}"
        ]
    return []


def _numbered(pixels: list[list[int]]) -> tuple[str, ...]:
    """Names for unnamed ids, given the number of pixels per id of each mask."""
    highest = max((i for counts in pixels for i, n in enumerate(counts) if n), default=0)
    return ("background", *(f"class_{i}" for i in range(1, highest + 1)))


def _members_named(account: Account, root: Path, where: Path | str) -> Account:
    """An account whose texts name members of the zip file ``where``, not their temporary copies below ``root``."""

    def named(text: str) -> str:
        return text.replace(str(root), str(where))

    files = tuple(replace(own, reason=named(own.reason)) for own in account.files)
    return replace(account, files=files, warnings=tuple(map(named, account.warnings)))
