"""Export of a network, and the check that the ONNX file computes the same as the PyTorch file.

:func:`export_and_compare` is the same for all tasks; each brings its own comparison
(:mod:`dfssd.detection.export`, :mod:`dfssd.segmentation.export`), which has two parts:

* *Raw outputs*: both files get the same input tensors, made from real images by one letterbox, and all outputs
  are compared before thresholding, which could hide a difference. PyTorch runs unfused in fp32 on the CPU, so that the
  rewriting by the exporter is checked as well.
* *Score*: that of both files on the whole split, both on square letterboxes, since the exported input shape is fixed.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfssd.errors import UserError
from dfssd.evaluation.export_formats import other_formats
from dfssd.evaluation.settings import EvalSettings, quiet
from dfssd.files import atomic_write, read_yaml
from dfssd.log import LOGGER

if TYPE_CHECKING:
    from torch import Tensor

PARITY_IMAGES = 100
"""Most images whose raw outputs are compared; they are taken evenly from the split."""


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and what the exported file is compared on.

    Attributes:
        weights: The network, ``.pt``; it is not changed, and nothing is written next to it.
        out: The ONNX file (fixed input of one image); it appears whole, and only after it has been compared.
        formats: Requested formats; ``onnx`` is always written, others by Ultralytics' exporter.
        settings: The images to compare on, the side of the input, and how PyTorch is evaluated; formats that need a
            GPU use its device, too.
    """

    weights: Path
    out: Path
    formats: tuple[str, ...]
    settings: EvalSettings


@dataclass(frozen=True)
class Limit:
    """One difference and its tolerance.

    Attributes:
        what: Start of the failure message, to which the two numbers are appended.
        found: The difference; None if there was nothing to compare.
        allowed: The largest difference that passes.
    """

    what: str
    found: float | None
    allowed: float

    @property
    def failure(self) -> str | None:
        """One sentence if the difference is above its tolerance, else None. NaN is not within any tolerance."""
        if self.found is None or self.found <= self.allowed:
            return None
        return f"{self.what} {self.found:.4g}, allowed is {self.allowed:g}"


@dataclass(frozen=True)
class ScorePair:
    """The score of the PyTorch file and that of the ONNX file; None where there was nothing to measure."""

    torch: float | None
    onnx: float | None

    @property
    def difference(self) -> float | None:
        """None if neither could be measured, infinite if only one of them could."""
        if self.torch is None or self.onnx is None:
            return None if self.torch is self.onnx else math.inf
        return abs(self.torch - self.onnx)


Comparison = Callable[[Path, Sequence[Path]], tuple[dict[str, Any], list[Limit]]]
"""From the ONNX file and the images of the split to what is recorded, and the differences with their tolerances."""


def export_and_compare(request: ExportRequest, *, task: str, compare: Comparison) -> dict[str, Any]:
    """Export to ONNX, compare the file, move it to its place, and write the other formats next to it.

    Args:
        request: What to export.
        task: Ultralytics' name of the task of the network.
        compare: Measures the ONNX file.

    Returns:
        ``format``, ``file``, ``size_mb``, what ``compare`` records, ``passed``, ``failures`` (a sentence each, which
        is logged, too) and ``other``: ``format``, ``file`` and ``error`` of each other format. ``passed`` is False if a
        difference is above its tolerance or if a wanted format could not be written.

    Raises:
        UserError: Unknown format, no readable image in the split, or Ultralytics cannot write ONNX.
    """
    out, settings = request.out, request.settings
    others = other_formats(request.formats)
    images = split_images(settings.data_yaml, settings.split)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        # The exporter writes next to the given weights, under their name.
        copy = Path(folder) / f"{out.stem}.pt"
        shutil.copyfile(request.weights, copy)
        exported = export(copy, "onnx", task=task, imgsz=settings.imgsz)
        section, limits = compare(exported, images)
        with atomic_write(out) as target:
            os.replace(exported, target)
        written = [export_other(copy, name, out, task=task, settings=settings) for name in others]

    failures = [failure for limit in limits if (failure := limit.failure)]
    failures += [f"format={other['format']}: {other['error']}" for other in written if other["error"]]
    for failure in failures:
        LOGGER.error(f"export: {failure}")
    return {
        "format": "onnx",
        "file": f"{out.parent.name}/{out.name}",
        "size_mb": round(out.stat().st_size / 1e6, 2),
        **section,
        "passed": not failures,
        "failures": failures,
        "other": written,
    }


def score_both(
    score: Callable[[Path, EvalSettings], float | None], request: ExportRequest, exported: Path
) -> ScorePair:
    """The score of both files on the images of the request, on square letterboxes."""
    squares = replace(request.settings, rect=False)
    # onnxruntime from requirements.txt computes on the CPU, whatever the training used
    return ScorePair(score(request.weights, squares), score(exported, replace(squares, batch=1, device="cpu")))


def paired_outputs(
    network: Callable[[Tensor, tuple[int, int]], Tensor], onnx_file: Path, images: Sequence[Path]
) -> tuple[tuple[int, int], Iterator[tuple[Tensor, Tensor]]]:
    """The outputs of a network and of an ONNX file for the same inputs.

    Args:
        network: Output for pixels (1, 3, h, w), RGB in [0, 1], and (h, w).
        onnx_file: ONNX file with one input (1, 3, h, w), RGB in [0, 1]; its first output is taken.
        images: Images to letterbox to (h, w); at most :data:`PARITY_IMAGES` of them, unreadable ones left out.

    Returns:
        (h, w) of the input [px], and an iterator over pairs (output of the network, output of the ONNX file).

    Raises:
        UserError: While iterating: none of the images can be read.
    """
    import torch

    run, size = onnx_function(onnx_file)

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for pixels in sampled_inputs(images, size):
            with torch.inference_mode():
                expected = network(torch.from_numpy(pixels), size)
            yield expected, torch.from_numpy(run(pixels))

    return size, pairs()


def running_max(so_far: float, differences: Tensor) -> float:
    """The larger one of ``so_far`` and the largest absolute difference; keeps NaN, which ``max()`` may lose."""
    return float(np.maximum(so_far, float(differences.abs().max())))


def onnx_function(file: Path) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[int, int]]:
    """The first output of an ONNX file for its one input (1, 3, h, w), computed on the CPU; and (h, w) [px]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    return lambda pixels: session.run(None, {source.name: pixels})[0], tuple(source.shape[2:])


def sampled_inputs(images: Sequence[Path], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """At most :data:`PARITY_IMAGES` of the images, taken evenly, letterboxed to ``size``; unreadable ones are left out.

    Raises:
        UserError: None of them can be read.
    """
    step = max(1, math.ceil(len(images) / PARITY_IMAGES))
    readable = False
    for path in images[::step]:
        pixels = letterbox(path, size)
        if pixels is not None:
            readable = True
            yield pixels
    if not readable:
        raise UserError(f"none of the {len(images)} images for the export check can be read, the first is {images[0]}")


def letterbox(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """Read an image as input of a network: (1, 3, *size), RGB float32 in [0, 1], padded with gray, or None."""
    from ultralytics.data.augment import LetterBox
    from ultralytics.utils.patches import imread

    image = imread(path)
    if image is None:
        return None
    boxed: Any = LetterBox(new_shape=size, auto=False)(image=image)
    return np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1)[None], dtype=np.float32) / 255


def split_images(data_yaml: Path, split: str) -> list[Path]:
    """Images in one list of a data.yaml whose lists are .txt files, one path per line."""
    tree = read_yaml(data_yaml)
    listed = tree.get(split)
    lists = [listed] if isinstance(listed, str) else listed or []
    root = data_yaml.parent / str(tree.get("path") or "")
    images = []
    for name in lists:
        try:
            lines = (root / name).read_text(encoding="utf-8").splitlines()
        except OSError as e:
            raise UserError(f"{data_yaml}: cannot read the image list '{name}' of {split}: {e.strerror}") from e
        images += [(root / name).parent / line.strip() for line in lines if line.strip()]
    if not images:
        raise UserError(f"{data_yaml}: '{split}' has no images to compare the exported file on")
    return images


def export(copy: Path, name: str, *, task: str, **options: Any) -> Path:
    """Let Ultralytics write one format next to ``copy``; any failure becomes a :class:`UserError`."""
    from ultralytics import YOLO

    device = options.pop("device", "cpu")
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing and deprecations: nothing that the user could act on
            return Path(YOLO(copy, task=task).export(format=name, device=device, **options))
    # A format is written by its vendor's package, which may raise anything, even SystemExit.
    except (Exception, SystemExit) as e:
        reason = next((line.strip() for line in str(e).splitlines() if line.strip()), type(e).__name__)
        raise UserError(f"Ultralytics cannot write format={name}: {reason}") from e


def export_other(copy: Path, name: str, out: Path, *, task: str, settings: EvalSettings) -> dict[str, str | None]:
    """Write one more format next to ``out``; a failure is recorded and does not affect the other formats."""
    from ultralytics.engine.exporter import export_formats

    table = export_formats()
    row = table["Argument"].index(name)
    needs_gpu = table["GPU"][row] and not table["CPU"][row]
    # some calibrate on val images
    options = {"data": str(settings.data_yaml)} if "data" in table["Arguments"][row] else {}
    try:
        device = str(settings.device).partition(",")[0] if needs_gpu else "cpu"
        exported = export(copy, name, task=task, imgsz=settings.imgsz, device=device, **options)
    except UserError as e:
        return {"format": name, "file": None, "error": str(e)}
    target = out.with_name(exported.name)
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(exported, target)
    return {"format": name, "file": f"{target.parent.name}/{target.name}", "error": None}


def finite(value: float | None) -> float | None:
    """The value; None if there is none, or if it is not finite, which JSON cannot express."""
    return value if value is not None and math.isfinite(value) else None
