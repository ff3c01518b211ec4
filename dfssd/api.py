"""The Python interface: check data and train as the command line does, and read what a run has recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfssd.errors import UserError

if TYPE_CHECKING:
    from dfssd.inspection.report import DataReport
    from dfssd.results.record import RunRecord


@dataclass(frozen=True)
class Run:
    """A run on disk.

    Attributes:
        folder: Its folder, absolute.
        record: Content of its ``results.json`` (docs/results.md).
    """

    folder: Path
    record: RunRecord

    @property
    def weights(self) -> Path:
        """Folder of the networks: ``student.pt``, ``student.onnx``, ``teacher.pt``, ``baseline.pt``."""
        return self.folder / "weights"


def read_run(path: str | Path) -> RunRecord:
    """What a run has recorded so far, finished or not (docs/results.md).

    Args:
        path: The run folder, or the ``results.json`` in it.

    Returns:
        A `BoxRecord` or a `MaskRecord` (:mod:`dfssd.results.record`), by the task of the run.

    Raises:
        UserError: There is no record, it cannot be read, or a later version has written it.
    """
    from dfssd.results import record  # late, since importing dfssd imports nothing large

    return record.read_run(path)


def check(**keys: Any) -> DataReport:
    """What a run with these keys would read from its data, as ``dfssd check key=value ...`` shows it.

    Nothing is trained, and neither torch nor Ultralytics is imported::

        report = dfssd.check(data="parts", unlabeled="more", out="seen")
        print(report.by_class, report.warnings, report.problems)

    Args:
        **keys: Keys of a run, as for :func:`train`; those that do not concern the data have no effect. ``out``: a
            folder to which ``data_report.json`` and ``data.png`` are written.

    Returns:
        The report. Its ``problems`` say why no split can be drawn, which would stop a run; empty if it can.

    Raises:
        UserError: Wrong keys, or data that cannot be read.
    """
    from dfssd.data_check import check_data

    return check_data(_flat(keys))


def train(**keys: Any) -> Run:
    """Run the whole recipe, as ``dfssd key=value ...`` does, and return what it recorded.

    The keys are those of the command line. Keys of a section and options of a term are written as a mapping or with
    their dotted name; both of these are the same::

        dfssd.train(data="demo", epochs=10, pseudo={"mode": "online"}, hwjs={"weight": 2})
        dfssd.train(data="demo", epochs=10, **{"pseudo.mode": "online", "hwjs.weight": 2})

    Values are Python's: ``True``, ``None``, ``0.1``, ``"yolov8n.pt"``, a :class:`~pathlib.Path`, or a list. As on the
    command line, ``resume=<run folder>`` continues an interrupted run. The environment variables that Ultralytics and
    torch read are set as by the command line (:func:`dfssd.process.prepare_process`); this has its full effect only if
    neither has been imported before.

    Args:
        **keys: Keys and values, except ``steps``: the class-incremental protocol consists of many runs.

    Returns:
        The run, also if the exported model is outside its tolerance: check ``record.export.passed``.

    Raises:
        UserError: Bad input; finished stages stay in the run folder.
    """
    from dfssd.process import prepare_process

    prepare_process()
    from dfssd.commands.options import command_line
    from dfssd.pipeline import open_run, run_stages
    from dfssd.runs.configure import configure

    given = _flat(keys)
    if given.get("steps") is not None:
        raise UserError("steps= is a protocol of many runs: start it from the command line, dfssd steps=...")
    run = open_run(configure(given), command_line("dfssd", given))
    run_stages(run)
    return Run(run.folder.path, read_run(run.folder.path))


def _flat(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys as the command line would deliver them: sections dotted, aliases resolved, plain values."""
    from dfssd.config import ALIASES, flatten

    given: dict[str, Any] = {}
    for name, value in keys.items():
        pairs = flatten(value, f"{name}.") if isinstance(value, Mapping) else {ALIASES.get(name, name): value}
        for key, one in pairs.items():
            if key in given:
                raise UserError(f"{key} is given twice: keep one")
            given[key] = _plain(key, one)
    return given


def _plain(key: str, value: Any) -> Any:
    """``value`` in the types that a configuration file can hold."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(key, item) for item in value]
    raise UserError(f"{key}={value!r}: a value is a number, a string, a path, true, false, none, or a list of these")
