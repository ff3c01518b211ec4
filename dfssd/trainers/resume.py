"""What a training goes on from: the state at the end of an epoch, such that it continues as if it had not stopped.

Ultralytics' checkpoints hold the moving average of the weights in half precision, and no source of random numbers: a
training that goes on from one is another training. Beside them lies a second file, :data:`FILE`, with all that a step
depends on, in full precision: weights, moving average and the number of its updates, optimizer, scaler of the losses,
gradients that wait for their step, early stopping, and what the watchers of a training know. It holds tensors, numbers,
text, lists, and dictionaries only, and is read with ``weights_only=True``, which runs no code.

No state of a source of random numbers is in it. All sources are seeded anew at the start of each epoch, by the seed,
the process, and the number of the epoch; those of the images follow from their places (:mod:`dfssd.trainers.draws`).

The checkpoints appear before this file, which alone decides where a training goes on: if the process dies in between,
the epochs that it had not written yet are done again, with the same results.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.utils.torch_utils import unwrap_model

from dfssd.distributed import group
from dfssd.errors import UserError, reason
from dfssd.files import write_text
from dfssd.trainers.checkpoints import read_checkpoint, unusable
from dfssd.trainers.draws import seed_all
from dfssd.trust.checkpoints import load_plain

FILE = "state.pt"
"""Name of the file, in the folder of the checkpoints."""

FORMAT = 1
"""Number of its form."""

OF_TEACHER = "teacher_model."
"""Names of weights that are not part of the state: the teacher's, which come from its own file."""

State = dict[str, Any]


class WithoutState:
    """Stands in for an optimizer where Ultralytics writes a checkpoint: its state lies in :data:`FILE`."""

    def state_dict(self) -> dict[str, Any]:
        """A state that holds nothing."""
        return {"state": {}, "param_groups": []}


def read_state(weights: Path) -> State:
    """The state beside the checkpoints in a folder.

    Raises:
        UserError: It is missing, damaged, or of another version.
    """
    file = weights / FILE
    try:
        state: State = load_plain(file)
        form = state["format"]
    except FileNotFoundError as e:
        raise UserError(
            f"{weights.parent} was interrupted by another version of dfssd, whose checkpoints hold too little to go "
            "on exactly; remove that folder, and the training is repeated on resume="
        ) from e
    except Exception as e:  # a file that was cut, or is something else: whatever the unpickler stumbles over
        raise unusable(file, f"is damaged ({reason(e)})") from e
    if form != FORMAT:
        raise unusable(file, f"is of another version of dfssd (form {form}, not {FORMAT})")
    return state


def last_epoch(stage_dir: Path) -> int | None:
    """The last epoch that a training need not repeat, from 0; -1 if it has ended; None if it has to begin.

    Raises:
        UserError: Its files are damaged, or of a version that wrote other ones.
    """
    weights = stage_dir / "weights"
    if not (weights / "last.pt").exists():
        return None
    found = read_checkpoint(weights / "last.pt")
    if found["epoch"] < 0:
        return -1
    if not (weights / FILE).exists() and not (found.get("optimizer") or {}).get("state"):
        return None  # the process died between the first two files that it ever wrote
    state = read_state(weights)
    return -1 if state["stop"] else int(state["epoch"])


def own_weights(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of a model, by name, without those of a teacher inside it."""
    return {name: value for name, value in model.state_dict().items() if not name.startswith(OF_TEACHER)}


def load_own_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load what :func:`own_weights` returned.

    Raises:
        RuntimeError: The names or shapes are others.
    """
    everything = model.state_dict()  # with the teacher's, and with the versions of the modules
    everything.update(weights)
    model.load_state_dict(everything)
    if weights.keys() != own_weights(model).keys():
        raise RuntimeError(f"the state has other weights: {sorted(weights.keys() ^ own_weights(model).keys())[:5]}")


class ResumableSteps:
    """The part of a trainer that ends each epoch in a state from which another process goes on exactly.

    Attributes:
        batches_done: Batches of the whole training.
        batch_in_epoch: Number of the batch at hand in its epoch, from 0.
        repeats: Epochs that were done again after a loss that was not finite; each took new images.
        state: Where a resumed training goes on, until its first epoch begins; None in one that starts.
    """

    args: Any
    model: Any
    ema: Any
    optimizer: Any
    scaler: Any
    stopper: Any
    train_loader: Any
    wdir: Path
    csv: Path
    epoch: int
    epochs: int
    start_epoch: int
    batch_size: int
    resume: Any
    stop: bool
    best_fitness: Any
    clock: Any

    batches_done = batch_in_epoch = repeats = 0
    state: State | None = None
    _accumulate = _offset = 0
    _stepped_at = -1

    def prepare_resume(self) -> None:
        """Read the state if the training is resumed; called once, when the folder is known."""
        trainer: Any = self
        if self.resume:
            self.state = read_state(self.wdir)
            self.args.batch = self.batch_size = self.state["batch"]  # it may have been lowered to fit the memory
        trainer.add_callback("on_train_start", ResumableSteps._restore)
        trainer.add_callback("on_train_epoch_start", ResumableSteps._begin_epoch)
        trainer.add_callback("on_train_batch_end", ResumableSteps._count_batch)

    @property
    def begun(self) -> int:
        """Number of the epoch at hand among all that were begun, from 0: the pass over the images that it takes."""
        return self.epoch + self.repeats

    @property
    def accumulate(self) -> int:
        """Batches whose gradients are added up to a step.

        Ultralytics compares it with the batches since the last step, and believes that there was one just before the
        training began. In a resumed training the number is higher, until the first step, by what it miscounts.
        """
        return self._accumulate + self._offset

    @accumulate.setter
    def accumulate(self, batches: int) -> None:
        self._accumulate = batches

    def note_step(self) -> None:
        """Note that the batch at hand ends in a step."""
        self._stepped_at = self.epoch * len(self.train_loader) + self.batch_in_epoch
        self._offset = 0

    def forget_steps(self) -> None:
        """Note that the training begins anew, with smaller batches."""
        self._stepped_at, self._offset = -1, 0

    def watch_state(self) -> dict[str, Any]:
        """What the watchers of this training know, as JSON values."""
        return {}

    def load_watch_state(self, state: dict[str, Any]) -> None:
        """Let the watchers of this training go on from :meth:`watch_state`."""

    def engine_state(self) -> dict[str, Any]:
        """What Ultralytics reads from a checkpoint, but for the networks."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "updates": self.ema.updates,
            "best_fitness": None if self.best_fitness is None else float(self.best_fitness),
            "stopper": {
                "best_fitness": float(self.stopper.best_fitness),
                "best_epoch": int(self.stopper.best_epoch),
                "possible_stop": bool(self.stopper.possible_stop),
            },
        }

    def current_state(self) -> bytes:
        """The content of :data:`FILE` at the end of an epoch."""
        model = unwrap_model(self.model)
        state: State = {
            "format": FORMAT,
            "epoch": self.epoch,
            "stop": bool(self.stop) or self.epoch + 1 >= self.epochs,
            "batch": self.batch_size,
            "model": own_weights(model),
            "ema": self.ema.ema.state_dict(),
            "gradients": {name: p.grad for name, p in model.named_parameters() if p.grad is not None},
            "stepped_at": self._stepped_at,
            "batches_done": self.batches_done,
            "repeats": self.repeats,
            "engine": self.engine_state(),
            "seconds": self.clock.record(),
            "csv": self.csv.read_text(encoding="utf-8") if self.csv.exists() else "",
            "watch": json.dumps(self.watch_state()),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        return buffer.getvalue()

    def resume_training(self, ckpt: Any) -> None:
        """Ultralytics' continuation, after the epoch of the state."""
        if self.state is None:
            return
        trainer: Any = super()
        trainer.resume_training({**ckpt, "epoch": self.state["epoch"]})
        self.repeats = self.state["repeats"]
        criterion: Any = getattr(unwrap_model(self.model), "criterion", None)
        if hasattr(criterion, "updates"):  # of an end-to-end head, whose losses are weighed by it
            criterion.updates = self.start_epoch + self.repeats - 1
            criterion.update()

    def _load_checkpoint_state(self, ckpt: dict[str, Any]) -> None:
        """Ultralytics' state of optimizer, scaler, and early stopping, from our file instead of the checkpoint."""
        trainer: Any = super()
        trainer._load_checkpoint_state({**ckpt, **(self.state or read_state(self.wdir))["engine"]})

    @staticmethod
    def _restore(trainer: ResumableSteps) -> None:
        """Put networks and counters where they were."""
        trainer.train_loader.sampler.epoch = trainer.start_epoch + trainer.repeats
        if (state := trainer.state) is None:
            return
        load_own_weights(unwrap_model(trainer.model), state["model"])
        trainer.ema.ema.load_state_dict(state["ema"])
        trainer.batches_done = state["batches_done"]
        trainer._stepped_at, trainer._offset = state["stepped_at"], state["stepped_at"] + 1
        trainer.clock.add(state["seconds"])
        if group.is_first():
            write_text(trainer.csv, state["csv"])

    @staticmethod
    def _begin_epoch(trainer: ResumableSteps) -> None:
        """Seed all sources; in a resumed training put back the gradients that wait for their step."""
        trainer.batch_in_epoch = 0
        seed_all((trainer.args.seed, group.rank(), trainer.begun))
        if trainer.state is not None:  # not before: Ultralytics drops gradients as it starts
            waiting = trainer.state["gradients"]
            for name, parameter in unwrap_model(trainer.model).named_parameters():
                if name in waiting:
                    parameter.grad = torch.empty_like(parameter).copy_(waiting[name])
            trainer.state = None

    @staticmethod
    def _count_batch(trainer: ResumableSteps) -> None:
        trainer.batches_done += 1
        trainer.batch_in_epoch += 1
