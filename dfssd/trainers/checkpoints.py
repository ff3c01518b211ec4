"""Checkpoints of a stage: written beside the training, whole or not at all, and read again."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ultralytics.utils.torch_utils import strip_optimizer

from dfssd.errors import UserError, reason
from dfssd.files import aside, atomic_write, write_json
from dfssd.trust.checkpoints import load, load_checkpoint, vet


def trained_classes(start: str | Path) -> frozenset[str]:
    """Names of the classes that the network in a checkpoint knows; none for a description of an architecture."""
    if Path(start).suffix != ".pt":
        return frozenset()
    names = load_checkpoint(start)[0].names
    return frozenset(str(name) for name in (names.values() if isinstance(names, Mapping) else names))


class BackgroundWriter:
    """Does one piece of work at a time in a thread of its own.

    The thread is no daemon: also a process that ends with an error finishes it first.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Begin with ``work`` as soon as the work before is done.

        Raises:
            Exception: What the work before has raised.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work,), name="checkpoints")
        self._thread.start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as e:  # raised again in wait(), where someone sees it
            self._error = e

    def join(self) -> None:
        """Wait until all work is done, whether or not it has failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def wait(self) -> None:
        """Wait until all work is done.

        Raises:
            Exception: What it has raised.
        """
        self.join()
        error, self._error = self._error, None
        if error is not None:
            raise error


class Kept:
    """Stands in for the path of a checkpoint and keeps what is written to it."""

    content: bytes | None = None

    def write_bytes(self, content: bytes) -> int:
        """Keep ``content``; as the method of a path."""
        self.content = content
        return len(content)


def put_in_place(*paths: Path) -> None:
    """Give checkpoints that were written :func:`aside` their names, in order, when they are on the disk."""
    for path in paths:
        if aside(path).exists():
            with open(aside(path), "rb+") as f:
                os.fsync(f.fileno())
            os.replace(aside(path), path)


def write_checkpoints(files: Mapping[Path, bytes], summary_file: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary of a training, then its checkpoints.

    A checkpoint never exists without its summary. If the process dies between two renamings, what follows is older.

    Args:
        files: Path of each checkpoint -> content, in the order in which they appear.
        summary_file: File of the summary.
        summary: Its content.
    """
    for path, content in files.items():
        aside(path).write_bytes(content)
    write_json(summary_file, summary)
    put_in_place(*files)


class KnownScore:
    """Stands in for the validator where the score of a checkpoint is known: it was saved with it.

    Attributes:
        args: The arguments of the validator.
    """

    def __init__(self, args: Any):
        """Take the place of a validator with ``args``."""
        self.args = args

    def __call__(self, trainer: Any = None, *, model: Path) -> dict[str, float]:
        """The scores of the checkpoint ``model``, without those of the losses, which only a training measures."""
        found = load(model)["train_metrics"]
        return {name: value for name, value in found.items() if not name.startswith("val/")}


def read_checkpoint(file: Path) -> dict[str, Any]:
    """The content of a checkpoint of a training.

    Raises:
        UserError: It is damaged.
    """
    try:
        found: dict[str, Any] = load(file)
        int(found["epoch"])
    except UserError:  # it was not loaded
        raise
    except Exception as e:  # a file that was cut, or is something else: whatever the unpickler stumbles over
        raise unusable(file, f"is damaged ({reason(e)})") from e
    return found


def unusable(file: Path, what: str) -> UserError:
    """The error about a file in the folder of the checkpoints of a training."""
    return UserError(f"{file} {what}; remove {file.parent.parent}, and that training is repeated on resume=")


def finish_checkpoint(stage_dir: Path, target: Path, *, which: str = "best") -> None:
    """Write the best, or the last, checkpoint of a stage to ``target``: a plain, stripped Ultralytics file.

    Works on a checkpoint that the trainer has stripped already and on one that a killed process left behind, whose
    distillation wrapper is removed here.

    Raises:
        UserError: The checkpoint is damaged.
    """
    chosen, last = (stage_dir / "weights" / f"{name}.pt" for name in (which, "last"))
    checkpoint = chosen if chosen.exists() else last
    if checkpoint.exists():
        vet(checkpoint)  # Ultralytics only warns
    with atomic_write(target) as temporary:
        strip_optimizer(checkpoint, s=str(temporary))
        if not temporary.exists():  # Ultralytics has only warned
            raise unusable(checkpoint, "is damaged (not a checkpoint of Ultralytics)")
