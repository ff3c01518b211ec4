"""Which classes a checkpoint may hold, and what may be done with them while it is read.

A pickle names classes and functions, and says what to do with them. Here it may make an empty object of a class of the
packages whose networks we train or read, and fill it with its attributes: that is how networks are stored, and runs no
code of the file's choice. No class can be called, since constructors read files, fetch weights, or evaluate texts.
"""

from __future__ import annotations

import enum
import importlib
import pathlib
import types
from typing import Any

import numpy as np
from torch import nn

Entry = tuple[Any, str]
"""An object, and the name by which a pickle gets it: an entry of ``torch.serialization.add_safe_globals``."""

NETWORKS = (
    "torch.nn.modules",
    "torchvision.models",
    "torchvision.ops",
    "ultralytics.nn",
    "ultralytics.utils",
    "segmentation_models_pytorch",
    "timm.layers",
    "timm.models",
)
"""Packages whose subclasses of ``torch.nn.Module`` are allowed."""

STORED = (
    "dfssd.distillation",
    "dfssd.pretraining.model",
    "dfssd.pretraining.objectives",
    "dfssd.pseudo_labels.online",
    "dfssd.pseudo_labels.thresholds",
    "dfssd.segmentation.model",
    "dfssd.segmentation.network",
    "ultralytics.nn.distill_model",
    "ultralytics.utils.loss",
    "timm.models._features",
    "ultralytics.utils.tal",
)
"""Modules and packages all of whose own classes are allowed: ours, and what networks hold besides other networks."""

TRANSFORMS = ("CenterCrop", "Compose", "InterpolationMode", "Normalize", "Resize", "ToTensor")
"""Classes of ``torchvision.transforms`` in networks that classify images."""

FORMER = {
    "ultralytics.nn.modules.block.Silence": "torch.nn.modules.linear.Identity",
    "ultralytics.nn.tasks.YOLOv10DetectionModel": "ultralytics.nn.tasks.DetectionModel",
    "ultralytics.utils.loss.v10DetectLoss": "ultralytics.utils.loss.E2EDetectLoss",
}
"""Former names of classes of Ultralytics -> those of today."""


class Refused(Exception):
    """A pickle asks for more than to store objects."""


_named: set[str] = set()


def allow(cls: type) -> None:
    """Allow a class that the user has named, a distillation term from another package, with those of its module."""
    _named.add(cls.__module__)


class _Stored(type):
    """Makes what a pickle gets in place of a class: it yields empty objects of it, and cannot be called."""

    stored: type

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise Refused(f"it calls {cls.stored.__module__}.{cls.stored.__qualname__} instead of storing one")


def real_classes(found: Any) -> Any:
    """What was read, with the classes themselves where it names a class as a value, as networks do of their layers."""
    if isinstance(found, _Stored):
        return found.stored
    if isinstance(found, nn.Module):
        for module in found.modules():
            vars(module).update({k: v.stored for k, v in vars(module).items() if isinstance(v, _Stored)})
    elif isinstance(found, dict):
        found.update({key: real_classes(value) for key, value in found.items()})
    return found


def _empty(stand_in: Any, *args: Any) -> Any:
    """``__new__`` of a stand-in."""
    if args:
        raise Refused(f"it makes {stand_in.stored.__qualname__} with arguments instead of storing one")
    return stand_in.stored.__new__(stand_in.stored)


def _attribute(of: Any, name: str) -> Any:
    """``getattr`` of a pickle: forward passes of networks, and members of enumerations."""
    cls = of.stored if isinstance(of, _Stored) else type(of)
    if isinstance(name, str) and issubclass(cls, nn.Module) and name.startswith("forward"):
        function = getattr(cls, name, None)
        if isinstance(function, types.FunctionType):
            return function if isinstance(of, _Stored) else types.MethodType(function, of)
    if isinstance(of, type) and issubclass(of, enum.Enum) and name in of.__members__:
        return of[name]
    raise Refused(f"it asks for the attribute {name!r} of {cls.__qualname__}")


def _data(name: str) -> Any:
    """What a pickle may call: makers of plain values; None if ``name`` is none of them."""
    if name in {"ultralytics.utils.IterableSimpleNamespace", "ultralytics.yolo.utils.IterableSimpleNamespace"}:
        from ultralytics.utils import IterableSimpleNamespace

        return IterableSimpleNamespace
    return _DATA.get(name)


_DATA: dict[str, Any] = {
    **dict.fromkeys(("builtins.getattr", "__builtin__.getattr"), _attribute),
    **dict.fromkeys(("builtins.frozenset", "__builtin__.frozenset"), frozenset),
    "numpy.dtype": np.dtype,
    "numpy.ndarray": np.ndarray,
    # numpy.core is what numpy 1 called it; the paths are those of any system and any Python
    **{f"numpy.{core}.multiarray.scalar": np.float64(0).__reduce__()[0] for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": np.zeros(0).__reduce__()[0] for core in ("core", "_core")},
    **{
        f"{module}.{system}Path": type(pathlib.Path())
        for module in ("pathlib", "pathlib._local")
        for system in ("Posix", "Windows")
    },
}
"""Plain values, and what makes them."""

_DTYPES = tuple(value for value in vars(np.dtypes).values() if isinstance(value, type))


def is_below(module: str, places: tuple[str, ...]) -> bool:
    """Whether a module is one of these, or lies in one of these packages."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


def _stored_class(name: str) -> type | None:
    """The class that objects of this name in a pickle have; None if no network consists of such objects."""
    module, _, attribute = FORMER.get(name, name).rpartition(".")
    transform = module.startswith("torchvision.transforms.") and attribute in TRANSFORMS
    packages = *NETWORKS, *STORED, *(named.partition(".")[0] for named in _named)
    if not (transform or is_below(module, packages)):
        return None
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None
    if not isinstance(found, type):
        return None
    own = found.__module__ == module and (module in _named or is_below(module, STORED))
    return found if transform or own or issubclass(found, (nn.Module, enum.Enum)) else None


def entries(name: str) -> list[Entry]:
    """What the unpickler needs to read objects of the name ``module.Class``; empty if it is not allowed."""
    if (made := _data(name)) is not None:
        filled = _DTYPES if made is np.dtype else ()
        return [(made, name), *((cls, _unreachable(cls)) for cls in filled)]
    if (cls := _stored_class(name)) is None:
        return []
    if issubclass(cls, enum.Enum):  # called to look a member up
        return [(cls, name)]
    stand_in = _Stored(cls.__name__, (), {"__new__": _empty, "stored": cls})
    # The unpickler fills objects of allowed classes alone, so it has to know the class itself as well.
    return [(stand_in, name), (cls, _unreachable(cls))]


def _unreachable(cls: type) -> str:
    """A name for a class that no pickle can ask for: those always have a dot."""
    return f"{cls.__module__}:{cls.__qualname__}".replace(".", ":")
