"""Where the runs of a grid are made: by this machine, one after the other; as Ray tasks; or as jobs of Slurm.

An engine makes one run, blocking until it has ended, and says how many it may be asked for at once; which runs those
are is decided in :mod:`dfssd.benchmark.running`. Run folders and logs lie in the same place for all machines: past one
machine that is a shared file system.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dfssd.benchmark.children import machine_name, run_child
from dfssd.config import parse_arguments
from dfssd.distributed.ray_cluster import ray_cluster
from dfssd.errors import UserError
from dfssd.files import read_json, write_json
from dfssd.interrupts import NAMES
from dfssd.process import COMMAND
from dfssd.results.record import is_finished, read_run

Train = Callable[[Sequence[str], Path], int]
"""Makes a run: the command line with these arguments, its output going to a log file; returns the exit code."""

SERIAL, RAY, SLURM, LOCAL = "serial", "ray", "slurm", "local"
ENGINES = (SERIAL, RAY, SLURM, LOCAL)

MOST = 256
"""Runs that are handed to a cluster at once: each has a thread here that waits for it."""

_GPUS = {SLURM: "a job takes whole GPUs", LOCAL: "submitit would give all runs the same GPUs"}

RETRIES = 3
"""How often a run goes on that was killed, with its process or its machine."""


@dataclass(frozen=True)
class Resources:
    """What one run needs.

    Attributes:
        cpus: Cores.
        gpus: GPUs; a part of one lets several runs share it, with Ray.
        minutes: Slurm's time limit; a run that meets it goes on in another job.
    """

    cpus: int = 1
    gpus: float = 0
    minutes: int = 720


class Engine(ABC):
    """Makes runs, from several threads at once.

    Attributes:
        at_once: How many runs it may be asked for at once.
        stopped: Nothing more is to be made.
    """

    at_once = 1
    stopped = False

    def train(self, words: Sequence[str], log: Path) -> int:
        """Make a run, or go on with it, :data:`RETRIES` times more if it is killed; return the exit code.

        Args:
            words: Arguments of the command line.
            log: Where its output goes.

        Returns:
            That of the last try: of a signal if it was killed, too, or was stopped here.
        """
        code = self.attempt(words, log)
        for _ in range(RETRIES):
            if not was_killed(code) or self.stopped:
                break
            code = self.attempt(words, log)
        return code

    @abstractmethod
    def attempt(self, words: Sequence[str], log: Path) -> int:
        """Make a run, or go on with it, once; return the exit code, that of a signal if it was killed."""

    def stop(self) -> None:
        """End what is being made, so that the threads return."""
        self.stopped = True

    def close(self) -> None:  # noqa: B027 - not every one holds something
        """Give back what it holds."""


class Serial(Engine):
    """One run at a time, on this machine."""

    def __init__(self, make: Train):
        """Bind what makes a run."""
        self.make = make

    def attempt(self, words: Sequence[str], log: Path) -> int:
        """Make it, in a child process that ends with this one."""
        return make_there(Path.cwd(), words, log, self.make, None)


class Ray(Engine):
    """Runs as Ray tasks, on this machine or on the cluster that ``RAY_ADDRESS`` names."""

    def __init__(self, resources: Resources, at_once: int, make: Train):
        """Start Ray, or connect to it.

        Raises:
            UserError: As :func:`~dfssd.distributed.ray_cluster.ray_cluster`.
        """
        self.cluster = ExitStack()
        ray = self.cluster.enter_context(ray_cluster(resources.cpus, resources.gpus))
        self.ray, self.at_once, self.tasks = ray, at_once, set[Any]()
        self.task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=0)(make_there)
        self.make, self.cpus = make, resources.cpus

    def attempt(self, words: Sequence[str], log: Path) -> int:
        """Make it as a task."""
        failed = self.ray.exceptions
        task = self.task.remote(Path.cwd(), list(words), log.absolute(), self.make, self.cpus)
        self.tasks.add(task)
        try:
            return int(self.ray.get(task))
        except (failed.WorkerCrashedError, failed.NodeDiedError, failed.OutOfMemoryError):
            return -signal.SIGKILL
        except failed.TaskCancelledError:
            return -signal.SIGTERM
        finally:
            self.tasks.discard(task)

    def stop(self) -> None:
        """Cancel the tasks; their trainings can be resumed."""
        super().stop()
        for task in tuple(self.tasks):
            self.ray.cancel(task, force=True)

    def close(self) -> None:
        """Stop Ray if it was started here."""
        self.cluster.close()


class Jobs(Engine):
    """Runs as jobs of Slurm, or as processes that submitit starts on this machine (``engine=local``)."""

    def __init__(self, resources: Resources, at_once: int, make: Train, *, cluster: str, folder: Path, wait: float):
        """Set up submitit.

        Args:
            resources: What a job asks for. Partition, account, and the like: ``SBATCH_PARTITION``, ``SBATCH_ACCOUNT``,
                and the other input variables of sbatch.
            at_once: Jobs that are submitted at once.
            make: Makes a run where the job is.
            cluster: ``slurm`` or ``local``.
            folder: Scripts and output of the jobs.
            wait: Seconds between two looks at a job.

        Raises:
            UserError: submitit or Slurm is not installed, or jobs cannot have such GPUs.
        """
        if resources.gpus % 1 or (resources.gpus and cluster == LOCAL):
            raise UserError(f"engine={cluster} gpus={resources.gpus:g}: {_GPUS[cluster]}; engine=ray shares them out")
        try:
            import submitit
        except ModuleNotFoundError as e:
            raise UserError(f"engine={cluster}: submitit is not installed: pip install 'dfssd[slurm]'") from e
        self.submitit, self.at_once, self.make, self.wait = submitit, at_once, make, wait
        self.cpus = resources.cpus
        self.folder, self.cluster = folder / "jobs", cluster
        try:
            self.executor = submitit.AutoExecutor(folder=self.folder, cluster=cluster)
        except RuntimeError as e:
            raise UserError(f"engine={cluster}: {str(e).splitlines()[0]}; run it where sbatch is") from e
        self.executor.update_parameters(
            name="dfssd",
            timeout_min=resources.minutes,
            cpus_per_task=resources.cpus,
            gpus_per_node=int(resources.gpus),
        )

    def attempt(self, words: Sequence[str], log: Path) -> int:
        """Make it as a job, or wait for that of an earlier call that is still there."""
        note = log.with_suffix(".job")
        job = self._earlier(note)
        if job is None:
            job = self.executor.submit(Job(Path.cwd(), words, log.absolute(), self.make, self.cpus))
            write_json(note, {"job": job.job_id})
        try:
            while not job.done():
                if self.stopped:
                    self._leave(job, note)
                    return -signal.SIGTERM
                time.sleep(self.wait)
        except KeyboardInterrupt:  # where it waits in the main thread, for one job at a time
            self._leave(job, note)
            raise
        note.unlink(missing_ok=True)
        try:
            return int(job.result())
        except self.submitit.core.utils.UncompletedJobError:  # killed with its machine, or canceled
            return -signal.SIGKILL

    def _earlier(self, note: Path) -> Any:
        """The job of a call that ended before it; None if there is none, or Slurm has forgotten it."""
        number = read_json(note).get("job")
        if number is None or self.cluster != SLURM:
            return None
        job: Any = self.submitit.SlurmJob(self.folder, number)
        return None if job.state.upper() in {"UNKNOWN", ""} else job

    def _leave(self, job: Any, note: Path) -> None:
        """Leave a job of Slurm to itself: the same line finds it again. One of this machine ends."""
        if self.cluster != SLURM:
            job.cancel()
            note.unlink(missing_ok=True)


class Job:
    """A run as a job: what submitit calls on the machine, and calls again when the time of the job is over."""

    def __init__(self, cwd: Path, words: Sequence[str], log: Path, make: Train, cpus: int):
        """Note what is to be made."""
        self.told = (cwd, words, log, make, cpus)

    def __call__(self) -> int:
        """Make the run; return the exit code."""
        return make_there(*self.told)

    def checkpoint(self) -> Any:
        """What goes on after the time limit or a preemption: the run is resumed."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def was_killed(code: int) -> bool:
    """Whether an exit code is that of a signal which takes a run its process or its machine; Ctrl-C is none."""
    return code < 0 or code in {128 + getattr(signal, name) for name in NAMES if hasattr(signal, name)}


def make_there(cwd: Path, words: Sequence[str], log: Path, make: Train, cpus: int | None) -> int:
    """Make a run on the machine that it was sent to; return the exit code.

    Args:
        cwd: The folder that paths in ``words`` start from.
        words: Arguments of the command line.
        log: Where its output goes, absolute.
        make: Makes it.
        cpus: Threads that it may use, where others are made beside it; None: as this process.
    """
    os.chdir(cwd)
    if cpus is not None:
        os.environ["OMP_NUM_THREADS"] = str(cpus)
    code = make(going_on(words), log)
    note_machine(words, log)
    return code


def going_on(words: Sequence[str]) -> list[str]:
    """The line that makes a run, or goes on with one whose folder is there."""
    given = parse_arguments(list(words))
    folder = Path(given["project"]) / given["name"]
    if (folder / "run.yaml").is_file():
        return [*words, f"resume={folder.as_posix()}"]
    return [*words, "exist_ok=true"] if folder.exists() else list(words)  # there, without a record: it was killed early


def note_machine(words: Sequence[str], log: Path) -> None:
    """Note beside the log what machine has made a run, once it has finished."""
    given = parse_arguments(list(words))
    folder = Path(given["project"]) / given["name"]
    if is_finished(folder):
        write_json(log.with_suffix(".json"), {"machine": machine_name(read_run(folder).run.device)})


def run_train(words: Sequence[str], log: Path) -> int:
    """Run the command line in a child process; its output goes to ``log``."""
    return run_child([*COMMAND, *words], log)


@contextmanager
def opened(
    name: str, resources: Resources, jobs: int | None, folder: Path, make: Train = run_train
) -> Iterator[Engine]:
    """An engine, closed after the block.

    Args:
        name: One of :data:`ENGINES`.
        resources: What a run needs.
        jobs: Runs that are made at once; None: with ``ray`` as many as its machines bear, with ``slurm`` as many as
            there are, else as many as this machine has cores for.
        folder: Where jobs keep their files.
        make: Makes a run where it is made.

    Raises:
        UserError: The engine is not there, or makes nothing of what was asked for.
    """
    if name == SERIAL and ((jobs or 1) > 1 or resources != Resources()):
        raise UserError("jobs, cpus, gpus, and minutes are of the other engines: add engine=ray, slurm, or local")
    cores = max((psutil.cpu_count(logical=False) or 1) // max(resources.cpus, 1), 1)
    if name == SERIAL:
        engine: Engine = Serial(make)
    elif name == RAY:
        engine = Ray(resources, jobs or MOST, make)
    else:
        many = jobs or (MOST if name == SLURM else cores)
        engine = Jobs(resources, many, make, cluster=name, folder=folder, wait=30 if name == SLURM else 0.2)
    try:
        yield engine
    finally:
        engine.close()
