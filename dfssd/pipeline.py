"""A run from its configuration to its report: open the folder, then run one stage after another.

The stages of a task are methods of its :class:`~dfssd.runs.stages.StagedRun`: :mod:`dfssd.detection.run` and
:mod:`dfssd.segmentation.run`.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

from dfssd.config import Config
from dfssd.distributed import crew
from dfssd.distributed.place import place
from dfssd.errors import Interrupted, UserError
from dfssd.files import from_here, read_yaml
from dfssd.hardware import check_device
from dfssd.log import LOGGER
from dfssd.remedies import explain_resource_errors
from dfssd.runs.folder import RunFolder
from dfssd.runs.ownership import Ownership
from dfssd.runs.stages import StagedRun
from dfssd.tasks import TASKS
from dfssd.tracking.follow import RunTracking
from dfssd.tracking.tracker import load_trackers
from dfssd.trust.limits import set_limits


def run(config: Config, command: str) -> bool:
    """Run or resume the whole recipe: :func:`open_run`, then :func:`run_stages`."""
    return run_stages(open_run(config, command))


def open_run(config: Config, command: str) -> StagedRun:
    """Make the folder of a new run, or open that of ``resume=``; no stage runs yet.

    Args:
        config: Resolved configuration.
        command: The command line, for the record.

    Raises:
        UserError: Bad input, or another process works in that folder; nothing is left behind.
    """
    resumed = config["resume"] not in {False, None}
    if not resumed:
        _check_processes(config)
        config = TASKS[config["task"]].check(config)
        trackers = load_trackers(config.trackers)
    there = RunFolder.existing(config)
    owned = Ownership(there) if there else None  # before anything in it is read, or removed
    made: RunFolder | None = None
    try:
        if resumed:
            folder, config = RunFolder.resume(config)
            set_limits(config.limits)
            _check_processes(config)
            trackers = load_trackers(config.trackers)
        else:
            folder = made = RunFolder.create(config, command)
        folder.owned = owned = owned or Ownership(folder.path)
        LOGGER.info(f"run folder {from_here(folder.path)}")
        run = TASKS[config["task"]].run(folder, config)
        run.tracking = RunTracking(folder.path, trackers)
        crew.gather_for(folder.path, run.device)
    except BaseException:
        if made:
            _leave_nothing_in(made)
        if owned:
            owned.release()
        raise
    return run


def _leave_nothing_in(folder: RunFolder) -> None:
    """Remove the folder of a run that has not come to anything."""
    with suppress(OSError):  # of a folder that has vanished, or cannot be written
        folder.discard_if_empty()


def processes_to_start(config: Config) -> int:
    """How many processes a run takes that was started as one: as many as its device names GPUs; 1 within torchrun.

    Raises:
        UserError: The device is not there.
    """
    if place().world > 1:
        return 1
    device = config.train.get("device")
    if device is None and config["resume"] not in {False, None} and (there := RunFolder.existing(config)):
        device = (read_yaml(there / "run.yaml").get("train") or {}).get("device")
    return len(check_device(device).split(","))


def _check_processes(config: Config) -> None:
    """Check that the processes of a run are there, and that a batch divides among them, with two images for each.

    Raises:
        UserError: One of both does not hold.
    """
    if processes_to_start(config) > 1:
        raise UserError(
            f"device={config.train.get('device')}: several GPUs are used by a run of the command line, or of "
            "dfssd.train(); name one here"
        )
    world = place().world
    if world > 1 and (config.batch % world or config.batch < 2 * world):
        raise UserError(
            f"batch={config.batch} does not divide among {world} processes: choose a multiple of {world}, at least "
            f"{2 * world}"
        )


def open_finished(path: Path) -> StagedRun:
    """The finished run in a folder, to export its student.

    Raises:
        UserError: There is no run, its record is damaged, or it is not finished.
    """
    folder, config = RunFolder.open(path)
    run = TASKS[config["task"]].run(folder, config)
    if not run.record.finished:
        raise UserError(f"{path}: the run is not finished, or still going on; resume={path} continues it")
    return run


def run_stages(run: StagedRun) -> bool:
    """Run all stages that are not finished yet.

    Returns:
        Whether every check passed; False when the exported model is outside its tolerance.

    Raises:
        UserError: Bad input; finished stages stay in the run folder.
        Interrupted: The user has stopped it.
    """
    try:
        with explain_resource_errors(run.folder.path):
            return run.run()
    except UserError:
        _leave_nothing_in(run.folder)
        raise
    except KeyboardInterrupt as e:
        raise Interrupted(run.folder.path, getattr(e, "signal", signal.SIGINT)) from e
    finally:
        if run.folder.owned:
            run.folder.owned.release()
