"""What a segmentation model is worth, and what it costs: IoU at the masks' own size, parameters, latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from ultralytics.cfg import get_cfg
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn.autobackend import AutoBackend
from ultralytics.utils.torch_utils import select_device

from dfssd.config import read_yaml
from dfssd.errors import UserError
from dfssd.evaluation import quiet
from dfssd.files import whole_file
from dfssd.segmentation.dataset import MaskDataset
from dfssd.segmentation.metrics import confusion_matrix, segmentation_scores
from dfssd.segmentation.model import FullResolutionModel, full_resolution, load_semantic, parameters
from dfssd.segmentation.validator import native_ids


def evaluate_masks(
    weights: Path,
    data_yaml: Path,
    *,
    split: str = "test",
    imgsz: int,
    batch: int = 16,
    device: str | None = None,
    rect: bool = True,
    keep: Mapping[Path, Path] | None = None,
) -> dict[str, Any]:
    """Measure a segmentation model on one part of a data set, each mask at its own size.

    Args:
        weights: ``.pt`` of the semantic task, or a file exported from one, whose input size then counts.
        data_yaml: Semantic data YAML.
        split: Key of the image list in ``data_yaml``.
        imgsz: Longer side of the network input [px]; rounded up to the stride.
        batch: Images per forward pass.
        device: Ultralytics device; None lets Ultralytics choose.
        rect: Pad each image to its own smallest rectangle instead of to a square. An exported file has one shape for
            all: compare it with its ``.pt`` on squares.
        keep: Image -> PNG: predictions to keep, class ids in one 8-bit channel of the size of the image.

    Returns:
        ``miou_fg``: mean IoU of the defects; ``miou_all``: with the background; ``pixel_accuracy``; ``per_class``: name
        -> ``iou`` and ``pixels``, the number of true ones; ``images``: their number; ``imgsz``: what the network saw;
        ``parameters``: number of those that a prediction takes, None for an exported file; ``plain``: whether
        Ultralytics loads the checkpoint without ``dfssd``. Shares are in [0, 1], None where nothing could be
        measured (see :func:`~dfssd.segmentation.metrics.segmentation_scores`).

    Raises:
        UserError: The weights are missing or of another task, know other classes, or the split does not exist.
    """
    if not weights.exists():
        raise UserError(f"{weights} does not exist: nothing to evaluate")
    if not read_yaml(data_yaml).get(split):
        raise UserError(f"{data_yaml} has no '{split}:' entry: add a list of images, or choose another split")
    model = load_semantic(weights) if weights.suffix == ".pt" else None
    own_file = model is not None
    size_of = None if model is None else parameters(model)
    with quiet():
        data = check_det_dataset(str(data_yaml), split=split)
        backend = AutoBackend(model or str(weights), device=select_device(device, verbose=False))
        if len(backend.names) != data["nc"]:
            raise UserError(f"{weights} has {len(backend.names)} classes, but {data_yaml} {data['nc']}")
        stride = 1 if model is None else int(model.stride.max())
        size: Any = int(np.ceil(imgsz / stride) * stride)
        if not own_file:
            size, batch = tuple(backend.imgsz), backend.metadata.get("batch", 1)
        dataset = MaskDataset(
            img_path=data[split],
            imgsz=size,
            augment=False,
            hyp=get_cfg(),
            rect=own_file and rect,  # exported files have one fixed shape
            batch_size=1,  # each image in a rectangle of its own, padded to the stride and no further
            stride=stride,
            pad=0.0,
            data=data,
            task="semantic",
        )
    confusion = np.zeros((data["nc"], data["nc"]), np.int64)
    for samples in _batches(dataset, batch):
        images = torch.stack([sample["img"] for _, sample in samples]).to(backend.device).float() / 255
        missing = 0 if own_file else batch - len(images)
        with torch.inference_mode():
            output = backend(torch.cat([images, images.new_zeros(missing, *images.shape[1:])]))
        output = output[0] if isinstance(output, (tuple, list)) else output
        if output.dim() == 4:  # Ultralytics' own models answer at 1/8, but the letterbox is in pixels of the image
            output = full_resolution(output, images.shape[2:])
        for (i, sample), one in zip(samples, output):
            truth = dataset.load_mask(i)
            found = native_ids(one, truth.shape, sample["ratio_pad"])
            confusion += confusion_matrix(truth, found, data["nc"])
            if target := (keep or {}).get(Path(sample["im_file"])):
                target.parent.mkdir(parents=True, exist_ok=True)
                with whole_file(target) as temporary:
                    Image.fromarray(found).save(temporary, format="PNG")
    scores = segmentation_scores(confusion)
    pixels = confusion.sum(1).tolist()
    return {
        "miou_fg": scores.miou_fg,
        "miou_all": scores.miou_all,
        "pixel_accuracy": scores.pixel_accuracy,
        "per_class": {name: {"iou": scores.iou[i], "pixels": pixels[i]} for i, name in sorted(data["names"].items())},
        "images": len(dataset),
        "imgsz": list(size) if isinstance(size, tuple) else size,
        "parameters": size_of,
        "plain": model is not None and not isinstance(model, FullResolutionModel),
    }


def latency(
    weights: Mapping[str, Path],
    *,
    imgsz: int | Mapping[str, int],
    device: str | None = None,
    rounds: int = 50,
    warm_up: int = 10,
) -> dict[str, dict[str, Any]]:
    """Time the forward pass of several checkpoints side by side, one image at a time.

    Only the network is timed: no reading, scaling or writing of images. In each round every model runs once, the first
    one a different one each time, so that whatever else the machine does meets all alike.

    Args:
        weights: Name -> ``.pt`` of the semantic task.
        imgsz: Side of the image [px], for all or by name; rounded up to the stride of each.
        device: Ultralytics device; None lets Ultralytics choose.
        rounds: Timed runs of each model.
        warm_up: Runs of each before.

    Returns:
        Name -> ``median_ms``, ``low_ms`` and ``high_ms`` (quartiles), ``imgsz``, ``rounds``, ``device``, ``threads``.

    Raises:
        UserError: A file is missing or of another task.
    """
    where = select_device(device, verbose=False)
    runs: dict[str, tuple[Any, torch.Tensor]] = {}
    for name, path in weights.items():
        model = load_semantic(path).fuse(verbose=False).to(where).eval()
        stride = int(model.stride.max())
        side = int(np.ceil((imgsz if isinstance(imgsz, int) else imgsz[name]) / stride) * stride)
        runs[name] = model, torch.rand(1, 3, side, side, device=where)
    times: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    with torch.inference_mode():
        for number in range(warm_up + rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                model, image = runs[name]
                _wait(where)
                start = time.perf_counter()
                model(image)
                _wait(where)
                if number >= warm_up:
                    times[name].append((time.perf_counter() - start) * 1e3)
    result = {}
    for name, values in times.items():
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        shared = {"imgsz": runs[name][1].shape[-1], "rounds": rounds, "device": str(where)}
        threads = torch.get_num_threads()
        result[name] = {"median_ms": median, "low_ms": low, "high_ms": high, **shared, "threads": threads}
    return result


def _batches(dataset: MaskDataset, size: int) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Numbered samples in groups of one shape: padding to the largest of a batch would change what is predicted."""
    group: list[tuple[int, dict[str, Any]]] = []
    for i in range(len(dataset)):
        sample = dataset[i]
        if group and (len(group) == size or sample["img"].shape != group[0][1]["img"].shape):
            yield group
            group = []
        group.append((i, sample))
    if group:
        yield group


def _wait(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
