"""Test material: a run folder as a finished segmentation run leaves it, made of invented numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dfssd.evaluation.operating import operating_points
from dfssd.results.record import FILE, MaskRecord
from dfssd.results.sections import (
    ClassIou,
    Latency,
    Leaks,
    Loss,
    MaskData,
    MaskExport,
    MaskScores,
    MaskSelfTest,
    MaskTolerance,
    MaskTraining,
    ModelSelection,
    Operating,
    OtherFormat,
    RunFacts,
    Stage,
)
from dfssd.segmentation.run_files import SegmentationFiles
from tests.evaluation.test_operating import random_scores
from tests.reporting.records import changed
from tests.segmentation.material import NEU_NAMES, defects, write_mask

FIGURES = {"per_class_iou": 1, "masks": 2, "validation": 1, "losses": 1}
"""What can be drawn of a complete run with two pictures."""

COMPARED = {"compare1": "smp:unet", "compare2": "yolo26n-sem.yaml"}
NAMED = ["test/000123.jpg = training/000045.jpg", "test/000124.jpg = training/000046.jpg"]


def measured(level: float, parameters: int) -> MaskScores:
    """Scores of a network: ``level`` is the mean IoU of the defects."""
    iou = {name: level + 0.05 * (i - 2) if i else 0.97 for i, name in enumerate(NEU_NAMES)}
    return MaskScores(
        miou_fg=level,
        miou_all=(3 * level + 0.97) / 4,
        pixel_accuracy=0.96,
        per_class={name: ClassIou(iou=v, pixels=10_000 * (4 - i)) for i, (name, v) in enumerate(iou.items())},
        images=840,
        imgsz=200,
        parameters=parameters,
    )


def trained(level: float, parameters: int, **losses: float) -> MaskTraining:
    """Training of a network; ``losses``: sign of each loss."""
    epochs = 40
    falling = {name: [sign / (1 + i / 5) for i in range(epochs)] for name, sign in losses.items()}
    return MaskTraining(
        epochs=epochs,
        epochs_done=epochs,
        batches=5400,
        optimizer_steps=5400,
        batch=15,
        optimizer="Adam",
        lr0=0.001,
        best_epoch=37,
        val_score=level,
        val_score_by_epoch=tuple(level * (1 - math.exp(-(i + 1) / 8)) for i in range(epochs)),
        imgsz=200,
        parameters=parameters,
        losses={name: Loss(weight=1.0, by_epoch=tuple(values)) for name, values in falling.items()},
        selftest=MaskSelfTest(
            alive=tuple(sorted(losses)), grad_share=dict.fromkeys(losses, 0.25), teacher_unchanged=True
        ),
    )


def timed(median: float, imgsz: int = 200) -> Latency:
    """Latency of a network."""
    around = {"low_ms": 0.9 * median, "high_ms": 1.2 * median}
    return Latency(median_ms=median, **around, imgsz=imgsz, rounds=50, device="cpu", threads=1)


def exported(score: float) -> MaskExport:
    """An export that passed its check; another format could not be written."""
    return MaskExport(
        format="onnx",
        file="weights/student.onnx",
        size_mb=3.4,
        input=(1, 3, 200, 200),
        images=100,
        answers="logits",
        max_score_diff=2.3e-6,
        max_logit_diff=1.1e-5,
        differing_pixels=2.5e-7,
        miou_fg_torch=score,
        miou_fg_onnx=score,
        tolerance=MaskTolerance(score=0.001, miou=0.0005),
        passed=True,
        failures=(),
        other=(OtherFormat(format="engine", file=None, error="no GPU"),),
    )


def operated(level: float) -> Operating:
    """Thresholds of a network that tells images of random scores apart; no image is good."""
    val, test = (random_scores(seed, n=60, good=0.0, skill=3 * level) for seed in (1, 2))
    return Operating(
        wanted=None, points=operating_points(val, test, NEU_NAMES[1:], np.array([0.0005, 0.00125, 0.02]), None)
    )


def results(student: float = 0.812, baseline: float = 0.790, teacher: float = 0.834) -> MaskRecord:
    """A complete record, without pictures."""
    sizes = {"teacher": 29_000_000, "baseline": 847_120, "student": 847_120, "compare1": 24_400_000, "compare2": 1_600}
    levels = {"teacher": teacher, "baseline": baseline, "student": student, "compare1": 0.80, "compare2": 0.71}
    terms = {"ce": 0.4, "dice": 0.06, "boundary": -0.002, "kd": 1.5}
    stages = ("prepare", "teacher", "baseline", "student", "test", "export", "report")
    return MaskRecord(
        run=RunFacts(
            command="python train.py recipe=mffmetal data=NEU-Seg",
            dfssd="0.1.0",
            ultralytics="8.4.190",
            torch="2.15.0",
            python="3.11.7",
            machine="Linux x86_64",
            device="cpu",
            seed=0,
            recipe="mffmetal",
            git=None,
        ),
        stages=tuple(Stage(name=name, seconds=45.0 * i, status="done") for i, name in enumerate(stages)),
        data=MaskData(
            name="NEU-Seg",
            classes=NEU_NAMES,
            images=4470,
            train_labeled=3267,
            train_unlabeled=0,
            val=363,
            test=840,
            split="grouped",
            duplicates=3618,
            leaks=Leaks(test=0, val=0, named=()),
            left_out=0,
            skipped=(),
        ),
        compare=COMPARED,
        models={"teacher": "mffmetal-180", "student": "mffmetal-30"},
        training={role: trained(levels[role], sizes[role], **terms) for role in sizes},
        guard=ModelSelection(
            chosen="student",
            why="it is better on the validation images",
            student_val_score=student,
            baseline_val_score=baseline,
            events=(),
        ),
        test={role: measured(levels[role], sizes[role]) for role in sizes},
        latency={role: timed(10.0 * (i + 1)) for i, role in enumerate(("student", *list(sizes)[:2], "compare1"))},
        pictures=(),
        operating={role: operated(levels[role]) for role in sizes},
        export=exported(student),
    )


def run_files(record: MaskRecord, **changes: Any) -> SegmentationFiles:
    """What a report is written from, without a file: as :func:`write_run` leaves it."""
    files = SegmentationFiles(Path("run"), weights_mb=dict.fromkeys(record.test, 1.5), record=record)
    return replace(files, **changes)


def write_run(folder: Path, record: MaskRecord, images: int = 2) -> Path:
    """Write a run folder around ``record``, with weights and so many pictures; return ``folder``."""
    changed(record, "", pictures=write_pictures(folder, images)).write(folder / FILE)
    (folder / "weights").mkdir()
    for role in record.test:
        (folder / "weights" / f"{role}.pt").write_bytes(bytes(1_500_000))
    return folder


def write_pictures(folder: Path, images: int) -> list[dict[str, Any]]:
    """Write images with true and predicted masks; section ``pictures`` of the record."""
    entries = []
    for number in range(images):
        image, mask = defects(number)
        mask[:8, :8] = 255
        path = folder / "plates" / f"plate with a rather long file name {number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
        truth = write_mask(folder / "truth" / path.name, mask)
        drawn = {}
        for shift, role in enumerate(("student", "teacher", "baseline"), 1):
            drawn[role] = f"test/masks/{role}/{path.name}"
            write_mask(folder / drawn[role], np.roll(np.where(mask == 255, 0, mask), shift, 1))
        entries.append({"image": str(path), "truth": str(truth), "masks": drawn})
    return entries
