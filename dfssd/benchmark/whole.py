"""The whole job against Ultralytics: ``python scripts/benchmark_run.py data=... [teacher=... key=value ...]``.

Trains the same student on the same data with as many optimizer steps, each time in a process of its own:

  plain        ``yolo train``: the student alone
  ultralytics  ``yolo train ... distill_model=``: Ultralytics' own distillation
  ours         ``train.py`` with these arguments (recipe=dfssd unless given), without a baseline

Data and teacher are made ready once, before anything is timed; a teacher from a .yaml is trained for
``teacher_epochs=80`` passes unless given; ours stops if it accepts no box. All see the same lists of images, size,
batch, epochs times batches, seed, and precision (amp=false on a CPU unless given, where Ultralytics has no other).
Ultralytics' epoch is one pass over its list of labeled images, so its list repeats them until an epoch has as many
batches as ours. Ultralytics leaves one CPU core free; here it computes on all of them, as ours does.

Own arguments:

  repeats=1      how often; the order rotates
  only=a,b       these only, such as only=ultralytics,ours
  out=folder     default: runs/benchmark_run. Repeat the line to continue there: what is finished is not repeated
  threads=all    own: as many CPU threads as Ultralytics chooses, for its trainings

All others are those of ``train.py``. Wall time is that of the process, from its start to its end: ours also labels the
unlabeled images, tests, exports, checks the export, and writes a report. The training is the time from building the
trainer to its last checkpoint, and divides into the parts shown. The table and ``out/result.json`` are written after
every training.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dfssd.benchmark.children import run_child
from dfssd.benchmark.grid import text_of
from dfssd.benchmark.script import run_script
from dfssd.config import DETECT, Config, nearest, parse_arguments
from dfssd.errors import UserError
from dfssd.files import read_json, write_json
from dfssd.process import COMMAND
from dfssd.wording import counted

PLAIN, PEER, OURS = "plain", "ultralytics", "ours"
NAMES = (PLAIN, PEER, OURS)
OWN = {"repeats": 1, "only": None, "out": "runs/benchmark_run", "threads": "all"}
NETWORKS = {"student": "yolov8n.yaml", "teacher": "yolov8s.yaml", "teacher_epochs": 80}
"""Arguments that are not given."""
FIXED = ("project", "name", "exist_ok", "resume", "baseline", "steps")
"""Arguments that this command sets."""
OF_DATA = ("labeled", "limit", "split")
"""Arguments that act on the preparation; ours then takes its lists."""
PARTS = ("setup", "waiting", "forward", "backward", "validation", "writing", "other")
GPU_TARGET, CPU_TARGET = 0.4, 0.9
"""Goal for ours / ultralytics."""
_COLUMNS = 150
"""Width of the table where there is no terminal that is wider."""

Child = Callable[[Sequence[str], Path], int]
"""Runs a command, its output going to a log file; returns the exit code."""


def main(argv: Sequence[str], *, child: Child = run_child) -> int:
    """The command ``scripts/benchmark_run.py``; returns its exit code."""

    def work(words: list[str]) -> int:
        given = parse_arguments(words)
        own = {key: given.pop(key, default) for key, default in OWN.items()}
        return Benchmark(given, own, child).run()

    return run_script(argv or ["--help"], work, __doc__)


def chosen(only: Any) -> tuple[str, ...]:
    """The trainings that ``only=`` names, in the order of :data:`NAMES`.

    Raises:
        UserError: It names another one.
    """
    if only is None:
        return NAMES
    asked = [str(name) for name in (only if isinstance(only, list) else str(only).split(","))]
    for name in asked:
        if name not in NAMES:
            raise UserError(f"only={name}: must be one of {', '.join(NAMES)}{nearest(name, NAMES)}")
    return tuple(name for name in NAMES if name in asked)


class Benchmark:
    """One comparison, in a folder from which it continues.

    Attributes:
        given: Arguments of ``train.py``.
        out: The folder: a JSON file, a log, and a folder for each training.
    """

    def __init__(self, given: dict[str, Any], own: Mapping[str, Any], child: Child):
        """Check all arguments.

        Args:
            given: Arguments of ``train.py``, as given.
            own: Arguments of this command.
            child: Runs a process.

        Raises:
            UserError: A key does not exist, a value is wrong, or the folder belongs to another comparison.
        """
        from dfssd.hardware import check_device
        from dfssd.runs.configure import configure

        if type(own["repeats"]) is not int or own["repeats"] < 1:
            raise UserError(f"repeats={own['repeats']}: must be a whole number >= 1")
        if own["threads"] not in {"all", "own"}:
            raise UserError(f"threads={own['threads']}: must be all or own")
        if set_here := [f"{key}={given[key]}" for key in FIXED if key in given]:
            raise UserError(*(f"{word}: this command sets it; leave it out" for word in set_here))
        if given.get("data") is None:
            raise UserError("data is missing: data=CR7-DET.zip, a dataset YAML, a folder, a card of data/, or demo")
        self.child, self.names, self.repeats = child, chosen(own["only"]), own["repeats"]
        self.all_threads = own["threads"] == "all"
        self.out = Path(str(own["out"])).absolute()
        self.given = {**NETWORKS, **given}
        if check_device(given.get("device")) == "cpu":
            self.given = {"amp": False, **self.given}
        self.config: Config = configure(self.given)
        recipe = self.config["recipe"]
        if self.config["task"] != DETECT:
            raise UserError(f"recipe={recipe}: Ultralytics distills detectors only; give a recipe of one")
        if self.config["student_training"] != "distilled":
            raise UserError(f"recipe={recipe}: distills no student; give recipe=dfssd, or another that does")
        kept = {key: text_of(value) for key, value in self.given.items()} | {"threads": own["threads"]}
        before = read_json(self.out / "benchmark.json")
        if before and before != kept:
            changed = sorted(k for k in {*before, *kept} if before.get(k) != kept.get(k))
            raise UserError(
                f"out={own['out']}: was begun with another {', '.join(changed)}; repeat that line, or give another out="
            )
        write_json(self.out / "benchmark.json", kept)

    def run(self) -> int:
        """Do what is not finished yet; return the exit code."""
        ready = self._prepare()
        for repeat in range(self.repeats):
            turn = repeat % len(self.names)
            for name in self.names[turn:] + self.names[:turn]:
                if not self._file(f"{name}{repeat}").exists():
                    self._train(name, repeat, ready)
                    self._report(ready)
        self._score(ready)
        self._report(ready, show=True)
        return 0

    def _file(self, name: str) -> Path:
        """The result of a process."""
        return self.out / f"{name}.json"

    def _job(self, kind: str, name: str, **job: Any) -> tuple[dict[str, Any], float]:
        """Do a job of :mod:`dfssd.benchmark.jobs` in a process; return its result and the seconds of the process."""
        file, result = self.out / f"{name}.job.json", self.out / f"{name}.result.json"
        write_json(file, {**job, "result": str(result)})
        result.unlink(missing_ok=True)
        code = f"import sys; from dfssd.benchmark.jobs import run; sys.exit(run({kind!r}, {str(file)!r}))"
        seconds = self._process(name, [sys.executable, "-c", code])
        return json.loads(result.read_text(encoding="utf-8")), seconds

    def _process(self, name: str, command: Sequence[str]) -> float:
        """Run a command; return its seconds.

        Raises:
            UserError: It failed.
        """
        log = self.out / f"{name}.log"
        log.unlink(missing_ok=True)
        print(f"[benchmark] {name}: started, output in {log}", flush=True)
        start = time.monotonic()
        code = self.child(command, log)
        seconds = time.monotonic() - start
        if code:
            from dfssd.benchmark.running import last_error

            raise UserError(f"{name}: exit code {code}: {last_error(log)}; the log is {log}")
        print(f"[benchmark] {name}: done in {seconds:.1f} s", flush=True)
        return seconds

    def _prepare(self) -> dict[str, Any]:
        """Data, teacher, and what all trainings share; made once."""
        if not self._file("prepared").exists():
            given = {**self.given, "project": str(self.out), "name": "prepared", "exist_ok": True}
            found, seconds = self._job("prepare", "prepare", given=given)
            write_json(self._file("prepared"), {**found, "wall": seconds})
        return read_json(self._file("prepared"))

    def _train(self, name: str, repeat: int, ready: Mapping[str, Any]) -> None:
        """One training, and its record."""
        job = f"{name}{repeat}"
        shutil.rmtree(self.out / job, ignore_errors=True)
        found = self._train_ours(job, ready) if name == OURS else self._train_peer(job, name, ready)
        steps = self.config.epochs * ready["batches_per_epoch"]
        if found["batches"] != steps:
            raise UserError(
                f"{job}: made {counted(found['batches'], 'step')} instead of {steps:,}, so that it cannot be compared"
            )
        write_json(self._file(job), found)

    def _train_ours(self, job: str, ready: Mapping[str, Any]) -> dict[str, Any]:
        own = {k: v for k, v in self.given.items() if k not in OF_DATA}
        own |= {"teacher": ready["teacher"], "split": ready["splits"], "baseline": False}
        own |= {"project": str(self.out), "name": job, "exist_ok": True}
        seconds = self._process(job, [*COMMAND, *(f"{key}={text_of(value)}" for key, value in own.items())])
        record = read_json(self.out / job / "results.json")
        training = record["training"]["student"]
        return {
            "wall": seconds,
            "seconds": training["seconds"],
            "stages": {stage["name"]: stage["seconds"] for stage in record["stages"]},
            **{key: training[key] for key in ("batches", "optimizer_steps", "optimizer")},
            "weights": str(self.out / job / "weights" / "student.pt"),
        }

    def _train_peer(self, job: str, name: str, ready: Mapping[str, Any]) -> dict[str, Any]:
        """Ultralytics with the settings of Ultralytics that were given, and its own defaults for the rest."""
        c = self.config
        arguments = {
            **c.train,
            "data": ready["data"],
            "epochs": c.epochs,
            "batch": c.batch,
            "imgsz": c.imgsz,
            "device": ready["device"],
            "amp": ready["amp"],
            "patience": c.train.get("patience", c.epochs),
            "project": str(self.out),
            "name": job,
        }
        if name == PEER:
            arguments["distill_model"] = ready["teacher"]
        found, seconds = self._job(
            "train", job, student=c["student"], arguments=arguments, all_threads=self.all_threads
        )
        return {"wall": seconds, **found}

    def _done(self) -> dict[str, dict[str, Any]]:
        """The records of all finished trainings."""
        names = [f"{name}{repeat}" for repeat in range(self.repeats) for name in self.names]
        return {name: read_json(self._file(name)) for name in names if self._file(name).exists()}

    def _score(self, ready: Mapping[str, Any]) -> None:
        """Measure the networks that have not been measured yet, all of them in one process."""
        missing = {name: found["weights"] for name, found in self._done().items() if "map50_95" not in found}
        if not missing:
            return
        own = {"imgsz": self.config.imgsz, "batch": self.config.batch, "device": ready["device"]}
        scores, _ = self._job("score", "score", weights=missing, data=ready["data"], folder=str(self.out), **own)
        for name, found in scores.items():
            write_json(self._file(name), {**read_json(self._file(name)), "map50_95": found})

    def _report(self, ready: Mapping[str, Any], *, show: bool = False) -> None:
        """Write ``result.json``; print the table."""
        done = self._done()
        result = {
            "facts": self._facts(ready),
            "prepared": ready,
            "trainings": {name: summary(found, self.config.batch) for name, found in done.items()},
            "ratios": ratios(done, gpu=ready["device"] not in {"cpu", "mps"}),
        }
        write_json(self.out / "result.json", result)
        if show:
            print_table(result)

    def _facts(self, ready: Mapping[str, Any]) -> dict[str, Any]:
        import os
        import platform
        from importlib.metadata import version

        from dfssd.benchmark.children import machine_name
        from dfssd.runs.folder import git_commit

        c, cpu = self.config, ready["device"] == "cpu"
        ours = "bf16" if ready["cpu_bf16"] else "fp32"
        return {
            "machine": machine_name(ready["device"]),
            "device": ready["device"],
            "threads": os.environ["OMP_NUM_THREADS"] if self.all_threads or not cpu else "as Ultralytics chooses",
            "recipe": Path(c["recipe"]).stem,
            "student": Path(c["student"]).name,
            "data": Path(str(c["data"])).name,
            "labeled": ready["labeled"],
            "unlabeled": ready["unlabeled"],
            "imgsz": c.imgsz,
            "batch": c.batch,
            "epochs": c.epochs,
            "batches per epoch": ready["batches_per_epoch"],
            "amp": ours if cpu else ready["amp"],
            **({"amp of Ultralytics": "fp32"} if cpu and ready["cpu_bf16"] else {}),
            "torch": version("torch"),
            "ultralytics": version("ultralytics"),
            "python": platform.python_version(),
            "git": git_commit(),
        }


def summary(found: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """A training for the table: wall time, duration and parts of the training, images per second, scores."""
    parts = dict(found["seconds"])
    steps = parts.pop("steps")
    parts["backward"] = steps - parts["forward"]  # with the update
    parts.pop("optimizer")
    training = sum(parts[name] for name in PARTS)
    return {
        "wall": found["wall"],
        "training": training,
        "parts": {name: parts[name] for name in PARTS},
        "images_per_second": found["batches"] * batch / training,
        **{key: found[key] for key in ("batches", "optimizer_steps", "optimizer")},
        "map50_95": found.get("map50_95"),
        "stages": found.get("stages"),
    }


def ratios(done: Mapping[str, Mapping[str, Any]], *, gpu: bool) -> dict[str, dict[str, Any]]:
    """Ours against the others: median over the repetitions of wall time and of the training alone."""
    target = GPU_TARGET if gpu else CPU_TARGET
    found: dict[str, dict[str, Any]] = {}
    for other in (PEER, PLAIN):
        turns = [name.removeprefix(OURS) for name in done if name.startswith(OURS)]
        pairs = [(done[OURS + turn], done[other + turn]) for turn in turns if other + turn in done]
        if not pairs:
            continue
        for what, of in (("wall", lambda r: r["wall"]), ("training", lambda r: summary(r, 1)["training"])):
            value = statistics.median(of(a) / of(b) for a, b in pairs)
            goal = target if (other, what) == (PEER, "wall") else None
            name = f"{what} of ours / {other}"
            found[name] = {"value": value, "target": goal, "met": None if goal is None else value <= goal}
    return found


def print_table(result: Mapping[str, Any]) -> None:
    """Print all trainings, and the ratios."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, _COLUMNS), markup=False)  # [ms] is a unit
    table = Table("training", title="seconds of the whole job and of the training, by part", title_justify="left")
    titles = {"waiting": "views", "backward": "backward, update"}
    for title in ("wall", "training", *(titles.get(name, name) for name in PARTS), "images/s", "val mAP", "test mAP"):
        table.add_column(title, justify="right")
    for name, own in result["trainings"].items():
        seconds = [own["wall"], own["training"], *own["parts"].values()]
        scores = [(own["map50_95"] or {}).get(split) for split in ("val", "test")]
        table.add_row(
            name,
            *(f"{value:.1f}" for value in seconds),
            f"{own['images_per_second']:.0f}",
            *("" if score is None else f"{score:.3f}" for score in scores),
        )
    console.print(table)
    for name, own in result["trainings"].items():
        if own["stages"]:
            stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in own["stages"].items())
            console.print(f"{name}, seconds of its stages: {stages}", soft_wrap=True, highlight=False)
    table = Table("ratio", "median", "target", "", title_justify="left")
    for name, found in result["ratios"].items():
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[found["met"]]
        target = "" if found["target"] is None else f"<= {found['target']:.2f}"
        table.add_row(name, f"{found['value']:.3f}", target, verdict)
    console.print(table)
    shown = ", ".join(f"{key} {value}" for key, value in result["facts"].items())
    console.print(shown, soft_wrap=True, highlight=False)
