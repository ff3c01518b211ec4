"""Sections of the record of a run that ends with a segmentation network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import StrictBool

from dfssd.results.sections.export import Export
from dfssd.results.sections.shared import Count, Data, Number, Role, Section, Training

SplitKind = Literal["official", "grouped", "given"]
"""Where the parts of a data set with masks come from."""


class Leaks(Section):
    """Images of val and test with a twin that is trained on."""

    test: Count
    """Test images with a twin in train or val; `splits/test_leaks.txt` has all."""
    val: Count
    """Validation images with a twin in train; `splits/val_leaks.txt` has all."""
    named: tuple[str, ...]
    """The first ten of the test images, each with its twin."""


class MaskData(Data):
    """Data with masks; the first class is the background."""

    split: SplitKind
    """Where the parts come from; `given` is `split=<folder>`."""
    leaks: Leaks
    """Images with a twin in any of eight poses or in part: `test`, `val`: those there with a twin in train (test: or
    in val); `named`: the first ten; `splits/test_leaks.txt` and `val_leaks.txt` have all."""


class Loss(Section):
    """One loss of a segmentation training."""

    weight: Number
    """As configured."""
    by_epoch: tuple[Number, ...]
    """Weighted mean of the loss over each epoch."""


class MaskSelfTest(Section):
    """Checks that every loss has a gradient, and that the teacher does not change."""

    alive: tuple[str, ...] = ()
    """Losses that gave the network a gradient."""
    grad_share: Mapping[str, Number] = {}
    """Share of each loss in the gradient of the first batches."""
    teacher_unchanged: StrictBool | None = None
    """Whether the teacher is bit-identical; absent without a teacher."""


class MaskTraining(Training):
    """How long and how a segmentation network was trained."""

    imgsz: Count
    """Size of the training images [px]."""
    parameters: Count
    """Number of parameters."""
    losses: Mapping[str, Loss]
    """Each loss with a weight -> `weight`, `by_epoch` (weighted mean of the epoch)."""
    selftest: MaskSelfTest
    """`alive`: losses that gave the network a gradient; `grad_share`: share of each in the gradient of the first
    batches; `teacher_unchanged`: true if bit-identical (absent without a teacher)."""


class ClassIou(Section):
    """Score of a segmentation network on one class."""

    iou: Number | None
    """Intersection over union; null where neither truth nor prediction has a pixel."""
    pixels: Count
    """True pixels."""


class MaskScores(Section):
    """Scores of a segmentation network on the test images; null where there is nothing to measure."""

    miou_fg: Number | None
    """Mean IoU of the defects."""
    miou_all: Number | None
    """Mean IoU with the background."""
    pixel_accuracy: Number | None
    """Share of the pixels with the right class."""
    per_class: Mapping[str, ClassIou]
    """Class name -> `iou`, `pixels` (true ones)."""
    images: Count
    """Number of images."""
    imgsz: Count | tuple[Count, Count]
    """Input size, or height and width [px]."""
    parameters: Count | None
    """Number of parameters that a prediction uses."""
    plain: StrictBool | None = None
    """Whether Ultralytics loads the checkpoint without `dfssd`."""


class Latency(Section):
    """Duration of the forward pass of one image, networks timed in turn."""

    median_ms: Number
    """Median [ms]."""
    low_ms: Number
    """Lower quartile [ms]."""
    high_ms: Number
    """Upper quartile [ms]."""
    imgsz: Count
    """Side of the image [px]."""
    rounds: Count
    """Timed passes."""
    device: str
    """Where it was timed."""
    threads: Count
    """Threads of PyTorch."""


class Picture(Section):
    """A test image that the report shows."""

    image: str
    """Path of the image."""
    truth: str
    """Path of its mask."""
    masks: Mapping[Role, str]
    """Network -> path of the mask that it predicted."""
    said: str = ""
    """Why it is shown, in a few words."""


class MaskTolerance(Section):
    """Largest allowed differences of a segmentation network (`parity.*`)."""

    score: Number
    """Class probabilities; for a file that gives class ids, share of the pixels with another class."""
    miou: Number
    """Mean IoU of the defects."""


class MaskExport(Export):
    """Export of a segmentation network."""

    answers: Literal["logits", "ids"] | None = None
    """`logits`, or `ids` (Ultralytics' `-sem` networks)."""
    max_logit_diff: Number | None = None
    """Largest difference of a logit; null if not finite, and for `ids`."""
    max_score_diff: Number | None = None
    """Largest difference of a class probability; null if not finite, and for `ids`."""
    differing_pixels: Number | None = None
    """Share of the pixels with another class."""
    miou_fg_torch: Number | None = None
    """Mean IoU of the defects by PyTorch on all test images, on squares."""
    miou_fg_onnx: Number | None = None
    """The same by ONNX."""
    tolerance: MaskTolerance | None = None
    """`score`, `miou`: largest allowed differences (`parity.*`)."""

    @property
    def score(self) -> float | None:
        """Mean IoU of the defects of the ONNX file."""
        return self.miou_fg_onnx

    @property
    def torch_score(self) -> float | None:
        """Mean IoU of the defects of PyTorch."""
        return self.miou_fg_torch
