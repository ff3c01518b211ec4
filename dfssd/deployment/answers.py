"""What ``dfssd predict`` writes: ``predictions.json``, ``predictions.csv``, and drawn images, frame by frame."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TextIO

import numpy as np

from dfssd.deployment.drawing import drawn
from dfssd.deployment.sources import Frame
from dfssd.errors import UserError
from dfssd.files import atomic_write, read_json
from dfssd.trust.texts import in_table

JSON, CSV, IMAGES = "predictions.json", "predictions.csv", PurePosixPath("images")
"""Names in the folder of the answers."""

_DRAWN = "drawn"
"""Key of an image in ``predictions.json``: where it is drawn, below the folder of the answers."""

_WRITTEN = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Suffixes that drawn images keep; others become PNG."""

Verdict = Literal["OK", "NG", "unreadable"]

_EMPTY = dict.fromkeys(("class", "score", "x1", "y1", "x2", "y2"), "")
"""The columns of a box, for a frame without one."""

COLUMNS = ("image", "frame", "verdict", *_EMPTY)


def answer(pixels: np.ndarray, boxes: np.ndarray, names: Mapping[int, str]) -> dict[str, Any]:
    """What is said of an image that could be read, as it is written.

    Args:
        pixels: (h, w, 3) uint8.
        boxes: (n, 6) rows x1, y1, x2, y2 [px], score, class id; all of them count.
        names: Of the classes, by id.

    Returns:
        ``verdict`` (NG if there is a box, else OK), ``width`` and ``height`` [px], and ``boxes``, each with ``class``,
        ``score`` and its corners ``x1``, ``y1``, ``x2``, ``y2`` [px].
    """
    found = [
        {
            "class": names[int(class_id)],
            "score": round(score, 5),
            **{name: round(value, 2) for name, value in zip(("x1", "y1", "x2", "y2"), corners)},
        }
        for *corners, score, class_id in boxes.tolist()
    ]
    height, width = pixels.shape[:2]
    return {"verdict": "NG" if found else "OK", "width": width, "height": height, "boxes": found}


def unreadable(problem: str) -> dict[str, Any]:
    """What is said of an image that could not be read, as it is written."""
    return {"verdict": "unreadable", "problem": problem}


def by_class(thresholds: np.ndarray, names: Mapping[int, str]) -> dict[str, float]:
    """Lowest score of each class, by its name, as it is written."""
    return {names[number]: round(float(lowest), 5) for number, lowest in enumerate(thresholds)}


@dataclass
class Summary:
    """Counts over all frames.

    Attributes:
        verdicts: Number of frames by verdict.
        boxes: Number of boxes by class.
        milliseconds: Time of each batch by its number of frames, from the pixels to the boxes [ms per frame].
        unreadable: Files that could not be read, with the reason.
        exit_code: That of the signal that has ended it, such as Ctrl-C; 0: it has come to its end.
        live: Whether the source has no end of its own.
    """

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    exit_code: int = 0
    live: bool = False

    @property
    def frames(self) -> int:
        """Number of frames, unreadable ones included."""
        return self.verdicts.total()

    def as_json(self) -> dict[str, Any]:
        """The counts as they are written; the times without the first one, which warms up, if there are others."""
        times = self.milliseconds[1:] or self.milliseconds
        return {
            "images": self.frames,
            **{verdict: self.verdicts[verdict] for verdict in ("OK", "NG", "unreadable")},
            "boxes": dict(self.boxes),
            "ms_median": round(float(np.median(times)), 2) if times else None,
            "ms_p95": round(float(np.percentile(times, 95)), 2) if times else None,
            "interrupted": self.exit_code != 0,
        }


class Answers:
    """The files of one call, written as the frames come; they get their names when it ends, whole."""

    def __init__(self, folder: Path, names: Mapping[int, str], save: bool, texts: tuple[TextIO, TextIO]) -> None:
        """Use the opened files; see :func:`answers_in`."""
        self.folder, self.names, self.save = folder, names, save
        self.json, table = texts
        self.rows = csv.writer(table, lineterminator="\n")
        self.rows.writerow(COLUMNS)
        self.summary = Summary()

    def add(self, frame: Frame, boxes: np.ndarray) -> Verdict:
        """Write what was found in a frame.

        Args:
            frame: The frame.
            boxes: (n, 6) rows x1, y1, x2, y2 [px], score, class id; all of them count.

        Returns:
            NG if there is a box.
        """
        if frame.pixels is None:
            said = unreadable(frame.problem)
            self.summary.unreadable.append((frame.name, frame.problem))
        else:
            said = answer(frame.pixels, boxes, self.names)
        verdict: Verdict = said["verdict"]
        found: list[dict[str, Any]] = said.get("boxes", [])
        entry = {"image": frame.name, "frame": frame.number, **said}
        if self.save and frame.pixels is not None and (frame.number is None or verdict == "NG"):
            entry[_DRAWN] = self._draw(frame, frame.pixels, boxes)
        self.json.write(f"{',' if self.summary.frames else ''}\n  {json.dumps(entry, ensure_ascii=False)}")
        number = "" if frame.number is None else frame.number
        rows = ([frame.name, number, verdict, *box.values()] for box in found or [_EMPTY])
        self.rows.writerows(map(in_table, row) for row in rows)
        self.summary.verdicts[verdict] += 1
        self.summary.boxes.update(str(box["class"]) for box in found)
        return verdict

    def _draw(self, frame: Frame, pixels: np.ndarray, boxes: np.ndarray) -> str:
        """Save the drawn frame: an image under its own name, a frame of a video in a folder with that of the video.

        Returns:
            Its path below the folder of the answers.
        """
        name = PurePosixPath(frame.name.replace("://", "_").replace(":", "_"))
        if frame.number is not None:
            name = name / f"{frame.number:06d}.jpg"
        elif name.suffix.lower() not in _WRITTEN:
            name = name.with_name(f"{name.name}.png")
        with atomic_write(self.folder / IMAGES / name) as temporary:
            drawn(pixels, boxes, self.names).save(temporary)
        return (IMAGES / name).as_posix()


@contextmanager
def answers_in(
    folder: Path, *, model: str, source: str, names: Mapping[int, str], thresholds: np.ndarray, save: bool
) -> Iterator[Answers]:
    """Open the files of a call; both tables appear in ``folder`` when the block ends, also by Ctrl-C inside of it.

    The drawings of an earlier call there are removed, and no other file.

    Args:
        folder: Where to; made if needed.
        model: The model, for the record.
        source: The source, for the record.
        names: Of the classes, by id.
        thresholds: Lowest score of each class.
        save: Also save drawn images: all images, and of videos and streams the frames that are NG.

    Raises:
        UserError: The folder cannot be written to.
    """
    _remove_drawings(folder)
    with ExitStack() as files:
        texts = []
        for name in (JSON, CSV):
            temporary = files.enter_context(atomic_write(folder / name))
            texts.append(files.enter_context(open(temporary, "w", encoding="utf-8", newline="")))
        answers = Answers(folder, names, save, (texts[0], texts[1]))
        head = {"model": model, "source": source, "thresholds": by_class(thresholds, names)}
        answers.json.write(json.dumps(head, ensure_ascii=False, indent=1)[:-2] + ',\n "images": [')
        yield answers
        answers.json.write("\n ],\n" + f' "summary": {json.dumps(answers.summary.as_json(), ensure_ascii=False)}\n}}\n')


def drawings_in(folder: Path) -> frozenset[str]:
    """The drawings that the answers in a folder list: their paths below it, with ``/``; none without answers."""
    images = read_json(folder / JSON).get("images")
    listed = {one.get(_DRAWN) for one in images if isinstance(one, dict)} if isinstance(images, list) else set()
    paths = {PurePosixPath(one) for one in listed if isinstance(one, str)}
    return frozenset(path.as_posix() for path in paths if IMAGES in path.parents and ".." not in path.parts)


def drawings_among(paths: Iterable[Path]) -> frozenset[Path]:
    """Those of some files that are drawings of earlier calls, wherever the folders of their answers are."""
    known: dict[Path, frozenset[str]] = {}
    found = set()
    for path in paths:
        whole = path.parent.resolve() / path.name
        for folder in (parent.parent for parent in whole.parents if parent.name == IMAGES.name):
            if folder not in known:
                known[folder] = drawings_in(folder)
            if whole.relative_to(folder).as_posix() in known[folder]:
                found.add(path)
    return frozenset(found)


def _remove_drawings(folder: Path) -> None:
    """Remove the drawings of the answers in a folder, and the folders that are empty without them."""
    for name in drawings_in(folder):
        (folder / name).unlink(missing_ok=True)
        for parent in PurePosixPath(name).parents[:-1]:
            try:
                (folder / parent).rmdir()
            except OSError:  # it holds other files, or is gone
                break


def free_folder(out: str | None, overwrite: bool, save: bool) -> Path:
    """The folder for the answers: the one given, or the next free one of ``runs/predict``, ``runs/predict2``, ...

    Args:
        out: The one given; None: none.
        overwrite: Whether it may hold the answers of an earlier call.
        save: Whether images are drawn into it.

    Raises:
        UserError: The one given holds the answers of an earlier call, or other files where the drawings go.
    """
    if out is None:
        numbers = iter(range(2, 1_000_000))
        folder = Path("runs") / "predict"
        while folder.exists():
            folder = folder.with_name(f"predict{next(numbers)}")
        return folder
    folder = Path(out).expanduser()
    if (folder / JSON).exists() and not overwrite:
        raise UserError(f"out={out}: holds the answers of an earlier call; choose another, or add overwrite=true")
    if save:
        own = drawings_in(folder)
        files = (path.relative_to(folder) for path in sorted((folder / IMAGES).rglob("*")) if not path.is_dir())
        if foreign := next((path for path in files if path.as_posix() not in own), None):
            raise UserError(
                f"out={out}: drawings go to its folder {IMAGES}/, which holds other files ({foreign.name}); "
                "choose another, or add save=false"
            )
    return folder
