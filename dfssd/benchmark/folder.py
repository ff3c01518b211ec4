"""Labels of a large folder: ``python scripts/benchmark_folder.py out=FOLDER [key=value ...]``.

Generates images, labels them with ``dfssd label engine=ray``, and prints images per second and worker, and the highest
memory of the command and of a worker meanwhile: of what they do not share, at the end and when half of the images had
been labeled. The time is that between the first shards and the last one: the start of Ray and of the workers is left
out. Then a worker makes a shard in this process, in turn with the forward pass alone on as many threads, of which the
ratio is printed.

Images and labels are kept in ``FOLDER``; the same line makes what is missing.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from dfssd.benchmark.labeling import batches_to_time, forward_passes, rates, write_model
from dfssd.benchmark.script import HELP, run_script
from dfssd.benchmark.synthetic import photo
from dfssd.commands.label import SAMPLE, rule_of
from dfssd.commands.options import Option, Usage
from dfssd.config import defaults
from dfssd.config.values import TEXT, Number, optional
from dfssd.errors import UserError
from dfssd.files import from_here, write_json
from dfssd.labeling.names import RAY
from dfssd.labeling.request import Request
from dfssd.labeling.run import resumed
from dfssd.labeling.worker import Worker
from dfssd.process import COMMAND, environment

COUNT = Number(1, integer=True)

USAGE = Usage(
    (
        Option("out", TEXT, "folder for images and labels", required=True),
        Option("images", COUNT, "number of images", default=1_000_000),
        Option("side", COUNT, "their side [px]", default=32),
        Option("photos", optional(TEXT), "folder of photos that are used instead of generated images"),
        Option(
            "model",
            TEXT,
            "architecture; it gets random weights that find some 20 boxes in an image",
            default="yolov8n.yaml",
        ),
        Option("imgsz", Number(32, integer=True), "side of the input [px]", default=32),
        Option("batch", COUNT, "images at once", default=64),
        Option("shard", COUNT, "images in a shard", default=2000),
        Option("workers", COUNT, "actors of Ray", default=2),
        Option("cpus", COUNT, "cores of an actor", default=1),
    ),
    examples=(
        ("out=many", "a million tiny images"),
        ("out=few images=2000 side=640 imgsz=640 batch=16 shard=200", "as in a plant"),
    ),
)

IN_A_FOLDER = 10_000
"""Images in one folder."""

WORKER = "MapWorker"
"""In the name of the process of an actor."""

LABELS = "labels"
ROUNDS = 5
"""How often a worker and the forward pass are timed in turn, after a round that does not count."""


def write_images(folder: Path, number: int, side: int) -> None:
    """Write that many different images, unless they are there: gray noise on one of 64 coarse structures."""
    random = np.random.default_rng(0)
    coarse = [photo(random, side) for _ in range(64)]

    def write(start: int) -> None:
        own = np.random.default_rng(start)
        place = folder / f"{start // IN_A_FOLDER:05}"
        place.mkdir(parents=True, exist_ok=True)
        for image in range(start, min(start + IN_A_FOLDER, number)):
            file = place / f"{image:09}.png"
            if not file.exists():
                pixels = cv2.add(
                    coarse[image % len(coarse)], own.integers(0, 16, (side, side, 1), np.uint8).repeat(3, 2)
                )
                file.write_bytes(cv2.imencode(".png", pixels, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes())

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(0, number, IN_A_FOLDER)))


def rates_in_turn(request: Request) -> dict[str, float]:
    """Images per second of a worker, and of the forward pass alone at batches of 8, 16, ...: in turn, in this process.

    Args:
        request: What has been labeled; its first shard is made again.
    """
    import torch

    from dfssd.pseudo_labels.detector import Detector

    job, parts = resumed(request)
    worker, detector = Worker(job), Detector(job.models[0], job.device)
    torch.set_num_threads(request.cpus)

    todo: dict[str, tuple[Callable[[], int], int]] = {
        LABELS: (lambda: int(worker.label(parts[0])["images"]), parts[0].count)
    }
    forward = forward_passes(detector, batches_to_time(job.batch), parts[0].count, job.imgsz)
    return rates(todo | forward, ROUNDS)


@dataclass
class Memory:
    """Highest memory of processes, as far as they do not share it [bytes].

    Attributes:
        driver: Of the command.
        worker: Of the largest worker.
        halfway: Both when half of the images had been labeled.
    """

    driver: int = 0
    worker: int = 0
    halfway: tuple[int, int] = field(default=(0, 0))

    def look(self, command: psutil.Process) -> None:
        """Look at the command and the workers that it has started."""
        try:
            self.driver = max(self.driver, command.memory_full_info().uss)
            for process in command.children(recursive=True):
                if WORKER in "".join(process.cmdline()[:1]):
                    self.worker = max(self.worker, process.memory_full_info().uss)
        except psutil.Error:  # it has just ended
            return


def labeled(images: Path, model: Path, out: Path, given: dict[str, Any]) -> Memory:
    """Run ``dfssd label``, and watch its memory.

    Raises:
        UserError: It failed.
    """
    words = [f"{key}={given[key]}" for key in ("imgsz", "batch", "shard", "workers", "cpus")]
    log = out.with_suffix(".log")
    memory, half = Memory(), -(-given["images"] // given["shard"]) // 2
    with open(log, "ab") as output:
        command = subprocess.Popen(
            [*COMMAND, "label", str(images), f"model={model}", f"out={out}", "engine=ray", *words],
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        watched = psutil.Process(command.pid)
        while command.poll() is None:
            memory.look(watched)
            if memory.halfway == (0, 0) and len(list(islice(finished(out), half))) == half:
                memory.halfway = memory.driver, memory.worker
            time.sleep(0.5)
    if command.returncode:
        raise UserError(f"dfssd label ended with {command.returncode}: see {from_here(log)}")
    return memory


def finished(out: Path) -> Iterator[Path]:
    """The shards that are there."""
    return (out / "shards").glob("[!.]*.parquet")


def rate_of(out: Path, workers: int) -> float | None:
    """Images per second and worker, from the first shard on; None with too few shards."""
    times = sorted(file.stat().st_mtime for file in finished(out))
    if len(times) < 2 * workers:
        return None
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    counted = manifest["images"] * (1 - workers / len(times))  # those of the first one of each worker are not timed
    return round(counted / (times[-1] - times[workers - 1]) / workers, 1)


def run(words: list[str]) -> None:
    """Measure, print what was found, and write it to ``measured.json``."""
    from dfssd.benchmark.children import machine_name

    given = USAGE.read(words)
    folder = Path(given["out"])
    folder.mkdir(parents=True, exist_ok=True)
    images, model, out = folder / "images", folder / "model.pt", folder / "labels"
    if given["photos"] is None:
        write_images(images, given["images"], given["side"])
    else:
        images = Path(given["photos"])
    if not model.exists():
        some = sorted(islice((p for p in images.rglob("*") if p.suffix in {".png", ".jpg"}), 8))
        write_model(given["model"], some, given["imgsz"], model)
    memory = labeled(images, model, out, given)
    rate = rate_of(out, given["workers"])  # by the times of the shards, one of which is made again now
    found = rates_in_turn(
        Request(
            images=images,
            models=[str(model)],
            out=out,
            rule=rule_of(defaults()),
            **{key: given[key] for key in ("imgsz", "batch", "shard", "workers", "cpus")},
            sample=SAMPLE,
            seed=0,
            val=None,
            engine=RAY,
            gpus=0,
            device=None,
        )
    )
    labels = found.pop(LABELS)
    result = {
        "machine": machine_name("cpu"),
        "settings": given,
        "images_per_second_and_worker": rate,
        "in_turn": {"labels": round(labels, 1), **{name: round(rate, 1) for name, rate in found.items()}},
        "share_of_forward": round(labels / max(found.values()), 3),
        "memory_mib": [round(one / 2**20) for one in (memory.driver, memory.worker)],
        "memory_mib_halfway": [round(one / 2**20) for one in memory.halfway],
    }
    write_json(folder / "measured.json", result)
    print(json.dumps(result, indent=1))


def main(argv: Sequence[str]) -> int:
    """The command ``scripts/benchmark_folder.py``; returns its exit code."""
    if HELP & set(argv):
        USAGE.show("python scripts/benchmark_folder.py", (__doc__ or "").partition("\n\n")[2])
        return 0
    return run_script(argv, run, __doc__)
