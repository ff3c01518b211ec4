"""From the files of a source to its images with boxes: claims, class names, splits, geometry, and the account.

All formats take the same way. What cannot be decided is refused in one line that names both files and the argument that
decides; with ``skip_bad`` the images concerned are left out instead, and said to be.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from dfssd.datasets import geometry
from dfssd.datasets.account import Account, Accounted, Role, grouped
from dfssd.datasets.annotations import Annotation, BrokenFile, ClassFile, DescriptionFile, LabelFile, SplitFile
from dfssd.datasets.claims import Claims, ImageIndex, claim, unread_labels
from dfssd.datasets.class_names import NameList, UnknownClassError, agree, names_in_labels, numbered
from dfssd.datasets.given_splits import GivenSplits, listed_splits, lists_of, lone_folders, stated_split
from dfssd.datasets.images.pixels import UNREAD_SUFFIXES, ImageFacts
from dfssd.datasets.images.same_picture import same_picture
from dfssd.datasets.label_choice import LabelChoice, choice_between
from dfssd.datasets.mask_images import find_drawings, find_masks, told_of_drawings
from dfssd.datasets.material import EXPECTED, Material
from dfssd.datasets.readers import is_read
from dfssd.datasets.readers.text_files import is_class_list
from dfssd.datasets.readers.yolo import settle_keypoints
from dfssd.datasets.records import Item
from dfssd.datasets.sources import Source, folded
from dfssd.datasets.unused_classes import used_names
from dfssd.errors import UserError
from dfssd.wording import counted

SHOWN = 3
"""Names in a message, of many."""

JOINED_FORMAT = "coco"
"""The format whose files may each hold a part of the boxes of one image: several people annotate one project."""


@dataclass(frozen=True)
class ReadingRules:
    """What the user has decided; for the attributes see :func:`dfssd.datasets.formats.load_dataset`."""

    names: tuple[str, ...] | None = None
    usual: tuple[str, ...] | None = None
    labels: tuple[str, ...] = ()
    resize: bool = False
    keep_unused: bool = False
    missing: np.ndarray | None = None


class Assembly:
    """One reading of a source; :meth:`result` runs all steps."""

    def __init__(self, material: Material, rules: ReadingRules, facts: Mapping[Path, ImageFacts | str]):
        """Bind the material, the rules, and the facts of every image (or the reason why it cannot be used)."""
        self.material, self.rules, self.facts = material, rules, facts
        self.root = material.root
        self.files: list[Accounted] = list(material.files)
        self.warnings = list(material.warnings)
        self.problems: list[tuple[Path, str]] = []
        self.label_files: list[LabelFile] = []
        self.class_files: list[ClassFile] = []
        self.split_files: list[SplitFile] = []
        self.file_of: dict[Path, LabelFile] = {}
        self.doubtful: dict[Path, str] = {}
        self.refused: list[LabelFile] = []
        self.missing = rules.missing
        self.joined: Counter[tuple[Path, Path]] = Counter()

    def result(self) -> Source:
        """Decide everything.

        Raises:
            UserError: Something concerns the whole source: class lists that disagree, labels without names,
                contradicting splits. Problems of single images and files are listed in the result.
        """
        self._sort_files()
        photos = self._photos()
        index = ImageIndex(self.root, photos)
        claims = self._claims(index)
        photos = self._without_drawings(photos, claims)
        names = self._names(claims)
        boxes = self._boxes(claims, names)
        splits = self._splits(index)
        items = self._items(photos, boxes, claims, splits)
        names, items, told = used_names(names, items, keep=self.rules.keep_unused)
        self.warnings += told
        if self.material.described is None and not self.problems and all(item.boxes is None for item in items):
            raise UserError(f"no labels for {counted(len(items), 'image')} in {self.root}{self._instead()}; {EXPECTED}")
        self.problems.sort(key=lambda problem: (problem[0].parts, problem[1]))
        return Source(items, names.names, self.problems, self._account(items, photos))

    def _instead(self) -> str:
        """What could have been labels, for a message."""
        if masks := find_masks(self.material.images, self.root, self.facts):
            mask, photo = min(masks.items())
            return f"; {mask} looks like a mask of {photo}: masks are for recipe=mffmetal"
        if (self.root.parent / "labels").is_dir():
            return f"; {self.root.parent / 'labels'} lies beside it: pass data={self.root.parent}"
        others = [file for file in self.files if file.role is Role.LEFT_OUT and is_read(file.path.suffix.lower())]
        return "".join(f"; {file.path}: {file.reason}" for file in others[:SHOWN])

    def leave_out(self, file: Path, reason: str) -> None:
        """Note that a file has no part in the data."""
        self.files.append(Accounted(file, Role.LEFT_OUT, reason))

    def _sort_files(self) -> None:
        """Distribute the files by kind, as far as ``labels=`` wants them."""
        wanted = LabelChoice(self.rules.labels, self.root)
        described: dict[str, str] = {}
        for found in self.material.read():
            reason = wanted.refuses(found)
            if reason:
                self.leave_out(found.file, reason)
                self.refused += [found] if isinstance(found, LabelFile) else []
            elif isinstance(found, LabelFile):
                self.label_files.append(found)
            elif isinstance(found, ClassFile):
                self.class_files.append(found)
            elif isinstance(found, SplitFile):
                self.split_files.append(found)
            elif isinstance(found, DescriptionFile):
                self.files.append(Accounted(found.file, Role.DESCRIPTION))
                described.update(lists_of(found))
            elif isinstance(found, BrokenFile):
                if found.file.suffix.lower() in {".yaml", ".yml"} or is_class_list(found.file):
                    raise UserError(f"{found.file}: {found.problem}")  # concerns all images: nothing to skip
                self.problems.append((found.file, f"{found.file}: {found.problem}"))
            else:
                self.leave_out(found.file, found.reason)
        self.split_files = [replace(own, split=described.get(own.file.name, own.split)) for own in self.split_files]
        wanted.check_found(self.label_files)
        texts = settle_keypoints(file for file in self.label_files if file.format == "yolo")
        self.label_files = [*(file for file in self.label_files if file.format != "yolo"), *texts]
        self.label_files.sort(key=lambda file: file.file.parts)
        self.file_of = {file.file: file for file in self.label_files}

    def _photos(self) -> list[Path]:
        """The images without masks of others."""
        masks = find_masks(self.material.images, self.root, self.facts) if self.label_files else {}
        self.files += [Accounted(mask, Role.MASK) for mask in sorted(masks)]
        if masks:
            first = min(masks)
            self.warnings.append(
                f"{counted(len(masks), 'image is a mask of another', 'images are masks of others')}: not trained on, "
                f"such as {first} of {masks[first]}"
            )
        return [image for image in self.material.images if image not in masks]

    def _without_drawings(self, photos: Sequence[Path], claims: Claims) -> list[Path]:
        """The images without those that nobody has labeled and that look like masks."""
        drawings = find_drawings(photos, claims.by_image.keys(), self.facts)
        self.files += [Accounted(drawing, Role.MASK) for drawing in drawings]
        self.warnings += told_of_drawings(drawings)
        left_out = set(drawings)
        return [photo for photo in photos if photo not in left_out]

    def _claims(self, index: ImageIndex) -> Claims:
        self.doubtful, of_any = unread_labels([file for file, _ in self.problems], index)
        if of_any and self.missing is not None:
            self.missing = None
            self.warnings.append(
                f"{of_any[0]} cannot be read: images without labels are not taken for defect-free ones"
            )
        claims = claim(self.label_files, index, cache(same_picture))
        self.doubtful, self.problems = self.doubtful | claims.doubtful, self.problems + claims.problems
        if claims.by_name:
            (own, image), count = claims.by_name[0], len(claims.by_name)
            self.warnings.append(
                f"{counted(count, 'label belongs to an image', 'labels belong to images')} by the name alone, not by "
                f"the folder, such as {own.where} to {image}"
            )
        self._leave_out_orphans(claims.orphans)
        self._check_unread_labels(index, claims)
        self.label_files = [file for file in self.label_files if file.file in self.file_of]
        return claims

    def _leave_out_orphans(self, orphans: Sequence[Annotation]) -> None:
        """Annotations without an image are problems, and empty label files without one are left out."""
        unread = {
            folded(file.path.stem): file.path
            for file in self.files
            if file.role is Role.LEFT_OUT and file.path.suffix.lower() in UNREAD_SUFFIXES
        }
        idle: list[Path] = []
        for orphan in orphans:
            if orphan.image is None and not orphan.boxes.size and not orphan.problem:
                idle.append(orphan.file)
                continue
            if other := unread.get(folded(Path(orphan.image or orphan.file.name).stem)):
                reason = f"its image {other} is in a format that is not read; convert it to .png or .jpg"
            elif orphan.image is None:
                reason = "there is no image of this name; restore it, or remove the label file"
            else:
                reason = f"the image is not in {self.root}; restore it, or remove it from the file"
            self.problems.append((orphan.file, f"{orphan.where}: {reason}"))
        for file in idle:
            del self.file_of[file]
            self.leave_out(file, "an empty text without an image of its name")

    def _check_unread_labels(self, index: ImageIndex, claims: Claims) -> None:
        """A file without labels is a problem where all others of its kind and folder are the labels of their images."""
        kinds = {(own.file.parent, own.file.suffix.lower()) for own in self.label_files}
        for file in self.files:
            if file.role is not Role.LEFT_OUT or (file.path.parent, file.path.suffix.lower()) not in kinds:
                continue
            match = index.alongside(file.path)
            if match.exact and not any(image in claims.by_image for image in match.images):
                remedy = f"correct or remove it, since it is called like {match.images[0]}"
                self.problems.append((file.path, f"{file.path}: {file.reason}; {remedy}"))

    def _names(self, claims: Claims) -> NameList:
        """The class names in id order."""
        material, rules = self.material, self.rules
        lists = [NameList(own.names, own.file) for own in self.class_files]
        lists += [NameList(own.names, own.file) for own in self.label_files if own.names and own.ordered]
        if rules.names:
            self._compare_with_other_lists(rules.names, "names=", lists)
            return NameList(rules.names, "names=", fixed=True)
        if material.names is not None and material.description is not None:
            self._compare_with_other_lists(material.names, material.description, lists)
            if material.names == numbered(len(material.names)):
                self._warn_of_numbers(material.names)
            return NameList(material.names, material.description, fixed=True)
        if found := agree(lists):
            return found
        if rules.usual:
            return NameList(rules.usual, "the card of this data set", fixed=True)
        found = names_in_labels(self.label_files, [own for claimed in claims.by_image.values() for own in claimed])
        if found.fixed:
            self._warn_of_numbers(found.names)
        return found

    def _warn_of_numbers(self, names: Sequence[str]) -> None:
        self.warnings.append(
            f"there is no list of class names: the classes are called {', '.join(names[:SHOWN])}"
            f"{', ...' if len(names) > SHOWN else ''}; pass names=[a,b,c] in id order"
        )

    def _compare_with_other_lists(self, names: tuple[str, ...], file: Path | str, lists: Sequence[NameList]) -> None:
        """Class lists beside a data set YAML: a contradiction is refused, unless the user has chosen the YAML."""
        for other in lists:
            if all(a == b for a, b in zip(names, other.names)):
                continue
            words = f"{other.origin} lists other class names than {file}"
            if isinstance(file, Path) and not self.material.chosen:
                raise UserError(f"{words}; remove one of them, or pass data={file} or names=[a,b,c] in id order")
            self.warnings.append(f"{words}, whose names count")

    def _boxes(self, claims: Claims, names: NameList) -> dict[Path, np.ndarray]:
        """Rows of each annotated image; what cannot be used becomes a problem."""
        boxes = {}
        for image, claimed in claims.by_image.items():
            facts = self.facts.get(image)
            if not isinstance(facts, ImageFacts):
                continue
            try:
                boxes[image] = self._of_image(claimed, (facts.width, facts.height), names.names)
            except ValueError as e:
                self.problems.append((image, str(e)))
        for (first, second), number in self.joined.items():
            self.warnings.append(
                f"{first} and {second} mark different boxes in "
                f"{counted(number, 'image, which gets', 'images, which get')} those of both; if one is but an older "
                "version, pass labels= with the other"
            )
        return boxes

    def _of_image(self, claimed: Sequence[Annotation], size: tuple[int, int], names: Sequence[str]) -> np.ndarray:
        """Rows of one image from all that is said about it; ValueError where that cannot be used."""
        parts = []
        for own in claimed:
            try:
                parts.append(geometry.rows(own, size, names, resize=self.rules.resize))
            except UnknownClassError as e:
                raise ValueError(f"{own.where}{_line(own, e.label)}: {e}") from e
            except ValueError as e:
                raise ValueError(f"{own.where}: {e}") from e
        if all(geometry.same_boxes(parts[0], part, size) for part in parts[1:]):
            return parts[0]
        annotators = {own.file for own in claimed if self.file_of[own.file].format == JOINED_FORMAT}
        if len(annotators) == len(claimed) and (together := geometry.joined(parts, size)) is not None:
            self.joined[claimed[0].file, claimed[1].file] += 1
            return together
        first, second = claimed[0], claimed[1]
        choice = choice_between(self.file_of[first.file], self.file_of[second.file])
        raise ValueError(f"{first.where} and {second.where} say different things about one image; keep one{choice}")

    def _splits(self, index: ImageIndex) -> dict[Path, str]:
        """Splits stated by lists; a data set YAML says it all itself."""
        if self.material.described is not None:
            for own in self.split_files:
                self.leave_out(own.file, f"{self.material.description} states the splits")
            return {}
        given: GivenSplits = listed_splits(self.split_files, index)
        self.files += [Accounted(file, Role.SPLIT_LIST) for file in given.used]
        for file, reason in given.unused.items():
            self.leave_out(file, reason)
        self.warnings += given.warnings
        return given.by_image

    def _warn_of_formats(self) -> None:
        """Labels of two formats are joined, and said to be."""
        counts = Counter(file.format for file in self.label_files)
        if len(counts) > 1:
            shown = ", ".join(f"{n} of {name}" for name, n in sorted(counts.items()))
            self.warnings.append(f"label files of several formats are read together: {shown}; labels= takes one alone")

    def _items(
        self,
        photos: Sequence[Path],
        boxes: Mapping[Path, np.ndarray],
        claims: Claims,
        listed: Mapping[Path, str],
    ) -> list[Item]:
        described = self.material.described
        bad = {image for image, _ in self.problems} | self.doubtful.keys()
        by_file: set[Path] = set()
        # labels that do not count are no reason to believe that an image has no defect
        elsewhere = claim(self.refused, ImageIndex(self.root, photos), cache(same_picture)).by_image
        items = []
        for image in photos:
            if described is not None and image not in described:
                self.leave_out(image, f"not listed in {self.material.description}")
                continue
            facts = self.facts[image]
            if isinstance(facts, str):
                self.problems.append((image, f"{image}: {facts}"))
                bad.add(image)
            if image in bad or not isinstance(facts, ImageFacts):
                continue
            annotated = claims.by_image.get(image, [])
            try:
                split = described[image] if described is not None else stated_split(image, annotated, listed, self.root)
            except ValueError as e:
                self.problems.append((image, str(e)))
                continue
            by_file |= {image} if annotated and annotated[0].split else set()
            own = boxes.get(image)
            if own is None and split != "unlabeled" and image not in elsewhere:
                own = self.missing
            items.append(Item(image, own, split, size=(facts.width, facts.height)))
        self._warn_of_same_names(items)
        self._warn_of_formats()
        if described is None:
            known = {**listed, **dict.fromkeys(by_file, "")}
            self.warnings += lone_folders([item.image for item in items], self.root, known)
        return items

    def _warn_of_same_names(self, items: Sequence[Item]) -> None:
        """Images without labels that are called like labeled ones may be drawings or copies of them."""
        labeled = {folded(item.image.stem): item.image for item in items if item.boxes is not None}
        alike = [item.image for item in items if item.boxes is None and folded(item.image.stem) in labeled]
        if alike and self.material.described is None:
            count = counted(len(alike), "image without labels is", "images without labels are")
            self.warnings.append(
                f"{count} called like labeled ones, such as {alike[0]} and "
                f"{labeled[folded(alike[0].stem)]}; take them out of the data if they are drawings or masks of them"
            )

    def _account(self, items: Sequence[Item], photos: Sequence[Path]) -> Account:
        """Every file once; images that cannot be used are left out with their reason."""
        roles = {file.path: file for file in self.files}
        unused = {file for file, _ in self.problems}
        for own in self.label_files:
            if own.file not in unused or len(own.annotations) > 1:
                roles[own.file] = Accounted(own.file, Role.LABEL)
            self.warnings += [f"{own.file}: {note}" for note in own.notes]
        for listed in self.class_files:
            roles[listed.file] = Accounted(listed.file, Role.CLASS_LIST)
        if self.material.description is not None:
            description = self.material.description
            roles[description] = Accounted(description, Role.DESCRIPTION)
        used = {item.image for item in items}
        for file, reason in self.problems:
            if file not in used and roles.get(file, Accounted(file, Role.LEFT_OUT)).role is Role.LEFT_OUT:
                roles[file] = Accounted(file, Role.LEFT_OUT, reason.removeprefix(f"{file}: "))
        for image in photos:
            if image not in used and image not in roles:
                roles[image] = Accounted(image, Role.LEFT_OUT, self.doubtful.get(image, "unusable"))
        files = tuple(roles[path] for path in sorted(roles, key=lambda path: path.parts))
        return Account(files, self.material.outside, tuple(grouped(self.warnings)), self.material.counted)


def _line(annotation: Annotation, label: str | int) -> str:
    """Where in a YOLO label file an id stands, such as ``:3``."""
    if annotation.place or not isinstance(label, int) or annotation.image is not None:
        return ""
    with contextlib.suppress(OSError):
        for number, line in enumerate(annotation.file.read_text(encoding="utf-8-sig").splitlines(), 1):
            if line.split()[:1] and line.split()[0].partition(".")[0] == str(label):
                return f":{number}"
    return ""
