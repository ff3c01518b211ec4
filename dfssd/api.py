"""The Python interface: check data and train as the command line does, open runs, compare and export them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfssd.errors import UserError

if TYPE_CHECKING:
    from dfssd.comparison import Comparison
    from dfssd.inspection.report import DataReport
    from dfssd.results.record import RunRecord
    from dfssd.results.sections import LaterExport


@dataclass(frozen=True)
class Run:
    """A run on disk, as :func:`train` and :func:`open_run` return it.

    Attributes:
        folder: Its folder, absolute.
        results: Content of its ``results.json`` (docs/results.md), as it was when the run was opened.
    """

    folder: Path
    results: RunRecord

    @property
    def weights(self) -> Path:
        """Folder of the networks: ``student`` as ``.pt``, ``.onnx``, and ``.safetensors``; ``teacher.pt``."""
        return self.folder / "weights"

    @property
    def student(self) -> Path:
        """The checkpoint that the run hands over, for ``ultralytics.YOLO(run.student)``.

        Raises:
            UserError: The run has none: it trains no student, or has not come that far.
        """
        file = self.weights / "student.pt"
        if not file.is_file():
            raise UserError(f"{self.folder} has no student: finish it with resume={self.folder}, or look into weights/")
        return file

    @property
    def report(self) -> Path:
        """``report.html``, for any browser; written from what is recorded if it is missing.

        Raises:
            UserError: The folder cannot be written to, or another process works in it.
        """
        file = self.folder / "report.html"
        if not file.is_file():
            from dfssd.remedies import explain_storage
            from dfssd.runs.ownership import Ownership
            from dfssd.tasks import TASKS

            with explain_storage(self.folder), Ownership(self.folder):
                TASKS[self.results.task].run.write_report(self.folder)
        return file

    def compare(self, *others: Run | str | Path, role: str = "student", out: str | Path | None = None) -> Comparison:
        """This run and others side by side on the test images, as ``dfssd compare`` shows them.

        Args:
            *others: One or more runs of the same task, or their folders. They are compared with this one.
            role: The network of each run: ``student``, ``baseline`` or ``teacher``.
            out: Folder for ``comparison.md``, ``comparison.csv`` and ``comparison.png``; None writes nothing.

        Returns:
            The comparison; ``print`` shows its table, and ``networks`` holds the scores and the differences.

        Raises:
            UserError: No other run, a run without such a network, or runs of different tasks.
        """
        if not others:
            raise UserError("compare needs another run: give it, or its folder")
        from dfssd.comparison import compare_runs, write_comparison

        folders = [other.folder if isinstance(other, Run) else Path(other).expanduser() for other in others]
        comparison = compare_runs([self.folder, *folders], role)
        if out is not None:
            write_comparison(comparison, Path(out).expanduser())
        return comparison

    def export(self, format: str | Sequence[str] = "onnx", **options: Any) -> LaterExport:
        """Write the student in other formats to ``deploy/`` of the run, as ``dfssd export`` does.

        Each is compared with PyTorch on the test images and timed. Record, manifest, and report of the run list them;
        :attr:`results` is not changed, :func:`open_run` reads it anew::

            done = run.export(["onnx", "openvino"], int8=True)
            print(done.passed, [(one.file, one.score, one.median_ms) for one in done.formats])

        Args:
            format: Formats of Ultralytics: a list, or names with commas between them.
            **options: Those of ``dfssd export``: ``half``, ``int8``, ``dynamic``, ``nms``, ``batch``, ``opset``,
                ``simplify``, ``workspace``, ``imgsz``, ``device``, ``trust``.

        Returns:
            PyTorch, then each format. One that could not be written has an ``error``, one that is not as PyTorch has
            ``failures``; with either, ``passed`` is False.

        Raises:
            UserError: Unknown options or values, formats that this machine cannot write, or no student.
        """
        from dfssd.process import prepare_process

        prepare_process()
        from dfssd.commands.export import USAGE, write_formats

        given = {"run": str(self.folder), "format": format if isinstance(format, str) else list(format), **options}
        return write_formats(USAGE.check(given)).exported


def open_run(path: str | Path) -> Run:
    """A run that exists, finished or not.

    Args:
        path: Its folder (``project/name``).

    Raises:
        UserError: As :func:`read_run`.
    """
    folder = Path(path).expanduser()
    return Run(folder.resolve(), read_run(folder))


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
        The run, also if the exported model is outside its tolerance: check ``results.export.passed``.

    Raises:
        UserError: Bad input, or a place that cannot be read or written; finished stages stay in the run folder.
    """
    from dfssd.process import prepare_process

    prepare_process()
    from dfssd.distributed.place import take_place
    from dfssd.remedies import explain_storage

    given = _flat(keys)
    if given.get("steps") is not None:
        raise UserError("steps= is a protocol of many runs: start it from the command line, dfssd steps=...")
    take_place()
    with explain_storage():
        return open_run(_take_part(given))


def _take_part(given: Mapping[str, Any]) -> Path:
    """Run a line, alone or as one of several processes, and return the folder of the run."""
    from dfssd.distributed.place import place

    if place().world == 1:
        return _train(given)
    from dfssd.distributed import crew

    if not crew.is_member():
        with crew.led():
            return _train(given)
    code, folder = crew.serve()
    if code or folder is None:
        raise UserError("another process of this run has failed, and has said why")
    return folder


def _train(given: Mapping[str, Any]) -> Path:
    """Run a line, and return the folder of the run."""
    from dfssd import pipeline
    from dfssd.commands.options import command_line
    from dfssd.runs.configure import configure

    config, line = configure(dict(given)), command_line("dfssd", given)
    if (processes := pipeline.processes_to_start(config)) > 1:
        from dfssd.distributed.launch import launch_for_folder
        from dfssd.results.record import is_finished

        folder = launch_for_folder(shlex.split(line)[1:], processes)
        if not is_finished(folder):
            raise UserError(f"the run in {folder} was not finished, see above")
        return folder
    run = pipeline.open_run(config, line)
    pipeline.run_stages(run)
    return run.folder.path


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
