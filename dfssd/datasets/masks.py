"""Loading of ``data=`` as a :class:`MaskSet`: images with a mask of class ids per pixel.

Every source is imported once into ``data_dir/<name>-<hash>/{images,masks}/<split>/``: images and masks with the same
stem, masks as 8-bit PNG, a layout that Ultralytics reads with ``masks_dir: masks``. Files are hard links where the file
system allows it. Ultralytics writes its caches beside the masks, thus never into the user's folders. File names may
repeat in two splits (300 do in NEU-Seg), so each split has its own folder.

Id 0 is the background; pixels with id 255 are ignored in losses and metrics.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from dfssd.datasets.demo import make_mask_demo
from dfssd.datasets.image_files import UNREADABLE, image_size, map_files, not_decoded, open_image, safe_names
from dfssd.datasets.importing import (
    Listing,
    as_list,
    check_problems,
    content_fingerprint,
    conversion,
    import_once,
    is_converted,
    is_yaml,
    resolve_source,
    short_name,
    target_folder,
    usual_names,
    with_more_items,
)
from dfssd.datasets.mask_folders import MASKS_DIR, MaskSource, read_mask_yaml, read_masks
from dfssd.datasets.records import IGNORE, MaskItem, MaskSet, check_names
from dfssd.datasets.yaml_files import read_unlabeled
from dfssd.errors import UserError
from dfssd.files import link_or_copy
from dfssd.log import LOGGER

_CONVERSION = 1
"""Raised when the conversion changes, so that older converted folders are not mistaken for current ones."""


def load_masks(
    source: str,
    data_dir: Path,
    *,
    unlabeled: str | Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    skip_bad: bool,
) -> MaskSet:
    """Load the data set that ``source`` names.

    Args:
        source: ``demo``; a folder or .zip of images and masks: ``images/<part>/x.jpg`` with
            ``annotations/<part>/x.png`` as in NEU-Seg, or ``masks/``, or ``labels/``, the parts optional; a semantic
            data set YAML of Ultralytics (``path``, ``train``, ``val``, ``test``, ``masks_dir``, ``names``,
            ``label_mapping``), to which we add ``unlabeled``; or the name of a card in ``data/*.yaml``.
        data_dir: Folder for imported data sets.
        unlabeled: Additional images without masks: folders or .txt lists, used in place.
        names: Class names in id order, the background first, if the source has none. Without both, the classes
            are ``background``, ``class_1``, ``class_2``, ... up to the highest id.
        skip_bad: Leave out unusable images and list them in ``skipped`` instead of failing.

    Returns:
        The data set; images and masks are absolute paths.

    Raises:
        UserError: The source does not exist or is not a data set; or masks are missing or unreadable, have several
            channels or another size than their image, or contain ids beyond the names other than 255.
    """
    data_dir = Path(data_dir).resolve()
    if names is not None:
        names = check_names(names, "names=")
    path = resolve_source(source, data_dir, make_mask_demo)
    name = short_name(path)
    settings = ("masks", _CONVERSION, names, usual_names(path), skip_bad)
    if is_yaml(path):
        found = read_mask_yaml(path, names)
        target = target_folder(data_dir, name, found.fingerprint(), settings)
        if not is_converted(target):
            _convert(found, target, name, path, skip_bad)
    else:
        target = target_folder(data_dir, name, content_fingerprint(path), settings)
        import_once(
            path, target, lambda root: _convert(read_masks(root, path, names), target, name, path, skip_bad, root)
        )
    dataset = _read_converted(target)
    if unlabeled:
        entries = as_list(unlabeled)
        extra, _, problems = read_unlabeled(entries)
        skipped = check_problems(problems, len(extra), ", ".join(entries), skip_bad)
        dataset = with_more_items(dataset, (MaskItem(item.image, None, "unlabeled") for item in extra), skipped)
    return dataset


def read_mask(path: Path) -> np.ndarray:
    """The stored ids (h, w) of a mask, not scaled; integer or bool.

    The ids of a palette image are its indices, or its gray levels if the palette is gray, as in Ultralytics.

    Raises:
        UserError: The file cannot be read, has lossy compression, or has several channels.
    """
    try:
        with open_image(path) as image:
            return _ids(image, path)
    except FileNotFoundError as e:
        raise UserError(f"{path}: no such file; restore the mask") from e
    except UNREADABLE as e:
        raise UserError(f"{path}: the mask {not_decoded(e)}; replace it") from e


def _ids(image: ImageFile, path: Path) -> np.ndarray:
    if isinstance(image, JpegImageFile):
        raise UserError(f"{path}: is a JPEG, whose lossy compression changes ids; save masks as PNG")
    if image.mode == "P":
        palette = np.array(image.getpalette()).reshape(-1, 3)
        return np.asarray(image.convert("L") if (palette == palette[:, :1]).all() else image)
    if image.mode not in {"1", "L", "I", "I;16"}:
        raise UserError(
            f"{path}: has {len(image.getbands())} channels (mode {image.mode}); save class ids as integers in one "
            "channel"
        )
    return np.asarray(image)


@dataclass(frozen=True)
class _Pair:
    """An image that is imported.

    Attributes:
        image: Its file.
        mask: The file of its mask, if there is one.
        split: Split in the source.
        path: ``<part>/<file name>`` in the imported data set.
        pixels: Number of pixels of each class id, 0 to 254; empty without a mask.
        ignored: The mask has ignored pixels, but no defect.
    """

    image: Path
    mask: Path | None
    split: str | None
    path: Path
    pixels: list[int]
    ignored: bool


def _convert(
    source: MaskSource, target: Path, name: str, where: Path, skip_bad: bool, root: Path | None = None
) -> None:
    """Check all pairs and write ``target/{images,masks,dataset.json}``, completely or not at all."""
    if source.names is not None and len(source.names) < 2:
        raise UserError(
            f"{where}: only one class, '{source.names[0]}'; masks need the background and at least one more class"
        )
    paths = _new_paths(source)
    with conversion(target) as partial:
        for part in {path.parent for path in paths}:
            (partial / "images" / part).mkdir(parents=True)
            (partial / MASKS_DIR / part).mkdir(parents=True)

        def write(job: tuple[tuple[Path, Path | None, str | None], Path]) -> _Pair | str:
            (image, mask, split), path = job
            try:
                return _write_pair(source, image, mask, split, partial, path)
            except UserError as e:
                return str(e)

        written = map_files(write, list(zip(source.pairs, paths, strict=True)), f"Importing {name}")
        usable = [pair for pair in written if isinstance(pair, _Pair)]
        problems = source.problems + [
            (image, why) for (image, _, _), why in zip(source.pairs, written, strict=True) if isinstance(why, str)
        ]
        problems = check_problems(problems, len(usable), where, skip_bad, root)
        _check_defects(usable, where)
        names = source.names or _numbered([pair.pixels for pair in usable])
        rows = [
            [pair.path.as_posix(), pair.split, None if pair.mask is None else pair.pixels[: len(names)]]
            for pair in usable
        ]
        Listing(name, names, rows, tuple(problems)).write(partial)


def _write_pair(
    source: MaskSource, image: Path, mask: Path | None, split: str | None, partial: Path, path: Path
) -> _Pair:
    """Check an image and its mask, and write both to the folder ``partial``.

    Raises:
        UserError: The image or the mask cannot be used.
    """
    size = image_size(image)
    if isinstance(size, str):
        raise UserError(f"{image}: {size}")
    pixels: list[int] = []
    if mask is not None:
        pixels = _write_mask(mask, partial / MASKS_DIR / path.with_suffix(".png"), image, size, source)
    link_or_copy(image, partial / "images" / path)
    ignored = mask is not None and not any(pixels[1:]) and pixels[0] < size[0] * size[1]
    return _Pair(image, mask, split, path, pixels, ignored)


def _check_defects(pairs: Sequence[_Pair], where: Path) -> None:
    """Warn of masks that hold ignored pixels but no defect.

    Raises:
        UserError: No mask shows a defect.
    """
    counts = [pair.pixels for pair in pairs if pair.pixels]
    if not any(any(pixels[1:]) for pixels in counts):
        raise UserError(
            f"{where}: no mask shows a defect, only 0 (background) and perhaps {IGNORE} (ignored); write classes "
            "as 1, 2, ..., or describe the data in a .yaml with label_mapping: {255: 1}"
        )
    if hidden := [pair.mask for pair in pairs if pair.mask is not None and pair.ignored]:
        LOGGER.warning(
            f"{len(hidden)} of {len(counts)} masks hold only 0 and {IGNORE}, which means ignored, "
            f"such as {min(hidden)}; if {IGNORE} is a defect, use a .yaml with label_mapping: {{{IGNORE}: 1}}"
        )


def _new_paths(source: MaskSource) -> list[Path]:
    """``<split>/<file name>`` of each image, the stem unique in its split."""
    root = Path(os.path.commonpath([image.parent for image, _, _ in source.pairs])) if source.pairs else Path()
    parts = [split or "all" for _, _, split in source.pairs]
    paths = {}
    for part in set(parts):
        members = [i for i, own in enumerate(parts) if own == part]
        for i, name in zip(members, safe_names([source.pairs[i][0].relative_to(root) for i in members]), strict=True):
            paths[i] = Path(part, name)
    return [paths[i] for i in range(len(parts))]


def _write_mask(mask: Path, target: Path, image: Path, size: tuple[int, int], source: MaskSource) -> list[int]:
    """Check a mask and write it with class ids; number of pixels per id, 0 to 254."""
    ids = read_mask(mask)
    height, width = ids.shape
    if (width, height) != size:
        raise UserError(f"{mask}: {width}x{height} px, but {image.name} has {size[0]}x{size[1]} px; make them agree")
    nc = IGNORE if source.names is None else len(source.names)
    allowed = (source.table < nc) | (source.table == IGNORE)
    if wrong := [i for i in np.unique(ids).tolist() if not 0 <= i <= 255 or not allowed[int(i)]]:
        shown = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
        named = f" ({', '.join(source.names)})" if source.names else ""
        raise UserError(f"{mask}: contains the ids {shown}; correct them: 0 to {nc - 1}{named}, or {IGNORE} = ignored")
    classes = source.table[ids.astype(np.uint8)]
    if ids.dtype == np.uint8 and (classes == ids).all() and _is_gray_png(mask):
        link_or_copy(mask, target)
    else:
        Image.fromarray(classes).save(target)
    return [int(n) for n in np.bincount(classes.ravel(), minlength=256)[:IGNORE]]


def _is_gray_png(mask: Path) -> bool:
    with open_image(mask) as image:
        return image.mode == "L" and isinstance(image, PngImageFile)


def _numbered(pixels: list[list[int]]) -> tuple[str, ...]:
    """Names for unnamed ids, given the number of pixels per id of each mask."""
    highest = max((i for counts in pixels for i, n in enumerate(counts) if n), default=0)
    return ("background", *(f"class_{i}" for i in range(1, highest + 1)))


def _read_converted(folder: Path) -> MaskSet:
    listing = Listing.read(folder)
    items = []
    for path, split, pixels in listing.items:
        mask = None if pixels is None else folder / MASKS_DIR / Path(path).with_suffix(".png")
        items.append(MaskItem(folder / "images" / path, mask, split, tuple(pixels or ())))
    return MaskSet(listing.name, listing.names, tuple(items), listing.skipped)
