"""Foundation models whose features are learned: vision transformers of the library timm, such as DINOv2 and DINOv3."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfssd.config import nearest
from dfssd.errors import UserError
from dfssd.pretraining.objectives import GRID


def check_features(wanted: str) -> None:
    """Check what can be checked without reading or fetching weights.

    Args:
        wanted: Name of a model of timm, or a folder with the files of one (``config.json`` and the weights).

    Raises:
        UserError: timm is not installed, there is no such model, or the folder lacks its description.
    """
    timm = _timm(wanted)
    if Path(wanted).is_dir():
        if not (Path(wanted) / "config.json").is_file():
            raise UserError(
                f"pretrain={wanted}: no config.json there; give the folder of a timm model, as its hub page has it"
            )
        return
    known = timm.list_models(pretrained=True)  # name.weights; the name alone stands for its first weights
    if not any(wanted in {name, name.partition(".")[0]} for name in known):
        raise UserError(
            f"pretrain={wanted} is neither a folder nor a model of timm {timm.__version__} with weights"
            f"{nearest(wanted, known)}"
        )


def _timm(wanted: str) -> ModuleType:
    if find_spec("timm") is None:
        raise UserError(f"pretrain={wanted} needs timm: install it with pip install 'dfssd[foundation]'")
    import timm

    return timm


class TimmFeatures(nn.Module):
    """The last feature map of a vision transformer, on the grid of :data:`~dfssd.pretraining.objectives.GRID` px.

    The images are resized such that one patch of the model sees one cell of the grid.

    Attributes:
        width: D, channels of the features.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, wanted: str):
        """Load the model with its weights; frozen, in eval mode.

        Args:
            wanted: As for :func:`check_features`; the weights of a model that is named are fetched once.

        Raises:
            UserError: It cannot be loaded, or is no vision transformer.
        """
        super().__init__()
        timm = _timm(wanted)
        name = f"local-dir:{wanted}" if Path(wanted).is_dir() else wanted
        try:
            network: Any = timm.create_model(name, pretrained=True, num_classes=0, dynamic_img_size=True)
        except TypeError as e:
            raise UserError(f"pretrain={wanted} is not a vision transformer; give one, such as DINOv2's") from e
        except Exception as e:  # a library that reads files and asks a hub raises anything
            reason = " ".join(str(e).split())[:160]
            raise UserError(
                f"pretrain={wanted} could not be loaded ({reason}): without network, put config.json and the weights "
                "into a folder and give that"
            ) from e
        self.network = network.eval().requires_grad_(False)
        self.width = int(network.num_features)
        self.patch = tuple(int(side) for side in network.patch_embed.patch_size)
        data = timm.data.resolve_model_data_config(network)
        for part, key in (("mean", "mean"), ("deviation", "std")):
            self.register_buffer(part, torch.tensor(data[key]).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, D, H / GRID, W / GRID) of images (N, 3, H, W), 0 to 1."""
        size = [side // GRID * patch for side, patch in zip(images.shape[2:], self.patch, strict=True)]
        images = images.float()
        if size != list(images.shape[2:]):
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        normalized = (images - self.mean) / self.deviation
        [features] = self.network.forward_intermediates(normalized, indices=1, norm=True, intermediates_only=True)
        result: Tensor = features
        return result

    def train(self, mode: bool = True) -> TimmFeatures:
        """Stay in eval mode."""
        return super().train(False)
