"""Loading of ``data=`` as a :class:`DetectionSet`.

Every source is imported once into ``data_dir/<name>-<hash>/{images,labels}``, the layout that Ultralytics reads; the
hash covers the content of all files and the settings, so a later run reuses the import and a changed source gets a new
one. Labels are always written anew, so that training reads what was checked and nothing else. Images are linked where
Ultralytics' reader sees the pixels that were checked, and rewritten where it does not. Images without labels are used
in place if possible: there may be a million of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from dfssd.datasets.archives import zip_fingerprint
from dfssd.datasets.assembly import Assembly, ReadingRules
from dfssd.datasets.images.facts import FactStore, probe_files, store_in
from dfssd.datasets.images.files import map_files, safe_names
from dfssd.datasets.images.pixels import (
    ImageFacts,
    camera_depth,
    check_depth,
    pixel_remarks,
    read_pixels,
    suffix_for_training,
    write_plain,
)
from dfssd.datasets.importing import (
    Listing,
    as_list,
    check_problems,
    conversion,
    digest,
    is_yaml,
    opened_source,
    relative_to,
    resolve_source,
    short_name,
    target_folder,
    usual_names,
    with_more_items,
)
from dfssd.datasets.label_files import format_labels
from dfssd.datasets.material import Material, of_folder, of_images, of_yaml
from dfssd.datasets.preprocessing import Preprocess
from dfssd.datasets.records import DetectionSet, Item, check_names
from dfssd.datasets.reuse import Written, content_digest, read_imported, reused_or_made
from dfssd.errors import UserError
from dfssd.files import file_digest, link_or_copy

_CONVERSION = 4
"""Raised when the import changes, so that older imported folders are not mistaken for current ones."""

Facts = Mapping[Path, ImageFacts | str]
"""What is known of each image, or why it cannot be used."""

_WRITTEN = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
"""Kinds of files that changed pixels are written as, like their originals; others become PNG."""


def load_dataset(
    source: str,
    data_dir: Path,
    *,
    unlabeled: str | Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    labels: str | Sequence[str] | None,
    resize_labels: bool,
    skip_bad: bool,
    missing_label: str,
    preprocess: Preprocess | None = None,
    exclude: Collection[Path] = (),
    keep_unused: bool = False,
) -> DetectionSet:
    """Load the data set that ``source`` names.

    Args:
        source: ``demo``; a data set YAML of Ultralytics; a folder or .zip in one of the layouts of docs/data.md; or the
            name of a card in ``data/*.yaml``.
        data_dir: Folder for imported and downloaded data sets.
        unlabeled: Additional unlabeled images: folders or .txt lists.
        names: Class names in id order, if the source has none.
        labels: The labels that count, of several: formats (:data:`dfssd.datasets.label_choice.FORMATS`), files or
            folders.
        resize_labels: Scale boxes of a label file that states another image size than the image has.
        skip_bad: Leave out unusable images and files and list them in ``skipped`` instead of failing.
        missing_label: An image without label file is "unlabeled" or "background" (free of defects).
        preprocess: Changes to the pixels, made once on import.
        exclude: Further folders that are no data of the user, besides ``data_dir``, such as that of the runs.
        keep_unused: Keep classes of a list that no box uses, such as those that a teacher knows already.

    Returns:
        The data set; images are absolute paths.

    Raises:
        UserError: The source does not exist, is not a data set, contradicts itself, or has unusable images or labels.
    """
    data_dir = Path(data_dir).resolve()
    if names is not None:
        names = check_names(names, "names=")
    if preprocess is not None and not preprocess.changes_pixels:
        preprocess = None
    rules = ReadingRules(
        names=tuple(names) if names is not None else None,
        labels=tuple(as_list(labels)) if labels else (),
        resize=resize_labels,
        keep_unused=keep_unused,
        missing=np.zeros((0, 5), dtype=np.float32) if missing_label == "background" else None,
    )
    importer = _Importer(data_dir, rules, skip_bad, preprocess, exclude)
    path = resolve_source(source, data_dir)
    if not unlabeled:
        return importer.load(path)[0]
    entries = as_list(unlabeled)
    extra = importer.unlabeled(entries)
    dataset, depth = importer.load(path, extra)
    more = importer.load_unlabeled(extra, dataset, depth, ", ".join(entries))
    return with_more_items(dataset, more)


@dataclass(frozen=True)
class _Reading:
    """The files of a source and the facts of its images, before anything is decided."""

    material: Material
    facts: Facts

    @property
    def known(self) -> list[ImageFacts]:
        """Facts of the usable images."""
        return [facts for facts in self.facts.values() if isinstance(facts, ImageFacts)]


class _Importer:
    """Reads sources and writes what is imported; for the attributes see :func:`load_dataset`."""

    def __init__(
        self,
        data_dir: Path,
        rules: ReadingRules,
        skip_bad: bool,
        preprocess: Preprocess | None,
        exclude: Collection[Path],
    ):
        self.data_dir, self.rules, self.skip_bad, self.preprocess = data_dir, rules, skip_bad, preprocess
        self.exclude = [data_dir, *exclude]
        self.store = store_in(data_dir)

    def load(self, path: Path, extra: _Reading | None = None) -> tuple[DetectionSet, int]:
        """The imported form of a source, made now or found from an earlier run, and the bits that its camera uses.

        Args:
            path: The folder, zip file or YAML.
            extra: Images beside it: one scale of gray values serves all.
        """
        rules = replace(self.rules, usual=None if self.rules.names else usual_names(path))
        extra_depth = camera_depth(extra.known) if extra else 8
        if path.is_file() and not is_yaml(path):
            # messages name members as if the zip file were a folder, and so may labels=
            rules = replace(rules, labels=tuple(entry.removeprefix(f"{path}{os.sep}") for entry in rules.labels))
            zipped = self._target(path, zip_fingerprint(path), rules, extra_depth)

            def unpack_and_convert() -> None:
                with opened_source(path, zipped) as root:
                    self._convert(self._unpacked(path, root, rules), rules, zipped, path, root, extra_depth)

            return self._imported(zipped, path, unpack_and_convert)
        if is_yaml(path):
            reading, base = self._reading(of_yaml(path, rules.names)), path.parent
        else:
            reading, base = self._reading(of_folder(path, rules.names, self.exclude)), path
        target = self._target(path, self._content(reading, base), rules, extra_depth)
        return self._imported(target, base, lambda: self._convert(reading, rules, target, path, base, extra_depth))

    def unlabeled(self, entries: list[str]) -> _Reading:
        """Images without labels from folders and lists."""
        return self._reading(of_images(entries, self.exclude))

    def load_unlabeled(self, reading: _Reading, beside: DetectionSet, depth: int, where: str) -> DetectionSet:
        """Images without labels for the data set ``beside``, whose camera uses ``depth`` bits."""
        base = reading.material.root
        content = self._content(reading, base)
        target = target_folder(self.data_dir, f"{beside.name}-unlabeled", content, base, depth, self._settings())
        rules = ReadingRules(names=beside.names)
        return self._imported(target, base, lambda: self._convert(reading, rules, target, Path(where), base, depth))[0]

    def _imported(self, target: Path, base: Path, convert: Callable[[], None]) -> tuple[DetectionSet, int]:
        """The import in ``target``, made by ``convert`` if there is none, or if somebody has changed what is in it."""
        return reused_or_made(target, convert, lambda store: read_imported(target, base, store), self.store)

    def _reading(self, material: Material) -> _Reading:
        return _Reading(material, _facts(material, self.store))

    def _unpacked(self, path: Path, root: Path, rules: ReadingRules) -> _Reading:
        """What is in an unpacked zip file, which is read only once: nothing is kept."""
        try:
            material = of_folder(root, rules.names, ())
        except UserError as e:
            raise UserError(*(problem.replace(str(root), str(path)) for problem in e.problems)) from e
        return _Reading(material, _facts(material, FactStore(None)))

    def _settings(self) -> tuple[object, ...]:
        return _CONVERSION, self.skip_bad, repr(self.preprocess)

    def _target(self, path: Path, content: str, rules: ReadingRules, depth: int) -> Path:
        decided = (
            rules.names,
            rules.usual,
            rules.labels,
            rules.resize,
            rules.keep_unused,
            rules.missing is None,
            depth,
        )
        return target_folder(self.data_dir, short_name(path), content, decided, self._settings())

    def _content(self, reading: _Reading, base: Path) -> str:
        """Digest of the paths and contents of all files that decide what is imported."""
        material = reading.material
        texts = [*material.texts, *(found.file for found in material.found), *filter(None, [material.description])]
        contents = [
            *((image, facts if isinstance(facts, str) else facts.sha256) for image, facts in reading.facts.items()),
            *zip(texts, self.store.digests(texts, "Reading labels"), strict=True),
            *((own.path, own.reason) for own in material.files),
        ]
        return digest(sorted((os.path.relpath(path, base), content) for path, content in contents))

    def _convert(
        self, reading: _Reading, rules: ReadingRules, target: Path, where: Path, root: Path, depth: int
    ) -> None:
        """Decide what the files mean and write the import, whole or not at all."""
        material = reading.material
        depth = max(depth, camera_depth(reading.known))
        zipped = where.is_file() and not is_yaml(where)

        def named(text: str) -> str:
            """A text that names members of the zip file, not their temporary copies."""
            return text.replace(str(root), str(where)) if zipped else text

        try:
            source = Assembly(material, rules, reading.facts).result()
            problems = check_problems(source.problems, len(source.items), where, self.skip_bad)
        except UserError as e:
            raise UserError(*map(named, e.problems)) from e
        used = {image: facts for image, facts in reading.facts.items() if isinstance(facts, ImageFacts)}
        seen = [(item.image, used[item.image]) for item in source.items]
        check_depth([used[item.image] for item in source.items if item.boxes is not None], depth)
        account = replace(
            source.account,
            warnings=tuple(map(named, [*source.account.warnings, *pixel_remarks(seen, depth)])),
            files=tuple(replace(own, reason=named(own.reason)) for own in source.account.files),
        )
        skipped = tuple((file, named(reason)) for file, reason in problems)
        dataset = DetectionSet(short_name(where), source.names, tuple(source.items), skipped, account)
        _Writer(root, depth, self.preprocess, in_place=not zipped).write(dataset, used, target)


def _facts(material: Material, store: FactStore) -> Facts:
    """The facts of the images that take part."""
    images = material.images if material.described is None else list(material.described)
    return dict(zip(images, probe_files(store, images), strict=True))


@dataclass(frozen=True)
class _Writer:
    """Writes an import.

    Attributes:
        root: Folder that the source was read from.
        depth: Bits that the camera uses, in files with more than 8.
        preprocess: Changes to the pixels.
        in_place: The files of the source stay where they are: images without labels need not be linked.
    """

    root: Path
    depth: int
    preprocess: Preprocess | None
    in_place: bool

    def write(self, dataset: DetectionSet, facts: Mapping[Path, ImageFacts], target: Path) -> None:
        """Write ``target/{images,labels,items.jsonl,dataset.json}``, whole or not at all."""
        items = dataset.items
        common = Path(os.path.commonpath([item.image.parent for item in items]))
        stays = [self._stays(item, facts[item.image]) for item in items]
        moved = [item for item, stay in zip(items, stays, strict=True) if not stay]
        named = [
            Path(*item.image.parts[len(common.parts) : -1], item.image.stem + self._suffix(item, facts[item.image]))
            for item in moved
        ]
        with conversion(target) as partial:
            for folder in ("images", "labels"):
                (partial / folder).mkdir()

            def put(job: tuple[Item, str]) -> Written:
                return self._put(*job, facts[job[0].image], partial)

            jobs = list(zip(moved, safe_names(named), strict=True))
            done = map_files(put, jobs, f"Importing {dataset.name}")
            written = {item.image: (name, own) for (item, name), own in zip(jobs, done, strict=True)}
            rows: list[list[object]] = []
            for item in items:
                name, own = written.get(item.image, (None, Written(item.size, None, None)))
                rows.append([name, item.split, relative_to(item.image, self.root), own.size, own.image, own.label])
            Listing(dataset.name, dataset.names, rows, dataset.skipped, dataset.account, self.depth).write(
                partial, self.root
            )

    def _stays(self, item: Item, facts: ImageFacts) -> bool:
        """Whether training can read an image without labels where it lies."""
        if not self.in_place or item.boxes is not None or self.preprocess is not None or not facts.plain:
            return False
        return suffix_for_training(item.image, facts) == item.image.suffix.lower() and str(item.image).isprintable()

    def _suffix(self, item: Item, facts: ImageFacts) -> str:
        suffix = suffix_for_training(item.image, facts)
        return suffix if self.preprocess is None or suffix in _WRITTEN else ".png"

    def _put(self, item: Item, name: str, facts: ImageFacts, partial: Path) -> Written:
        """Write image and label."""
        image, boxes, size = partial / "images" / name, item.boxes, facts.size
        text = None
        if self.preprocess is not None:
            boxes, size = self._put_preprocessed(item, image, self.preprocess)
        elif facts.plain:
            link_or_copy(item.image, image)
        else:
            write_plain(item.image, image, self.depth)
        if boxes is not None:
            label = partial / "labels" / f"{Path(name).stem}.txt"
            text = format_labels(boxes).encode()
            label.write_bytes(text)
        linked = facts.plain and self.preprocess is None
        return Written(
            size, facts.sha256 if linked else file_digest(image), None if text is None else content_digest(text)
        )

    def _put_preprocessed(
        self, item: Item, target: Path, preprocess: Preprocess
    ) -> tuple[np.ndarray | None, tuple[int, int]]:
        """Write the changed pixels of ``item``; its changed boxes and size."""
        try:
            pixels, boxes = preprocess.apply(read_pixels(item.image, self.depth), item.boxes)
        except UserError as e:
            raise UserError(f"{item.image}: {e}") from e
        # Encoded in memory, since OpenCV cannot write to all paths on Windows.
        options = [cv2.IMWRITE_JPEG_QUALITY, 95] if target.suffix in {".jpg", ".jpeg"} else []
        cv2.imencode(target.suffix, pixels, options)[1].tofile(target)
        return boxes, (pixels.shape[1], pixels.shape[0])
