"""Export of a network, and the check that each file computes the same as the PyTorch file.

:func:`export_and_compare` is the same for all tasks; each brings its own comparison
(:mod:`dfssd.detection.export`, :mod:`dfssd.segmentation.export`), which has two parts:

* *Raw outputs*: both files get the same input tensors, made from real images by one letterbox, and all outputs
  are compared before thresholding, which could hide a difference. PyTorch runs unfused in fp32 on the CPU, so that the
  rewriting by the exporter is checked as well.
* *Score*: that of both files on the whole split, both on square letterboxes, since the exported input shape is fixed,
  computed as Ultralytics does, which may round where the processor is faster with fewer bits.

All formats are compared in the same way. Of the one with fewer bits the differences are told, and no limit holds for
them; what they cost is the difference of the scores.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from dfssd.deployment.facts import Facts, sign_checkpoint, sign_folder, sign_onnx
from dfssd.errors import UserError, reason
from dfssd.evaluation.export_formats import arguments_of, needs_gpu, other_formats
from dfssd.evaluation.export_options import FP32, ExportOptions
from dfssd.evaluation.exported import ExportedNetwork, evenly, machine, size_mb, timed_in_turn
from dfssd.evaluation.exporter import check_storage, export
from dfssd.evaluation.settings import EvalSettings
from dfssd.files import atomic_write, read_yaml, write_text, write_yaml
from dfssd.log import LOGGER
from dfssd.results.sections import SizeRecall

CALIBRATION_IMAGES = 300
"""Most images that INT8 is calibrated on; they are taken evenly."""


Entry = dict[str, Any]
"""What is known of an exported file: ``format``, ``file``, ``error``, ``precision``, ``size_mb``, ``score``, ..."""

TORCH = "torch"
"""The name of PyTorch where it stands beside the formats."""

_COMPARED = ("score", "max_box_diff_px", "max_score_diff", "differing_pixels")
"""What is recorded of the formats beside ONNX."""


@dataclass(frozen=True)
class ExportRequest:
    """What to export, and what the exported files are compared on.

    Attributes:
        weights: The network, ``.pt``; it is not changed, and nothing is written next to it.
        out: The ONNX file of a run (fixed input of one image); it appears whole, and only after it has been compared.
        formats: Requested formats; ``onnx`` is always written, others by Ultralytics' exporter.
        settings: The images to compare on, the side of the input, and how PyTorch is evaluated; formats that need a
            GPU use its device, too.
        deploy: Folder of the other formats.
        about: What the files say about themselves (:func:`~dfssd.deployment.facts.facts`).
        options: How they are written.
        calibration: Images that INT8 is calibrated on; no test images.
    """

    weights: Path
    out: Path
    formats: tuple[str, ...]
    settings: EvalSettings
    deploy: Path
    about: Facts
    options: ExportOptions = field(default_factory=ExportOptions)
    calibration: tuple[Path, ...] = ()


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
class Differences:
    """How far a file is from PyTorch.

    Attributes:
        recorded: The differences, under the names of the record.
        limits: The same with their tolerances.
    """

    recorded: Mapping[str, Any]
    limits: Sequence[Limit]


class Comparison(Protocol):
    """What a task compares.

    Attributes:
        score_name: Name of the score in the record, such as ``map50_95``.
        score_limit: Largest difference of the scores that passes.
    """

    score_name: str
    score_limit: float

    @property
    def tolerance(self) -> Mapping[str, float]:
        """Largest allowed differences, as they are recorded."""

    def outputs(self, exported: ExportedNetwork, images: Sequence[Path]) -> Differences:
        """Raw outputs of PyTorch and of a file, on some of the images."""

    def score(self, name: str, weights: Path, settings: EvalSettings) -> float | None:
        """The score of a file; None if there is nothing to measure. What :meth:`sizes` needs is kept under its name."""

    def sizes(self, name: str, thresholds: Sequence[float], imgsz: int) -> tuple[SizeRecall, ...]:
        """Recall by size of the defects of a file whose score was measured.

        Detections count from the score of their class in ``thresholds`` (by class id); sizes are those in an input of
        ``imgsz`` px. Nothing for a file of which nothing is kept, and for masks.
        """

    def forget(self) -> None:
        """Remove what was kept."""


_TEMPORARY = ".export-"
"""How the names of folders begin in which files are written and compared; what a killed export has left is removed."""


class Check:
    """Compares the files of one network, and times them."""

    def __init__(self, request: ExportRequest, comparison: Comparison, images: Sequence[Path]):
        """Measure the PyTorch file."""
        self.request, self.comparison, self.images = request, comparison, images
        self.squares = replace(request.settings, rect=False)
        self.torch_score = comparison.score(TORCH, request.weights, self.squares)
        self.networks = {TORCH: ExportedNetwork(request.weights, request.settings.imgsz)}

    def compare(self, name: str, file: Path, device: str) -> tuple[dict[str, Any], list[str]]:
        """Compare a file; it is timed later, with the others.

        Args:
            name: Its format.
            file: The file.
            device: Where it runs.

        Returns:
            What is recorded, with the score under ``score``; and a sentence for each difference above its tolerance.
        """
        exported = ExportedNetwork(file, self.request.settings.imgsz, device)
        exact = ExportedNetwork(file, self.request.settings.imgsz, device, exact=True)
        found = self.comparison.outputs(exact, self.images)
        # onnxruntime from requirements.txt computes on the CPU, whatever the training used
        score = self.comparison.score(name, file, replace(self.squares, batch=exported.batch, device=device))
        moved = ScorePair(self.torch_score, score).difference
        last = Limit(f"the two {self.comparison.score_name} differ by", moved, self.comparison.score_limit)
        limits = [*found.limits, last] if self.request.options.precision == FP32 else []
        self.networks[name] = exported  # not one that cannot compute
        return {**found.recorded, "score": score}, [failure for limit in limits if (failure := limit.failure)]


@dataclass(frozen=True)
class ScorePair:
    """The score of the PyTorch file and that of an exported one; None where there was nothing to measure."""

    torch: float | None
    exported: float | None

    @property
    def difference(self) -> float | None:
        """None if neither could be measured, infinite if only one of them could."""
        if self.torch is None or self.exported is None:
            return None if self.torch is self.exported else math.inf
        return abs(self.torch - self.exported)


def export_and_compare(request: ExportRequest, *, task: str, comparison: Comparison) -> dict[str, Any]:
    """Export to ONNX, compare the file, move it to its place, and write and compare the other formats.

    Args:
        request: What to export.
        task: Ultralytics' name of the task of the network.
        comparison: Measures the files.

    Returns:
        The section ``export`` of the record. ``passed`` and ``failures`` are about the ONNX file; each of ``other`` has
        its own ``error`` (null, or why it could not be written), ``passed`` and ``failures``. Failures are logged.

    Raises:
        UserError: Unknown format, no readable image in the split, or Ultralytics cannot write ONNX.
    """
    others = other_formats(request.formats)
    images = split_images(request.settings.data_yaml, request.settings.split)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    for killed in request.out.parent.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(killed, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=request.out.parent, prefix=_TEMPORARY) as folder:
        work = _Work(request, task, Path(folder), Check(request, comparison, images))
        exported = work.write("onnx")
        differences, failures = work.check.compare("onnx", exported, "cpu")
        score = differences.pop("score")
        with atomic_write(request.out) as target:
            os.replace(exported, target)
        written = work.write_all(others)
        times = timed_in_turn(work.check.networks)
        onnx_input = work.check.networks["onnx"].sizes[0]
        work.place(written)
    for failure in failures:
        LOGGER.error(f"export: {failure}")
    name = comparison.score_name
    return {
        "format": "onnx",
        "file": f"{request.out.parent.name}/{request.out.name}",
        "size_mb": size_mb(request.out),
        "input": [1, 3, *onnx_input],
        **differences,
        f"{name}_torch": work.check.torch_score,
        f"{name}_onnx": score,
        "tolerance": dict(comparison.tolerance),
        "passed": not failures,
        "failures": failures,
        "torch_ms": times[TORCH],
        "onnx_ms": times["onnx"],
        "machine": machine(),
        "other": [{**one, **times.get(one["format"], {})} for one in written],
    }


def export_formats(request: ExportRequest, *, task: str, comparison: Comparison) -> list[Entry]:
    """Write and compare formats of a finished run, into the folder of what is handed over.

    Args:
        request: What to export; ``out`` is not written.
        task: Ultralytics' name of the task of the network.
        comparison: Measures the files.

    Returns:
        An entry for each format, as ``other`` of :func:`export_and_compare`, and before them one of PyTorch.

    Raises:
        UserError: Unknown format, or no readable image in the split.
    """
    images = split_images(request.settings.data_yaml, request.settings.split)
    wanted = ["onnx"] if "onnx" in request.formats else []
    wanted += other_formats(request.formats)
    request.deploy.mkdir(parents=True, exist_ok=True)
    for killed in request.deploy.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(killed, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=request.deploy, prefix=_TEMPORARY) as folder:
        work = _Work(request, task, Path(folder), Check(request, comparison, images))
        written = work.write_all(wanted)
        times = timed_in_turn(work.check.networks)
        work.place(written)
    torch: Entry = {"format": TORCH, "precision": FP32, "file": None, "error": None}
    torch |= {"size_mb": size_mb(request.weights), "score": work.check.torch_score, **times[TORCH]}
    return [torch, *({**one, **times.get(one["format"], {})} for one in written)]


class _Work:
    """Writes formats of one network into a folder of its own, and from there to their places."""

    def __init__(self, request: ExportRequest, task: str, folder: Path, check: Check):
        """Prepare a copy of the network in ``folder``, beside which the exporter writes, under its name."""
        self.request, self.task, self.folder, self.check = request, task, folder, check
        self.copy = folder / f"{request.options.stem}.pt"
        self.files: dict[str, Path] = {}
        sign_checkpoint(request.weights, self.copy, request.about)

    def write(self, name: str) -> Path:
        """Write a format, signed.

        Raises:
            UserError: Ultralytics cannot write it.
        """
        known = arguments_of(name)
        options = self.request.options.arguments(known)
        settings = self.request.settings
        if "data" in known and (self.request.calibration or name != "onnx"):  # most others quantize whatever is asked
            options["data"] = str(self._calibration())
        exported = export(self.copy, name, task=self.task, imgsz=settings.imgsz, device=self._device(name), **options)
        if exported.suffix == ".onnx":
            sign_onnx(exported, self.request.about)
        elif exported.is_dir():
            sign_folder(exported, self.request.about)
        return exported

    def _calibration(self) -> Path:
        """A data set YAML whose validation images are those to calibrate on."""
        data = read_yaml(self.request.settings.data_yaml)
        listed = self.request.calibration or tuple(split_images(self.request.settings.data_yaml, "val"))
        write_text(self.folder / "images.txt", "".join(f"{path}\n" for path in evenly(listed, CALIBRATION_IMAGES)))
        parts = dict.fromkeys(("train", "val"), str(self.folder / "images.txt"))
        write_yaml(self.folder / "calibration.yaml", {**parts, "names": data["names"]})
        return self.folder / "calibration.yaml"

    def write_all(self, names: Sequence[str]) -> list[Entry]:
        """Write formats and compare them; a failure is recorded and does not affect the others.

        Raises:
            OSError, RuntimeError: The disk is full, or the like.
        """
        return [self._write_and_compare(name) for name in names]

    def _write_and_compare(self, name: str) -> Entry:
        entry: Entry = {"format": name, "precision": self.request.options.precision, "file": None, "error": None}
        try:
            file = self.write(name)
            differences, failures = self.check.compare(name, file, self._device(name))
            self.files[name] = file
            entry |= {"size_mb": size_mb(file)}
            entry |= {name: differences[name] for name in _COMPARED if name in differences}
            entry |= {"passed": not failures, "failures": failures}
        # A format is computed by its vendor's package, which may raise anything, even SystemExit.
        except (Exception, SystemExit) as e:
            check_storage(e, self.folder)
            entry |= {"error": reason(e), "passed": False, "failures": []}
        for failure in [*([entry["error"]] if entry["error"] else []), *entry["failures"]]:
            LOGGER.error(f"export: format={name}: {failure}")
        return entry

    def place(self, entries: Sequence[Entry]) -> None:
        """Move the files that could be computed to their places, and record these; nothing reads the files any more.

        One outside of its tolerance does not replace an earlier one.
        """
        self.check.networks.clear()
        deploy = self.request.deploy
        for entry in entries:
            if (file := self.files.get(entry["format"])) is None:
                continue
            target = deploy / file.name.replace("_int8_int8", "_int8")  # Ultralytics adds its own
            if not entry["passed"] and target.exists():
                LOGGER.error(f"export: format={entry['format']}: not written over the earlier {target.name}")
                continue
            deploy.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(file, target)
            entry["file"] = f"{deploy.name}/{target.name}"

    def _device(self, name: str) -> str:
        """Where a format is written and computed."""
        return str(self.request.settings.device).partition(",")[0] if needs_gpu(name) else "cpu"


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


def finite(value: float | None) -> float | None:
    """The value; None if there is none, or if it is not finite, which JSON cannot express."""
    return value if value is not None and math.isfinite(value) else None
