"""Labels of a folder: list, first pass, shards, manifest; each step is kept, and made again only if it is missing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import ultralytics

from dfssd import __version__
from dfssd.errors import UserError
from dfssd.files import file_digest, from_here, read_json, remove_leftovers, write_json
from dfssd.labeling.engines import Engine
from dfssd.labeling.first_pass import SAMPLE, VAL, find_thresholds
from dfssd.labeling.listing import Part, parts_of, write_listing
from dfssd.labeling.models import MODELS, Models, read_models
from dfssd.labeling.plan import PLAN, check_same, is_whole
from dfssd.labeling.request import Request
from dfssd.labeling.shards import FOLDER, Shard, arrow, file_of, read_shard
from dfssd.labeling.worker import LABEL, Job
from dfssd.log import LOGGER, changing_line
from dfssd.remedies import explain_storage
from dfssd.reporting.tables import format_duration
from dfssd.runs.ownership import Ownership
from dfssd.wording import counted

LISTING, MANIFEST = "images.jsonl", "manifest.json"
SCHEMA = 1
"""Of :data:`MANIFEST`."""

_OWN = {PLAN, MODELS, LISTING, MANIFEST, SAMPLE, VAL, FOLDER}
"""What is written into the folder, beside files whose names begin with a dot."""

_REPORT_EVERY = 30.0
"""Seconds between two lines of progress where there is no terminal."""


@dataclass(frozen=True)
class Labeled:
    """What there is after a call.

    Attributes:
        images: Number of all images.
        unreadable: How many of them cannot be read.
        accepted: Boxes that are labels, by class.
        ignored: Boxes that are neither labels nor background, by class.
        thresholds: By class.
        made: Images that this call has labeled.
        seconds: How long that took.
    """

    images: int
    unreadable: int
    accepted: Mapping[str, int]
    ignored: Mapping[str, int]
    thresholds: Mapping[str, float]
    made: int
    seconds: float


def label(request: Request) -> Labeled:
    """Label all images, or those that an earlier call has not come to.

    Raises:
        UserError: Bad input, another process in the folder, or a folder with labels of other settings.
    """
    arrow()
    request.check()
    models = read_models(request.models)
    settings, job = request.settings(models), request.job(models)
    with explain_storage(request.out), _owned(request.out), _when_needed(request.opened) as engine:
        if (request.out / PLAN).exists():
            plan = read_json(request.out / PLAN)
            _check_plan(plan, settings, request)
        else:
            plan = _plan(request, models, settings, job, engine)
        job, parts = _planned(request, plan, job)
        missing = [part for part in parts if not _is_made(job, part)]
        start = time.monotonic()
        if missing:
            models.copy_to(request.out / MODELS)
            _make(engine(), job, missing, of_all=plan["images"])
        return _finish(request, plan, len(parts), sum(part.count for part in missing), time.monotonic() - start)


def resumed(request: Request) -> tuple[Job, list[Part]]:
    """What the workers do with all parts of images whose labels have been begun."""
    return _planned(request, read_json(request.out / PLAN), request.job(read_models(request.models)))


def _planned(request: Request, plan: Mapping[str, Any], job: Job) -> tuple[Job, list[Part]]:
    """The job with thresholds, and all parts."""
    parts = parts_of(request.out / LISTING, request.shard)
    made_with = {
        "plan": file_digest(request.out / PLAN),
        "dfssd": __version__,
        "torch": torch.__version__,
        "ultralytics": ultralytics.__version__,
    }
    return replace(job, thresholds=plan["state"], made_with=made_with, shards=len(parts)), parts


@contextmanager
def _owned(out: Path) -> Iterator[None]:
    """Have the folder for this process alone.

    Raises:
        UserError: It holds something else, or another process works in it.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"out={from_here(out)}: is a file: name a new folder")
    others = sorted(path.name for path in out.glob("[!.]*") if path.name not in _OWN)
    if others:
        raise UserError(f"out={from_here(out)}: holds {others[0]}, and is no folder of labels: name a new one")
    try:
        (out / FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"out={from_here(out)}: no folder can be made there ({e.strerror}): name another one") from e
    with Ownership(out):
        yield


@contextmanager
def _when_needed(open_engine: Callable[[], AbstractContextManager[Engine]]) -> Iterator[Callable[[], Engine]]:
    """The engine, opened at the first call of what is yielded."""
    with ExitStack() as stack:
        yield cache(lambda: stack.enter_context(open_engine()))


def _check_plan(plan: Mapping[str, Any], settings: Mapping[str, Any], request: Request) -> None:
    """Compare an earlier call with this one, and say what it leaves out.

    Raises:
        UserError: Its settings differ, or its list is damaged.
    """
    listing = request.out / LISTING
    whole = listing.is_file() and file_digest(listing) == plan.get("listing")
    for file, intact in ((PLAN, is_whole(plan)), (LISTING, whole)):
        if not intact:
            where = from_here(request.out)
            raise UserError(f"{where}/{file} is damaged: restore it, or remove {where}, which is made anew then")
    check_same(plan, settings, request.out)
    again = request.out / f".again.{LISTING}"
    try:
        now = write_listing(request.images, again)
        changed = file_digest(again) != plan["listing"]
    finally:
        again.unlink(missing_ok=True)
    if changed:
        LOGGER.warning(
            f"{request.images} has changed since the labels were begun ({counted(plan['images'], 'image')} then, "
            f"{now:,} now): those of then are labeled; another out= labels what is there now"
        )


def _plan(
    request: Request, models: Models, settings: Mapping[str, Any], job: Job, engine: Callable[[], Engine]
) -> dict[str, Any]:
    """List the images, find the thresholds, and write down all that is decided, as the last of these."""
    listing = request.out / LISTING
    total = write_listing(request.images, listing)
    models.copy_to(request.out / MODELS)
    LOGGER.info(f"{counted(total, 'image')}; thresholds from {min(request.sample, total):,} of them ...")
    thresholds, sample = find_thresholds(
        engine(), job, listing, total=total, size=request.sample, seed=request.seed, val=request.val
    )
    plan = {
        "schema": SCHEMA,
        "dfssd": __version__,
        "images": total,
        "names": list(models.names),
        "thresholds": dict(zip(models.names, thresholds.thresholds().tolist(), strict=True)),
        "sample": sample,
        "settings": dict(settings),
        "listing": file_digest(listing),
        "state": thresholds.state_dict(),
    }
    write_json(request.out / PLAN, plan)
    return plan


def _is_made(job: Job, part: Part) -> bool:
    """Whether the shard of a part is there, made by the plan of the job."""
    shard = read_shard(file_of(job.out, part.number, job.shards), whole=True)
    return shard is not None and job.made_with is not None and shard.plan == job.made_with["plan"]


def _make(engine: Engine, job: Job, missing: Sequence[Part], of_all: int) -> None:
    """Make the shards that are missing, and show how far it is."""
    wanted = sum(part.count for part in missing)
    told = time.monotonic()
    done, first = 0, (0, 0.0)  # images and time when the first shard was there: before, workers have started

    def progress() -> str:
        text = f"{of_all - wanted + done:,} of {counted(of_all, 'image')} labeled"
        if done > first[0]:
            rate = (done - first[0]) / (time.monotonic() - first[1])
            text += f", {rate:,.0f} images/s, {format_duration((wanted - done) / rate)} left"
        return text

    with changing_line(progress) as shown:
        for _, answer in engine.work(job, LABEL, missing):
            done += answer["images"]
            first = first if first[0] else (done, time.monotonic())
            if not shown and time.monotonic() - told > _REPORT_EVERY and done < wanted:
                told = time.monotonic()
                LOGGER.info(progress())


def _finish(request: Request, plan: Mapping[str, Any], total: int, made: int, seconds: float) -> Labeled:
    """Write the manifest, from the footers of all shards."""
    remove_leftovers(request.out)  # of workers that were killed
    accepted, ignored = (Counter[str](dict.fromkeys(plan["names"], 0)) for _ in range(2))
    entries, versions, unreadable = [], set(), 0
    for number in range(total):
        file = file_of(request.out, number, total)
        shard = read_shard(file)
        if shard is None:
            raise UserError(f"{from_here(file)} has vanished: start the same line again")
        accepted.update(shard.accepted)
        ignored.update(shard.ignored)
        unreadable += shard.unreadable
        versions.add((shard.dfssd, shard.torch, shard.ultralytics))
        entries.append(_entry(file, shard))
    write_json(
        request.out / MANIFEST,
        {
            **{key: plan[key] for key in ("schema", "images")},
            "unreadable": unreadable,
            "names": plan["names"],
            "thresholds": plan["thresholds"],
            "sample": plan["sample"],
            "settings": plan["settings"],
            "accepted": dict(accepted),
            "ignored": dict(ignored),
            "versions": [dict(zip(("dfssd", "torch", "ultralytics"), one, strict=True)) for one in sorted(versions)],
            "shards": entries,
        },
    )
    return Labeled(plan["images"], unreadable, accepted, ignored, plan["thresholds"], made, seconds)


def _entry(file: Path, shard: Shard) -> dict[str, Any]:
    return {
        "file": f"{FOLDER}/{file.name}",
        "images": shard.images,
        "unreadable": shard.unreadable,
        "accepted": sum(shard.accepted.values()),
        "ignored": sum(shard.ignored.values()),
        "bytes": file.stat().st_size,
        "sha256": file_digest(file),
    }
