"""Sections of the record of a run that ends with a detector."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import StrictBool

from dfssd.results.sections.export import Export, TensorFile
from dfssd.results.sections.shared import Count, Data, Number, Section


class BoxData(Data):
    """Data with boxes."""

    learnt_classes: Count = 0
    """Number of leading classes that the teacher knew already (`recipe=sdidd` and its bounds), else 0."""
    torn_duplicates: Count = 0
    """Groups of copies with one part in train and another in val or test; above 0 only where the source or `split=`
    gave the parts."""


class Pretraining(Section):
    """What a network has learned from images alone, before it saw a label; how long it took is in `training`."""

    method: str
    """`regions`, `dense`, or the foundation model whose features were learned (`pretrain=`)."""
    images: Count
    """Images it has learned from: all training images, labeled and unlabeled."""
    losses: Mapping[str, tuple[Number | None, ...]]
    """Name of a loss -> its mean in each epoch; null if it was not finite."""
    spread: tuple[Number, ...] = ()
    """How different the places of the images are to the network in the end, for each level of its head: 0 if all are
    alike, 1 if the directions are spread evenly; absent for `regions`."""


class ClassBoxes(Section):
    """Pseudo boxes of one class."""

    accepted: Count
    """Boxes at or above the threshold."""
    ignored: Count
    """Boxes below it."""


class ClassQuality(Section):
    """Accepted boxes of one class against the true ones."""

    precision: Number | None
    """Share of the accepted boxes that match; null without any."""
    recall: Number | None
    """Share of the true boxes that are matched; null without any."""
    tp: Count
    """Matches."""
    fp: Count
    """Accepted boxes without a match."""
    fn: Count
    """True boxes without a match."""


class Quality(Section):
    """Accepted boxes against the true ones, where these are known; never used in training."""

    iou: Number
    """Least overlap (intersection over union) of a match."""
    images: Count
    """Images with known labels."""
    precision: Number | None
    """Share of the accepted boxes that match a true box of their class."""
    recall: Number | None
    """Share of the true boxes that an accepted box matches."""
    per_class: Mapping[str, ClassQuality]
    """Class name -> `precision`, `recall`, `tp` (matches), `fp` (accepted without match), `fn` (true without match)."""


class LabelSettings(Section):
    """How the pseudo-labels were made."""

    teachers: Count
    """Number of teachers."""
    tta: StrictBool
    """Whether each image was seen in several views."""
    precision: Number | None
    """Target precision of the thresholds, if there was one."""


class PseudoLabels(Section):
    """What the teacher found in the unlabeled images."""

    images: Count
    """Unlabeled images."""
    boxes: Count
    """Boxes with a score of at least `pseudo.tau_low`, after non-maximum suppression."""
    accepted: Count
    """Boxes at or above the threshold of their class: trained on like labels."""
    ignored: Count
    """Boxes below it: trained on neither as an object nor as background."""
    background: Count
    """Boxes below `pseudo.tau_low`: the teacher does not return them, so this is 0."""
    thresholds: Mapping[str, Number]
    """Class name -> score."""
    per_class: Mapping[str, ClassBoxes]
    """Class name -> `accepted`, `ignored`."""
    images_without_accepted: Count
    """Images without an accepted box."""
    starved: tuple[str, ...] = ()
    """Classes without any accepted box."""
    mean_score: Number | None = None
    """Mean score of the accepted boxes; null without any."""
    settings: LabelSettings | None = None
    """Number of `teachers`, `tta`, target `precision`."""
    quality: Quality | None = None
    """null where the true labels are not known, else the next table. Never used in training."""


class Incremental(Section):
    """What a step with new classes has gained and lost; means over the classes that have boxes in the test part."""

    classes_old: tuple[str, ...]
    """Names of the classes that the teacher knew."""
    classes_new: tuple[str, ...]
    """Names of the new ones."""
    map_old: Number | None
    """AP50 of the student on the old classes, after the step."""
    map_new: Number | None
    """AP50 of the student on the new classes."""
    map_all: Number | None
    """AP50 of the student on all classes."""
    map_old_before: Number | None
    """AP50 of the teacher on the old classes."""
    forgetting: Number | None
    """`map_old_before` - `map_old`, in [-1, 1]."""
    map50_95_old: Number | None
    """As `map_old`, in mAP50-95."""
    map50_95_new: Number | None
    """As `map_new`, in mAP50-95."""
    map50_95_all: Number | None
    """As `map_all`, in mAP50-95."""
    map50_95_old_before: Number | None
    """As `map_old_before`, in mAP50-95."""
    map50_95_forgetting: Number | None
    """As `forgetting`, in mAP50-95."""


class ClassScores(Section):
    """Scores of a detector on one class; null for a class without boxes in the test part."""

    ap50: Number | None
    """Average precision at IoU 0.5."""
    ap50_95: Number | None
    """Average precision, mean over IoU 0.50, 0.55, ..., 0.95."""
    precision: Number | None
    """Precision at `confidence`."""
    recall: Number | None
    """Recall at `confidence`."""
    instances: Count
    """True boxes."""


class Curve(Section):
    """A precision-recall curve of 101 points."""

    recall: tuple[Number, ...]
    """0, 0.01, ..., 1."""
    precision: tuple[Number, ...]
    """Precision at IoU 0.5, mean over the classes present."""


class BoxScores(Section):
    """Scores of a detector on the test images; the first five are null if these have no box at all."""

    map50: Number | None
    """Average precision at IoU 0.5, mean over the classes present."""
    map50_95: Number | None
    """Average precision, mean over IoU 0.50, 0.55, ..., 0.95 and over the classes present."""
    precision: Number | None
    """Mean over the classes present, at `confidence`."""
    recall: Number | None
    """Mean over the classes present, at `confidence`."""
    confidence: Number | None
    """The score threshold at which the mean F1 over the classes is highest on the validation images; in records of
    earlier versions on the test images."""
    per_class: Mapping[str, ClassScores]
    """Class name -> `ap50`, `ap50_95`, `precision`, `recall` (null for a class without boxes here), `instances`."""
    pr_curve: Curve
    """`recall` (0, 0.01, ..., 1) and `precision` at IoU 0.5, mean over the classes present: 101 values each."""
    images: Count
    """Number of images."""
    instances: Count
    """Number of true boxes."""


class BoxTolerance(Section):
    """Largest allowed differences of a detector (`parity.*`)."""

    box_px: Number
    """Box edges [px]."""
    score: Number
    """Class scores."""
    map50_95: Number
    """mAP50-95."""


class BoxExport(Export):
    """Export of a detector."""

    max_box_diff_px: Number | None = None
    """Largest difference of a box edge between ONNX and PyTorch [px of the letterboxed image], over all decoded
    boxes, background included; null if not finite."""
    max_score_diff: Number | None = None
    """Largest difference of a class score; null if not finite."""
    map50_95_torch: Number | None = None
    """mAP50-95 by PyTorch on all test images, on square letterboxes; for that reason it may differ a little from
    `test.student.map50_95`, which pads less."""
    map50_95_onnx: Number | None = None
    """The same by ONNX."""
    tolerance: BoxTolerance | None = None
    """`box_px`, `score`, `map50_95`: largest allowed differences (`parity.*`)."""
    tensors: TensorFile | None = None
    """The same detector without a pickle: `file` (`student.yaml` beside it belongs to it), `size_mb` (10^6 bytes), and
    `sha256`; absent in records of earlier versions."""

    @property
    def score(self) -> float | None:
        """mAP50-95 of the ONNX file."""
        return self.map50_95_onnx

    @property
    def torch_score(self) -> float | None:
        """mAP50-95 of PyTorch."""
        return self.map50_95_torch
