"""How long the data takes, and how much memory: ``python scripts/benchmark_data.py [1000 10000 ...] [folder=FOLDER]``.

For each number, as many gray images of 64x64 pixels (structure and noise) are written to a temporary folder (one in a
hundred is a copy of the one before: the same file, compressed again, turned, or mirrored), then listed, fingerprinted
and compared, in one process each. Printed are the seconds of each step, those of a core that it used, and the peak of
the process's memory after it, and how many of the copies are found. 100,000 images need some 500 MB of disk. Linux and
macOS only.
"""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from PIL import Image

SIDE = 64
"""[px]"""

T = TypeVar("T")


def picture(seed: int) -> np.ndarray:
    """(SIDE, SIDE) uint8: waves and spots of a surface, and noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 25, (SIDE // 8, SIDE // 8)).astype(np.float32)
    surface = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    image: np.ndarray = (128 + surface + rng.normal(0, 10, surface.shape)).clip(0, 255).astype(np.uint8)
    return image


def copy_of(data: bytes, kind: int) -> bytes:
    """The bytes of an image as they are, compressed again, turned, or mirrored and compressed again."""
    if kind == 0:
        return data
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    pixels = (pixels, np.rot90(pixels), np.fliplr(pixels))[kind - 1]
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG" if kind == 2 else "JPEG")
    return stream.getvalue()


def write_images(folder: Path, n: int) -> int:
    """Write n images, at most 1,000 in a folder; return how many of them are copies."""
    copies = 0
    data = b""
    for i in range(n):
        target = folder / f"{i // 1000:04d}" / f"{i:07d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        if i % 100 == 99:
            data = copy_of(data, copies % 4)
            copies += 1
        else:
            data = cv2.imencode(".png", picture(i))[1].tobytes()
        target.write_bytes(data)
    return copies


def timed(what: str, step: Callable[[], T]) -> T:
    """The result of a step; its time, and memory so far, are printed."""
    start, cpu = time.perf_counter(), time.process_time()
    result = step()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"  {what:12} {seconds:9.1f} s   {cpu:9.1f} s of a core   peak {peak / 2**20:7.0f} MiB", flush=True)
    return result


def measure(folder: Path, copies: int) -> None:
    """Print time and memory of each step for the images below a folder."""
    from dfssd.datasets.copies.duplicates import describe_all, find_copies
    from dfssd.datasets.inventory import take_inventory

    timed("start", lambda: None)
    inventory = timed("inventory", lambda: take_inventory(folder))
    images = [file.path for file in inventory.files]
    described = timed("fingerprints", lambda: list(describe_all(images)))
    found = timed("copies", lambda: find_copies(images, described))
    print(f"  {len(images) - len(set(found.families))} of {copies} copies found", flush=True)


def main(argv: list[str]) -> int:
    """Measure each number of images in a process of its own; return the exit code."""
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    if argv[:1] == ["--measure"]:
        measure(Path(argv[1]), int(argv[2]))
        return 0
    where = next((word.partition("=")[2] for word in argv if word.startswith("folder=")), None)
    numbers = [word for word in argv if not word.startswith("folder=")]
    if not all(word.isdigit() and int(word) > 0 for word in numbers):
        sys.stderr.write("error: pass numbers of images: python scripts/benchmark_data.py 1000 10000\n")
        return 2
    for n in map(int, numbers or ["1000"]):
        with tempfile.TemporaryDirectory(dir=where) as folder:
            copies = write_images(Path(folder), n)
            print(f"{n:,} images", flush=True)
            command = [sys.executable, str(Path(__file__).resolve()), "--measure", folder, str(copies)]
            if code := subprocess.run(command).returncode:
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
