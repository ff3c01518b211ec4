"""Weights & Biases: one run in a project named after ``project=``; ``WANDB_MODE=offline`` keeps it in its folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import wandb

from dfssd.errors import UserError, reason
from dfssd.tracking.tracker import Outcome, Status, TrackedRun

WAIT = 60.0
"""Time for the answers of a server at the start and at the end of a session [s]."""

STEP = "optimizer_step"
"""Name of the axis of a network's values."""

_EXIT: Mapping[Status, int] = {"finished": 0, "failed": 1, "interrupted": 255}


class WeightsAndBiases:
    """A run of Weights & Biases, whose own process buffers what cannot be sent at once."""

    def __init__(self) -> None:
        """Nothing is sent yet."""
        self._run: Any = None
        self._defined: set[str] = set()

    def check(self) -> None:
        """Verify the login; offline there is nothing to verify.

        Raises:
            UserError: There is none, or the server does not answer.
        """
        if wandb.setup().settings.mode in {"offline", "dryrun", "disabled"}:
            return
        advice = "log in with wandb login, set WANDB_MODE=offline, or leave wandb out"
        try:
            logged_in = wandb.login(verify=True, prompt=False)
        except Exception as e:
            raise UserError(f"track=wandb: Weights & Biases does not let you in ({reason(e)}): {advice}") from e
        if not logged_in:
            raise UserError(f"track=wandb: you are not logged in to Weights & Biases: {advice}")

    def start(self, run: TrackedRun) -> str:
        """Make the run with its parameters, or continue it."""
        self._run = wandb.init(
            project=re.sub(r"[/\\#?%:]", "-", run.project),
            name=run.name,
            id=run.id,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.parameters),
            reinit="create_new",  # the user's own run goes on beside it
            settings=wandb.Settings(
                init_timeout=WAIT, finish_timeout=WAIT, console="off", save_code=False, disable_git=True, silent=True
            ),
        )
        return str(self._run.url or run.folder / "wandb")

    def epoch(self, network: str, values: Mapping[str, float], step: int) -> None:
        """Log the values of an epoch as ``<network>/<name>``, over the optimizer steps of the network."""
        axis = f"{network}/{STEP}"
        if network not in self._defined:
            self._run.define_metric(axis, hidden=True)
            self._run.define_metric(f"{network}/*", step_metric=axis)
            self._defined.add(network)
        self._run.log({axis: step, **{f"{network}/{name}": value for name, value in values.items()}})

    def finish(self, outcome: Outcome) -> None:
        """Send results and verdict as the summary, the files as an artifact, and end the session."""
        self._run.summary.update(dict(outcome.values))
        if outcome.verdict:
            self._run.summary["verdict"] = outcome.verdict
        if outcome.files:
            artifact = wandb.Artifact(f"run-{self._run.id}", type="run")
            for name, file in outcome.files.items():
                artifact.add_file(str(file), name=name)
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=_EXIT[outcome.status])
