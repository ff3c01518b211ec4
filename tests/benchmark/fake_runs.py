"""A stand-in for ``train.py``, which writes the record of a run, and a small grid to run it on."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import yaml

from dfssd.benchmark.command import benchmark
from dfssd.config import parse_arguments
from dfssd.errors import UserError, report_problems
from dfssd.runs.configure import configure
from tests.evaluation.test_detections import random_detections


def main(argv, **more) -> int:
    """The command with these arguments; ``more``: what stands in for a training."""
    try:
        return benchmark(argv, **more)
    except UserError as e:
        return report_problems(e)
    except KeyboardInterrupt:
        return 130


MAPS = {"baseline": 0.30, "teacher": 0.36, "ultralytics": 0.31, "dfssd": 0.34, "oracle": 0.40}
SMALL = {
    "common": {"teacher": "yolov8s.yaml", "student": "yolov8n.yaml", "epochs": 2, "limit": 50, "plots": False},
    "labeled": [0.1],
    "seeds": [0],
    "cells": {"baseline": {"recipe": "baseline"}, "ultralytics": {"recipe": "ultralytics"}, "dfssd": None},
    "oracle": {"recipe": "baseline", "teacher": "none", "epochs": 1},
}


TRAINED = {"epochs": 2, "epochs_done": 2, "batches": 80, "optimizer_steps": 20, "batch": 16, "optimizer": "SGD"}
TRAINED |= {"lr0": 0.01, "best_epoch": 1}


class FakeTrain:
    """Writes what a run of ``train.py`` leaves behind.

    Attributes:
        calls: The arguments of each run.
        fail: Cells that end with an error.
        die: Cells that are killed.
        alone: Cells that train a baseline and no student.
        seeds: Seed -> what it adds to every mAP50-95.
        maps: Cell -> mAP50-95 with seed 0.
    """

    def __init__(self) -> None:
        self.calls: list[dict] = []
        self.fail: set[str] = set()
        self.die: set[str] = set()
        self.alone: set[str] = set()
        self.seeds: dict[int, float] = {}
        self.maps = dict(MAPS)

    def __call__(self, words, log: Path) -> int:
        given = parse_arguments(list(words))
        self.calls.append(given)
        cell = given["name"].partition("-labeled")[0]
        folder = Path(given["project"]) / given["name"]
        log.parent.mkdir(parents=True, exist_ok=True)
        fails = self.fails(cell, given["seed"])
        log.write_text("[dfssd] run folder\nerror: no luck\n" if fails else "fine\n")
        if fails:
            return 2
        if "resume" not in given:
            folder.mkdir(parents=True, exist_ok="exist_ok" in given)
            config = configure(given)
            tree = {"given": given, "config": config.own, "terms": config.terms, "train": config.train}
            (folder / "run.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(tree))))
        command = "python train.py " + shlex.join(words)
        run = {"command": command, "device": "cpu", "dfssd": "0.1", "ultralytics": "8", "torch": "2", "git": "abc"}
        run |= {"machine": "Linux x86_64", "python": "3", "recipe": "dfssd", "seed": given["seed"]}
        results: dict[str, Any] = {"run": run, "stages": [{"name": "prepare", "seconds": 0.5, "status": "done"}]}
        (folder / "results.json").write_text(
            json.dumps({"schema": 1, "task": "detect", "measure": "mAP50-95", **results})
        )
        if cell in self.die:
            raise KeyboardInterrupt
        alone = ["baseline"] if cell in self.alone else ["student"]
        roles = {"baseline": ["teacher", "baseline"], "oracle": ["baseline"]}.get(cell, alone)
        shift = self.seeds.get(given["seed"], 0.0)
        for role in roles:
            value = self.maps["oracle" if cell == "oracle" else "teacher" if role == "teacher" else cell] + shift
            unasked = {"precision": 0.5, "recall": 0.5}
            pit = {"ap50": value + 0.2, "ap50_95": value, "instances": 9, **unasked}
            test: dict[str, Any] = {
                "map50": value + 0.2,
                "map50_95": value,
                "confidence": 0.3,
                "images": 40,
                "instances": 9,
                **unasked,
            }
            test |= {"per_class": {"pit": pit}, "pr_curve": {"recall": [], "precision": []}}
            results.setdefault("test", {})[role] = test
            results.setdefault("training", {})[role] = {**TRAINED, "val_score": 0.5}
            results["stages"].append({"name": role, "seconds": 12.5, "status": "done"})
            random_detections(skill=10 * value).write(folder / "test" / role / "detections.npz")
        results["stages"].append({"name": "report", "seconds": 1.0, "status": "done"})
        (folder / "results.json").write_text(
            json.dumps({"schema": 1, "task": "detect", "measure": "mAP50-95", **results})
        )
        return 0

    def fails(self, cell: str, seed: int) -> bool:
        """If this run ends with an error. Asked from several threads, so that the answer depends on the arguments."""
        return cell in self.fail

    @property
    def names(self) -> list[str]:
        return [call["name"] for call in self.calls]


def rows_of(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))
