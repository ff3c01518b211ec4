"""What a task is: the differences between runs of detectors and of mask networks, for code that starts runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dfssd.config import Config
from dfssd.results.record import RunRecord
from dfssd.runs.stages import StagedRun


@dataclass(frozen=True)
class Task:
    """A kind of run.

    Attributes:
        record: Type of its record, with Ultralytics' name of the task and the measure for comparing networks.
        check: Raises :class:`~dfssd.errors.UserError` for arguments and models that cannot work, before a run folder
            is made; returns the configuration that fits the models.
        run: Its stages: a :class:`~dfssd.runs.stages.StagedRun` with a method for each.
    """

    record: type[RunRecord]
    check: Callable[[Config], Config]
    run: type[StagedRun]

    @property
    def name(self) -> str:
        """Ultralytics' name of the task."""
        return self.record.TASK

    @property
    def measure(self) -> str:
        """What its networks are compared by on validation, in words."""
        return self.record.MEASURE

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of its stages, in order."""
        return self.run.STAGES
