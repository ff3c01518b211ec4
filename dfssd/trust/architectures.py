"""Descriptions of networks, which Ultralytics builds from: known layers and activations, and nothing that it would run.

An activation is Python that Ultralytics evaluates, and a layer is any name that its module knows. While files are not
trusted it builds by a list of its own (:func:`dfssd.process.trust_files`); what is asked here is the same, so that it
can be said which word is not allowed before a network is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torchvision
from torch import nn
from ultralytics.nn import tasks

from dfssd.errors import UserError, reason
from dfssd.process import trusts_files
from dfssd.trust.checkpoints import WAY_OUT


def check_description(tree: Mapping[str, Any], where: str) -> None:
    """Check the layers and the activation of a network, unless files are trusted.

    Args:
        tree: Its YAML, or what a checkpoint keeps of it.
        where: What the user has named it by, for the message.

    Raises:
        UserError: One of them is none.
    """
    if trusts_files():
        return
    if activation := tree.get("activation"):
        try:
            tasks._SafeLoad.activation(str(activation))
        except Exception as e:  # whatever its arguments are not good for
            raise UserError(
                f"{where}: activation: {reason(ValueError(str(activation)))} is no activation of torch, such as "
                f"nn.ReLU() or nn.LeakyReLU(0.1); {WAY_OUT}"
            ) from e
    for part in ("backbone", "head"):
        for row in tree.get(part) or ():
            if isinstance(row, (list, tuple)) and len(row) > 2 and not _is_layer(row[2]):
                raise UserError(f"{where}: {part}: {reason(ValueError(str(row[2])))} is no layer; {WAY_OUT}")


def _is_layer(name: Any) -> bool:
    """Whether Ultralytics knows a layer of this name."""
    if not isinstance(name, str):
        return False
    if name.startswith("nn."):
        found = getattr(nn, name[3:], None)
    elif name.startswith("torchvision.ops."):
        found = getattr(torchvision.ops, name[16:], None)
    else:
        found = vars(tasks).get(name)
    return isinstance(found, type) and issubclass(found, nn.Module)
