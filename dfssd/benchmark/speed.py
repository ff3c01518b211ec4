"""How long a training step takes: ``python scripts/benchmark_speed.py [imgsz=224 batch=16 device=cpu amp=bf16 ...]``.

Measured in one process, round by round in turn, on one synthetic batch: the plain student, Ultralytics'
``distill_model=``, our recipe, and the teacher's forward pass alone. A step is forward, loss, backward, gradient
clipping, optimizer step, zero_grad and EMA update, as in Ultralytics' trainer. Loading of images is not included.

Own arguments: ``rounds=20``, ``out=file.json``; all others are those of ``train.py`` (``recipe=``, ``hwjs.weight=``,
``pseudo=online``, ``optimizer=``, ...). Networks from a ``.yaml`` have random weights, which are as fast as trained
ones; the random teacher is biased to detect about 20 boxes per image, so that online labeling has realistic work.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from dfssd.config import Config, parse_arguments
from dfssd.errors import UserError, report_problems
from dfssd.process import prepare_process

if TYPE_CHECKING:  # torch is imported once the arguments are known to be right
    from dfssd.batches import Batch

DEFAULTS = {"imgsz": 224, "batch": 16, "student": "yolov8n.yaml", "teacher": "yolov8s.yaml"}
CLASSES = 7
BOXES, IGNORED = 3, 2
"""Boxes to learn in each image, and ignored boxes in each unlabeled one: about as in CR7-DET."""
MARKED = 20
"""Boxes per image above ``pseudo.tau_low`` that a random teacher is biased to detect."""
WARM_UP = 2
STUDENT, PEER, OURS, TEACHER = "student", "ultralytics", "ours", "teacher forward"
TARGETS = {"ours / (student + teacher forward)": 1.10, "ours / ultralytics": 1.00}


def network(source: str, args: Any, nc: int = CLASSES) -> Any:
    """A detection network from a ``.yaml`` (random weights) or a ``.pt``."""
    from ultralytics.nn.tasks import DetectionModel, load_checkpoint

    if source.endswith((".yaml", ".yml")):
        model = DetectionModel(source, nc=nc, verbose=False)
    else:
        model = load_checkpoint(source)[0].float()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.args = args
    return model


def mark_boxes(teacher: Any, image: Any, score: float) -> None:
    """Bias the class scores of a teacher so that :data:`MARKED` boxes per image score at least ``score``."""
    import torch

    head = teacher.model[-1]
    with torch.no_grad():
        raw = teacher.eval()(image)[1]
        logits = raw.get("one2many", raw)["scores"].amax(1).flatten()
        level = logits.topk(min(MARKED * len(image), len(logits))).values[-1]
        for branch in head.cv3:
            branch[-1].bias += math.log(score / (1 - score)) - level


def synthetic_batch(n: int, imgsz: int, unlabeled: int, *, weak: bool, device: Any, nc: int) -> Batch:
    """A batch like those of the trainers, from a fixed seed; the last ``unlabeled`` images are unlabeled."""
    import torch

    g = torch.Generator().manual_seed(0)

    def boxes(count: int) -> torch.Tensor:
        side = 0.08 + 0.3 * torch.rand(count, 2, generator=g)
        return torch.cat([side / 2 + (1 - side) * torch.rand(count, 2, generator=g), side], 1)

    image = torch.rand(n, 3, imgsz, imgsz, generator=g)
    batch = {
        "img": image,
        "cls": torch.randint(nc, (n * BOXES, 1), generator=g).float(),
        "bboxes": boxes(n * BOXES),
        "batch_idx": torch.arange(n).repeat_interleave(BOXES).float(),
        "score": 0.5 + 0.5 * torch.rand(n * BOXES, generator=g),
        "labeled": torch.arange(n) < n - unlabeled,
        "ignore_bboxes": boxes(unlabeled * IGNORED),
        "ignore_batch_idx": torch.arange(n - unlabeled, n).repeat_interleave(IGNORED).float(),
        "ignore_source": torch.full((unlabeled * IGNORED,), -1.0),
    }
    batch["score"][batch["labeled"][batch["batch_idx"].long()]] = 1.0
    if weak and unlabeled:
        batch["weak_img"] = image[n - unlabeled :].clone()
    return cast("Batch", {key: value.to(device) for key, value in batch.items()})


def build_pair(config: Config, teacher: Any, student: Any) -> Any:
    """The pair as :class:`dfssd.detection.trainer.StudentTrainer` builds it, halfway through its schedules."""
    from dfssd.distillation.pair import DistillationPair, for_inference
    from dfssd.pseudo_labels.online import OnlineLabeler
    from dfssd.pseudo_labels.thresholds import ClassThresholds

    labeler = None
    if config["pseudo.mode"] != "offline":
        thresholds = ClassThresholds.from_rule(student.model[-1].nc, config.pseudo)
        labeler = OnlineLabeler(thresholds, iou=config.pseudo.iou)
    pair = DistillationPair(
        for_inference(teacher),
        student,
        terms=config.terms,
        layers=() if config["layers"] == "auto" else config["layers"],
        unsup_weight=config["unsup_weight"],
        unsup_schedule=config["unsup_schedule"],
        labeler=labeler,
        weigh_boxes=config["pseudo.weigh"],
        balance=config["balance"] == "auto",
        new_only=config["new_only"],
    )
    pair.set_progress(500, 1000, 50)
    return pair


def training_step(model: Any, batch: Batch, autocast: Callable[[], Any], optimizer_name: str) -> Callable[[], None]:
    """One step of Ultralytics' trainer with its own optimizer and EMA, as a function to call repeatedly."""
    import torch
    from ultralytics.engine.trainer import BaseTrainer
    from ultralytics.utils.torch_utils import ModelEMA

    from dfssd.distillation.pair import DistillationPair
    from dfssd.pseudo_labels.meter import HealthMeter

    model.train()
    teacher = getattr(model, "teacher_model", None)
    if isinstance(
        model, DistillationPair
    ):  # StudentTrainer keeps the teacher out of the optimizer, Ultralytics does not
        model.teacher_model = None
    optimizer = BaseTrainer.build_optimizer(SimpleNamespace(), model, optimizer_name, lr=1e-4, momentum=0.9, decay=5e-4)
    if teacher is not None:
        model.teacher_model = teacher
    ema = ModelEMA(model)
    on_gpu = batch["img"].is_cuda
    scaler = torch.amp.GradScaler("cuda", enabled=on_gpu and autocast().fast_dtype == torch.float16)
    meter = None
    if isinstance(model, DistillationPair):
        meter = HealthMeter([str(k) for k in range(model.student_model.model[-1].nc)])
    truth = torch.zeros(0, 7)

    def step() -> None:
        with autocast():
            loss, _ = model(batch)
            total = loss.sum()
        scaler.scale(total).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        ema.update(model)
        if meter:  # the health meter is part of our step
            meter.add_batch(model.labels, int((~batch["labeled"]).sum()), model.agreement, truth)

    return step


def timed_steps(config: Config) -> dict[str, Callable[[], None]]:
    """What is timed: name -> function that runs it once. Each has its own networks, with equal weights."""
    import torch
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.distill_model import DistillationModel

    from dfssd.distillation.pair import for_inference
    from dfssd.evaluation.settings import quiet
    from dfssd.hardware import check_device, resolve_amp, use_all_cores
    from dfssd.trainers.mixed_data import batch_composition

    place = check_device(config.train.get("device"))
    amp, cpu_bf16 = resolve_amp(config.train.get("amp"), place)
    device = torch.device(place if place in {"cpu", "mps"} else f"cuda:{place.split(',')[0]}")
    if place == "cpu":
        use_all_cores()
    dtype = torch.bfloat16 if cpu_bf16 or amp == "bf16" else torch.float16
    enabled = bool(cpu_bf16 or amp)

    def autocast() -> Any:
        return torch.autocast(device.type, dtype, enabled=enabled)

    imgsz, n = config.train["imgsz"], config.train["batch"]
    args = get_cfg(overrides={k: v for k, v in config.train.items() if k not in {"amp", "device"}})
    ratio = config["unlabeled_ratio"]
    _, unlabeled = batch_composition(n, ratio / (1 + ratio))
    torch.manual_seed(0)
    with quiet():
        teacher = network(config["teacher"], args).to(device)
        nc = teacher.model[-1].nc
        student = network(config["student"], args, nc).to(device)
    batch = synthetic_batch(n, imgsz, unlabeled, weak=config["strong_view"] > 0, device=device, nc=nc)
    if config["teacher"].endswith((".yaml", ".yml")):
        mark_boxes(teacher, batch["img"], config["pseudo.tau_low"])

    def copies() -> tuple[Any, Any]:
        from copy import deepcopy

        return deepcopy(teacher), deepcopy(student)

    models = {STUDENT: copies()[1], PEER: DistillationModel(*copies()), OURS: build_pair(config, *copies())}
    name = str(config.train.get("optimizer", "auto"))
    name = "AdamW" if name.lower() == "auto" else name  # what auto means below 10,000 steps
    with quiet():
        todo = {what: training_step(model, batch, autocast, name) for what, model in models.items()}
    alone = for_inference(copies()[0].eval())

    def forward() -> None:
        with torch.no_grad(), autocast():
            alone(batch["img"])

    return {**todo, TEACHER: forward}


def measure(
    todo: dict[str, Callable[[], None]], rounds: int, synchronize: Callable[[], None]
) -> dict[str, list[float]]:
    """Milliseconds of each step in each round; the order rotates with every round, so that none is always first."""
    names = list(todo)
    durations: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-WARM_UP, rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            synchronize()
            start = time.perf_counter()
            todo[name]()
            synchronize()
            if number >= 0:
                durations[name].append((time.perf_counter() - start) * 1000)
    return durations


def ratios(durations: dict[str, list[float]]) -> dict[str, dict[str, Any]]:
    """The ratios of :data:`TARGETS`: median over the rounds, each of which compares under the same conditions."""
    both = [s + t for s, t in zip(durations[STUDENT], durations[TEACHER])]
    found = {}
    for (name, target), other in zip(TARGETS.items(), (both, durations[PEER])):
        value = statistics.median(ours / ref for ours, ref in zip(durations[OURS], other))
        found[name] = {"value": value, "target": target, "met": value <= target}
    return found


def report(durations: dict[str, list[float]], config: Config) -> dict[str, Any]:
    """Print the table; return everything for the JSON file."""
    import platform
    from importlib.metadata import version

    import torch
    from rich.console import Console
    from rich.table import Table

    from dfssd.benchmark.running import machine_name
    from dfssd.hardware import check_device

    device = check_device(config.train.get("device"))
    facts = {
        "machine": machine_name(device),
        "device": device,
        "threads": torch.get_num_threads(),
        "recipe": Path(config["recipe"]).stem,
        "teacher": Path(config["teacher"]).name,
        "student": Path(config["student"]).name,
        "imgsz": config.train["imgsz"],
        "batch": config.train["batch"],
        "amp": config.train.get("amp", "auto"),
        "torch": version("torch"),
        "ultralytics": version("ultralytics"),
        "python": platform.python_version(),
    }
    console = Console()
    table = Table("step", "median [ms]", "quartiles [ms]", title="one training step", title_justify="left")
    for name, values in durations.items():
        low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
        table.add_row(name, f"{statistics.median(values):.1f}", f"{low:.1f} to {high:.1f}")
    console.print(table)
    found = ratios(durations)
    table = Table("ratio", "median", "target", "", title_justify="left")
    for name, ratio in found.items():
        verdict = "[green]met[/]" if ratio["met"] else "[red]missed[/]"
        table.add_row(name, f"{ratio['value']:.3f}", f"<= {ratio['target']:.2f}", verdict)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in facts.items()), soft_wrap=True, highlight=False)
    medians = {name: statistics.median(values) for name, values in durations.items()}
    return {**facts, "median_ms": medians, "ratios": found, "ms": durations}


def main(argv: Sequence[str]) -> int:
    """The command ``scripts/benchmark_speed.py``; returns its exit code."""
    prepare_process()
    try:
        if {"-h", "--help", "help"} & set(argv):
            print(__doc__)
            return 0
        given = parse_arguments(list(argv))
        rounds, out = given.pop("rounds", 20), given.pop("out", None)
        if not isinstance(rounds, int) or rounds < 1:
            raise UserError(f"rounds={rounds}: must be a whole number >= 1")
        from dfssd.runs.configure import configure

        config = configure({**DEFAULTS, **given})
        import torch

        todo = timed_steps(config)
        synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
        result = report(measure(todo, rounds, synchronize), config)
        if out:
            from dfssd.files import write_json

            write_json(str(out), result)
    except UserError as e:
        return report_problems(e)
    return 0
