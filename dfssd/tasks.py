"""The tasks by name. A new one needs a package with what differs, and one line here.

This is the only shared module that imports the packages of the tasks, besides :mod:`dfssd.data_check`, which reads
their data without importing their networks.
"""

from __future__ import annotations

from collections.abc import Mapping

from dfssd.detection.checks import check_before_start as check_detection
from dfssd.detection.run import DetectionRun
from dfssd.results.record import BoxRecord, MaskRecord
from dfssd.runs.task import Task
from dfssd.segmentation.checks import check_before_start as check_segmentation
from dfssd.segmentation.run import SegmentationRun

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        Task(BoxRecord, check_detection, DetectionRun),
        Task(MaskRecord, check_segmentation, SegmentationRun),
    )
}
