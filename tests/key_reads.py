"""Which keys of a run anybody reads: a key that is accepted and that nobody reads does nothing.

:func:`recorded_reads` notes, while a real run goes on, each key that the code asks the configuration for, each field of
the settings that the trainings get, and each argument that Ultralytics reads. :func:`dead_keys` sets every key there is
to another value, one at a time, and returns those that the line takes and the run has not read.

What this cannot see: whether what was read changes anything (the switch of a branch that is never taken, a number that
is multiplied by zero), what a key does in a run of another kind than the recorded one, and reads in other processes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import pytest
from ultralytics.utils import DEFAULT_CFG_DICT, IterableSimpleNamespace

from dfssd.config import KEYS, Config, defaults, parse_arguments
from dfssd.config.arguments import argument
from dfssd.config.sections import ParitySection, PseudoSection, SegSection
from dfssd.config.values import Check, Number, OneOf, Or
from dfssd.errors import UserError
from dfssd.runs.configure import configure
from dfssd.trainers.settings import PretrainSettings, SegmentationSettings, StageSettings, StudentSettings
from dfssd.trust.limits import Limits

SECTIONS = {PseudoSection: "pseudo.", SegSection: "seg.", ParitySection: "parity."}
SETTINGS = (StageSettings, StudentSettings, PretrainSettings, SegmentationSettings)

ULTRALYTICS = "ultralytics "
"""Stands before the names of what was read from the arguments that Ultralytics gets."""

PACKERS = ("dataclasses", "copy", "pydantic", "dfssd.config", "dfssd.trainers.settings", "ultralytics.cfg", "tests")
"""Modules that hand values on as they are: what they read nobody has used yet."""

OTHER = {
    "recipe": "distill", "data": "other", "teacher": "other.pt", "student": "other.yaml", "unlabeled": "photos",
    "labeled": 0.5, "split": "runs/x/splits", "split_ratio": [0.7, 0.2, 0.1], "names": ["a", "b"], "labels": "yolo",
    "data_dir": "elsewhere", "preprocess.crop": [0, 0, 9, 9], "pretrain": "dense", "pseudo.teachers": "b.pt",
    "unsup_schedule": "constant", "layers": [15, 18], "steps": [1, 1], "modes": ["joint"],
    "compare": "yolo26n-sem.yaml",
    "seg.lr_steps": [0.5], "format": "torchscript", "project": "there", "name": "x", "track": "mlflow",
    "limits.megapixels": 9, "limits.yaml_nodes": 200_000, "limits.json_depth": 50, "limits.json_mb": 9,
    "cache": "ram", "optimizer": "SGD", "freeze": 1, "device": "cpu", "amp": False,
}  # fmt: skip
"""Another value of the keys whose range is no simple one."""

ELSEWHERE = {
    "device": "the run is given the checked device",
    "batch": "Ultralytics copies it when it makes the trainer",
    "verbose": "what is shown is decided by the log",
    "recipe": "read when the line is",
    "resume": "the run goes on in its folder",
    "modes": "with steps=, by the protocol",
    "steps": "with steps=, by the protocol",
    **{
        f"limits.{field.name}": "set for the process, and read with a file of its kind (tests/trust/test_limits.py)"
        for field in fields(Limits)
    },
}
"""Keys that are read before a run begins."""


NAMESAKES = {"unlabeled": "the list of the split", "teacher": "the checkpoint of the run"}
"""Settings of trainings that are called like a key and are something else."""

USED_TEACHER = ("teacher_epochs", "teacher_min_batches")
"""Keys without effect where a teacher turns out to know the classes of the data: the stage ``prepare`` names them."""


class Reads(set[str]):
    """Names of keys and fields that were read, and ``kinds``: the kinds of settings that they were read from."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: set[type] = set()


@contextmanager
def recorded_reads() -> Iterator[Reads]:
    """Note what is read in the block."""
    reads = Reads()
    with pytest.MonkeyPatch.context() as patch:
        item, length, section = Config.__getitem__, Config._training, Config.section

        def read_item(config: Config, key: str) -> Any:
            reads.add(key)
            return item(config, key)

        def read_length(config: Config, name: str) -> int:
            reads.add(name)
            return length(config, name)

        def read_section(config: Config, name: str) -> dict[str, Any]:
            if f"{name}." not in SECTIONS.values():  # fields of these are watched
                reads.update(key for key in config.own if key.startswith(f"{name}."))
            return section(config, name)

        patch.setattr(Config, "__getitem__", read_item)
        patch.setattr(Config, "_training", read_length)
        patch.setattr(Config, "section", read_section)
        for kind in (*SECTIONS, *SETTINGS, IterableSimpleNamespace):
            patch.setattr(kind, "__getattribute__", _noting(reads, kind), raising=False)
        yield reads


def _noting(reads: Reads, kind: type) -> Callable[[Any, str], Any]:
    prefix = SECTIONS.get(kind, "setting " if kind in SETTINGS else ULTRALYTICS)

    def read(self: Any, name: str) -> Any:
        if not name.startswith("_"):
            module = sys._getframe(1).f_globals.get("__name__", "")
            if not any(module == packer or module.startswith(f"{packer}.") for packer in PACKERS):
                reads.add(f"{prefix}{name}")
                reads.kinds.add(kind)
        return object.__getattribute__(self, name)

    return read


def another(check: Check | None, usual: Any) -> Any:
    """Another value in that range than the usual one; of a switch always that it is on, for off never does nothing."""
    if isinstance(check, OneOf):
        if set(check.choices) == {True, False}:
            return True
        return next(choice for choice in check.choices if choice != usual)
    if isinstance(check, Or):
        return another(check.check, usual)
    if isinstance(usual, bool):
        return True
    if isinstance(check, Number):
        candidates: Sequence[float] = (0.15, 0.25, 0.5) if not check.integer else (3, 4, 64)
        return next(n for n in candidates if n != usual and check.problem(n) is None)
    return usual + 1 if isinstance(usual, int) else 0.25 if usual != 0.25 else 0.5


def other_values() -> dict[str, Any]:
    """Every key that a line can hold, with another value than its default; not switches that are on by default."""
    usual = {**DEFAULT_CFG_DICT, **defaults()}
    checks = {name: KEYS[name].check if name in KEYS else argument(name).check for name in usual}
    found = {name: OTHER[name] if name in OTHER else another(checks[name], value) for name, value in usual.items()}
    return {name: value for name, value in found.items() if value != usual[name]}


def is_taken(words: Sequence[str], key: str, value: Any) -> bool:
    """Whether a line is accepted with this key in addition."""
    given = {name: old for name, old in parse_arguments(list(words)).items() if name != key}
    problems: tuple[str, ...] = ()
    try:
        configure({**given, key: value})
    except UserError as e:
        problems = tuple(e.problems)
    if key not in {"task", "recipe"}:  # with which other keys of the line no longer act
        assert not problems or any(key in problem for problem in problems), f"{key}={value}: {problems} do not name it"
    return not problems


def dead_keys(words: Sequence[str], reads: Reads, *, besides: Sequence[str] = ()) -> list[str]:
    """Keys that the line ``words`` takes, one at a time, and that its run has not read.

    Args:
        words: The line.
        reads: What its run has read.
        besides: Keys that the data or the lengths of this run leave without effect.
    """
    taken = [key for key, value in other_values().items() if is_taken(words, key, value)]
    settings = {field.name for kind in reads.kinds & set(SETTINGS) for field in fields(kind)} - set(NAMESAKES)
    seen = {key for key in taken if key in reads or (key not in KEYS and f"{ULTRALYTICS}{key}" in reads)}
    read = {key for key in seen if key not in settings or f"setting {key}" in reads}
    return sorted(set(taken) - read - {*ELSEWHERE, *besides})
