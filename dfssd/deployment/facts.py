"""What an exported file says about itself: written into ONNX files and checkpoints, without a path of this machine.

Beside Ultralytics' own metadata (class names, task, stride, size of the input, license), a file has the key
``dfssd``: in an ONNX file JSON text, in a checkpoint a dictionary. :class:`~dfssd.deployment.infer.Detector` reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from dfssd import __version__
from dfssd.config import KEYS
from dfssd.datasets.images.pixels import DEPTHS
from dfssd.datasets.preprocessing import Preprocess
from dfssd.deployment.infer import GRAY
from dfssd.errors import UserError
from dfssd.files import atomic_write, read_yaml, write_yaml

KEY = "dfssd"
"""The key in a file."""

LICENSE = "AGPL-3.0"

Facts = Mapping[str, Any]
"""Content of the key; see :func:`facts`."""

_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/]|.*[\\/].*[\\/]|\.{1,2}[\\/]|~")
"""How a text begins that is the path of a file, not one of its names, a class, or the address of a page."""


def facts(
    *,
    run: str,
    ultralytics: str,
    names: tuple[str, ...],
    bits: int = 8,
    preprocess: Mapping[str, Any] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What dfssd adds to the metadata of a file.

    Args:
        run: Name of the run.
        ultralytics: Version of Ultralytics that trained it.
        names: Class names, by id.
        bits: Bits that the camera of the training images uses in files with more than 8; 8: there were none.
        preprocess: Changes of the pixels when the training images were imported (section ``preprocess``); None: none.
        thresholds: Lowest score of each class, chosen on validation images, above 1 for one that never counts; None:
            none were chosen.

    Raises:
        ValueError: A threshold is missing, or of no class, or below 0.
    """
    found: dict[str, Any] = {
        "dfssd": __version__,
        "ultralytics": ultralytics,
        "run": run,
        "license": LICENSE,
        "names": list(names),
        "preprocessing": {"letterbox": GRAY, "colors": "RGB", "scale": "1/255", "layout": "NCHW"},
    }
    if bits > 8:
        found["bits"] = bits
    if preprocess:
        found["preprocess"] = dict(preprocess)
    if thresholds is not None:
        if set(thresholds) != set(names) or not all(value >= 0 for value in thresholds.values()):
            raise ValueError(
                f"thresholds must be one of at least 0 for each of {', '.join(names)}, not {dict(thresholds)}"
            )
        found["thresholds"] = {name: float(thresholds[name]) for name in names}
    return found


def sign_onnx(file: Path, about: Facts) -> None:
    """Write facts into an ONNX file of Ultralytics, and take paths, and the time of the export, out of it.

    Without the time, exporting the same network twice gives the same file.

    Args:
        file: The file; changed, whole or not at all.
        about: As of :func:`facts`.
    """
    import onnx

    network = onnx.load(str(file))
    values = {entry.key: entry.value for entry in network.metadata_props}
    values.pop("date", None)
    if "args" in values:
        values["args"] = re.sub(r"'data': (?:'[^']*'|\"[^\"]*\")", "'data': None", values["args"])
    values["description"] = _description(values, about)
    values[KEY] = json.dumps(dict(about), ensure_ascii=False)
    del network.metadata_props[:]
    onnx.helper.set_model_props(network, values)
    with atomic_write(file) as temporary:
        onnx.save(network, str(temporary))


def sign_folder(folder: Path, about: Facts) -> None:
    """Write facts into the ``metadata.yaml`` of a format that is a folder, and take paths out of it.

    Args:
        folder: The format, as Ultralytics has written it.
        about: As of :func:`facts`.
    """
    file = folder / "metadata.yaml"
    if file.is_file():
        values = read_yaml(file)
        values.pop("date", None)
        changed = {"args": without_paths(values.get("args", {})), "description": _description(values, about)}
        write_yaml(file, {**values, **changed, KEY: dict(about)})


def sign_checkpoint(source: Path, target: Path, about: Facts) -> None:
    """Copy a checkpoint of Ultralytics with facts, and with file names in place of paths; its weights are the same.

    Args:
        source: The checkpoint.
        target: The copy, written whole or not at all.
        about: As of :func:`facts`.
    """
    import torch

    from dfssd.trust.checkpoints import load

    checkpoint = load(source)
    checkpoint["train_args"] = without_paths(checkpoint.get("train_args") or {})
    checkpoint.pop("git", None)
    for part in (checkpoint.get("model"), checkpoint.get("ema")):
        if part is None:
            continue
        if isinstance(getattr(part, "yaml", None), dict) and "yaml_file" in part.yaml:
            part.yaml = {**part.yaml, "yaml_file": without_paths(part.yaml["yaml_file"])}
        for name in ("args", "pt_path"):
            if (own := getattr(part, name, None)) is not None:
                setattr(part, name, without_paths(own if isinstance(own, (dict, str)) else vars(own)))
    checkpoint[KEY] = dict(about)
    with atomic_write(target) as temporary:
        torch.save(checkpoint, temporary)


def _description(values: Mapping[str, Any], about: Facts) -> str:
    return f"{values.get('head', 'network')} of the run {about['run']}, by dfssd {about['dfssd']}"


def without_paths(value: Any) -> Any:
    """The value with the name of a file wherever it, or something in it, is the path of a file."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1] if _PATH.match(value) and "://" not in value else value
    if isinstance(value, Mapping):
        return {key: without_paths(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(without_paths(one) for one in value)
    return value


def checked_facts(about: Any, file: object) -> Facts:
    """The facts that a file tells about itself, which may be anybody's.

    Raises:
        UserError: They are not as :func:`facts` writes them.
    """
    checks = {"bits": _is_depth, "preprocess": _are_steps, "thresholds": _are_scores}
    told = isinstance(about, Mapping)
    if not told or not all(check(about[key]) for key, check in checks.items() if about.get(key) is not None):
        raise UserError(f"model={file}: what it says of its training (dfssd) is damaged: export it again")
    found: Facts = about
    return found


def _is_depth(bits: Any) -> bool:
    return type(bits) is int and bits in DEPTHS


def _are_steps(steps: Any) -> bool:
    own = {field.name for field in fields(Preprocess)}
    if not isinstance(steps, Mapping) or set(steps) != own:
        return False
    return not any(KEYS[f"preprocess.{name}"].check.problem(steps[name]) for name in own)


def _are_scores(thresholds: Any) -> bool:
    return isinstance(thresholds, Mapping) and all(isinstance(value, (int, float)) for value in thresholds.values())


def thresholds_of(about: Facts, names: Mapping[int, str], otherwise: float) -> np.ndarray:
    """Lowest score of each class, (classes,) float32; ``otherwise`` where the facts have none."""
    own = about.get("thresholds", {})
    return np.array([own.get(name, otherwise) for name in names.values()], np.float32)
