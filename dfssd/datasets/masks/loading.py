"""Loading of ``data=`` as a :class:`MaskSet`: images with a mask of class ids per pixel.

Every source is imported once into ``data_dir/<name>-<hash>/{images,masks}/<split>/``: images and masks with the same
stem, masks as 8-bit PNG, a layout that Ultralytics reads with ``masks_dir: masks``. Files are hard links where the file
system allows it. Ultralytics writes its caches beside the masks, thus never into the user's folders. File names may
repeat in two splits (300 do in NEU-Seg), so each split has its own folder.

Id 0 is the background; pixels with id 255 are ignored in losses and metrics.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfssd.datasets.account import Role
from dfssd.datasets.archives import zip_fingerprint
from dfssd.datasets.demo import make_mask_demo
from dfssd.datasets.images.facts import FactStore, probe_files, store_in
from dfssd.datasets.images.pixels import ImageFacts, camera_depth
from dfssd.datasets.importing import (
    Listing,
    as_list,
    below,
    digest,
    is_yaml,
    opened_source,
    resolve_source,
    short_name,
    target_folder,
    used_once,
    usual_names,
    with_more_items,
)
from dfssd.datasets.inventory import take_inventory
from dfssd.datasets.masks.conversion import Facts, ImportRules, convert
from dfssd.datasets.masks.descriptions import MASKS_DIR, read_mask_yaml
from dfssd.datasets.masks.folders import read_masks
from dfssd.datasets.masks.sources import MaskSource, Pair
from dfssd.datasets.records import MaskItem, MaskSet, check_names
from dfssd.datasets.reuse import check_written, reused_or_made
from dfssd.datasets.yaml_files import listed_images
from dfssd.errors import UserError

_CONVERSION = 3
"""Raised when the conversion changes, so that older converted folders are not mistaken for current ones."""


def load_masks(
    source: str,
    data_dir: Path,
    *,
    unlabeled: str | Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    skip_bad: bool,
    exclude: Collection[Path] = (),
) -> MaskSet:
    """Load the data set that ``source`` names.

    Args:
        source: ``demo``; a folder or .zip of images and masks: ``images/<part>/x.jpg`` with
            ``annotations/<part>/x.png`` as in NEU-Seg, the folder of the masks called otherwise, or ``x_mask.png``
            (:mod:`dfssd.datasets.masks.roles`); the parts are folders, or lists as in Pascal VOC, or missing; a
            semantic data set YAML of Ultralytics (``path``, ``train``, ``val``, ``test``, ``masks_dir``, ``names``,
            ``label_mapping``), to which we add ``unlabeled``; or the name of a card in ``data/*.yaml``.
        data_dir: Folder for imported data sets.
        unlabeled: Additional images without masks: folders or .txt lists, used in place where training can read them.
        names: Class names in id order, the background first, instead of those of the source. Without both, the classes
            are ``background``, ``class_1``, ``class_2``, ... up to the highest id.
        skip_bad: Leave out unusable images and list them in ``skipped`` instead of failing.
        exclude: Further folders that are no data of the user, besides ``data_dir``, such as that of the runs.

    Returns:
        The data set; images and masks are absolute paths. Its account holds the warnings, which nobody has seen yet.

    Raises:
        UserError: The source does not exist or is not a data set; lists of classes or parts are wrong or disagree; or
            masks are missing, without image or unreadable, have several channels or another size than their image, or
            contain ids beyond the names other than 255; or two masks of one image differ.
    """
    data_dir = Path(data_dir).resolve()
    if names is not None:
        names = check_names(names, "names=")
    importer = _Importer(data_dir, names, skip_bad, exclude)
    path = resolve_source(source, data_dir, make_mask_demo)
    return importer.load(path, as_list(unlabeled) if unlabeled else [])


class _Importer:
    """Reads sources and writes what is imported; for the attributes see :func:`load_masks`."""

    def __init__(self, data_dir: Path, names: tuple[str, ...] | None, skip_bad: bool, exclude: Collection[Path]):
        self.data_dir, self.names, self.skip_bad = data_dir, names, skip_bad
        self.exclude = (data_dir, *exclude)
        self.store = store_in(data_dir)

    def load(self, path: Path, unlabeled: list[str]) -> MaskSet:
        """The imported form of a source and of images beside it, made now or found from an earlier run."""
        extra = _unlabeled(unlabeled)
        extra_facts = _facts(extra, self.store)
        dataset, depth = self._load(path, camera_depth(_known(extra_facts)))
        if not unlabeled:
            return dataset
        return self._with_unlabeled(
            dataset, extra, extra_facts, max(depth, camera_depth(_known(extra_facts))), unlabeled
        )

    def _load(self, path: Path, depth: int) -> tuple[MaskSet, int]:
        """The data set, and the bits that its camera uses, at least ``depth``: one scale of gray values serves all."""
        usual = usual_names(path) if self.names is None else None
        name = short_name(path)

        def target_of(content: str) -> Path:
            return target_folder(self.data_dir, name, content, self.names, usual, depth, self._settings())

        if path.is_file() and not is_yaml(path):
            target = target_of(zip_fingerprint(path))
            return self._imported(target, path, lambda: self._convert_zip(path, target, usual, depth))
        if is_yaml(path):
            described, base = read_mask_yaml(path, self.names, exclude=self.exclude), path.parent
            target = target_of(self._content(described, base))
        else:
            inventory, base = take_inventory(path, self.exclude), path
            target = target_of(self._content(MaskSource(None, files=tuple(inventory.paths)), base))

        def convert_files() -> None:
            source = described if is_yaml(path) else read_masks(inventory, self.names, usual)
            facts = _facts(source, self.store)
            rules = ImportRules(self.skip_bad, max(depth, camera_depth(_known(facts))), in_place=True)
            convert(source, facts, target, name, path, base, rules)

        return self._imported(target, base, convert_files)

    def _imported(self, target: Path, base: Path, make: Callable[[], None]) -> tuple[MaskSet, int]:
        """The import in ``target`` of the source at ``base``, made if it is not there as it was written."""
        return reused_or_made(target, make, lambda store: _read_imported(target, base, store), self.store)

    def _convert_zip(self, path: Path, target: Path, usual: tuple[str, ...] | None, depth: int) -> None:
        """Import a zip file, whose members are read only once: nothing is kept of them."""
        with opened_source(path, target) as root:
            try:
                source = read_masks(take_inventory(root), self.names, usual)
                facts = _facts(source, FactStore(None))
                rules = ImportRules(self.skip_bad, max(depth, camera_depth(_known(facts))), in_place=False)
                convert(source, facts, target, short_name(path), path, root, rules)
            except UserError as e:  # name the file inside the zip file, not its temporary copy
                raise UserError(*(problem.replace(str(root), str(path)) for problem in e.problems)) from e

    def _with_unlabeled(
        self, dataset: MaskSet, source: MaskSource, facts: Facts, depth: int, entries: list[str]
    ) -> MaskSet:
        """The data set with the images of ``unlabeled=``, without those that it has already."""
        own = {os.path.realpath(path) for item in dataset.items for path in (item.image, item.source) if path}
        new = [pair for pair in source.pairs if os.path.realpath(pair.image) not in own]
        known = len(source.pairs) - len(new)
        if known:
            dataset = replace(dataset, account=dataset.account.warned([used_once(known, dataset.name)]))
        if not new:
            return dataset
        left = MaskSource(dataset.names, new, files=tuple(pair.image for pair in new), roles=source.roles)
        base = Path(os.path.commonpath([file.parent for file in left.files]))
        name = f"{dataset.name}-unlabeled"
        content = self._content(left, base)
        target = target_folder(self.data_dir, name, content, base, dataset.names, depth, self._settings())
        rules = ImportRules(self.skip_bad, depth, in_place=True, need_defects=False)
        where = ", ".join(entries)
        more, _ = self._imported(target, base, lambda: convert(left, facts, target, name, where, base, rules))
        return with_more_items(dataset, more)

    def _settings(self) -> tuple[object, ...]:
        return "masks", _CONVERSION, self.skip_bad

    def _content(self, source: MaskSource, base: Path) -> str:
        """Digest of the paths of all files of a source, and of the contents of those that are not left out."""
        files = [*dict.fromkeys([*source.files, *source.roles])]
        digests = self.store.digests(files, "Looking for changes")
        contents = [
            (os.path.relpath(file, base), None if source.roles.get(file, ("",))[0] is Role.LEFT_OUT else own)
            for file, own in zip(files, digests, strict=True)
        ]
        return digest(sorted(contents, key=str))


def _unlabeled(entries: Sequence[str]) -> MaskSource:
    """Images without masks, from the folders and .txt lists of ``unlabeled=``.

    Raises:
        UserError: An entry does not exist or contains no image.
    """
    images: dict[Path, None] = {}
    source = MaskSource(None)
    for entry in entries:
        path = Path(os.path.abspath(Path(entry).expanduser()))
        found = listed_images(path, f"unlabeled={entry}")
        if not found:
            raise UserError(f"unlabeled={entry} contains no image; put images there, or leave it out")
        images.update(dict.fromkeys(found))
        if path.is_file() and path not in images:
            source.roles[path] = Role.SPLIT_LIST, ""
    source.pairs = [Pair(image, (), "unlabeled") for image in images]
    return source


def _facts(source: MaskSource, store: FactStore) -> Facts:
    images = [pair.image for pair in source.pairs]
    return dict(zip(images, probe_files(store, images), strict=True))


def _known(facts: Facts) -> list[ImageFacts]:
    """Facts of the usable images."""
    return [own for own in facts.values() if isinstance(own, ImageFacts)]


def _read_imported(folder: Path, base: Path, store: FactStore | None) -> tuple[MaskSet, int]:
    """A finished import of the source that now lies at ``base``, and the bits that its camera uses.

    Args:
        folder: The import.
        base: The source.
        store: Holds the files against what was written; None: they have been written just now.

    Raises:
        ChangedError: They differ. Other errors mean that the folder is no import at all.
    """
    listing = Listing.read(folder, base)

    def mask_of(path: str) -> Path:
        return folder / MASKS_DIR / Path(path).with_suffix(".png")

    def written() -> Iterator[tuple[Path, str, Path | None]]:
        for path, _, _, origin, _, image, mask in listing.items:
            if image is not None:
                yield folder / "images" / path, image, below(origin, base)
            if mask is not None:
                yield mask_of(path), mask, None

    def item(row: list[Any]) -> MaskItem:
        path, split, pixels, origin, size, _, _ = row
        source = below(origin, base)
        mask = None if pixels is None else mask_of(path)
        image = source if path is None else folder / "images" / path
        return MaskItem(image, mask, split, tuple(pixels or ()), source, (size[0], size[1]))

    if store is not None:
        check_written(written(), store)
    items = tuple(map(item, listing.items))
    found = MaskSet(listing.name, listing.names, items, listing.skipped, listing.account, listing.depth)
    return found, listing.depth
