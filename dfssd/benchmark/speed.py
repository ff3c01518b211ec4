"""How long a training step takes: ``python scripts/benchmark_speed.py [imgsz=224 batch=16 device=cpu amp=bf16 ...]``.

Measured in one process, round by round in turn, on generated images: the plain student and Ultralytics'
``distill_model=`` by Ultralytics' own trainers, our recipe by our trainer, and the teacher's forward pass alone. A step
is what Ultralytics' loop does for a batch, from the copy to the device to the numbers of the progress bar
(``dfssd/benchmark/steps.py``). For each of them: milliseconds, operators, and times that the host waits for the device,
with the optimizer of a GPU, and peak memory; and milliseconds per batch of the loaders.
Masks (``recipe=mffmetal``) have no peer; their plain step is that of our trainer without teacher.

Own arguments: ``rounds=20``, ``out=file.json``; all others are those of ``train.py`` (``recipe=``, ``hwjs.weight=``,
``pseudo=online``, ``optimizer=``, ``workers=``, ...). Networks from a ``.yaml`` have random weights, which are as fast
as trained ones.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfssd.benchmark.script import run_script
from dfssd.config import SEMANTIC, Config, parse_arguments
from dfssd.errors import UserError

if TYPE_CHECKING:  # torch is imported once the arguments are known to be right
    from dfssd.benchmark.steps import Steps

DEFAULTS = {"imgsz": 224, "batch": 16, "student": "yolov8n.yaml", "teacher": "yolov8s.yaml"}
"""Arguments of detectors that are not given; the recipe of masks has its own."""
NO_DATA = ("data", "labeled", "limit", "split", "unlabeled", "baseline", "resume", "steps")
"""Arguments about data, of which there is none."""
WARM_UP = 5
"""Rounds before the first that counts."""
_COLUMNS = 130
"""Width of the tables where there is no terminal that is wider."""
STUDENT, PEER, OURS, TEACHER = "student", "ultralytics", "ours", "teacher forward"


LOADING = "loading, share of the time of ours"


def targets(recipe: str, *, gpu: bool) -> dict[str, float]:
    """The largest allowed value of each quantity: name -> limit.

    Args:
        recipe: Name of the recipe; ``tskd`` and ``tskd-paper`` run layers of the teacher's head and have own limits.
        gpu: The device is a GPU; else it is a CPU.
    """
    tskd = recipe in {"tskd", "tskd-paper"}
    floor = (1.5 if gpu else 1.4) if tskd else (1.10 if gpu else 1.05)
    limits = {"ours / (student + teacher forward)": floor}
    if not tskd:
        limits["ours / ultralytics"] = 1.00
    if gpu:
        limits |= {"ours / student": 1.00, LOADING: 0.05}
    return limits | {
        "memory of ours / student": 1.15,
        "operators of ours - student": 900 if recipe == "tskd-paper" else 460,
        "waits of ours - student": 4,
    }


def measure(
    todo: Mapping[str, Callable[[], None]], rounds: int, synchronize: Callable[[], None], warm_up: int = WARM_UP
) -> dict[str, list[float]]:
    """Milliseconds of each step in each round; the order rotates with every round, so that none is always first."""
    names = list(todo)
    durations: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-warm_up, rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            synchronize()
            start = time.perf_counter()
            todo[name]()
            synchronize()
            if number >= 0:
                durations[name].append((time.perf_counter() - start) * 1000)
    return durations


def loading_time(batches: Iterator[Any], ahead: int, count: int, synchronize: Callable[[], None]) -> float:
    """Milliseconds per batch of a loader that nothing keeps waiting.

    Args:
        batches: Its batches.
        ahead: Batches that may be ready already, which are taken first.
        count: Batches to time.
        synchronize: Waits for the device, which may make the views.
    """
    for _ in range(ahead + 1):
        next(batches)
    synchronize()
    start = time.perf_counter()
    for _ in range(count):
        next(batches)
    synchronize()
    return (time.perf_counter() - start) * 1000 / count


def loading_share(loader_ms: float, step_ms: float, *, beside: bool) -> float:
    """Share of a training's time that loading costs, [0, 1).

    Args:
        loader_ms: Time of a batch of views.
        step_ms: Time of a step.
        beside: Views are made beside the step, by other processes: only what takes longer than the step costs time.
            Else each batch waits for its views.
    """
    whole = max(loader_ms, step_ms) if beside else loader_ms + step_ms
    return 1 - step_ms / whole


def counted(steps: Steps) -> dict[str, dict[str, int]]:
    """Operators of each step here; operators and waits with the optimizer of a GPU; peak memory [bytes]."""
    found = {}
    for name, step in steps.trained.items():
        here, there = step.operators(), step.operators(as_on_gpu=True)
        found[name] = {
            "operators": here.launched,
            "operators_on_gpu": there.launched,
            "waits_on_gpu": there.waits,
            "memory": step.memory(),
        }
    return found


def quantities(
    durations: Mapping[str, Sequence[float]], counts: Mapping[str, Mapping[str, int]]
) -> dict[str, float | None]:
    """What :func:`targets` limits; ratios of times are medians over the rounds, each under the same conditions."""

    def median(others: Sequence[float]) -> float:
        return statistics.median(ours / other for ours, other in zip(durations[OURS], others))

    ours, student = counts[OURS], counts[STUDENT]
    return {
        "ours / (student + teacher forward)": median(
            [s + t for s, t in zip(durations[STUDENT], durations[TEACHER])],
        ),
        "ours / ultralytics": median(durations[PEER]) if PEER in durations else None,
        "ours / student": median(durations[STUDENT]),
        "memory of ours / student": ours["memory"] / student["memory"],
        "operators of ours - student": ours["operators_on_gpu"] - student["operators_on_gpu"],
        "waits of ours - student": ours["waits_on_gpu"] - student["waits_on_gpu"],
    }


def judged(values: Mapping[str, float | None], limits: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Name -> value, target and whether it is met; values without a target have None for both."""
    return {
        name: {
            "value": value,
            "target": limits.get(name),
            "met": value <= limits[name] if name in limits else None,
        }
        for name, value in values.items()
        if value is not None
    }


def report(result: Mapping[str, Any]) -> None:
    """Print the tables of a result."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=max(Console().width, _COLUMNS), markup=False)  # [ms] is a unit
    table = Table("step", "median [ms]", "quartiles [ms]", title="one training step", title_justify="left")
    for title in ("operators", "on a GPU", "waits there", "memory [MiB]", "loader [ms]"):
        table.add_column(title, justify="right")
    counts, student = result["counts"], result["counts"][STUDENT]
    for name, values in result["ms"].items():
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
        cells = [name, f"{statistics.median(values):.1f}", f"{low:.1f} to {high:.1f}"]
        if own := counts.get(name):
            for key in ("operators", "operators_on_gpu", "waits_on_gpu"):
                more = "" if name == STUDENT else f" ({own[key] - student[key]:+,})"
                cells.append(f"{own[key]:,}{more}")
            cells += [f"{own['memory'] / 2**20:,.0f}", f"{result['loader_ms'][name]:.1f}"]
        table.add_row(*cells)
    console.print(table)
    table = Table("quantity", "value", "target", "", title_justify="left")
    for name, found in result["quantities"].items():
        digits = 3 if " / " in name or name == LOADING else 0
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[found["met"]]
        target = "" if found["target"] is None else f"<= {found['target']:,.{min(digits, 2)}f}"
        table.add_row(name, f"{found['value']:,.{digits}f}", target, verdict)
    console.print(table)
    shown = ", ".join(f"{key} {value}" for key, value in result["facts"].items())
    console.print(shown, soft_wrap=True, highlight=False)


def facts(config: Config, steps: Steps) -> dict[str, Any]:
    """What was measured, on what."""
    import platform
    from importlib.metadata import version

    import torch

    from dfssd.benchmark.children import machine_name
    from dfssd.hardware import check_device
    from dfssd.runs.folder import git_commit

    device = check_device(config.train.get("device"))
    loaders = [step.trainer.train_loader for step in steps.trained.values()]
    return {
        "machine": machine_name(device),
        "device": device,
        "threads": torch.get_num_threads(),
        "recipe": Path(config["recipe"]).stem,
        "teacher": Path(config["teacher"] or "none").name,
        "student": Path(config["student"]).name,
        "imgsz": config.imgsz,
        "batch": config.batch,
        "amp": config.train.get("amp", "auto"),
        "optimizer": type(steps.trained[OURS].trainer.optimizer).__name__,
        "workers": "/".join(str(loader.num_workers) for loader in loaders),
        "loader of ours": type(loaders[-1]).__name__,
        "passes of ours": steps.trained[OURS].trainer.acceleration.describe(),
        "torch": version("torch"),
        "ultralytics": version("ultralytics"),
        "python": platform.python_version(),
        "git": git_commit(),
    }


def checked(given: dict[str, Any]) -> Callable[..., Config]:
    """The configuration from given arguments, checked; a function that replaces some of them.

    Raises:
        UserError: A key does not exist, a value is wrong, or an argument is about data.
    """
    from dfssd.runs.configure import configure

    if about_data := [key for key in NO_DATA if key in given]:
        raise UserError(
            *(f"{key}={given[key]}: steps are timed on generated images; leave it out" for key in about_data)
        )
    masks = configure(given)["task"] == SEMANTIC
    own = {**({} if masks else DEFAULTS), **given, "plots": False}

    def configured(**changes: Any) -> Config:
        return configure({**own, **changes})

    configured()
    return configured


def main(argv: Sequence[str]) -> int:
    """The command ``scripts/benchmark_speed.py``; returns its exit code."""
    return run_script(argv, run, __doc__)


def run(words: list[str]) -> None:
    """Measure, print what was found, and write it if asked to."""
    given = parse_arguments(words)
    rounds, out = given.pop("rounds", 20), given.pop("out", None)
    if type(rounds) is not int or rounds < 1:
        raise UserError(f"rounds={rounds}: must be a whole number >= 1")
    result = timed(checked(given), rounds)
    report(result)
    if out:
        from dfssd.files import write_json

        write_json(str(out), result)


def timed(configured: Callable[..., Config], rounds: int) -> dict[str, Any]:
    """Measure everything; the content of the JSON file."""
    import torch

    from dfssd.benchmark.steps import open_steps

    config = configured()
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    with tempfile.TemporaryDirectory() as folder, open_steps(configured, Path(folder)) as steps:
        durations = measure(steps.todo, rounds, synchronize)
        counts = counted(steps)
        loader_ms = {
            name: loading_time(step.batches(), step.ahead, rounds, synchronize) for name, step in steps.trained.items()
        }
        known = facts(config, steps)
        gpu = steps.device.type not in {"cpu", "mps"}
        beside = steps.trained[OURS].ahead > 0
    medians = {name: statistics.median(values) for name, values in durations.items()}
    values = quantities(durations, counts)
    values[LOADING] = loading_share(loader_ms[OURS], medians[OURS], beside=beside)
    return {
        "facts": known,
        "median_ms": medians,
        "quantities": judged(values, targets(known["recipe"], gpu=gpu)),
        "counts": counts,
        "loader_ms": loader_ms,
        "ms": durations,
    }
