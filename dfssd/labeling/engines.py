"""Where parts of the images are worked on: in this process one after the other, or by actors of Ray Data."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from dfssd.distributed.ray_cluster import ray_cluster
from dfssd.errors import UserError, reason
from dfssd.labeling.listing import Part
from dfssd.labeling.names import SERIAL
from dfssd.labeling.worker import Answer, Job, Worker
from dfssd.remedies import explain_storage

RETRIES = 3
"""How often a part is tried again whose worker was killed."""


class Engine(Protocol):
    """Works on parts.

    Attributes:
        workers: Parts that are worked on at once.
    """

    workers: int

    def work(self, job: Job, task: str, parts: Sequence[Part]) -> Iterator[tuple[Part, Answer]]:
        """Do a task for each part, in any order.

        Args:
            job: What the workers need to know.
            task: As of :class:`~dfssd.labeling.worker.Worker`.
            parts: All of one list.

        Yields:
            A part, and what has come of it.

        Raises:
            UserError: As the worker.
        """


class Serial:
    """One part at a time, in this process."""

    workers = 1

    def work(self, job: Job, task: str, parts: Sequence[Part]) -> Iterator[tuple[Part, Answer]]:
        """See :class:`Engine`."""
        worker = Worker(job)
        for part in parts:
            yield part, worker(task, part)


class Actors:
    """As many parts at a time as there are actors, each of which loads the networks once.

    A part whose actor is killed, with its process or its machine, goes to another one.
    """

    def __init__(self, workers: int, cpus: float, gpus: float):
        """Note how many there are to be, and what each of them needs."""
        self.workers, self.cpus, self.gpus = workers, cpus, gpus

    def work(self, job: Job, task: str, parts: Sequence[Part]) -> Iterator[tuple[Part, Answer]]:
        """See :class:`Engine`."""
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what is wrong is raised, too
        by_number = {part.number: part for part in parts}
        rows = [{"number": part.number, "offset": part.offset, "count": part.count} for part in parts]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray 2.64 takes retries in another way
            answers = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                Actor,
                fn_constructor_args=(job, task, parts[0].listing.absolute()),
                batch_size=1,
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                compute=ray.data.ActorPoolStrategy(size=min(self.workers, len(parts))),
                max_task_retries=RETRIES,
            )
        lost = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)
        try:
            for row in answers.iter_rows():
                answer = json.loads(row["answer"])
                if "problems" in answer:
                    raise UserError(*answer["problems"])
                yield by_number[row["number"]], answer
        except lost as e:
            raise UserError(
                f"engine=ray: a worker was killed {RETRIES + 1} times at the same images ({reason(e)}): see "
                "whether memory suffices, and start the same line again; engine=serial shows at which image it ends"
            ) from e


class Actor:
    """A :class:`~dfssd.labeling.worker.Worker` as Ray Data calls it: rows of a table in, rows of a table out."""

    def __init__(self, job: Job, task: str, listing: Path):
        """Set it up in its process."""
        from dfssd.process import prepare_process

        prepare_process()
        self.task, self.listing, self.worker, self.folder = task, listing, Worker(job), job.out

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Work on some parts; errors for the user are answers, since Ray wraps exceptions in its own."""
        parts = [
            Part(self.listing, int(number), int(offset), int(count))
            for number, offset, count in zip(rows["number"], rows["offset"], rows["count"], strict=True)
        ]
        return {"number": rows["number"], "answer": [json.dumps(self._answer(part)) for part in parts]}

    def _answer(self, part: Part) -> Answer:
        try:
            with explain_storage(self.folder):
                return self.worker(self.task, part)
        except UserError as e:
            return {"problems": list(e.problems)}


@contextmanager
def opened(name: str, workers: int | None, cpus: int, gpus: float) -> Iterator[Engine]:
    """An engine, closed after the block.

    Args:
        name: One of :data:`~dfssd.labeling.names.ENGINES`.
        workers: Actors; None: as many as the cluster bears.
        cpus: Cores of an actor.
        gpus: GPUs of an actor; a part of one lets several share it.

    Raises:
        UserError: The engine is not there, or makes nothing of what was asked for.
    """
    if name == SERIAL:
        yield Serial()
        return
    with ray_cluster(cpus, gpus) as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        wanted = {kind: n for kind, n in (("CPU", cpus), ("GPU", gpus)) if n}
        most = sum(int(min(node.get(kind, 0) / n for kind, n in wanted.items())) for node in nodes)
        if workers is not None and workers > most:
            raise UserError(
                f"engine=ray workers={workers}: there is room for {most} of them: ask for fewer, or for less each"
            )
        yield Actors(workers or most, cpus, gpus)
