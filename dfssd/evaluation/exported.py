"""Exported files as functions from pixels to raw outputs: compared with PyTorch on the same inputs, and timed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfssd.errors import UserError
from dfssd.evaluation.settings import quiet
from dfssd.files import read_yaml
from dfssd.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

PARITY_IMAGES = 100
"""Most images whose raw outputs are compared; they are taken evenly from the split."""

WARM_UP, ROUNDS = 3, 30
"""Runs of each file before it is timed, and timed ones."""

OPENVINO = "_openvino_model"
"""How the name of a folder of OpenVINO ends."""

Size = tuple[int, int]
"""Height and width [px]."""


class ExportedNetwork:
    """An exported file, computed by onnxruntime on the CPU, or by Ultralytics' backend of its format.

    Attributes:
        sizes: Of inputs (h, w) [px] that it is to be compared on: its own; two different ones if any size is accepted.
        batch: Images that it takes at once; what it is given is repeated to as many.
    """

    def __init__(self, file: Path, imgsz: int, device: str = "cpu", exact: bool = False):
        """Open a file.

        Args:
            file: The file, or the folder that a format consists of.
            imgsz: Side of the input [px] of a format that does not tell it; rounded up to the stride of a ``.pt``.
            device: Where a format runs that needs a GPU.
            exact: Compute as the file says, where the usual way of its format would round to 16 bits: OpenVINO does on
                processors that compute faster with them.
        """
        self._turn = 0
        if file.suffix == ".onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
            source = session.get_inputs()[0]
            kind = np.float16 if "float16" in source.type else np.float32
            self._run: Callable[[np.ndarray], np.ndarray] = lambda pixels: session.run(
                None, {source.name: pixels.astype(kind)}
            )[0]
            number, _, *sides = source.shape
            self.batch = number if isinstance(number, int) else 1
            free = not all(isinstance(side, int) for side in sides)
            own = (imgsz, imgsz) if free else (sides[0], sides[1])
        elif exact and file.name.endswith(OPENVINO):
            self._run, self.batch, free, own = _by_openvino(file)
        else:
            self._run, self.batch, free, own = _by_ultralytics(file, imgsz, device)
        # half the width, so that rows and columns cannot be confused
        self.sizes: tuple[Size, ...] = (own, (own[0], math.ceil(own[1] / 64) * 32)) if free else (own,)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The first output for pixels (1, 3, h, w) float32, RGB in [0, 1]; (1, ...) float32.

        Of an input for several images another place answers each time, so that all of them are compared.
        """
        output = self._run(np.repeat(pixels, self.batch, 0))
        self._turn = (self._turn + 1) % self.batch
        return np.asarray(output, np.float32)[self._turn : self._turn + 1]


Function = tuple[Callable[[np.ndarray], np.ndarray], int, bool, Size]
"""A file as a function; the images that it takes at once, whether any size is accepted, and its own (h, w)."""


def _by_openvino(file: Path) -> Function:
    """A folder of OpenVINO, computed in the precision of its weights."""
    import openvino

    described = read_yaml(file / "metadata.yaml")
    precise = {"INFERENCE_PRECISION_HINT": "f32"}
    network: Any = openvino.Core().compile_model(str(next(file.glob("*.xml"))), "CPU", precise)
    height, width = described["imgsz"]
    batch, free = int(described["batch"]), bool((described.get("args") or {}).get("dynamic"))
    return lambda pixels: network(pixels)[network.output(0)], batch, free, (height, width)


def _by_ultralytics(file: Path, imgsz: int, device: str) -> Function:
    """A file of any format, computed as Ultralytics does."""
    import torch
    from ultralytics.nn.autobackend import AutoBackend
    from ultralytics.utils.torch_utils import select_device

    with quiet():
        place = select_device(device, verbose=False)
        backend: Any = AutoBackend(str(file), device=place, verbose=False)  # of a path it expects a suffix

    def run(pixels: np.ndarray) -> np.ndarray:
        given = torch.from_numpy(pixels).to(place)
        with torch.inference_mode():
            output = backend(given.half() if backend.fp16 else given)
        output = output[0] if isinstance(output, (list, tuple)) else output
        return output.float().cpu().numpy() if isinstance(output, torch.Tensor) else np.asarray(output)

    plain = file.suffix == ".pt"
    stride = int(getattr(backend, "stride", 32))
    side = -(-imgsz // stride) * stride if plain else getattr(backend, "imgsz", None) or imgsz
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    batch = 1 if plain else int(getattr(backend, "batch", 1) or 1)
    return run, batch, not plain and bool(getattr(backend, "dynamic", False)), (height, width)


def paired_outputs(
    network: Callable[[Tensor, Size], Tensor], exported: ExportedNetwork, images: Sequence[Path]
) -> Iterator[tuple[Tensor, Tensor]]:
    """The outputs of a network and of an exported file for the same inputs, at each size of the file.

    Args:
        network: Output for pixels (1, 3, h, w), RGB in [0, 1], and (h, w).
        exported: The file.
        images: Images to letterbox to (h, w); at most :data:`PARITY_IMAGES` of them, unreadable ones left out.

    Yields:
        Output of the network, output of the file.

    Raises:
        UserError: None of the images can be read.
    """
    import torch

    for size in exported.sizes:
        for pixels in sampled_inputs(images, size):
            with torch.inference_mode():
                expected = network(torch.from_numpy(pixels), size)
            yield expected, torch.from_numpy(exported(pixels))


def running_max(so_far: float, differences: Tensor) -> float:
    """The larger one of ``so_far`` and the largest absolute difference; keeps NaN, which ``max()`` may lose."""
    if not differences.numel():
        return so_far
    return float(np.maximum(so_far, float(differences.abs().max())))


def sampled_inputs(images: Sequence[Path], size: Size) -> Iterator[np.ndarray]:
    """At most :data:`PARITY_IMAGES` of the images, taken evenly, letterboxed to ``size``; unreadable ones are left out.

    Raises:
        UserError: None of them can be read.
    """
    readable = False
    for path in evenly(images, PARITY_IMAGES):
        pixels = letterbox(path, size)
        if pixels is not None:
            readable = True
            yield pixels
    if not readable:
        raise UserError(
            f"none of {counted(len(images), 'image')} for the export check can be read, the first is {images[0]}"
        )


def evenly(images: Sequence[Path], most: int) -> Sequence[Path]:
    """At most so many of the images, at equal distances."""
    return images[:: max(1, math.ceil(len(images) / most))]


def letterbox(path: Path, size: Size) -> np.ndarray | None:
    """Read an image as input of a network: (1, 3, *size), RGB float32 in [0, 1], padded with gray, or None."""
    from ultralytics.data.augment import LetterBox
    from ultralytics.utils.patches import imread

    image = imread(path)
    if image is None:
        return None
    boxed: Any = LetterBox(new_shape=size, auto=False)(image=image)
    return np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1)[None], dtype=np.float32) / 255


def timed_in_turn(networks: Mapping[str, ExportedNetwork]) -> dict[str, dict[str, float]]:
    """Time several files, each at its own size, in turn, so that other load on the machine affects all of them alike.

    Args:
        networks: Name -> file.

    Returns:
        Name -> ``median_ms`` and ``p95_ms``: of one image from pixels to raw output, without reading and scaling [ms].
    """
    random = np.random.default_rng(0)
    inputs = {name: random.random((1, 3, *one.sizes[0]), np.float32) for name, one in networks.items()}
    times: dict[str, list[float]] = {name: [] for name in networks}
    names = list(networks)
    for number in range(WARM_UP + ROUNDS):
        turn = number % len(names) if names else 0
        for name in names[turn:] + names[:turn]:
            start = time.perf_counter()
            networks[name](inputs[name])
            if number >= WARM_UP:
                times[name].append((time.perf_counter() - start) * 1e3 / networks[name].batch)
    return {
        name: {"median_ms": round(float(np.median(own)), 3), "p95_ms": round(float(np.percentile(own, 95)), 3)}
        for name, own in times.items()
    }


def size_mb(path: Path) -> float:
    """Size of a file, or of all files of a folder [10^6 bytes]."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return round(sum(file.stat().st_size for file in files) / 1e6, 2)


def machine() -> str:
    """The processor, and on how many threads it computes here, such as ``AMD EPYC 7B13, 8 threads``."""
    from dfssd.hardware import processor

    threads = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0] or str(os.cpu_count() or 1)
    return f"{processor()}, {threads} thread{'' if threads == '1' else 's'}"
