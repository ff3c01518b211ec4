"""The network of ``dfssd predict`` and ``dfssd serve``: an ONNX file without torch, or what else Ultralytics runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.datasets.preprocessing import Preprocess
from dfssd.deployment.facts import KEY, Facts, checked_facts, thresholds_of
from dfssd.deployment.folder import MANIFEST, is_unchanged
from dfssd.deployment.infer import CONFIDENCE, MOST, OVERLAP, Detector
from dfssd.errors import UserError, reason
from dfssd.files import read_yaml
from dfssd.log import LOGGER

FULL_BITS = 16
"""Bits of a file with more than 8 of them where nothing is known of its camera."""


class Network(ABC):
    """A detector.

    Attributes:
        file: Where it was read from.
        about: What the file says of itself; see :func:`~dfssd.deployment.facts.facts`.
        names: Of its classes, by id.
        thresholds: Lowest score of each class, (classes,).
        batch: Images that it takes at once; None: any number.
        bits: That the camera of its training images used in files with more than 8 of them.
        steps: What was done to the pixels of its training images when they were imported; None: nothing.
    """

    file: Path
    about: Facts
    names: Mapping[int, str]
    thresholds: np.ndarray
    batch: int | None = 1
    bits: int = FULL_BITS
    steps: Preprocess | None = None

    def know(self, about: Facts) -> None:
        """Take over what the file says of the images that it was trained on.

        Raises:
            UserError: They were changed, and what changes them is not installed.
        """
        self.about = checked_facts(about, self.file)
        self.bits = about.get("bits", FULL_BITS)
        self.steps = Preprocess(**about["preprocess"]) if "preprocess" in about else None
        if self.steps and find_spec("albumentations") is None:
            raise UserError(
                "the training images were changed by preprocess.*, for which albumentations is missing: "
                "pip install albumentations"
            )

    def problem(self, image: np.ndarray) -> str | None:
        """Why nothing can be found in an image; None if it can."""
        return self.steps.problem((image.shape[1], image.shape[0])) if self.steps else None

    def find(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Boxes of each image, best first: (n, 6) float32 rows x1, y1, x2, y2 [px], score, class id.

        Args:
            images: (h, w, 3) uint8, BGR, at most ``batch`` of them, none with a :meth:`problem`.
        """
        steps = self.steps
        if steps is None:
            return self.found(images)
        boxes = self.found([steps.apply(image, None)[0] for image in images])
        return [steps.back(rows, image.shape[1::-1]) for rows, image in zip(boxes, images, strict=True)]

    @abstractmethod
    def found(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The boxes of images that look as those of the training."""


class OnnxNetwork(Network):
    """A network in an ONNX file, computed by onnxruntime."""

    def __init__(self, file: Path, conf: float | None) -> None:
        """Open the file.

        Args:
            file: The ONNX file.
            conf: Lowest score of all classes; None: those in the file.

        Raises:
            UserError: It is broken, or no detector.
        """
        self.file = file
        try:
            self.detector = Detector(file)
        # onnxruntime raises errors of its own, and what is missing in the file a KeyError
        except Exception as e:
            raise UserError(f"model={file}: cannot be used ({reason(e)}); give student.onnx of a run with boxes") from e
        if conf is not None:
            self.detector.thresholds[:] = conf
        self.names, self.thresholds = self.detector.names, self.detector.thresholds
        self.batch = self.detector.batch if isinstance(self.detector.batch, int) else None
        self.know(self.detector.facts)

    def found(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See :class:`Network`; images whose inputs have other sizes are computed one group after the other."""
        groups: dict[tuple[int, int], list[int]] = {}
        for place, image in enumerate(images):
            groups.setdefault(self.detector.shape(image), []).append(place)
        found: dict[int, np.ndarray] = {}
        for places in groups.values():
            boxes = self.detector([np.ascontiguousarray(images[place][..., ::-1]) for place in places])
            found |= zip(places, boxes, strict=True)
        return [found[place] for place in range(len(images))]


class UltralyticsNetwork(Network):
    """A network in any other file that Ultralytics runs, which needs torch."""

    def __init__(self, file: Path, conf: float | None) -> None:
        """Open the file; the arguments are those of :class:`OnnxNetwork`.

        Raises:
            UserError: Ultralytics cannot read it, or it is no detector.
        """
        from dfssd.deployment.tensors import as_checkpoint
        from dfssd.trust.checkpoints import open_yolo

        self.file = file
        try:
            if file.suffix == ".safetensors":
                file = as_checkpoint(file)
            self.yolo: Any = open_yolo(str(file), task=None if file.suffix == ".pt" else "detect")
            names = self.yolo.names
        except UserError as e:
            raise UserError(f"model={e}") from e
        # what a file may be missing is up to the package of its format
        except Exception as e:
            raise UserError(f"model={file}: Ultralytics cannot read it ({reason(e)})") from e
        if self.yolo.task != "detect":
            raise UserError(f"model={file}: is for task={self.yolo.task}; only detectors are run")
        self.names = dict(names)
        about: Facts = facts_of(file, getattr(self.yolo, "ckpt", None))
        if not about and conf is None:
            LOGGER.warning(
                f"model={file}: does not say from which score a box counts: conf={CONFIDENCE} for all classes"
            )
        self.know(about)
        self.thresholds = thresholds_of(about, self.names, CONFIDENCE)
        if conf is not None:
            self.thresholds[:] = conf

    def found(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See :class:`Network`."""
        lowest = float(self.thresholds.min())
        results = self.yolo.predict(list(images), conf=lowest, iou=OVERLAP, max_det=MOST, verbose=False)
        found = [result.boxes.data.cpu().numpy().astype(np.float32) for result in results]
        return [boxes[boxes[:, 4] >= self.thresholds[boxes[:, 5].astype(int)]] for boxes in found]


def facts_of(file: Path, checkpoint: Mapping[str, Any] | None) -> Facts:
    """What a file says about itself: a checkpoint inside, a format that is a folder in its metadata."""
    told = checkpoint or {}
    if file.is_dir() and (file / "metadata.yaml").is_file():
        told = read_yaml(file / "metadata.yaml")
    return told.get(KEY) or {}


def open_network(model: Path, conf: float | None) -> Network:
    """The network of a file or of a run.

    Args:
        model: ``student.onnx``, another file that Ultralytics runs, or the folder of a run.
        conf: Lowest score of all classes; None: those in the file, 0.25 where it has none.

    Raises:
        UserError: There is no such file, or it is no detector.
    """
    file = _file_of(model)
    if is_unchanged(file) is False:
        LOGGER.warning(f"model={file}: is not the file that was checked: its SHA-256 is not that in {MANIFEST}")
    return OnnxNetwork(file, conf) if file.suffix == ".onnx" else UltralyticsNetwork(file, conf)


def _file_of(model: Path) -> Path:
    if not model.exists():
        raise UserError(f"model={model}: does not exist; give student.onnx of a run, or the folder of the run")
    if not model.is_dir() or (model / "metadata.yaml").is_file():  # a format that is a folder
        return model
    for name in ("deploy/student.onnx", "weights/student.onnx", "student.onnx", "student.pt", "weights/student.pt"):
        if (model / name).is_file():
            return model / name
    raise UserError(f"model={model}: is no run with a student: it has no weights/student.onnx, and no .pt")
