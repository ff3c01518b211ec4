"""Runs of every kind, whose reports are approved word by word (``tests/test_golden_reports.py``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dfssd.detection.run_files import DetectionFiles
from dfssd.evaluation.bootstrap import DRAWS, LEVEL, METHOD
from dfssd.reporting.sections import Drawn
from dfssd.results.record import BoxRecord
from dfssd.results.sections import GuardEvent, Health, ModelSelection, Session
from dfssd.segmentation.run_files import SegmentationFiles
from tests.detection import recorded_run as boxes
from tests.reporting.records import changed, without
from tests.segmentation import recorded_run as masks


@dataclass(frozen=True)
class Scenario:
    """The files of a run, and the figures that can be drawn from them."""

    run: DetectionFiles | SegmentationFiles
    drawn: Drawn


SCENARIOS: dict[str, Callable[[], Scenario]] = {}
"""``boxes-<what>`` and ``masks-<what>`` -> what makes the scenario."""


WARNINGS = ["12 16-bit images (a.png): read as 12-bit gray values", "classes of data.yaml without a box: rust"]


def scenario(make: Callable[[], Scenario]) -> Callable[[], Scenario]:
    """Register a scenario under the name of its function: ``boxes_full`` is ``boxes-full``."""
    SCENARIOS[make.__name__.replace("_", "-")] = make
    return make


def of_boxes(record: BoxRecord, *, drawn: str = "", missing: str = "", **files: Any) -> Scenario:
    """A scenario with the usual figures, those of ``drawn``, and without those of ``missing``."""
    figures = {**boxes.FIGURES, **dict.fromkeys(drawn.split(), 1)}
    return Scenario(boxes.run_files(record, **files), {k: n for k, n in figures.items() if k not in missing.split()})


def of_masks(record: Any, *, missing: str = "", **files: Any) -> Scenario:
    """A scenario with the usual figures but those of ``missing``."""
    figures = {name: shown for name, shown in masks.FIGURES.items() if name not in missing.split()}
    return Scenario(masks.run_files(record, **files), figures)


def differing(*pairs: tuple[str, str], **gains: float) -> dict[str, Any]:
    """Recorded differences of ``pairs``: each score with its gain, and an interval of 0.02 around it."""
    found = {score: {"value": gain, "low": gain - 0.01, "high": gain + 0.01} for score, gain in gains.items()}
    rows = [{"network": own, "reference": other, "gains": found} for own, other in pairs]
    return {"method": METHOD, "level": LEVEL, "draws": DRAWS, "pairs": rows}


def health(epochs: int = 30) -> list[Health]:
    """What the health meter records; the truth is not known, and the last epochs show no unlabeled image."""
    nothing = dict.fromkeys(("accepted", "ignored", "score", "precision", "recall", "class/dents", "class/pits"))
    common = {**nothing, "ignored": 0.4, "agreement": 0.91, "class/dents": 1.5, "class/pits": 0.5}
    shown = [Health(**{**common, "accepted": 2.0 + 0.05 * i, "score": 0.62 + 0.005 * i}) for i in range(epochs - 2)]
    return [*shown, *(Health(**nothing, agreement=0.95) for _ in range(2))]


def selected(
    chosen: str, why: str, *events: GuardEvent, student: float | None = 0.42, baseline: float = 0.39
) -> ModelSelection:
    return ModelSelection(chosen=chosen, why=why, student_val_score=student, baseline_val_score=baseline, events=events)


@scenario
def boxes_full() -> Scenario:
    """Everything there is: pseudo-labels with known quality, terms, a baseline, an export that passes."""
    record = changed(boxes.results(), "distill", health=health(), starved=["linear"])
    record.guard = selected("student", "validation mAP50-95 0.420 against 0.390 of the baseline")
    found = differing(("student", "baseline"), ("student", "teacher"), map50_95=0.032, map50=0.051)
    unknown = {"map50_95": {"value": 0.075, "low": None, "high": None}}
    found["pairs"].append({"network": "teacher", "reference": "baseline", "gains": unknown})
    record = changed(record, "", differences=found)
    return of_boxes(record, drawn="health")


@scenario
def boxes_unknown_quality() -> Scenario:
    """Fused pseudo-labels without true boxes, missing files, terms whose weights moved."""
    fused = {"teachers": 2, "tta": True, "precision": 0.9}
    record = changed(boxes.results(0.480), "pseudo_labels", quality=None, settings=fused)
    record = changed(
        record, "data", duplicates=0, skipped=[["a.png", "empty"], ["b.png", "no image"]], warnings=WARNINGS
    )
    for name in record.distill.terms:
        record = changed(record, f"distill.terms.{name}", weight_by_epoch=[1.0, 2.0])
    return of_boxes(record)


@scenario
def boxes_baseline_selected() -> Scenario:
    """The guard cut back the teacher and then selected the baseline."""
    events = (
        GuardEvent(epoch=6, factor=0.25, why="validation mAP50-95 0.100 was below the baseline's 0.150"),
        GuardEvent(epoch=12, factor=0.0, why="validation mAP50-95 0.200 was below the baseline's 0.250"),
    )
    record = changed(boxes.results(0.380, 0.380), "training.student", val_score=0.36)
    record = changed(record, "test", student_trained=boxes.measured(0.35))
    record = changed(record, "", differences=differing(("student_trained", "baseline"), map50_95=-0.03, map50=-0.048))
    why = "validation mAP50-95 0.360 against 0.390 of the baseline"
    record.guard = selected("baseline", why, *events, student=0.36)
    return of_boxes(record)


@scenario
def boxes_no_unlabeled() -> Scenario:
    """Distilled on the labeled images alone."""
    record = changed(boxes.results(0.300), "data", train_unlabeled=0)
    record.pseudo_labels = None
    return of_boxes(record, predictions={}, missing="pseudo_labels gallery")


@scenario
def boxes_incremental() -> Scenario:
    """A step that added new classes to a trained detector."""
    record = changed(boxes.results(0.412, 0.380, 0.300), "data", train_unlabeled=0, learnt_classes=4)
    record = without(record, "test.baseline", "training.baseline", "training.teacher")
    ap50 = {"map_old": 0.51, "map_new": 0.62, "map_all": 0.55, "map_old_before": 0.58, "forgetting": 0.07}
    strict = {"map50_95_old": 0.31, "map50_95_new": 0.42, "map50_95_all": 0.35, "map50_95_old_before": 0.38}
    classes = {"classes_old": boxes.NAMES[:4], "classes_new": boxes.NAMES[4:]}
    step = {**classes, **ap50, **strict, "map50_95_forgetting": 0.07}
    record = changed(record, "", pseudo_labels=None, guard=None, incremental=step)
    weights = {"teacher": 1.5, "student": 1.5}
    return of_boxes(record, predictions={}, weights_mb=weights, missing="pseudo_labels gallery")


@scenario
def boxes_no_pseudo_labels() -> Scenario:
    """A teacher that accepts no box: the baseline is the student."""
    nothing = {name: {"accepted": 0, "ignored": 9} for name in boxes.NAMES}
    record = changed(
        without(boxes.results(0.380, 0.380, 0.120), "training.student", "distill"),
        "pseudo_labels",
        accepted=0,
        ignored=63,
        boxes=63,
        per_class=nothing,
        images_without_accepted=192,
        starved=boxes.NAMES,
        quality={"iou": 0.5, "images": 192, "precision": None, "recall": 0.0, "per_class": {}},
    )
    why = "the teacher accepted no box in 192 unlabeled images (it found 63, all below the threshold of their class)"
    record.guard = selected("baseline", why, student=None)
    return of_boxes(record, missing="loss_terms")


@scenario
def boxes_export_failure() -> Scenario:
    """An ONNX file that computes something else, and another format that could not be written."""
    record = changed(
        boxes.results(),
        "export",
        passed=False,
        failures=["class scores differ by 0.2, allowed is 0.01"],
        max_score_diff=0.2,
        max_box_diff_px=None,
        map50_95_onnx=0.25,
        other=[
            {"format": "torchscript", "file": "weights/student.torchscript", "error": None},
            {"format": "engine", "file": None, "error": "no GPU", "passed": False},
            {"format": "openvino", "file": "deploy/student_openvino_model", "error": None, "precision": "fp32"}
            | {"size_mb": 12.1, "score": 0.41, "passed": True, "median_ms": 9.84, "p95_ms": 11.2},
        ],
    )
    return of_boxes(record)


@scenario
def boxes_formats() -> Scenario:
    """OpenVINO beside ONNX; later 8 bits, which lose small defects, and a format that could not be written."""
    fast = {"median_ms": 4.1, "p95_ms": 5.02}
    openvino: dict[str, Any] = {
        "format": "openvino",
        "file": "deploy/student_openvino_model",
        "error": None,
        "precision": "fp32",
    }
    openvino |= {"size_mb": 12.1, "score": 0.412, "max_box_diff_px": 0.002, "max_score_diff": 4e-5, **fast}
    record = changed(boxes.results(), "export", other=[{**openvino, "sizes": boxes.sized(22, 91)}])
    int8 = {**openvino, "file": "deploy/student_int8_openvino_model", "precision": "int8", "size_mb": 3.5}
    int8 |= {"score": 0.384, "max_box_diff_px": 41.0, "max_score_diff": 0.8, "sizes": boxes.sized(13, 90)}
    torch: dict[str, Any] = {
        "format": "torch",
        "file": None,
        "error": None,
        "precision": "fp32",
        "size_mb": 6.25,
        "score": 0.412,
    }
    torch |= {"median_ms": 10.1, "p95_ms": 15.0, "sizes": boxes.sized(22, 91)}
    broken = {"format": "ncnn", "file": None, "error": "no such operator", "precision": "int8", "passed": False}
    later = {"imgsz": 128, "machine": "another one, 1 thread", "formats": [torch, int8, broken]}
    return of_boxes(changed(record, "export", later=[later]))


@scenario
def boxes_self_training() -> Scenario:
    """A teacher that learned from its own labels twice, and the baseline of another, shorter run."""
    record = boxes.results()
    rounds = {"teacher_round1": boxes.trained(0.47), "teacher_round2": boxes.trained(0.45)}
    record = changed(record, "training", **rounds)
    other = {"optimizer_steps": 600, "taken_from": "other", "val_score_by_epoch": [0.1 * i for i in range(4)]}
    record = changed(record, "training.baseline", **other)
    stages = list(record.stages)
    stages.insert(2, {"name": "self-train", "seconds": 500.0, "status": "done"})
    return of_boxes(changed(record, "", stages=stages, self_training={"val_score": [0.41, 0.46, 0.44], "taken": 1}))


@scenario
def boxes_pretrained() -> Scenario:
    """Teacher and student learned from all images first; the baseline has a second line from scratch."""
    seconds = {"setup": 1.0, "waiting": 2.0, "steps": 90.0, "forward": 30.0, "backward": 50.0, "optimizer": 9.0}
    seconds |= {"validation": 6.0, "writing": 0.5, "other": 0.5}
    record = changed(boxes.results(), "test", baseline_scratch=boxes.measured(0.36))
    record = changed(record, "training", baseline_scratch=boxes.trained(0.355))
    for role in ("teacher", "baseline", "baseline_scratch", "student"):
        record = changed(record, f"training.{role}", seconds=seconds)
    blind = {"best_epoch": None, "val_score": None, "seconds": seconds}
    for role in ("teacher", "student"):
        record = changed(record, "training", **{f"pretrained_{role}": {**boxes.trained(0).model_dump(), **blind}})
    learned = {"method": "dense", "images": 240, "spread": [0.7, 0.6, 0.5]}
    student = {**learned, "losses": {"where": [0.69, 0.41], "what": [0.3, None]}}
    teacher = {**learned, "losses": {"where": [0.68, 0.4], "what": [0.3, 0.1]}}
    record = changed(record, "pretraining", student=student, teacher=teacher)
    gain = differing(("baseline", "baseline_scratch"), map50_95=0.02, map50=0.032)
    return of_boxes(changed(record, "", differences=gain))


@scenario
def boxes_moving_average() -> Scenario:
    """The student's moving average is its teacher; no baseline."""
    record = changed(boxes.results(), "distill", terms={}, health=health(4), starved=[])
    record = without(record, "test.teacher", "test.baseline", "training.teacher", "training.baseline")
    record.pseudo_labels = None
    return of_boxes(record, predictions={}, drawn="health", missing="pseudo_labels gallery")


@scenario
def boxes_no_student() -> Scenario:
    """Only the baseline was trained and tested (``recipe=baseline``)."""
    roles = [f"{section}.{role}" for section in ("training", "test") for role in ("teacher", "student")]
    record = changed(without(boxes.results(), "distill", *roles), "", pseudo_labels=None, guard=None, export=None)
    return of_boxes(record, predictions={}, missing="per_class_ap pseudo_labels gallery loss_terms")


@scenario
def boxes_nothing_trained() -> Scenario:
    """The data is prepared, and that is all."""
    whole = boxes.results()
    record = BoxRecord(run=whole.run, data=whole.data, stages=whole.stages[:1])
    return Scenario(boxes.run_files(record, predictions={}, weights_mb={}), {})


@scenario
def boxes_nothing_measured() -> Scenario:
    """A test part without boxes: nulls wherever a number is expected."""
    record = boxes.results()
    for role in record.test:
        scores = dict.fromkeys(("map50_95", "map50", "precision", "recall", "confidence"))
        record = changed(record, f"test.{role}", **scores, instances=0)
    record = changed(record, "distill.terms.hwjs", first=None, last=None, grad_share=None)
    record = changed(record, "training.student", epochs_done=0, optimizer_steps=None, best_epoch=None)
    return of_boxes(record, missing="pr_curves gallery loss_terms")


@scenario
def boxes_resumed() -> Scenario:
    """A run continued twice, the second time elsewhere and outside of a checkout."""
    first = boxes.results().run.model_copy(update={"git": "1a2b3c4"})
    same = {name: getattr(first, name) for name in Session.model_fields}
    moved = {**same, "torch": "2.16.0", "machine": "Linux aarch64", "device": "0", "git": None}
    return of_boxes(changed(boxes.results(), "run", git="1a2b3c4", resumed=[same, moved]))


@scenario
def masks_grouped() -> Scenario:
    """A complete run on a split without copies."""
    pairs = ("student", "baseline"), ("student", "compare1")
    return of_masks(changed(masks.results(), "", differences=differing(*pairs, miou_fg=0.022, miou_all=0.017)))


@scenario
def masks_resumed() -> Scenario:
    """A run continued once in the same place."""
    run = masks.results().run
    return of_masks(changed(masks.results(), "run", resumed=[{key: getattr(run, key) for key in Session.model_fields}]))


@scenario
def masks_official_leaks() -> Scenario:
    """The split of the data set itself, whose test images have copies in training."""
    leaks = {"test": 810, "val": 12, "named": masks.NAMED}
    skipped = [["a.png", "no mask"]]
    record = changed(
        masks.results(), "data", split="official", leaks=leaks, left_out=4, skipped=skipped, warnings=WARNINGS
    )
    return of_masks(record, lists_leaks=True)


@scenario
def masks_compare() -> Scenario:
    """Networks to compare with, one of them trained for another time; a teacher that is worse than the baseline."""
    record = changed(masks.results(teacher=0.700), "training.compare2", batches=100)
    return of_masks(changed(record, "latency", compare2=masks.timed(3.0, 224)))


@scenario
def masks_baseline_selected() -> Scenario:
    """The student was worse on the validation images; unlabeled images took part, the trainings differ in length."""
    record = changed(masks.results(student=0.790), "data", train_unlabeled=100)
    why = "validation mIoU of the defects 0.77 against 0.79"
    record = changed(record, "guard", chosen="baseline", why=why)
    record = changed(record, "test", student_trained=masks.measured(0.771, 847_120))
    record = changed(record, "training.student", optimizer_steps=2700)
    compared = [f"{section}.{role}" for section in ("training", "test") for role in masks.COMPARED]
    return of_masks(without(record, "compare", "latency.compare1", *compared))


@scenario
def masks_export_failed() -> Scenario:
    """The ONNX file computes something else."""
    failure = "class probabilities differ by 0.2, allowed is 0.001"
    wrong = {"passed": False, "failures": [failure], "max_score_diff": None, "miou_fg_onnx": None}
    return of_masks(changed(masks.results(), "export", **wrong))


@scenario
def masks_export_impossible() -> Scenario:
    """A network that cannot be written as ONNX."""
    failure = "the ONNX file could not be written: an operator is unknown"
    export = {"format": "onnx", "file": None, "passed": False, "failures": [failure]}
    return of_masks(changed(masks.results(), "", export=export), missing="masks")


@scenario
def masks_class_ids() -> Scenario:
    """A network of Ultralytics, whose ONNX file gives class ids; nothing of ours is needed to load it."""
    record = changed(masks.results(student=0.795), "models", student="yolo26n-sem.yaml")
    record = changed(record, "test.student", plain=True)
    ids = {"answers": "ids", "max_score_diff": None, "max_logit_diff": None, "input": [1, 3, 192, 256]}
    return of_masks(changed(record, "export", **ids))


@scenario
def masks_no_student() -> Scenario:
    """Only the baseline was trained."""
    whole = masks.results()
    sections = {name: {"baseline": getattr(whole, name)["baseline"]} for name in ("training", "test", "latency")}
    record = changed(without(whole, "compare"), "", **sections, guard=None, export=None)
    return of_masks(record, missing="losses")


@scenario
def masks_nothing_trained() -> Scenario:
    """The data is prepared, and that is all."""
    whole = without(masks.results(), "training", "guard", "test", "latency", "export")
    return Scenario(masks.run_files(changed(whole, "", stages=whole.stages[:1])), {})
