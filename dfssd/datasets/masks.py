"""Loading of ``data=`` as a :class:`MaskSet`: images with a mask of class ids per pixel.

Every source is imported once into ``data_dir/<name>-<hash>/{images,masks}/<split>/``: images and masks with the same
stem, masks as 8-bit PNG, a layout that Ultralytics reads with ``masks_dir: masks``. Files are hard links where the file
system allows it. Ultralytics writes its caches beside the masks, thus never into the user's folders. File names may
repeat in two splits (300 do in NEU-Seg), so each split has its own folder.

Id 0 is the background; pixels with id 255 are ignored in losses and metrics.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dfssd.datasets.account import Role
from dfssd.datasets.archives import zip_fingerprint
from dfssd.datasets.demo import make_mask_demo
from dfssd.datasets.facts import FactStore, probe_files, store_in
from dfssd.datasets.imported import DAMAGE, ChangedError, check_files
from dfssd.datasets.importing import (
    LISTING,
    Listing,
    as_list,
    below,
    digest,
    is_converted,
    is_yaml,
    opened_source,
    resolve_source,
    short_name,
    target_folder,
    usual_names,
    with_more_items,
)
from dfssd.datasets.inventory import take_inventory
from dfssd.datasets.mask_conversion import Facts, ImportRules, convert
from dfssd.datasets.mask_folders import read_masks
from dfssd.datasets.mask_sources import MaskSource, Pair
from dfssd.datasets.mask_yaml import MASKS_DIR, read_mask_yaml
from dfssd.datasets.pixels import ImageFacts, camera_depth
from dfssd.datasets.records import MaskItem, MaskSet, check_names
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
            (:mod:`dfssd.datasets.mask_roles`); the parts are folders, or lists as in Pascal VOC, or missing; a
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
            if not self._is_imported(target, path):
                self._convert_zip(path, target, usual, depth)
            return _read_imported(target, path)
        if is_yaml(path):
            base = path.parent
            described = read_mask_yaml(path, self.names, exclude=self.exclude)
            target = target_of(self._content(described, base))
        else:
            inventory, base = take_inventory(path, self.exclude), path
            target = target_of(self._content(MaskSource(None, files=tuple(inventory.paths)), base))
            described = None
        if not self._is_imported(target, base):
            source = described or read_masks(inventory, self.names, usual)
            facts = _facts(source, self.store)
            rules = ImportRules(self.skip_bad, max(depth, camera_depth(_known(facts))), in_place=True)
            convert(source, facts, target, name, path, base, rules)
        return _read_imported(target, base)

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
            warning = f"{known} images of unlabeled= are images of {dataset.name} already, and are used once"
            dataset = replace(dataset, account=dataset.account.warned([warning]))
        if not new:
            return dataset
        left = MaskSource(dataset.names, new, files=tuple(pair.image for pair in new), roles=source.roles)
        base = Path(os.path.commonpath([file.parent for file in left.files]))
        name = f"{dataset.name}-unlabeled"
        content = self._content(left, base)
        target = target_folder(self.data_dir, name, content, base, dataset.names, depth, self._settings())
        if not self._is_imported(target, base):
            rules = ImportRules(self.skip_bad, depth, in_place=True, need_defects=False)
            convert(left, facts, target, name, ", ".join(entries), base, rules)
        more, _ = _read_imported(target, base)
        return with_more_items(dataset, more)

    def _is_imported(self, target: Path, base: Path) -> bool:
        """Whether there is an import in ``target``; one in which somebody has changed files is made anew."""
        if not is_converted(target):
            return False
        try:
            _check_imported(target, base, self.store)
        except (ChangedError, *DAMAGE):
            (target / LISTING).unlink(missing_ok=True)
            return False
        return True

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


def _read_imported(folder: Path, base: Path) -> tuple[MaskSet, int]:
    """A finished import of the source that now lies at ``base``, and the bits that its camera uses."""
    listing = Listing.read(folder, base)

    def item(row: list[Any]) -> MaskItem:
        path, split, pixels, origin, size, *_ = row
        source = below(origin, base)
        mask = None if pixels is None else folder / MASKS_DIR / Path(path).with_suffix(".png")
        image = source if path is None else folder / "images" / path
        return MaskItem(image, mask, split, tuple(pixels or ()), source, (size[0], size[1]))

    items = tuple(map(item, listing.items))
    return MaskSet(listing.name, listing.names, items, listing.skipped, listing.account), listing.depth


def _check_imported(folder: Path, base: Path, store: FactStore) -> None:
    """Raise :class:`ChangedError`, or one of :data:`DAMAGE`, if an import is no longer what was written."""
    files: list[tuple[Path, Path | None, str]] = []
    for path, _, _, origin, _, image, mask in Listing.read(folder, base).items:
        if path is not None:
            files.append((folder / "images" / path, below(origin, base), image))
        if mask is not None:
            files.append((folder / MASKS_DIR / Path(path).with_suffix(".png"), None, mask))
    check_files(files, store)
