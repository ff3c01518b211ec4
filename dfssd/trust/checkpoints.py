"""The one door through which everything comes that torch has pickled: ours, and what Ultralytics loads in our process.

A file is read by ``torch.load(weights_only=True)`` with the classes of :mod:`dfssd.trust.classes`, after the names in
it have been looked through, so that the refusal can say which of them is not allowed. Importing this module puts the
door into Ultralytics; it is shut by :func:`dfssd.process.trust_files`, or by the first file that we load.
"""

from __future__ import annotations

import os
import pickle
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals
from ultralytics.nn import tasks
from ultralytics.utils import downloads, patches, torch_utils

from dfssd.errors import UserError, reason
from dfssd.process import trust_files, trusts_files
from dfssd.trust import image_caches, label_caches, silence
from dfssd.trust.classes import Entry, Refused, entries, real_classes

WAY_OUT = "if you know where it comes from, trust=true loads it"
"""The end of every refusal."""

_fetch = downloads.attempt_download_asset

_reading = threading.Lock()
"""torch knows one set of allowed classes for all threads: one file at a time has its own."""


def load(file: str | Path, map_location: Any = "cpu") -> Any:
    """The content of a file that torch has pickled.

    Args:
        file: The file.
        map_location: As for ``torch.load``.

    Raises:
        UserError: It holds something that no network needs, and files are not trusted. Nothing of it has been run.
        Exception: It is missing or damaged: as ``torch.load``.
    """
    trust_files(trusts_files())
    if trusts_files():
        return patches.torch_load(file, map_location=map_location)
    with _admitted(file):
        return real_classes(torch.load(file, map_location=map_location, weights_only=True))


def load_plain(file: Path) -> Any:
    """The content of a file of tensors, numbers, and text, with no class at all, whoever is trusted.

    Args:
        file: The file.

    Raises:
        Exception: It is missing, damaged, or holds something else: as ``torch.load``.
    """
    return torch.load(file, map_location="cpu", weights_only=True)


def load_checkpoint(file: str | Path) -> tuple[Any, dict[str, Any]]:
    """The network of a checkpoint of Ultralytics, fp32 in evaluation mode, and all of its content; as :func:`load`."""
    trust_files(trusts_files())
    network, content = tasks.load_checkpoint(file)
    return real_classes(network), real_classes(content)


def open_yolo(file: str | Path, task: str | None = None) -> Any:
    """``ultralytics.YOLO`` of any file that it runs; as :func:`load`."""
    from ultralytics import YOLO

    trust_files(trusts_files())
    return YOLO(file, task=task)


@contextmanager
def _admitted(file: str | Path) -> Iterator[None]:
    """Let the unpickler know the classes that a checkpoint holds, while the block reads it."""
    known: list[Any] = vet(file)
    with _reading, safe_globals(known):
        try:
            yield
        except Refused as e:
            raise _refusal(file, str(e)) from e
        except pickle.UnpicklingError as e:
            if not zipfile.is_zipfile(file):
                if _is_pickle(file):
                    raise _refusal(file, "it has the format of torch before 1.6") from e
                raise TypeError(f"{file} is no checkpoint of torch: it is damaged, or something else") from e
            raise _refusal(file, str(e).rpartition("WeightsUnpickler error:")[2]) from e


def vet(file: str | Path) -> list[Entry]:
    """Look through the names in a checkpoint, of which nothing is loaded, and return what the unpickler needs for them.

    Of what is no checkpoint of torch there are none: the loader says what is wrong with it.

    Raises:
        UserError: It holds something that is not allowed, and files are not trusted.
    """
    if trusts_files():
        return []
    try:
        names = get_unsafe_globals_in_checkpoint(file)
    except ValueError:  # no archive, or one of TorchScript
        return []
    except pickle.UnpicklingError as e:
        raise _refusal(file, str(e)) from e
    except (RuntimeError, EOFError):  # cut
        return []
    needed = {name: entries(name) for name in names}
    if refused := sorted(name for name, found in needed.items() if not found):
        raise _refusal(file, ", ".join(refused[:3]) + (f", and {len(refused) - 3} more" if len(refused) > 3 else ""))
    return [entry for found in needed.values() for entry in found]


def _is_pickle(file: str | Path) -> bool:
    with open(file, "rb") as opened:
        return opened.read(1) == pickle.PROTO


def _refusal(file: str | Path, what: str) -> UserError:
    return UserError(
        f"{file}: is not loaded, since it holds what could run a program on this machine "
        f"({reason(ValueError(what))}); {WAY_OUT}"
    )


@contextmanager
def _loading(weight: str | Path) -> Iterator[None]:
    """In place of Ultralytics' own: our classes, and none that can be called."""
    local: Any = tasks._SafeLoad._local
    with _admitted(weight):
        local.active = True
        try:
            yield
        finally:
            local.active = False


def _torch_load(file: Any, *args: Any, **kwargs: Any) -> Any:
    """In place of ``torch_load`` where Ultralytics rewrites checkpoints."""
    if trusts_files() or not isinstance(file, (str, os.PathLike)) or not tasks.SAFE_LOAD:
        return patches.torch_load(file, *args, **kwargs)
    return load(Path(file), kwargs.get("map_location", "cpu"))


def _found_or_fetched(file: str | Path, *args: Any, **kwargs: Any) -> str:
    """In place of ``attempt_download_asset``, which takes apostrophes out of paths, and then asks GitHub for the file.

    Only a bare name of a file that is not here is fetched, by Ultralytics' function.
    """
    path = Path(str(file))
    if path.exists() or (len(path.parts) > 1 and "://" not in str(file)):
        return str(file)
    return _fetch(file, *args, **kwargs)


def install() -> None:
    """Put the door into Ultralytics where it prepares safe loading, and where it has none, and what belongs to it."""
    hidden: Any = tasks._SafeLoad
    hidden.loading = staticmethod(_loading)
    rewriting: Any = torch_utils
    rewriting.torch_load = _torch_load
    loading: Any = downloads
    loading.attempt_download_asset = _found_or_fetched
    label_caches.install()
    image_caches.install()
    silence.install()


install()
