"""What a tracker is: the interface of its adapters, what they are given, and the table of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from dfssd.errors import UserError

Status = Literal["finished", "failed", "interrupted"]
"""How a session of a run ended."""


@dataclass(frozen=True)
class TrackedRun:
    """A run as it is introduced to a tracker.

    Attributes:
        id: Its identity, the same in all sessions of the run.
        name: What it is called: the name of its folder.
        project: What it belongs to: an experiment of MLflow, a project of Weights & Biases.
        folder: Its folder, absolute.
        parameters: Name -> value of all that was decided before the first training.
    """

    id: str
    name: str
    project: str
    folder: Path
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What a session of a run leaves behind.

    Attributes:
        status: How it ended.
        values: Name -> number: the results on the test images, as far as there are any.
        verdict: The result in one sentence; empty before there is one.
        files: Files of the run that are worth keeping: path in the run folder -> file.
    """

    status: Status
    values: Mapping[str, float]
    verdict: str
    files: Mapping[str, Path]


class Tracker(Protocol):
    """One service that keeps a run.

    A method that cannot reach the service raises, whatever its client raises; the call is then repeated later.
    """

    def check(self) -> None:
        """Make sure that the service can be used, before anything is computed.

        Raises:
            UserError: It does not answer, or not to this user.
        """

    def start(self, run: TrackedRun) -> str:
        """Begin the run, or continue the one with this ``id``; nothing is done twice.

        Returns:
            Where it can be seen.
        """

    def epoch(self, network: str, values: Mapping[str, float], step: int) -> None:
        """Keep the values of an epoch.

        Args:
            network: Whose training it is, such as ``student``.
            values: Name -> finite number.
            step: Optimizer steps of this training so far.
        """

    def finish(self, outcome: Outcome) -> None:
        """Keep the results, and end the session."""


@dataclass(frozen=True)
class Kind:
    """A tracker before it is loaded.

    Attributes:
        adapter: Its class, as ``module:class``.
        package: What has to be installed, as it is imported.
        install: The same as it is installed.
    """

    adapter: str
    package: str
    install: str

    def load(self, name: str) -> Tracker:
        """The tracker; its client library is imported.

        Raises:
            UserError: The library is not installed, or broken.
        """
        module, _, cls = self.adapter.partition(":")
        try:
            if find_spec(self.package) is None:
                raise ImportError("it is not installed")
            tracker: Tracker = getattr(import_module(module), cls)()
        except ImportError as e:
            raise UserError(
                f"track={name} needs the package {self.install} ({e}): pip install {self.install}, or leave {name} out"
            ) from e
        return tracker


TRACKERS: Mapping[str, Kind] = {
    "tensorboard": Kind("dfssd.tracking.tensorboard:TensorBoard", "tensorboard", "tensorboard"),
    "mlflow": Kind("dfssd.tracking.mlflow:MLflow", "mlflow", "mlflow-skinny"),
    "wandb": Kind("dfssd.tracking.wandb:WeightsAndBiases", "wandb", "wandb"),
}
"""Name in ``track=`` -> tracker; the same names as in the schema of the configuration (tested)."""


def load_trackers(names: Sequence[str]) -> dict[str, Tracker]:
    """The trackers of ``track=`` by name, each of which can be used now.

    Raises:
        UserError: A package is not installed, or a server does not answer; all problems at once.
    """
    loaded: dict[str, Tracker] = {}
    problems: list[str] = []
    for name in names:
        try:
            loaded[name] = TRACKERS[name].load(name)
            loaded[name].check()
        except UserError as e:
            problems += e.problems
    if problems:
        raise UserError(*problems)
    return loaded
