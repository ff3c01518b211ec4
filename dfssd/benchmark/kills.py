"""Whether interrupted runs end as uninterrupted ones: ``python scripts/benchmark_kills.py out=FOLDER [key=value ...]``.

A small run of every recipe, on generated photos, is made twice on the CPU. The second one is killed by SIGKILL at
random moments in each of its trainings, and resumed each time. Then both are compared: the scores and losses of each
epoch, the record of each training, its network bit by bit, and the scores on the test images. What has been done is
kept in ``FOLDER``, so that the same line goes on; the seed decides when there are kills, as far as a clock can.

The exit code is 2 if anything differs.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dfssd.benchmark.script import HELP, run_script
from dfssd.benchmark.synthetic import calibrate_teacher, write_photos, write_teacher
from dfssd.commands.options import Option, Usage
from dfssd.config.values import TEXT, Number, optional
from dfssd.errors import UserError
from dfssd.files import read_json, write_json

NAMES = ("dent", "pit", "stain")
SIDE = 64
EPOCHS = 4
OLD = "-old"
SURE = 0.4
"""Score that the teachers give at the start to some 20 boxes of an image."""

COMMON = (
    f"imgsz={SIDE}", f"epochs={EPOCHS}", "batch=8", "nbs=20", "batches_per_epoch=5", "warmup_epochs=1", "val_every=1",
    "device=cpu", "workers=0", "amp=false",
)  # fmt: skip
"""``nbs``: a step takes three batches, and so most epochs end within one."""

TRAINED = (f"teacher_epochs={EPOCHS}", "teacher_train=true")
BOXES = ("teacher=yolov8n.pt", *TRAINED, "student=yolov8n.yaml")
"""Teachers ``.pt`` are made here, with random weights that find something: trained from scratch for so few epochs, they
would find nothing, and no student would be trained."""

CASES: Mapping[str, tuple[str, ...]] = {
    "labels-alone": ("recipe=baseline", "teacher=none", "student=yolov8n.yaml"),
    "dfssd": ("recipe=dfssd", *BOXES),
    "dfssd-paper": ("recipe=dfssd-paper", *BOXES),
    "tskd": ("recipe=tskd", *BOXES),
    "tkd": ("recipe=tkd", *BOXES),
    "ultralytics": ("recipe=ultralytics", *BOXES),
    "self-training": ("recipe=dfssd", "teacher_rounds=1", "strong_view=0.5", *BOXES),
    "pretraining": ("recipe=dfssd", "pretrain=dense", "teacher=yolov8n.yaml", TRAINED[0], "student=yolov8n.yaml"),
    "regions": ("recipe=dfssd", "pretrain=regions", "teacher=yolov8n.yaml", TRAINED[0], "student=yolov8n.yaml"),
    "end-to-end": ("recipe=dfssd", "teacher=yolo26n.pt", *TRAINED, "student=yolo26n.yaml"),
    "new-classes": ("recipe=sdidd", "steps=2,1", f"teacher=yolov8n{OLD}.pt", "modes=[sdidd,erd]"),
    "masks": ("recipe=mffmetal", "teacher=mffmetal-12", f"teacher_epochs={EPOCHS}", "student=mffmetal-6"),
}  # fmt: skip
"""Arguments of each run, without those of all."""

MASKS = ("masks",)
"""Cases with masks instead of boxes."""

USAGE = Usage(
    (
        Option("out", TEXT, "folder for data and runs", required=True),
        Option("kills", Number(1, 100, integer=True), "kills in each training", default=2),
        Option("seed", Number(0, integer=True), "when there are kills", default=0),
        Option("only", optional(TEXT), f"one case: {', '.join(CASES)}"),
    ),
    examples=(("out=kills", "all cases"), ("out=kills only=masks kills=5", "five kills in each training of one")),
)

Row = dict[str, str]


def arguments(case: str, out: Path, name: str) -> list[str]:
    """The line of a run of a case."""
    data = out / ("masks" if case in MASKS else "boxes")
    if not (data / "data.yaml").exists():
        shutil.rmtree(data, ignore_errors=True)
        names = ("background", *NAMES) if case in MASKS else NAMES
        write_photos(data, side=SIDE, labeled=24, unlabeled=12, names=names, masks=case in MASKS)
    where = [f"data={data / 'data.yaml'}", f"data_dir={out / 'imported'}", f"project={out / case}", f"name={name}"]
    words = [teacher_of(word, data, out) if word.endswith(".pt") else word for word in CASES[case]]
    return [*words, *COMMON, *where]


def teacher_of(word: str, data: Path, out: Path) -> str:
    """The argument ``teacher=<architecture>.pt`` with the file that is meant, made if it is not there.

    One whose name ends with :data:`OLD` knows all classes but the last.
    """
    file = out / word.partition("=")[2]
    if not file.exists():
        import torch

        old = file.stem.endswith(OLD)
        write_teacher(f"{file.stem.removesuffix(OLD)}.yaml", file, NAMES[:-1] if old else NAMES)
        photos = [np.asarray(Image.open(photo)) for photo in sorted((data / "images" / "train").glob("*.jpg"))]
        images = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float() / 255
        calibrate_teacher(file, images, SURE)
    return f"teacher={file}"


def work(words: Sequence[str], log: str) -> None:
    """What a session does, in a process of its own: the command line, its output into a file.

    Nothing is exported: that takes longer than these trainings, and is no training.
    """
    from dfssd.cli import main as command
    from dfssd.runs.stages import StagedRun

    setattr(StagedRun, "export", lambda run: "skipped")  # noqa: B010
    with open(log, "a", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    raise SystemExit(command(list(words)))


class Sessions:
    """Starts the sessions of a run: the first by its line, later ones by that which resumes it."""

    def __init__(self, words: Sequence[str], run: Path):
        """Set the line, and the folder of the run."""
        self.words, self.run, self.log = words, run, run.with_name(f"{run.name}.txt")
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        self._processes: Any = multiprocessing.get_context(method)
        if method == "forkserver":  # the libraries are loaded once
            self._processes.set_forkserver_preload(["dfssd.pipeline", "dfssd.tasks", "dfssd.commands.train"])

    def start(self) -> Any:
        """A process that begins the run, or goes on with it."""
        self.run.parent.mkdir(parents=True, exist_ok=True)
        protocol = any(word.startswith("steps=") for word in self.words)
        again = not protocol and (self.run / "run.yaml").exists()
        words = [f"resume={self.run}"] if again else self.words
        process = self._processes.Process(target=work, args=(words, str(self.log)))
        process.start()
        return process

    def finish(self) -> None:
        """Let the run come to its end.

        Raises:
            UserError: It ends with another exit code than 0.
        """
        process = self.start()
        process.join()
        if process.exitcode != 0:
            raise UserError(f"{self.run} ended with exit code {process.exitcode}: see {self.log}")


def trainings(run: Path) -> list[Path]:
    """Folders of the trainings in a run, or in the runs of a protocol, in the order in which they began."""
    return sorted((file.parent for file in run.rglob("train/*/args.yaml")), key=lambda folder: folder.stat().st_ctime)


def rows(training: Path) -> list[Row]:
    """The epochs of a training, without the time that they took."""
    file = training / "results.csv"
    if not file.exists():
        return []
    with open(file, encoding="utf-8", newline="") as f:
        return [{name: value for name, value in row.items() if name != "time"} for row in csv.DictReader(f)]


def kill_in(sessions: Sessions, whole: Path, training: Path, after: int, share: float) -> dict[str, Any] | None:
    """Go on with a run, and kill it in one of its trainings.

    Args:
        sessions: Those of the run.
        whole: The training in the uninterrupted run.
        training: The same in this one.
        after: Epochs of it that must have been recorded.
        share: When, from then on, as a share of the time of an epoch in the uninterrupted run.

    Returns:
        What was found after the kill; None if the run came to its end before.
    """
    with open(whole / "results.csv", encoding="utf-8", newline="") as f:
        times = [float(row["time"]) for row in csv.DictReader(f)]
    process = sessions.start()
    while process.is_alive() and not (training.exists() and len(rows(training)) >= after):
        time.sleep(0.005)
    time.sleep(share * times[-1] / len(times))
    if not process.is_alive():
        return None
    process.kill()
    process.join()
    halves = [path.name for path in training.glob("weights/writing_*")]
    return {"training": training.name, "epochs": len(rows(training)), "half_written": halves}


def differences(whole: Path, other: Path) -> Iterator[str]:
    """What differs between two runs, in words."""
    for training in trainings(whole):
        name = training.relative_to(whole)
        for number, (row, found) in enumerate(zip(rows(training), rows(other / name), strict=True), 1):
            if changed := [column for column in row if row[column] != found.get(column)]:
                yield f"{name} epoch {number}: {changed[0]} {row[changed[0]]}, {found.get(changed[0])}"
        records = [read_json((run / name).with_name(f"{name.name}.json")) for run in (whole, other)]
        for key in records[0].keys() - {"seconds"}:
            if records[0][key] != records[1].get(key):
                yield f"{name}: {key}"
    for file in sorted(whole.rglob("weights/*.pt")):
        counterpart = other / file.relative_to(whole)
        if not counterpart.exists() or not _same_network(file, counterpart):
            yield f"{file.relative_to(whole)}: {'weights' if counterpart.exists() else 'is missing'}"
    for file in sorted(whole.rglob("results.json")):
        tests = [read_json(run / file.relative_to(whole)).get("test") for run in (whole, other)]
        if tests[0] != tests[1]:
            yield f"{file.relative_to(whole)}: test"


def _same_network(file: Path, other: Path) -> bool:
    import torch

    from dfssd.trust.checkpoints import load_checkpoint

    a, b = (load_checkpoint(one)[0].state_dict() for one in (file, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def run_case(case: str, out: Path, kills: int, seed: int) -> dict[str, Any]:
    """Make the two runs of a case, as far as they are not there, and compare them.

    Returns:
        ``kills``: what was found after each; ``trainings``, ``epochs``: their numbers; ``differences``.
    """
    whole, killed = out / case / "whole", out / case / "killed"
    if not (done := out / case / "whole.done").exists():
        Sessions(arguments(case, out, "whole"), whole).finish()
        write_json(done, {})
    file = out / case / "kills.json"
    found: list[dict[str, Any]] = read_json(file).get("kills", [])
    draw = random.Random(f"{case} {seed}")
    sessions = Sessions(arguments(case, out, "killed"), killed)
    planned = [
        (training.relative_to(whole), after, draw.random())
        for training in trainings(whole)
        for after in sorted(draw.randrange(len(rows(training))) for _ in range(kills))
    ]
    for number, (name, after, share) in enumerate(planned):
        if number < len(found):
            continue
        seen = kill_in(sessions, whole / name, killed / name, after, share)
        found.append(seen or {"training": name.name, "missed": True})
        write_json(file, {"kills": found})
        print(f"{case}: killed in {name.name}, epochs recorded: {found[-1].get('epochs', '-')}", flush=True)
    sessions.finish()
    return {
        "case": case,
        "kills": sum("missed" not in kill for kill in found),
        "half_written": sum(bool(kill.get("half_written")) for kill in found),
        "trainings": len(trainings(whole)),
        "epochs": sum(len(rows(training)) for training in trainings(whole)),
        "differences": list(differences(whole, killed)),
    }


def compare_all(words: Sequence[str]) -> int:
    """Run the cases and print what was found."""
    values = USAGE.read(list(words))
    out, only = Path(values["out"]).expanduser().resolve(), values["only"]
    if only is not None and only not in CASES:
        raise UserError(f"only={only}: there are the cases {', '.join(CASES)}")
    results = []
    for case in [only] if only else CASES:
        file = out / f"{case}.json"
        result = read_json(file)
        if not result:
            result = run_case(case, out, values["kills"], values["seed"])
            write_json(file, result)
        results.append(result)
    width = max(map(len, CASES))
    print(f"{'case':<{width}}  trainings  epochs  kills  in a checkpoint  differences")
    for result in results:
        print(
            f"{result['case']:<{width}}  {result['trainings']:>9}  {result['epochs']:>6}  {result['kills']:>5}  "
            f"{result['half_written']:>15}  {len(result['differences']):>11}"
        )
        for line in result["differences"][:5]:
            print(f"    {line}")
    print(f"{sum(result['kills'] for result in results)} kills")
    return 2 if any(result["differences"] for result in results) else 0


def main(argv: Sequence[str]) -> int:
    """The command ``scripts/benchmark_kills.py``; returns its exit code."""
    if HELP & set(argv):
        USAGE.show("python scripts/benchmark_kills.py", "Kill runs of all recipes, resume them, and compare.")
        return 0
    return run_script(argv, compare_all, __doc__)
