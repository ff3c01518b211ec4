"""Detectors without a pickle: the weights as safetensors, which hold numbers alone, and a YAML of the architecture."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from ultralytics import __version__
from ultralytics.nn.tasks import DetectionModel

from dfssd.deployment.facts import KEY
from dfssd.errors import UserError, reason
from dfssd.files import atomic_write, file_digest, read_yaml, write_yaml
from dfssd.trust.architectures import check_description
from dfssd.trust.checkpoints import load

SUFFIX = ".safetensors"

NAMES = "names"
"""The entry of the YAML with the class names by id; Ultralytics takes no notice of it."""


def write_tensors(checkpoint: Path, target: Path) -> None:
    """Write the detector of a checkpoint as ``target``, and its architecture with the class names as YAML beside it.

    The tensors have the names and the precision of the checkpoint. The YAML is one of Ultralytics, too.

    Args:
        checkpoint: A file of Ultralytics.
        target: The file, which ends with :data:`SUFFIX`; both are written whole or not at all.
    """
    content = load(checkpoint)
    network = content.get("ema") or content["model"]
    tensors = {name: value.detach().contiguous().clone() for name, value in network.state_dict().items()}
    metadata = {"format": "pt", KEY: json.dumps(dict(content.get(KEY) or {}), ensure_ascii=False)}
    write_yaml(target.with_suffix(".yaml"), {**_plain(network.yaml), NAMES: _plain(network.names)})
    with atomic_write(target) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_tensors(file: str | Path) -> tuple[DetectionModel, dict[str, Any]]:
    """The detector that :func:`write_tensors` has written, fp32 in evaluation mode, and the facts about it.

    Args:
        file: The safetensors; the YAML lies beside it under the same name.

    Raises:
        UserError: One of the files is missing or damaged, or they do not belong together.
    """
    file = Path(file)
    description = file.with_suffix(".yaml")
    for needed in (file, description):
        if not needed.is_file():
            raise UserError(f"{needed} does not exist; {file.name} and {description.name} belong together")
    tree = read_yaml(description)
    names = tree.pop(NAMES, None)
    if not isinstance(names, dict) or list(names) != list(range(len(names))):
        raise UserError(f"{description}: names: must name each class by its id, from 0 on")
    check_description(tree, str(description))
    try:
        network = DetectionModel(tree, ch=tree.get("channels", 3), nc=len(names), verbose=False)
    except Exception as e:  # whatever the parser stumbles over
        raise UserError(f"{description} describes no detector ({reason(e)})") from e
    try:
        with safe_open(str(file), framework="pt") as opened:
            facts = json.loads((opened.metadata() or {}).get(KEY, "{}"))
            names_of = opened.keys()
            network.load_state_dict({name: opened.get_tensor(name).float() for name in names_of})
    except (SafetensorError, RuntimeError, ValueError) as e:
        raise UserError(f"{file} does not hold the weights of {description.name} ({reason(e)})") from e
    network.names = {number: str(name) for number, name in names.items()}
    return network.eval(), facts


def as_checkpoint(file: str | Path) -> Path:
    """A checkpoint of Ultralytics with the detector of :func:`read_tensors`, for as long as this process runs."""
    return _checkpoint(Path(file).resolve(), file_digest(file) if Path(file).is_file() else "")


@cache
def _checkpoint(file: Path, digest: str) -> Path:
    network, facts = read_tensors(file)
    place = Path(tempfile.mkdtemp(prefix="dfssd-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    content = {"model": network.half(), "ema": None, "train_args": {"task": "detect"}, "version": __version__}
    torch.save({**content, KEY: facts} if facts else content, place / f"{file.stem}.pt")
    return place / f"{file.stem}.pt"


def _plain(value: Any) -> Any:
    """The value in types that YAML holds."""
    if isinstance(value, Mapping):
        return {key: _plain(own) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(own) for own in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
