"""MLflow: one run in the experiment named after the project, on the server of ``MLFLOW_TRACKING_URI``."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import mlflow
from mlflow.entities import Metric, Param, RunTag

from dfssd.errors import UserError, reason
from dfssd.tracking.tracker import Outcome, Status, TrackedRun

LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""How long the client tries to reach a server, unless the user has set it: by default a training would wait for
minutes for one that is away."""

ID = "dfssd.run"
"""Tag that holds our identity of a run."""

NOTE = "mlflow.note.content"
"""Tag that MLflow shows as the description of a run."""

BATCH = 100
"""Most parameters that a server takes at once; of metrics it takes ten times as many."""

LONGEST = 6000
"""Longest value of a parameter [characters]."""

_STATUS: Mapping[Status, str] = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MLflow:
    """A run of MLflow; no run is active in the process, so that code of the user may have its own."""

    def __init__(self) -> None:
        """Nothing is sent yet."""
        for name, value in LIMITS.items():
            os.environ.setdefault(name, value)
        self._made: Any = None
        self._run = ""

    @property
    def client(self) -> Any:
        """The client of the server; making one without a usable address fails."""
        if self._made is None:
            self._made = mlflow.MlflowClient()
        return self._made

    def check(self) -> None:
        """Ask the server for an experiment.

        Raises:
            UserError: It does not answer.
        """
        try:
            self.client.search_experiments(max_results=1)
        except Exception as e:
            raise UserError(
                f"track=mlflow: no MLflow at {mlflow.get_tracking_uri()} ({reason(e)}): start a server and name it by "
                "the environment variable MLFLOW_TRACKING_URI, or leave mlflow out"
            ) from e

    def start(self, run: TrackedRun) -> str:
        """Make the run with its parameters, or find and reopen it by its identity."""
        experiment = self.client.get_experiment_by_name(run.project)
        where = experiment.experiment_id if experiment else self.client.create_experiment(run.project)
        found = self.client.search_runs([where], f"tags.`{ID}` = '{run.id}'", max_results=1)
        made = found[0] if found else self.client.create_run(where, run_name=run.name, tags={ID: run.id})
        self._run = made.info.run_id
        if found:
            self.client.update_run(self._run, status="RUNNING")
        known = set(made.data.params)
        wanted = {_name(name): str(value)[:LONGEST] for name, value in run.parameters.items()}
        for part in _parts({name: value for name, value in wanted.items() if name not in known}, BATCH):
            self.client.log_batch(self._run, params=[Param(name, value) for name, value in part.items()])
        return f"{mlflow.get_tracking_uri()}/#/experiments/{where}/runs/{self._run}"

    def epoch(self, network: str, values: Mapping[str, float], step: int) -> None:
        """Send the values of an epoch as ``<network>/<name>``."""
        self._send({f"{network}/{name}": value for name, value in values.items()}, step)

    def finish(self, outcome: Outcome) -> None:
        """Send results, verdict, and files, and end the run."""
        self._send(outcome.values, 0)
        if outcome.verdict:
            tags = [RunTag("verdict", outcome.verdict), RunTag(NOTE, outcome.verdict)]
            self.client.log_batch(self._run, tags=tags)
        for name, file in outcome.files.items():
            self.client.log_artifact(self._run, str(file), name.rpartition("/")[0] or None)
        self.client.set_terminated(self._run, _STATUS[outcome.status])

    def _send(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        for part in _parts(values, 10 * BATCH):
            metrics = [Metric(_name(name), value, now, step) for name, value in part.items()]
            self.client.log_batch(self._run, metrics=metrics)


def _name(name: str) -> str:
    """A name that MLflow takes: class names may hold anything, a path may not be relative."""
    parts = (re.sub(r"[^\w.\- ]", "_", part) for part in name.split("/"))
    return "/".join(part if part.strip(".") else "_" for part in parts)


def _parts(values: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    """The entries in groups of at most ``size``."""
    entries = iter(values.items())
    while part := dict(islice(entries, size)):
        yield part
