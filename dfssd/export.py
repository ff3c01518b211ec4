"""Export of the student, and the proof that the ONNX file computes what the PyTorch file computes.

:func:`export_and_compare` exports for any task, and each brings its own comparison. That of detectors is here, that of
segmentation in :mod:`dfssd.segmentation.export`.

The proof has two parts. *Raw outputs*: both files get the same input tensors, made from real images by one letterbox,
and every decoded box and class score is compared, those of background anchors too, before any thresholding could hide
a difference. *Metrics*: mAP50-95 of both files on the whole split, both on square letterboxes, since the exported input
shape is fixed. PyTorch runs unfused in fp32 on the CPU, so that the exporter's own rewriting is among what is checked.
"""

from __future__ import annotations

import difflib
import math
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.config import read_yaml
from dfssd.errors import UserError
from dfssd.evaluation import evaluate, quiet
from dfssd.files import whole_file

PARITY_IMAGES = 100
"""Most images whose raw outputs are compared; they are taken evenly from the split."""


@dataclass(frozen=True)
class Parity:
    """Largest differences between two files over some images.

    Attributes:
        images: Number of images compared.
        max_box_diff_px: Largest difference of a box edge (x1, y1, x2, y2) [px of the letterboxed input].
        max_score_diff: Largest difference of a class score, in [0, 1].
        size: Height and width of the ONNX input [px].

    Both differences are NaN if an output is NaN, and infinite if the outputs have different shapes.
    """

    images: int
    max_box_diff_px: float
    max_score_diff: float
    size: tuple[int, int]


@dataclass(frozen=True)
class Limit:
    """One thing that may differ, but not by more than a tolerance.

    Attributes:
        what: Start of the sentence about a failure, which the two numbers end.
        found: The difference; None if there was nothing to compare.
        allowed: The largest one that passes.
    """

    what: str
    found: float | None
    allowed: float


def check_formats(formats: Iterable[str]) -> list[str]:
    """The formats besides ONNX, in Ultralytics' spelling, each once.

    Raises:
        UserError: Ultralytics has no such format.
    """
    from ultralytics.engine.exporter import export_formats

    known = [name for name in export_formats()["Argument"] if name != "-"]
    wanted = []
    for name in (f.strip().lower() for f in formats):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise UserError(f"format={name}: Ultralytics has no such export format{hint} (known: {', '.join(known)})")
        if name != "onnx" and name not in wanted:
            wanted.append(name)
    return wanted


def export_and_check(
    weights: Path,
    data_yaml: Path,
    *,
    out: Path,
    imgsz: int,
    device: str | None,
    batch: int,
    formats: Sequence[str],
    box_tolerance_px: float,
    score_tolerance: float,
    map_tolerance: float,
    save_dir: Path,
    split: str = "test",
) -> dict[str, Any]:
    """Export ``weights`` to ONNX at ``out``, compare both files, then write the other formats beside ``out``.

    Nothing is written beside ``weights``; ``out`` appears whole, and only after it has been compared.

    Args:
        weights: The detector, ``.pt``; it is not changed.
        data_yaml: Ultralytics dataset YAML whose ``split`` is used for the comparison.
        out: The ONNX file to write (fixed input of one image, ``imgsz`` x ``imgsz``).
        imgsz: Input size [px]; Ultralytics rounds it up to a multiple of the stride.
        device: Ultralytics device, for the PyTorch metrics and for formats that need a GPU.
        batch: Images per forward pass of the PyTorch metrics.
        formats: Wanted formats; ``onnx`` is always written, any other is passed on to Ultralytics' exporter.
        box_tolerance_px: Largest allowed box difference [px].
        score_tolerance: Largest allowed class score difference.
        map_tolerance: Largest allowed difference in mAP50-95.
        save_dir: Folder that Ultralytics may write to.
        split: Key of the image list in ``data_yaml``.

    Returns:
        The section ``export`` of ``results.json`` (docs/results.md). ``passed`` is False if a difference is above its
        tolerance or if a wanted format could not be written; ``failures`` has one sentence for each reason.

    Raises:
        UserError: Unknown format, no readable image in the split, or Ultralytics cannot write ONNX.
    """
    others = check_formats(formats)
    images = split_images(data_yaml, split)

    def compare(exported: Path) -> tuple[dict[str, Any], list[Limit]]:
        found = parity(weights, exported, images)
        shared: dict[str, Any] = {"split": split, "imgsz": imgsz, "save_dir": save_dir, "rect": False}
        map_torch = evaluate(weights, data_yaml, batch=batch, device=device, **shared)["map50_95"]
        # onnxruntime from requirements.txt computes on the CPU, whatever the training used
        map_onnx = evaluate(exported, data_yaml, batch=1, device="cpu", **shared)["map50_95"]
        map_diff = None if map_torch is None or map_onnx is None else abs(map_torch - map_onnx)
        section = {
            "input": [1, 3, *found.size],
            "images": found.images,
            "max_box_diff_px": finite(found.max_box_diff_px),
            "max_score_diff": finite(found.max_score_diff),
            "map50_95_torch": map_torch,
            "map50_95_onnx": map_onnx,
            "tolerance": {"box_px": box_tolerance_px, "score": score_tolerance, "map50_95": map_tolerance},
        }
        return section, [
            Limit("box edges [px] differ by", found.max_box_diff_px, box_tolerance_px),
            Limit("class scores differ by", found.max_score_diff, score_tolerance),
            Limit("the two mAP50-95 differ by", map_diff, map_tolerance),
        ]

    return export_and_compare(
        weights, data_yaml, task="detect", out=out, imgsz=imgsz, device=device, others=others, compare=compare
    )


def export_and_compare(
    weights: Path,
    data_yaml: Path,
    *,
    task: str,
    out: Path,
    imgsz: int,
    device: str | None,
    others: Sequence[str],
    compare: Callable[[Path], tuple[dict[str, Any], list[Limit]]],
) -> dict[str, Any]:
    """Export ``weights`` to ONNX, have the file compared, move it to ``out``, write the other formats beside it.

    Args:
        weights: The model, ``.pt``; it is not changed, and nothing is written beside it.
        data_yaml: Ultralytics dataset YAML, for formats that are calibrated on images.
        task: Ultralytics' name of the task of ``weights``.
        out: The ONNX file; it appears whole, and only after it has been compared.
        imgsz: Input size [px].
        device: Ultralytics device for formats that need a GPU.
        others: The other formats, as :func:`check_formats` gives them.
        compare: Measures the ONNX file it is given; returns what to record and what was allowed.

    Returns:
        ``format``, ``file``, ``size_mb``, what ``compare`` records, ``passed``, ``failures`` (a sentence each, printed,
        too) and ``other``, a row for each of ``others``.

    Raises:
        UserError: Ultralytics cannot write ONNX.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".export-") as folder:
        # The exporter writes beside the weights it is given, under their name.
        copy = Path(folder) / f"{out.stem}.pt"
        shutil.copyfile(weights, copy)
        exported = export(copy, "onnx", task=task, imgsz=imgsz)
        section, limits = compare(exported)
        with whole_file(out) as target:
            os.replace(exported, target)
        options: dict[str, Any] = {"task": task, "imgsz": imgsz, "device": device, "data_yaml": data_yaml}
        written = [export_other(copy, name, out, **options) for name in others]

    failures = [
        f"{limit.what} {limit.found:.4g}, allowed is {limit.allowed:g}"
        for limit in limits
        if limit.found is not None and not limit.found <= limit.allowed  # NaN is not within any tolerance
    ]
    failures += [f"format={other['format']}: {other['error']}" for other in written if other["error"]]
    for failure in failures:
        print(f"[dfssd] export: {failure}", file=sys.stderr)
    return {
        "format": "onnx",
        "file": f"{out.parent.name}/{out.name}",
        "size_mb": round(out.stat().st_size / 1e6, 2),
        **section,
        "passed": not failures,
        "failures": failures,
        "other": written,
    }


def parity(weights: Path, onnx_file: Path, images: Sequence[Path]) -> Parity:
    """Compare all raw decoded outputs, (1, 4 + classes, anchors), of a ``.pt`` and an ONNX file on the same inputs.

    Args:
        weights: ``.pt`` of a detector; run unfused, fp32, on the CPU.
        onnx_file: ONNX file with one input (1, 3, h, w), RGB in [0, 1].
        images: Images to letterbox to (h, w); unreadable ones are left out.

    Raises:
        UserError: None of the images can be read.
    """
    import torch
    from ultralytics import YOLO

    network: Any = YOLO(weights, task="detect").model
    network = network.float().cpu().eval()
    run, size = onnx_function(onnx_file)
    count, box_diff, score_diff = 0, 0.0, 0.0
    for pixels in sampled_inputs(images, size):
        with torch.inference_mode():
            result = network(torch.from_numpy(pixels))
        expected = (result[0] if isinstance(result, (tuple, list)) else result).numpy()
        got = run(pixels)
        count += 1
        if expected.shape != got.shape:
            return Parity(count, math.inf, math.inf, size)
        # np.maximum keeps NaN, max() may lose it
        box_diff = float(np.maximum(box_diff, np.abs(_edges(expected) - _edges(got)).max()))
        score_diff = float(np.maximum(score_diff, np.abs(expected[:, 4:] - got[:, 4:]).max()))
    return Parity(count, box_diff, score_diff, size)


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
    """Read an image as the network sees it: (1, 3, *size), RGB float32 in [0, 1], padded with grey, or None."""
    from ultralytics.data.augment import LetterBox
    from ultralytics.utils.patches import imread

    image = imread(path)
    if image is None:
        return None
    boxed: Any = LetterBox(new_shape=size, auto=False)(image=image)
    return np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1)[None], dtype=np.float32) / 255


def _edges(outputs: np.ndarray) -> np.ndarray:
    """Boxes (1, 4, anchors) as x1, y1, x2, y2 [px] from decoded outputs whose first rows are centre x, y, w, h."""
    centre, half = outputs[:, :2], outputs[:, 2:4] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def split_images(data_yaml: Path, split: str) -> list[Path]:
    """Images of one list of a data.yaml whose lists are .txt files, one path a line."""
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
    """Let Ultralytics write one format beside ``copy``; whatever goes wrong becomes one :class:`UserError`."""
    from ultralytics import YOLO

    device = options.pop("device", "cpu")
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing and of torch's own plans: nothing the user could act on
            return Path(YOLO(copy, task=task).export(format=name, device=device, **options))
    # A format is written by its vendor's package, which may raise anything, even SystemExit.
    except (Exception, SystemExit) as e:
        reason = next((line.strip() for line in str(e).splitlines() if line.strip()), type(e).__name__)
        raise UserError(f"Ultralytics cannot write format={name}: {reason}") from e


def export_other(
    copy: Path, name: str, out: Path, *, task: str, imgsz: int, device: str | None, data_yaml: Path
) -> dict[str, str | None]:
    """Write one more format beside ``out``; a failure is recorded, so that it does not cost the formats that work."""
    from ultralytics.engine.exporter import export_formats

    table = export_formats()
    row = table["Argument"].index(name)
    needs_gpu = table["GPU"][row] and not table["CPU"][row]
    options = {"data": str(data_yaml)} if "data" in table["Arguments"][row] else {}  # some calibrate on val images
    try:
        gpu = str(device).partition(",")[0] if needs_gpu else "cpu"
        exported = export(copy, name, task=task, imgsz=imgsz, device=gpu, **options)
    except UserError as e:
        return {"format": name, "file": None, "error": str(e)}
    target = out.with_name(exported.name)
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(exported, target)
    return {"format": name, "file": f"{target.parent.name}/{target.name}", "error": None}


def finite(value: float | None) -> float | None:
    """The value; None if there is none, or if it is not finite, for which JSON has no word."""
    return value if value is not None and math.isfinite(value) else None
