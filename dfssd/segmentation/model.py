"""Segmentation networks as Ultralytics models: MFF-Metal, Ultralytics' own, and baselines from a library.

A network with output at full resolution becomes three layers, :class:`Normalisation`, the network, and
:class:`FullResolutionHead`, by which Ultralytics knows the task. Checkpoints are then ordinary Ultralytics files:
``YOLO(path)`` predicts, validates and exports wherever ``dfssd`` can be imported. The exported ONNX file needs none of
our code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ultralytics.nn.modules.head import SemanticSegment
from ultralytics.nn.tasks import SemanticSegmentationModel, yaml_model_load
from ultralytics.utils.torch_utils import fuse_conv_and_bn

from dfssd.errors import UserError
from dfssd.segmentation.network import MFFMetal
from dfssd.trust.architectures import check_description
from dfssd.trust.checkpoints import load_checkpoint
from dfssd.wording import counted

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Channel statistics of CIFAR-10, as published."""

BLOCKS = (2, 2, 6)
"""Bottlenecks of MFF-Metal at 1/2, 1/4 and 1/8."""

_WIDTH = re.compile(r"mffmetal-(\d+)")
_LIBRARY = re.compile(r"smp:(\w+)(?:/([\w.-]+))?(?:/([\w.+-]+))?")
_ENCODER = "resnet34"


class Normalisation(nn.Module):
    """(x - mean) / std of each channel of images in [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = MEAN, std: Sequence[float] = STD):
        """Set the statistics of the channels."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> the same shape."""
        return (x - self.mean) / self.std


class FullResolutionHead(SemanticSegment):
    """The end of a network whose logits are at full resolution already: passes them on.

    Unlike Ultralytics' own head it exports logits in every format, not class ids in some: they give probabilities,
    and a file can be compared with its checkpoint. Ultralytics' predictor and validator take both.
    """

    classifier: Any
    aux_head: Any

    def __init__(self, nc: int, stride: int):
        """Build a head without parameters.

        Args:
            nc: Classes with the background.
            stride: Both sides of the images must be multiples of it [px].
        """
        nn.Module.__init__(self)  # that of SemanticSegment would add a classifier
        self.nc, self.nl = nc, 1
        self.stride = torch.tensor([float(stride)])
        self.classifier = self.aux_head = None

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, nc, H, W), unchanged."""
        return x


class FullResolutionModel(SemanticSegmentationModel):
    """An Ultralytics model from a network that turns normalized images (N, 3, H, W) into logits (N, nc, H, W).

    Attributes:
        yaml: The description from which :func:`build_model` builds the same network again, as on resume.
        stride: Both sides of the images must be multiples of it [px], (1,).
    """

    def __init__(
        self, network: nn.Module, spec: Mapping[str, Any], *, nc: int, stride: int, scale: Normalisation | None = None
    ):
        """Wrap ``network``.

        Args:
            network: The network.
            spec: One entry, the kind of network with its arguments; kept in ``yaml``.
            nc: Classes with the background.
            stride: Both sides of the images must be multiples of it [px].
            scale: How the network wants its images; None: with the statistics of CIFAR-10.
        """
        nn.Module.__init__(self)  # that of SemanticSegmentationModel would read a YAML file
        self.model = nn.Sequential(scale or Normalisation(), network, FullResolutionHead(nc, stride))
        layers: Any = self.model
        for i, layer in enumerate(layers):  # what Ultralytics' forward pass and summary read from each layer
            layer.i, layer.f, layer.type = i, -1, type(layer).__name__
            layer.np = sum(p.numel() for p in layer.parameters())
        self.save: list[int] = []
        self.yaml = {**spec, "nc": nc, "channels": 3}
        self.stride = self.model[-1].stride
        self.nc, self.names = nc, {i: str(i) for i in range(nc)}
        self.task, self.inplace = "semantic", True

    def is_fused(self) -> bool:
        """Whether there is no batch normalization left to fold."""
        return next(_foldable(self.model), None) is None

    def fuse(self, verbose: bool = True, imgsz: int = 640) -> FullResolutionModel:
        """Fold each batch normalization that follows a convolution into it, in place; the outputs stay the same."""
        if not self.is_fused():
            for holder, i, norm_holder, j in list(_foldable(self.model)):
                holder[i] = fuse_conv_and_bn(holder[i], norm_holder[j])
                norm_holder[j] = nn.Identity()
            self.info(verbose=verbose, imgsz=imgsz)
        return self


class MFFMetalModel(FullResolutionModel):
    """MFF-Metal as an Ultralytics model; see :class:`~dfssd.segmentation.network.MFFMetal`."""

    def __init__(self, width: int = 30, nc: int = 4, blocks: Sequence[int] = BLOCKS):
        """Build the network with random weights.

        Args:
            width: Channels at full resolution, a multiple of 6.
            nc: Classes with the background, 2 to 255.
            blocks: Bottlenecks at 1/2, 1/4 and 1/8.

        Raises:
            ValueError: An argument has a wrong value.
        """
        network = MFFMetal(width, nc, blocks)
        super().__init__(network, {"mffmetal": {"width": width, "blocks": list(blocks)}}, nc=nc, stride=8)


def build_model(
    source: str | Path | Mapping[str, Any], nc: int, names: Sequence[str] | Mapping[int, str] | None = None
) -> SemanticSegmentationModel:
    """A segmentation model for ``nc`` classes from its name.

    Args:
        source: ``mffmetal-30``, ``mffmetal-180`` or any other width; an Ultralytics ``*-sem.yaml``; a semantic ``.pt``,
            whose weights are used as far as their shapes fit; ``smp:unet``, ``smp:unetplusplus`` or
            another architecture of ``segmentation-models-pytorch``, with ``smp:unet/resnet18`` for another encoder
            than resnet34, and ``smp:unet/resnet18/imagenet`` for its weights of that name, which the library fetches;
            or the ``yaml`` of a model that was built here.
        nc: Classes with the background.
        names: Class names in id order; None: their numbers.

    Returns:
        The model in training mode. In training it returns logits, or a tuple that starts with them, perhaps at lower
        resolution: :func:`full_resolution` makes them comparable.

    Raises:
        UserError: The name is unknown, the file is missing or for another task, or the library is not installed.
    """
    if names is not None and len(names) != nc:
        raise UserError(
            f"{counted(len(names), 'class name')} for {counted(nc, 'class')}; name each class, the background first"
        )
    weights = None
    if not isinstance(source, Mapping) and str(source).endswith(".pt"):
        weights = load_semantic(source)
        source = weights.yaml
    try:
        model = _build(source, nc)
    except ValueError as e:
        raise UserError(f"model {source}: {e}") from e
    if names is not None:
        model.names = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
    if weights is not None:
        model.load(weights, verbose=False)
    return model.train()


def load_semantic(path: str | Path) -> SemanticSegmentationModel:
    """The segmentation model of a checkpoint, in fp32 and evaluation mode.

    Raises:
        UserError: The file is missing, cannot be read, or holds a model for another task.
    """
    try:
        model = load_checkpoint(str(path))[0]
    except FileNotFoundError as e:
        raise UserError(f"{path} does not exist: name a segmentation checkpoint (.pt)") from e
    except (AttributeError, ImportError, TypeError) as e:
        raise UserError(f"{path} cannot be loaded: {str(e).splitlines()[0]}") from e
    if not isinstance(getattr(model, "model", [None])[-1], SemanticSegment):
        raise UserError(f"{path} is a model for {model.task}, not for segmentation into classes (task semantic)")
    return model


def parameters(model: nn.Module) -> int:
    """Number of weights that inference uses; auxiliary heads of Ultralytics' networks run in training only."""
    return sum(p.numel() for name, p in model.named_parameters() if "aux_head" not in name)


def full_resolution(output: Any, size: Sequence[int]) -> Tensor:
    """The logits of a model at a given size.

    Args:
        output: Output of a model: logits (N, nc, h, w), or a tuple that starts with them.
        size: Target height and width [px].

    Returns:
        Logits (N, nc, H, W); bilinear interpolation if they come at another size.
    """
    logits = output[0] if isinstance(output, (tuple, list)) else output
    if tuple(logits.shape[2:]) == tuple(size):
        return logits
    return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def _build(source: str | Path | Mapping[str, Any], nc: int) -> SemanticSegmentationModel:
    if isinstance(source, Mapping):
        if "mffmetal" in source:
            return MFFMetalModel(nc=nc, **source["mffmetal"])
        if "smp" in source:
            return _library_model(nc, **source["smp"])
    elif match := _WIDTH.fullmatch(str(source)):
        return MFFMetalModel(int(match[1]), nc)
    elif match := _LIBRARY.fullmatch(str(source)):
        return _library_model(nc, match[1], match[2] or _ENCODER, match[3])
    elif Path(source).suffix not in {".yaml", ".yml"}:
        raise UserError(
            f"model {source} is unknown: pass mffmetal-30 (or another width), smp:unet, a *-sem.yaml or a semantic .pt"
        )
    try:
        cfg = dict(source) if isinstance(source, Mapping) else str(source)
        check_description(yaml_model_load(cfg) if isinstance(cfg, str) else cfg, f"model {source}")
        model = SemanticSegmentationModel(cfg, ch=3, nc=nc, verbose=False)
    except FileNotFoundError as e:
        raise UserError(f"{source} does not exist: name a model YAML for segmentation, such as yolo26n-sem.yaml") from e
    except (KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{source} is no model YAML; name one for segmentation, such as yolo26n-sem.yaml") from e
    if not isinstance(model.model[-1], SemanticSegment):
        raise UserError(f"{source} describes no model for segmentation into classes; name one that ends in -sem.yaml")
    return model


def _library_model(nc: int, architecture: str, encoder: str, weights: str | None = None) -> FullResolutionModel:
    """A network of segmentation-models-pytorch; only its encoder may start with weights of the library.

    They are no part of the description that the model keeps: what is built from it, on resume, is given its own.
    """
    name = f"smp:{architecture}/{encoder}"
    try:
        import segmentation_models_pytorch as smp
    except ImportError as e:
        raise UserError(
            f"{name} needs segmentation-models-pytorch: install it with pip install 'dfssd[baselines]'"
        ) from e
    try:
        network = smp.create_model(
            architecture, encoder_name=encoder, encoder_weights=weights, in_channels=3, classes=nc
        )
        scale = _scale_of(smp.encoders.get_preprocessing_params(encoder, weights)) if weights else None
    except KeyError as e:
        raise UserError(f"{name}: {str(e.args[0]).splitlines()[0]}") from e
    except Exception as e:  # no connection, in one of many forms
        if not weights:
            raise
        reason = " ".join(str(e).split())[:120] or type(e).__name__
        raise UserError(f"{name}/{weights}: its weights cannot be used ({reason}); for random ones give {name}") from e
    spec = {"smp": {"architecture": architecture, "encoder": encoder}}
    return FullResolutionModel(network, spec, nc=nc, stride=int(network.encoder.output_stride), scale=scale)


def _scale_of(wanted: Mapping[str, Any]) -> Normalisation:
    """Normalization of images in [0, 1], RGB, as the weights of an encoder want it.

    Args:
        wanted: ``input_space``, ``input_range``, ``mean`` and ``std`` of the library.

    Raises:
        ValueError: They want blue first.
    """
    if wanted["input_space"] != "RGB":
        raise ValueError(f"they want images in {wanted['input_space']}, not RGB")
    white = wanted["input_range"][1]
    return Normalisation(*([value / white for value in wanted[key]] for key in ("mean", "std")))


def _foldable(root: nn.Module) -> Iterator[tuple[nn.Sequential, int, nn.Sequential, int]]:
    """Convolutions directly followed by a normalization: (where, index) of each of the two."""
    holder: Any
    for holder in root.modules():
        if type(holder).forward is not nn.Sequential.forward:  # else it might not run its parts one after another
            continue
        for i, (first, second) in enumerate(pairwise(holder)):
            where, j = holder, i + 1
            while type(second).forward is nn.Sequential.forward and len(second):
                where, j, second = second, 0, second[0]
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                yield holder, i, where, j
