"""The stages of a detector's run, as far as they can be seen without training."""

from __future__ import annotations

from pathlib import Path

from dfssd.config import KEYS
from dfssd.config.values import OneOf
from dfssd.detection.methods import METHODS
from dfssd.detection.run import DetectionRun
from dfssd.runs.configure import configure
from dfssd.runs.folder import RunFolder
from dfssd.segmentation.run import SegmentationRun
from dfssd.tasks import TASKS


def test_every_method_of_the_schema_can_be_run() -> None:
    check = KEYS["student_training"].check
    assert isinstance(check, OneOf) and set(check.choices) == set(METHODS)


def test_every_task_of_the_schema_has_its_stages() -> None:
    check = KEYS["task"].check
    assert isinstance(check, OneOf) and set(check.choices) == set(TASKS)
    assert [task.run for task in TASKS.values()] == [DetectionRun, SegmentationRun]
    assert [task.measure for task in TASKS.values()] == ["mAP50-95", "mIoU of the defects"]
    for task in TASKS.values():
        assert task.stages[0] == "prepare" and task.stages[-1] == "report"
        assert all(callable(getattr(task.run, name.replace("-", "_"))) for name in task.stages)


def test_networks_learn_from_images_alone_only_where_it_is_asked_for(tmp_path: Path) -> None:
    """A run of before there was such a stage is resumed without it, so that its finished stages are kept."""

    def run(**given: str) -> DetectionRun:
        config = configure({"data": "demo", "project": str(tmp_path), "device": "cpu", **given})
        return DetectionRun(RunFolder.create(config, "the line"), config)

    plain, first = run(student="yolov8n.yaml"), run(pretrain="dense", student="yolov8n.yaml")
    assert plain.stages() == tuple(name for name in DetectionRun.STAGES if name != "pretrain")
    assert first.stages() == DetectionRun.STAGES
    assert plain.start("student") == "yolov8n.yaml"
    assert first.start("student") == str(first.weights / "pretrained_student.pt")
    assert first.start("teacher") == str(first.weights / "pretrained_teacher.pt")
