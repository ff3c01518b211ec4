"""The record of a run, ``results.json``: typed, checked when it is read and when it is written (docs/results.md).

A record is a :class:`BoxRecord` or a :class:`MaskRecord`, by the task of its run. Its sections are frozen
(:mod:`dfssd.results.sections`); the record itself is filled by the stages of a run, each assigning its own::

    record.data = BoxData(name=dataset.name, ...)

A section that no stage has assigned is absent in the file. A section is None where its stage had nothing to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dfssd.errors import UserError
from dfssd.files import write_json
from dfssd.results.sections import (
    BoxData,
    BoxExport,
    BoxScores,
    Data,
    Differences,
    Distill,
    Export,
    Gain,
    Incremental,
    Latency,
    MaskData,
    MaskExport,
    MaskScores,
    MaskTraining,
    ModelSelection,
    Operating,
    Picture,
    Pretraining,
    PseudoLabels,
    Role,
    RunFacts,
    SelfTraining,
    Stage,
    Training,
    to_json,
)

SCHEMA = 1
"""Version of the layout, raised by every change that readers would notice."""

FILE = "results.json"
"""Name of the record in the folder of its run."""

_Record = TypeVar("_Record", bound="RunRecord")


class RunRecord(BaseModel):
    """The sections that runs of all tasks have."""

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    TASK: ClassVar[str] = ""
    """Ultralytics' name of the task of the run."""
    MEASURE: ClassVar[str] = ""
    """What the networks of the task are compared by on validation."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of this layout."""
    task: str
    """Ultralytics' name of the task: `detect` or `semantic`."""
    measure: str
    """What `val_score` is, everywhere in the record."""
    run: RunFacts
    """How to repeat it."""
    stages: tuple[Stage, ...] = ()
    """What happened, in order of execution."""
    data: Data | None = None
    """What was trained and tested on."""
    self_training: SelfTraining | None = None
    """Whether self-training improved the teacher."""
    training: Mapping[Role, Training] = {}
    """How long and how each network was trained."""
    guard: ModelSelection | None = None
    """Which network is shipped as the student, and why."""
    test: Mapping[Role, Any] = {}
    """The result: the scores of each network on the test images."""
    differences: Differences | None = None
    """By how much these scores differ, with intervals."""
    operating: Mapping[Role, Operating] = {}
    """Thresholds of each network, chosen on the validation images, and what they do to whole test images."""
    export: Export | None = None
    """The ONNX file and the check that it computes the same."""

    @property
    def finished(self) -> bool:
        """Whether the last stage of the run has finished."""
        return any(stage.name == "report" for stage in self.stages)

    @property
    def complete(self) -> bool:
        """Whether the run has finished, and no stage has failed and would be run again."""
        return self.finished and all(stage.status != "failed" for stage in self.stages)

    def stage(self, name: str) -> Stage | None:
        """The record of a finished stage, or None."""
        return next((stage for stage in self.stages if stage.name == name and stage.status != "failed"), None)

    def gain(self, network: Role, reference: Role, score: str) -> Gain | None:
        """How much higher a score of a network is on the test images than that of another; None without the scores.

        Args:
            network: Role of the network.
            reference: Role of the network that it is compared with.
            score: Name of the score, such as ``map50_95``.

        Returns:
            As recorded; without interval if it is not recorded, as in a record of an earlier version.
        """
        for pair in self.differences.pairs if self.differences else ():
            if (pair.network, pair.reference) == (network, reference) and score in pair.gains:
                return pair.gains[score]
        own, other = (getattr(self.test.get(role), score, None) for role in (network, reference))
        return None if own is None or other is None else Gain(value=own - other, low=None, high=None)

    @classmethod
    def read(cls: type[_Record], path: str | Path) -> _Record:
        """Read a ``results.json``; one without ``schema`` is converted to this layout.

        Args:
            path: The file.

        Raises:
            UserError: It is missing or broken, is not the record of a run (of this task), or of a later version.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"{path} does not exist: give the folder of a run (project/name)")
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as e:
            raise UserError(f"{path} cannot be read ({e}); remove it to run all stages again") from e
        if not isinstance(tree, dict) or not isinstance(tree.get("run"), dict):
            raise UserError(
                f"{path} is not the record of a run: it has no section 'run'; give the folder of a run, or remove the "
                "file to run all stages again"
            )
        schema = tree.get("schema", 0)
        if isinstance(schema, int) and schema > SCHEMA:
            raise UserError(
                f"{path} was written by a later version of dfssd (schema {schema}, this one reads up to {SCHEMA}): "
                "update dfssd to read it"
            )
        if "schema" not in tree:
            tree = upgraded(tree, cls.TASK)
        kind = RECORDS.get(str(tree.get("task")))
        if kind is None or not issubclass(kind, cls):
            expected = cls.TASK or " or ".join(RECORDS)
            raise UserError(f"{path} is the record of task {tree.get('task')}, not {expected}: give another run")
        try:
            return kind.model_validate(tree)
        except ValidationError as e:
            first = e.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{path} is damaged: {where}: {first['msg']}; remove it to run all stages again") from e

    def write(self, path: str | Path) -> None:
        """Write the record, whole or not at all."""
        write_json(path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The record as it is written."""
        return {"schema": self.schema_version, "task": self.TASK, "measure": self.measure, **to_json(self)}


class BoxRecord(RunRecord):
    """The record of a run that ends with a detector."""

    TASK: ClassVar[str] = "detect"
    MEASURE: ClassVar[str] = "mAP50-95"

    task: Literal["detect"] = "detect"
    """Ultralytics' name of the task: `detect` or `semantic`."""
    measure: Literal["mAP50-95"] = "mAP50-95"
    """What `val_score` is, everywhere in the record."""
    data: BoxData | None = None
    """What was trained and tested on."""
    pretraining: Mapping[Role, Pretraining] = {}
    """`teacher`, `student`: what each has learned from images alone (`pretrain=`); empty without."""
    pseudo_labels: PseudoLabels | None = None
    """What the teacher found in the unlabeled images."""
    distill: Distill | None = None
    """What the student learned from the teacher."""
    incremental: Incremental | None = None
    """What a step with new classes has gained and lost."""
    test: Mapping[Role, BoxScores] = {}
    """The result: the scores of each network on the test images."""
    export: BoxExport | None = None
    """The ONNX file and the check that it computes the same."""


class MaskRecord(RunRecord):
    """The record of a run that ends with a segmentation network."""

    TASK: ClassVar[str] = "semantic"
    MEASURE: ClassVar[str] = "mIoU of the defects"

    task: Literal["semantic"] = "semantic"
    """Ultralytics' name of the task: `detect` or `semantic`."""
    measure: Literal["mIoU of the defects"] = "mIoU of the defects"
    """What `val_score` is, everywhere in the record."""
    data: MaskData | None = None
    """What was trained and tested on."""
    models: Mapping[str, str] = {}
    """`teacher`, `student`: as given."""
    compare: Mapping[Role, str] = {}
    """`compare1`, ...: networks of `compare=`, by the name they have in the other sections."""
    training: Mapping[Role, MaskTraining] = {}
    """How long and how each network was trained."""
    test: Mapping[Role, MaskScores] = {}
    """The result: the scores of each network on the test images."""
    latency: Mapping[Role, Latency] = {}
    """Duration of the forward pass of one image, networks timed in turn."""
    pictures: tuple[Picture, ...] = ()
    """Images that the report shows."""
    export: MaskExport | None = None
    """The ONNX file and the check that it computes the same."""


RECORDS: dict[str, type[BoxRecord] | type[MaskRecord]] = {kind.TASK: kind for kind in (BoxRecord, MaskRecord)}
"""Ultralytics' name of a task -> the record of its runs."""


def read_run(path: str | Path) -> RunRecord:
    """The record of a run.

    Args:
        path: The folder of the run (``project/name``), or its ``results.json``.

    Returns:
        A :class:`BoxRecord` or a :class:`MaskRecord`.

    Raises:
        UserError: As :meth:`RunRecord.read`.
    """
    path = Path(path).expanduser()
    return RunRecord.read(path if path.name == FILE or path.is_file() else path / FILE)


def is_finished(folder: Path) -> bool:
    """Whether the run in ``folder`` has finished its last stage; False without a readable record."""
    try:
        return RunRecord.read(folder / FILE).finished
    except UserError:
        return False


_SCORES = ("val_map50_95", "val_miou_fg")
"""Names of the validation score before it had one name for all tasks."""


def upgraded(tree: Mapping[str, Any], task: str = "") -> dict[str, Any]:
    """The content of a ``results.json`` without ``schema``, converted to the current layout.

    Args:
        tree: Content of the file.
        task: Ultralytics' name of the task, for a record of a run that stopped too early to tell.
    """
    masks = "models" in tree if tree.get("data") else task == MaskRecord.TASK
    kind = MaskRecord if masks else BoxRecord
    new = {**tree, "schema": SCHEMA, "task": kind.TASK, "measure": kind.MEASURE}
    # what is not as it should be is left for the check of the types to report
    if isinstance(trained := tree.get("training"), Mapping):
        new["training"] = {role: upgraded_scores(training) for role, training in trained.items()}
    for section in {"guard", "self_training"} & set(tree):
        new[section] = upgraded_scores(tree[section])
    return new


def upgraded_scores(section: Any) -> Any:
    """A section of such a record, or the summary of a training, with ``val_score`` in the names of its scores."""
    return {_score_name(key): value for key, value in section.items()} if isinstance(section, Mapping) else section


def _score_name(key: str) -> str:
    for old in _SCORES:
        key = key.replace(old, "val_score")
    return key
