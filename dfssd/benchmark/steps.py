"""The training steps that are timed: real trainers, each with its own networks and loader, on one generated data set.

The plain student and the peer are Ultralytics' own trainers with Ultralytics' own settings for the device; ours is the
trainer that a run with these arguments would start. What is called in a step is what Ultralytics' loop calls for a
batch: preprocessing (which copies it to the device), forward pass, loss, backward pass, gradient clipping, optimizer,
EMA, the running mean of the losses and its numbers for the progress bar, and the callbacks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dfssd.benchmark.memory import graph_bytes, held_bytes, step_bytes
from dfssd.benchmark.operators import Operators, count_operators
from dfssd.benchmark.synthetic import CLASSES, calibrate_teacher, write_labels, write_photos, write_teacher
from dfssd.config import SEMANTIC, Config
from dfssd.distillation.compatibility import resolve_weights
from dfssd.errors import UserError
from dfssd.runs.stages import StagedRun

MOST_TRIALS = 100
"""Steps after which :meth:`Step.settle` stops waiting."""

_SEEN = 32
"""Images from which a random teacher is calibrated."""

STUDENT, PEER, OURS, TEACHER = "student", "ultralytics", "ours", "teacher forward"


class Step:
    """One batch of a training, as a function to call repeatedly.

    Attributes:
        trainer: The trainer, set up as at the start of its first epoch.
        loaded: The batch, as its loader gave it.
    """

    def __init__(self, trainer: Any, *, cpu_bf16: bool = False):
        """Set up the training.

        Args:
            trainer: A trainer of Ultralytics or of ours, before its training.
            cpu_bf16: Run forward passes under bf16 autocast on the CPU, which Ultralytics' own trainers cannot.
        """
        self.trainer, self.cpu_bf16 = trainer, cpu_bf16
        trainer._setup_train()
        trainer.epoch = trainer.start_epoch
        trainer.epoch_time_start = trainer.train_time_start = time.time()
        trainer.run_callbacks("on_train_start")
        trainer.run_callbacks("on_train_epoch_start")
        trainer._model_train()
        trainer.optimizer.zero_grad()
        trainer.tloss = None
        self.loaded = next(iter(trainer.train_loader))
        self.done = self.graphs = 0

    def __call__(self) -> None:
        """Train on the batch."""
        from ultralytics.utils.torch_utils import autocast

        t = self.trainer
        t.run_callbacks("on_train_batch_start")
        precision = torch.bfloat16 if t.args.amp == "bf16" else t.amp
        with autocast(precision, device=t.device.type), torch.autocast("cpu", torch.bfloat16, enabled=self.cpu_bf16):
            batch = t.preprocess_batch(dict(self.loaded))
            loss, t.loss_items = t.model(batch)
            t.loss = loss.sum()
            i, items = self.done, t.loss_items
            t.tloss = items if t.tloss is None else {k: (t.tloss[k] * i + v) / (i + 1) for k, v in items.items()}
        t.scaler.scale(t.loss).backward()
        t.optimizer_step()
        "%11.4g" * len(t.tloss) % tuple(t.tloss.values())
        t.run_callbacks("on_train_batch_end")
        self.done += 1

    def settle(self) -> None:
        """Train until it is decided whether the passes run as graphs: what comes first is no ordinary step."""
        before = graph_bytes()
        for _ in range(MOST_TRIALS):
            if getattr(getattr(self.trainer, "acceleration", None), "settled", True):
                break
            self()
        self.graphs = graph_bytes() - before

    def batches(self) -> Iterator[dict[str, Any]]:
        """The batches of the loader, without end."""
        while True:
            yield from self.trainer.train_loader

    @property
    def ahead(self) -> int:
        """Batches that the loader prepares ahead."""
        source = self.trainer.train_loader
        return int((getattr(source, "num_workers", 0) or 0) * (getattr(source, "prefetch_factor", 0) or 0))

    def operators(self, *, as_on_gpu: bool = False) -> Operators:
        """Count the operators of one step.

        Args:
            as_on_gpu: With the optimizer that Ultralytics builds on a GPU: Adam and AdamW are fused, others work on
                lists of tensors. On a CPU they are a loop over all tensors.
        """
        groups = self.trainer.optimizer.param_groups
        before = [(group.get("fused"), group.get("foreach")) for group in groups]
        if as_on_gpu:
            for group in groups:
                if "fused" in group and "betas" in group:
                    group["fused"] = True
                elif "foreach" in group:
                    group["foreach"] = True
        try:
            return count_operators(self)
        finally:
            for group, (fused, foreach) in zip(groups, before):
                group |= {k: v for k, v in (("fused", fused), ("foreach", foreach)) if k in group}

    def memory(self) -> int:
        """Peak memory of a step [bytes]: networks, optimizer, graphs, and what a step allocates on top of that.

        Images that a loader or the validation keeps on the device are not counted: they take a share of what is free.
        """
        t = self.trainer
        modules = [t.model, t.ema.ema]
        if (teacher := getattr(t, "teacher", None)) is not None:  # of masks: outside of the model
            modules.append(teacher.model)
        return held_bytes(modules, t.optimizer) + step_bytes(self, t.device) + self.graphs

    def close(self) -> None:
        """End the processes of the loaders."""
        for loader in (self.trainer.train_loader, self.trainer.test_loader):
            loader.close()


@dataclass(frozen=True)
class Steps:
    """What is timed.

    Attributes:
        trained: Name -> training step.
        forward: The teacher's forward pass on the images of our batch.
        device: Where everything runs.
    """

    trained: dict[str, Step]
    forward: Callable[[], None]
    device: torch.device

    @property
    def todo(self) -> dict[str, Callable[[], None]]:
        """Name -> what is timed."""
        return {**self.trained, TEACHER: self.forward}

    def close(self) -> None:
        """End the processes of the loaders."""
        for step in self.trained.values():
            step.close()


class _Stopped(Exception):
    """The trainer has been built."""


def trainer_of(run: StagedRun, stage: str) -> Any:
    """The trainer that a stage of a run would start, before its training."""
    built: list[Any] = []
    train = run.train

    def intercept(name: str, trainer: Any, settings: Any, **overrides: Any) -> None:
        def build(overrides: dict[str, Any]) -> Any:
            built.append(trainer(overrides=overrides))
            raise _Stopped

        train(name, build, settings, **overrides)  # type: ignore[arg-type]

    run.train = intercept  # type: ignore[method-assign]
    try:
        getattr(run, stage)()
    except _Stopped:
        return built[0]
    finally:
        del run.train
    raise UserError(f"recipe={run.config['recipe']}: trains no distilled student, so there is no step of ours to time")


@contextmanager
def open_steps(configured: Callable[..., Config], folder: Path) -> Iterator[Steps]:
    """Set all steps up in ``folder``.

    Args:
        configured: The configuration, with given keys replaced.
        folder: An empty folder.
    """
    from dfssd.pipeline import open_run

    config = configured()
    masks, size = config["task"] == SEMANTIC, config.imgsz
    file = Path(config["teacher"] or config["student"])
    trained = file.suffix == ".pt"
    with _silent():
        if trained:
            file = Path(resolve_weights(str(file), "teacher"))
            names = _names(file)
        else:
            names = [f"class{i}" for i in range(CLASSES)]
            source, file = str(file), folder / "teacher.pt"
            write_teacher(source, file, names)
        unlabeled = round(config.batch * config["unlabeled_ratio"])
        data = write_photos(
            folder / "data", side=size, labeled=config.batch, unlabeled=unlabeled, names=names, masks=masks
        )
        changes = {"data": str(data), "data_dir": str(folder / "imported"), "project": str(folder), "name": "run"}
        if config["teacher"] is not None:
            changes["teacher"] = str(file)
        run = open_run(configured(**changes), "benchmark")
        run.prepare()  # type: ignore[attr-defined]

        def step(name: str, trainer: Any) -> Step:
            return Step(trainer, cpu_bf16=run.cpu_bf16 and not masks and name != OURS)

        steps = {STUDENT: step(STUDENT, trainer_of(run, "baseline") if masks else _of_ultralytics(run, STUDENT))}
        if not trained and not masks:
            calibrate_teacher(file, _views(steps[STUDENT]), config.pseudo.tau_low)
        run.teacher()  # type: ignore[attr-defined]
        if not masks:
            write_labels(run.folder.path / "pseudo", run.inputs.listed("train_unlabeled"), names, config, size)
            steps[PEER] = step(PEER, _of_ultralytics(run, PEER, distill_model=str(file)))
        steps[OURS] = step(OURS, trainer_of(run, "student"))
        forward = _teacher_forward(file, steps[OURS], run.cpu_bf16)
        for each in steps.values():
            each.settle()
    ready = Steps(steps, forward, steps[OURS].trainer.device)
    try:
        yield ready
    finally:
        ready.close()


@contextmanager
def _silent() -> Iterator[None]:
    """Suppress what Ultralytics logs as information, with its progress bars."""
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel(logging.WARNING)
    try:
        yield
    finally:
        LOGGER.setLevel(level)


def _names(file: Path) -> list[str]:
    from dfssd.trust.checkpoints import load_checkpoint

    return list(load_checkpoint(file)[0].names.values())


def _views(step: Step) -> torch.Tensor:
    """Some images as the student sees them, (N, 3, H, W) in [0, 1], on the CPU."""
    views, batches = [step.loaded["img"]], step.batches()
    while sum(map(len, views)) < _SEEN:
        views.append(next(batches)["img"])
    return torch.cat(views)[:_SEEN].cpu().float() / 255


def _of_ultralytics(run: StagedRun, name: str, **more: Any) -> Any:
    """Ultralytics' own trainer of the student: alone, or with ``distill_model=``."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    own = {
        "task": "detect",
        "mode": "train",
        "data": str(run.data_yaml),
        "model": run.config["student"],
        "device": run.device,
        "amp": run.amp,
        "save_dir": str(run.folder.path / "train" / name),
    }
    return DetectionTrainer(overrides={**run.config.train, **own, **more})


def _teacher_forward(file: Path, ours: Step, cpu_bf16: bool) -> Callable[[], None]:
    """The teacher's forward pass alone, on the images of our batch, folded like ours and in the same precision."""
    from ultralytics.utils.torch_utils import autocast

    from dfssd.distillation.pair import for_inference
    from dfssd.trust.checkpoints import load_checkpoint

    t = ours.trainer
    model = load_checkpoint(file)[0].float()
    if getattr(t, "teacher", None) is None:
        model = for_inference(model)
    else:
        model = model.fuse(verbose=False).to(memory_format=torch.channels_last)
    model = model.to(t.device).eval()
    precision = torch.bfloat16 if t.args.amp == "bf16" else t.amp
    with autocast(precision, device=t.device.type):  # our preprocessing switches autocast on until the block ends
        images = t.preprocess_batch(dict(ours.loaded))["img"]

    def forward() -> None:
        with (
            torch.no_grad(),
            autocast(precision, device=t.device.type),
            torch.autocast("cpu", torch.bfloat16, enabled=cpu_bf16),
        ):
            model(images)

    return forward
