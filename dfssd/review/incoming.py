"""What people have made of a review: files of annotation tools, read by the readers of data sets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dfssd.datasets.annotations import Annotation, BrokenFile, ClassFile, Found, LabelFile, OtherFile
from dfssd.datasets.archives import unpack
from dfssd.datasets.class_names import NameList, UnknownClassError, agree, ids_of, yaml_names
from dfssd.datasets.inventory import take_inventory
from dfssd.datasets.readers import is_read, read_file
from dfssd.datasets.readers.texts import read_text_of
from dfssd.datasets.readers.yolo import labels_of
from dfssd.datasets.yaml_files import find_description
from dfssd.errors import UserError
from dfssd.files import load_yaml
from dfssd.review import REASONS


@dataclass
class Incoming:
    """The annotations of some files.

    Attributes:
        annotations: One for each image that a file says something about; labels are names of classes.
        notes: What was taken in a certain way, or has no part in it.
        problems: Files that cannot be read, each with the reason.
        unconfirmed: Boxes of YOLO that still have the score of a prediction.
    """

    annotations: list[Annotation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    unconfirmed: int = 0


def read_incoming(sources: Sequence[Path]) -> Incoming:
    """Read files, folders, and zip files of annotation tools.

    Args:
        sources: Exports of Label Studio, CVAT, COCO, or a folder of YOLO labels with its class list; each alone or
            zipped. Any other format that data sets can have is read as well.

    Raises:
        UserError: One does not exist, holds no annotation, or has ids of classes without a list of names.
    """
    incoming = Incoming()
    for source in sources:
        source = source.expanduser()
        if not source.exists():
            raise UserError(f"{source} does not exist; give the file that the annotation tool has exported")
        before = len(incoming.annotations), len(incoming.problems)
        if source.suffix.lower() == ".zip" and source.is_file():
            with tempfile.TemporaryDirectory() as folder:
                unpack(source, Path(folder))
                _read(Path(folder), source, incoming)
        else:
            _read(source, source, incoming)
        if before == (len(incoming.annotations), len(incoming.problems)):
            why = f" ({incoming.notes[-1]})" if incoming.notes else ""
            raise UserError(f"{source} holds no reviewed image{why}; export the finished annotations of your tool")
    return incoming


def _read(place: Path, source: Path, incoming: Incoming) -> None:
    """Add what a file or folder holds; messages name ``source`` instead of ``place``, a temporary copy."""
    names: list[NameList] = []
    files: list[LabelFile] = []
    for found in _found_in(place, names):
        if isinstance(found, ClassFile):
            names.append(NameList(found.names, found.file))
        elif isinstance(found, BrokenFile):
            incoming.problems.append((str(_named(found.file, place, source)), found.problem))
        elif isinstance(found, LabelFile):
            own, scores = _without_scores(found)
            files.append(own)
            incoming.unconfirmed += scores
        elif isinstance(found, OtherFile):
            incoming.notes.append(f"{_named(found.file, place, source)}: {found.reason}")
    listed = agree(names)
    for file in files:
        incoming.notes += [f"{_named(file.file, place, source)}: {note}" for note in file.notes]
        for annotation in file.annotations:
            moved = replace(annotation, file=_named(file.file, place, source))
            incoming.annotations.append(_with_names(moved, listed, source))


def _found_in(place: Path, names: list[NameList]) -> Iterable[Found]:
    if place.is_file():
        return [read_file(place)]
    inventory = take_inventory(place)
    description, others = find_description(inventory)
    if description is not None:
        content = load_yaml(description)
        assert isinstance(content, dict), "of a description"
        names.append(NameList(yaml_names(content, description), description))
    known = {found.file for found in others} | {description}
    texts = (path for path in inventory.paths if path not in known and is_read(path.suffix.lower()))
    texts = (path for path in texts if path.name != REASONS)
    return [*others, *map(read_file, texts)]


def _named(file: Path, place: Path, source: Path) -> Path:
    return source / file.relative_to(place) if file != place else source


def _without_scores(found: LabelFile) -> tuple[LabelFile, int]:
    """A YOLO file whose rows have scores in a sixth column without them, and how many there were."""
    if found.format != "yolo" or not any(annotation.problem for annotation in found.annotations):
        return found, 0
    rows = [line.split() for line in read_text_of(found.file).text.splitlines()]
    scored = sum(len(row) == 6 for row in rows)
    if not scored or any(len(row) not in {0, 5, 6} for row in rows):
        return found, 0
    return labels_of(found.file, [" ".join(row[:5]) for row in rows]), scored


def _with_names(annotation: Annotation, listed: NameList | None, source: Path) -> Annotation:
    """The annotation with names for ids, and with the name of its image, where that is the name of the file."""
    image = annotation.file.stem if annotation.image is None else annotation.image
    ids = [label for label in annotation.labels if isinstance(label, int)]
    if not ids:
        return replace(annotation, image=image)
    if listed is None:
        raise UserError(
            f"{source}: the classes are numbers ({annotation.file.name}), and there is no list of their names; put the "
            "classes.txt of the exported folder beside the labels"
        )
    try:
        labels = tuple(listed.names[i] for i in ids_of(annotation.labels, listed.names))
    except UnknownClassError as e:
        return replace(annotation, image=image, labels=(), problem=str(e))
    return replace(annotation, image=image, labels=labels)
