"""The sections of a run's record: what each stage reports, as frozen types.

The text below a field is its documentation: the tables of docs/results.md are made of them. "Not known" and "does not
apply" are None (``null`` in the file); no number is ever NaN or infinite. Scores and shares lie in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

Count = Annotated[int, Field(strict=True, ge=0)]
Number = Annotated[float, Field(strict=True)]
Role = str
"""Name of a network in a run: ``teacher``, ``teacher_round1``, ``baseline``, ``student``, ``compare1``, ..."""


Status = Literal["done", "reused", "taken over", "skipped", "failed"]
"""How a stage ended; a failed one is not finished."""


SplitKind = Literal["official", "grouped", "given"]
"""Where the parts of a data set with masks come from."""


class Section(BaseModel):
    """A part of a record that a stage fills once, as a whole."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Session(Section):
    """With what and where a session ran."""

    dfssd: str
    """Version of dfssd."""
    ultralytics: str
    """Version of Ultralytics."""
    torch: str
    """Version of PyTorch."""
    python: str
    """Version of Python."""
    machine: str
    """System and processor family."""
    device: str
    """`device=` as given, `auto` if it was not."""
    git: str | None = None
    """Commit of the checkout, with `+changes` if files differed; null outside a checkout."""


class RunFacts(Session):
    """What is needed to repeat the run."""

    command: str
    """The command line."""
    recipe: str
    """Name or path of the recipe."""
    seed: Annotated[int, Field(strict=True)]
    """Seed of split, training order and augmentation."""
    resumed: tuple[Session, ...] = ()
    """One entry for each later session: `dfssd`, `ultralytics`, `torch`, `python`, `machine`, `device`, `git`;
    absent if there was none."""


class Stage(Section):
    """One finished stage."""

    name: str
    """Name of the stage."""
    seconds: Number
    """Duration, of the last session that worked on it [s]."""
    status: Status
    """How it ended, see below."""


# data


class Data(Section):
    """What was trained and tested on."""

    name: str
    """Name of the data set."""
    classes: tuple[str, ...]
    """Class names in id order."""
    images: Count
    """Images read, before `limit=`."""
    train_labeled: Count
    """Labeled training images; the lists of all parts are in `splits/`."""
    train_unlabeled: Count
    """Unlabeled training images."""
    val: Count
    """Validation images."""
    test: Count
    """Test images."""
    duplicates: Count
    """Images that repeat another one; repeats are kept in one part."""
    left_out: Count = 0
    """Images without labels that are not used, since they or a copy belong to val or test."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Pairs of file and reason, with `skip_bad=true`."""


class BoxData(Data):
    """Data with boxes."""

    learnt_classes: Count = 0
    """Number of the first classes that the teacher knew before (`recipe=sdidd` and its bounds), else 0."""
    torn_duplicates: Count = 0
    """Groups of copies with one part in train and another in val or test; above 0 only where the source or `split=`
    gave the parts."""


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


# pseudo-labels and self-training


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
    """Boxes below `pseudo.tau_low`: the teacher is not asked for them, so this is 0."""
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


class SelfTraining(Section):
    """Whether the teacher improved on its own labels."""

    val_score: tuple[Number, ...]
    """Validation score before the first round, then after each."""
    taken: Count
    """The round whose teacher is used; 0 is the first teacher."""


# training


class Training(Section):
    """How long and how a network was trained."""

    epochs: Count
    """Planned; an epoch is one pass over the labeled images."""
    epochs_done: Count
    """Done; fewer after early stopping."""
    batches: Count
    """Forward and backward passes."""
    optimizer_steps: Count | None
    """Weight updates; equal for baseline and student unless one stopped early."""
    batch: Count
    """Images in a batch, labeled and unlabeled together."""
    optimizer: str
    """As really used."""
    lr0: Number
    """Initial learning rate, as really used."""
    best_epoch: Count | None
    """First epoch (from 1) with the best validation score; on a tie the later weights were kept."""
    val_score: Number | None
    """Validation score of that epoch, in the `measure` of the record."""
    val_score_by_epoch: tuple[Number, ...] = ()
    """The score after each epoch."""
    taken_from: str | None = None
    """Name of the run whose baseline was taken over; absent for a network that was trained here."""


class Loss(Section):
    """One loss of a segmentation training."""

    weight: Number
    """As configured."""
    by_epoch: tuple[Number, ...]
    """Weighted mean of the loss over each epoch."""


class MaskSelfTest(Section):
    """Whether every loss of a segmentation training teaches, and the teacher stands still."""

    alive: tuple[str, ...] = ()
    """Losses that gave the network a gradient."""
    grad_share: Mapping[str, Number] = {}
    """Share of each loss in the gradient of the first batches."""
    teacher_unchanged: StrictBool | None = None
    """Whether the teacher is the same bit for bit; absent without a teacher."""


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
    batches; `teacher_unchanged`: true, bit for bit (absent without a teacher)."""


# distillation


class Term(Section):
    """One term of the distillation."""

    weight: Number
    """As configured; with `balance=auto` the last one."""
    schedule: str
    """As configured."""
    first: Number | None
    """Mean of the term over the first epoch, with its weight and schedule."""
    last: Number | None
    """The same over the last epoch."""
    grad_share: Number | None
    """Its part of the gradient on the student: its norm over the sum of the norms of the YOLO loss and of all terms;
    mean over the probed batches (the first ones and the first of each epoch; with `balance=auto` every 50th)."""
    by_epoch: tuple[Number | None, ...] = ()
    """Mean of the term over every epoch; null where it was not finite."""
    weight_by_epoch: tuple[Number, ...] = ()
    """The weight at the end of each epoch."""
    grad_share_by_probe: tuple[Number, ...] = ()
    """`grad_share` of the single probes."""


class SelfTest(Section):
    """Checks that the method acts at all; a run that violates one of them stops."""

    adapters_in_optimizer: StrictBool = True
    """true."""
    teacher_in_optimizer: StrictBool = False
    """false."""
    checked_batches: Count | None = None
    """Batches after which every term had to have given the student a gradient."""
    terms_alive: tuple[str, ...] = ()
    """Terms that were finite, non-zero and gave the student a gradient; a term that needs boxes and never saw any is
    missing here, and the log says so."""
    teacher_unchanged: StrictBool | None = None
    """true: the teacher is the same bit for bit; absent where it is the moving average of the student."""
    adapters_changed: StrictBool | None = None
    """true."""


class GuardEvent(Section):
    """One thing that the guard did."""

    epoch: Count
    """Epoch after which it acted, from 1."""
    factor: Number
    """What is left of all that comes from the teacher: 0.25, then 0."""
    why: str
    """Reason in one sentence."""


class GuardState(Section):
    """State of the guard at the end of the training."""

    level: Count
    """How often it has cut back."""
    bad: Count
    """Epochs in a row below the baseline."""
    epochs: Count
    """Epochs judged."""
    events: tuple[GuardEvent, ...]
    """What it did: `epoch`, `factor`, `why`, as in the section `guard`."""
    noise: Number
    """Difference in the validation score that it takes for chance."""
    patience: Count
    """Epochs in a row below the baseline before it acts."""


class Health(Section):
    """Pseudo-labels of one epoch, over the unlabeled images that the student was shown; null: nothing to divide by."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | None] = Field(init=False)

    accepted: Number | None
    """Accepted boxes per image."""
    ignored: Number | None
    """Ignored boxes per image; an image ignored as a whole counts as one or as its tiles."""
    score: Number | None
    """Mean score of the accepted boxes."""
    agreement: Number | None
    """Share of the anchors where the teacher's best score is at least 0.25 at which the student's best class is the
    same."""
    precision: Number | None
    """Share of the accepted boxes that match at IoU 0.5, in views with at least one true box, where the truth is
    known (benchmarks); never used in training."""
    recall: Number | None
    """Share of the true boxes that are matched, likewise."""

    @model_validator(mode="after")
    def _only_classes(self) -> Health:
        if strange := [key for key in self.__pydantic_extra__ if not key.startswith("class/")]:
            raise ValueError(f"unknown key {strange[0]}")
        return self

    @property
    def per_class(self) -> dict[str, float | None]:
        """Class name -> accepted boxes per image."""
        return {key.removeprefix("class/"): value for key, value in self.__pydantic_extra__.items()}


class ThresholdRule(Section):
    """Fixed numbers of the online class thresholds."""

    tau_low: Number
    """Lowest score that is more than background."""
    tau0: Number
    """Lowest threshold of a class that follows the average."""
    tau_max: Number
    """Highest threshold of such a class."""
    ema_decay: Number
    """Decay of the average."""


class ThresholdState(Section):
    """State of the online class thresholds."""

    rule: ThresholdRule
    """Fixed numbers of the rule: `tau_low`, `tau0`, `tau_max`, `ema_decay`."""
    ema: tuple[Number, ...]
    """Moving average of each class."""
    batches: tuple[Count, ...]
    """Batches that held the class."""
    fixed: tuple[Number | None, ...]
    """Threshold of a class that does not move, else null."""


class BalanceState(Section):
    """State of `balance=auto`."""

    norms: Mapping[str, Number]
    """Smoothed logarithm of the gradient norm of the YOLO loss (`det`) and of each unweighted term."""
    taken: Mapping[str, Count]
    """Number of measurements of each."""


class Distill(Section):
    """What the student learned from the teacher."""

    terms: Mapping[str, Term]
    """Name of each active term -> what it did, see below."""
    selftest: SelfTest
    """Checks that the method acts at all, see below."""
    guard: GuardState | None = None
    """State of the guard at the end, see below."""
    health: tuple[Health, ...] = ()
    """One entry per epoch, over the unlabeled images that the student was shown in it, see below."""
    starved: tuple[str, ...] = ()
    """Classes of which no box was accepted in any epoch."""
    thresholds: ThresholdState | None = None
    """State of the online class thresholds at the end, see below; null without them."""
    balance: BalanceState | None = None
    """State of `balance=auto` at the end; null without it: `norms`, the smoothed logarithms of the gradient norms of
    the YOLO loss (`det`) and of each unweighted term; `taken`, the number of measurements of each."""


class ModelSelection(Section):
    """Which network is shipped as the student, and why."""

    chosen: Literal["student", "baseline"]
    """What `weights/student.pt` is: the better one on the validation images; the test images are not used."""
    why: str
    """In one sentence."""
    student_val_score: Number | None
    """Best validation score of the student; null if there is none."""
    baseline_val_score: Number | None
    """Best validation score of the baseline; null if there is none."""
    events: tuple[GuardEvent, ...] = ()
    """What the guard did during the training: `epoch`, `factor` left of all that comes from the teacher (0.25, then
    0), `why`."""


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


# test


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
    """The score threshold where the mean F1 over the classes is highest."""
    per_class: Mapping[str, ClassScores]
    """Class name -> `ap50`, `ap50_95`, `precision`, `recall` (null for a class without boxes here), `instances`."""
    pr_curve: Curve
    """`recall` (0, 0.01, ..., 1) and `precision` at IoU 0.5, mean over the classes present: 101 values each."""
    images: Count
    """Number of images."""
    instances: Count
    """Number of true boxes."""


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
    """Number of parameters that a prediction takes."""
    plain: StrictBool | None = None
    """Whether Ultralytics loads the checkpoint without `dfssd`."""


class Latency(Section):
    """Duration of the forward pass of one image, all networks in turn."""

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


# export


class OtherFormat(Section):
    """A further format of `format=`; its outputs are not compared."""

    format: str
    """Name of the format."""
    file: str | None
    """The file; null if it could not be written."""
    error: str | None
    """null, or why it could not be written."""


class Export(Section):
    """The ONNX file and the proof that it computes the same. Of a file that could not be written only `failures`."""

    format: Literal["onnx"]
    """`onnx`."""
    file: str | None
    """The file; null if it could not be written."""
    size_mb: Number | None = None
    """Its size in 10^6 bytes."""
    input: tuple[Count, ...] | None = None
    """Shape of its input: 1, 3, height, width [px], RGB in 0-1."""
    images: Count | None = None
    """Test images whose raw outputs were compared (at most 100, evenly from the split)."""
    passed: StrictBool
    """Whether all differences are within tolerance and every wanted format was written."""
    failures: tuple[str, ...] = ()
    """A sentence for each reason not to pass."""
    other: tuple[OtherFormat, ...] = ()
    """Further formats of `format=`: `format`, `file` (null if it could not be written), `error` (null or a sentence);
    their outputs are not compared."""


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


def to_json(section: BaseModel) -> dict[str, Any]:
    """A section as it is written: in the order of its fields, those that were never given left out."""
    tree: dict[str, Any] = section.model_dump(mode="json", exclude_unset=True, by_alias=True)
    return tree
