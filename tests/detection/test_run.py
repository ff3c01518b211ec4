"""The stages of a detector's run, as far as they can be seen without training."""

from __future__ import annotations

from dfssd.config import KEYS
from dfssd.config.values import OneOf
from dfssd.detection.run import METHODS, DetectionRun
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
