"""Test material: a run folder as a finished run leaves it, made of invented numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from dfssd.detection.run_files import DetectionFiles
from dfssd.evaluation.operating import operating_points, share
from dfssd.reporting.words import ROLES
from dfssd.results.record import FILE, BoxRecord
from dfssd.results.sections import (
    BoxData,
    BoxExport,
    BoxScores,
    BoxTolerance,
    ClassBoxes,
    ClassQuality,
    ClassScores,
    Curve,
    Distill,
    Errors,
    Operating,
    PseudoLabels,
    Quality,
    RunFacts,
    SelfTest,
    SizeRecall,
    Stage,
    TensorFile,
    Term,
    Times,
    Training,
)
from tests.evaluation.test_operating import random_scores

FIGURES = dict.fromkeys(("per_class_ap", "pr_curves", "pseudo_labels", "validation", "loss_terms", "confusion"), 1) | {
    "gallery": 2
}
"""What can be drawn of a complete run with two pseudo-labeled images."""

NAMES = ("inclusions", "dents", "oil spots", "pits", "punching", "linear", "macular")


def measured(level: float, instances: int = 24) -> BoxScores:
    """Scores of a network: ``level`` is the mAP50-95; the last class is absent from the split."""
    recall = np.linspace(0, 1, 101)
    per_class = {
        name: ClassScores(
            ap50=min(1.0, 1.6 * (level + 0.03 * place)),
            ap50_95=level + 0.03 * (place - 2.5),
            precision=0.8,
            recall=0.7,
            instances=instances,
        )
        for place, name in enumerate(NAMES)
    }
    per_class[NAMES[-1]] = ClassScores(ap50=None, ap50_95=None, precision=None, recall=None, instances=0)
    return BoxScores(
        map50_95=level,
        map50=1.6 * level,
        precision=0.8,
        recall=0.7,
        confidence=0.31,
        per_class=per_class,
        pr_curve=Curve(recall=recall.round(2).tolist(), precision=(1 - recall ** (8 * level)).tolist()),
        images=48,
        instances=6 * instances,
    )


def trained(value: float) -> Training:
    """Training of a network with that score on the validation images."""
    return Training(
        epochs=30,
        epochs_done=30,
        batches=1260,
        optimizer_steps=1260,
        batch=16,
        optimizer="SGD",
        lr0=0.01,
        best_epoch=28,
        val_score=value,
    )


def pseudo_labels() -> PseudoLabels:
    """Pseudo-labels whose quality is known."""
    counts = {name: ClassBoxes(accepted=30 + 12 * i, ignored=9 * i) for i, name in enumerate(NAMES)}
    quality = {
        name: ClassQuality(precision=0.7 + 0.04 * i, recall=0.5 + 0.05 * i, tp=7, fp=3, fn=7)
        for i, name in enumerate(NAMES)
    }
    return PseudoLabels(
        images=192,
        boxes=651,
        accepted=sum(c.accepted for c in counts.values()),
        ignored=sum(c.ignored for c in counts.values()),
        background=0,
        thresholds={name: 0.5 + 0.03 * i for i, name in enumerate(NAMES)},
        per_class=counts,
        images_without_accepted=14,
        quality=Quality(iou=0.5, images=192, precision=0.83, recall=0.64, per_class=quality),
    )


def operated(level: float, good: float = 0.4) -> Operating:
    """Thresholds of a network that tells images of random scores apart, the better the higher ``level``."""
    val, test = (random_scores(seed, n=48, classes=len(NAMES), good=good, skill=2 * level) for seed in (1, 2))
    return Operating(
        wanted=0.02,
        points=operating_points(val, test, NAMES, np.full(len(NAMES), 0.31), 0.02),
        errors=Errors(
            correct=90,
            wrong_place=12,
            wrong_class=7,
            wrong_both=1,
            duplicates=3,
            background=round(20 / level),
            missed=30,
            confusion=tuple(tuple(9 * (i == j) + (i + j) % 2 for j in range(8)) for i in range(8)),
        ),
        sizes=sized(22, 91),
    )


def sized(small: int, large: int) -> tuple[SizeRecall, ...]:
    """Found small and large defects."""
    return (
        SizeRecall(from_px=8, to_px=16, defects=40, found=small, recall=share(small, 40)),
        SizeRecall(from_px=64, to_px=None, defects=104, found=large, recall=share(large, 104)),
    )


def exported(score: float) -> BoxExport:
    """An export that passed its check."""
    return BoxExport(
        format="onnx",
        file="weights/student.onnx",
        size_mb=12.2,
        input=(1, 3, 128, 128),
        images=48,
        max_box_diff_px=0.00011,
        max_score_diff=2.3e-6,
        torch_ms=Times(median_ms=9.84, p95_ms=14.31),
        onnx_ms=Times(median_ms=5.2, p95_ms=6.63),
        machine="a processor, 2 threads",
        torch_sizes=sized(22, 91),
        onnx_sizes=sized(22, 91),
        tensors=TensorFile(file="weights/student.safetensors", size_mb=3.0, sha256="5e" * 32),
        map50_95_torch=score,
        map50_95_onnx=score,
        tolerance=BoxTolerance(box_px=0.5, score=0.01, map50_95=0.005),
        passed=True,
        failures=(),
        other=(),
    )


def results(student: float = 0.412, baseline: float = 0.380, teacher: float = 0.455) -> BoxRecord:
    """A complete record."""
    stages = ("prepare", "teacher", "pseudo-label", "baseline", "student", "test", "export")
    terms = {
        "hwjs": Term(weight=2.0, schedule="constant", first=0.1812, last=0.0931, grad_share=0.41),
        "response_cls": Term(weight=1.0, schedule="cosine", first=0.6, last=0.31, grad_share=0.35),
        "response_dfl": Term(weight=1.0, schedule="constant", first=0.4, last=0.2, grad_share=0.24),
    }
    return BoxRecord(
        run=RunFacts(
            command="python train.py data=demo",
            dfssd="0.1.0",
            ultralytics="8.4.190",
            torch="2.15.0",
            python="3.11.7",
            machine="Linux x86_64",
            device="cpu",
            seed=0,
            recipe="dfssd",
            git=None,
        ),
        data=BoxData(
            name="demo",
            classes=NAMES,
            images=384,
            train_labeled=96,
            train_unlabeled=192,
            val=48,
            test=48,
            duplicates=3,
            skipped=(),
        ),
        stages=tuple(Stage(name=name, seconds=45.0 * (i + 1), status="done") for i, name in enumerate(stages)),
        pseudo_labels=pseudo_labels(),
        training={"teacher": trained(0.46), "baseline": trained(0.39), "student": trained(0.42)},
        test={"teacher": measured(teacher), "baseline": measured(baseline), "student": measured(student)},
        operating={"teacher": operated(teacher), "baseline": operated(baseline), "student": operated(student)},
        export=exported(student),
        distill=Distill(terms=terms, selftest=SelfTest(teacher_unchanged=True)),
    )


def run_files(record: BoxRecord, **changes: Any) -> DetectionFiles:
    """What a report is written from, without a file: as :func:`write_run` leaves it, but for the curves."""
    files = DetectionFiles(
        Path("run"),
        weights_mb=dict.fromkeys(ROLES, 1.5),
        record=record,
        predictions={"rule": {"tau_low": 0.1}},
        imgsz=96,
    )
    return replace(files, **changes)


def write_run(folder: Path, record: BoxRecord, images: int = 2) -> Path:
    """Write a run folder around ``record``, with training curves and pseudo-labeled images; return ``folder``."""
    folder.mkdir(parents=True)
    record.write(folder / FILE)
    (folder / "run.yaml").write_text(yaml.safe_dump({"train": {"imgsz": 96}}))
    (folder / "weights").mkdir()
    for role, level in (("teacher", 0.46), ("baseline", 0.39), ("student", 0.42)):
        (folder / "weights" / f"{role}.pt").write_bytes(bytes(1_500_000))
        write_curves(folder / "train" / role / "results.csv", level, distilled=role == "student")
    write_predictions(folder / "pseudo", images)
    return folder


def write_curves(path: Path, level: float, distilled: bool, epochs: int = 30) -> None:
    """Write a results.csv as Ultralytics does."""
    terms = ["train/hwjs", "train/response_cls", "train/response_dfl"] if distilled else []
    losses = ["train/box_loss", "train/cls_loss", "train/dfl_loss", *terms]
    lines = [",".join(["epoch", "time", *losses, "metrics/mAP50(B)", "metrics/mAP50-95(B)", "val/box_loss"])]
    for epoch in range(1, epochs + 1):
        falling = [f"{(i + 1 - level) * (0.4 + np.exp(-epoch / 8)):.5f}" for i in range(len(losses))]
        rising = level * (1 - np.exp(-epoch / 7))
        lines.append(
            ",".join([str(epoch), f"{3.1 * epoch:.1f}", *falling, f"{1.5 * rising:.5f}", f"{rising:.5f}", "1"])
        )
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines) + "\n")


def write_predictions(folder: Path, images: int) -> None:
    """Write predictions.json and the images in it: one accepted and one ignored box each."""
    random = np.random.default_rng(0)
    entries = []
    for number in range(images):
        path = folder.parent / "plates" / f"plate with a rather long file name {number:03}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = random.normal(140, 12, (120, 160, 1)).clip(0, 255).astype(np.uint8).repeat(3, axis=2)
        pixels[10:50, 20:70], pixels[80:110, 90:150] = 60, 200
        Image.fromarray(pixels).save(path)
        boxes = [
            {"cls": number % 7, "score": 0.81, "xywhn": [45 / 160, 30 / 120, 50 / 160, 40 / 120], "zone": "accept"},
            {"cls": (number + 1) % 7, "score": 0.34, "xywhn": [0.75, 95 / 120, 60 / 160, 30 / 120], "zone": "ignore"},
        ]
        entries.append({"image": str(path), "width": 160, "height": 120, "label": None, "boxes": boxes})
    rule = {"tau_low": 0.1, "tau0": 0.5, "tau_max": 0.9, "ema_decay": 0.99}
    folder.mkdir()
    (folder / "predictions.json").write_text(json.dumps({"names": list(NAMES), "rule": rule, "images": entries}))
