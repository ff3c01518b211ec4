"""A real MLflow server on this machine, read back through its API.

The server comes from the package ``mlflow`` of this Python, or of the one that ``DFSSD_MLFLOW_PYTHON`` names; the
client ``mlflow-skinny``, which is all that a run needs, has none.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from dfssd.errors import UserError
from dfssd.tracking.tracker import load_trackers
from tests.tracking.tracked_run import VERDICT, Training

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'dfssd[tracking]'")

OWN = sys.executable if find_spec("flask") and find_spec("sqlalchemy") else None
PYTHON = os.environ.get("DFSSD_MLFLOW_PYTHON") or OWN

pytestmark = pytest.mark.train


class Server:
    """An MLflow server whose files outlive it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [str(PYTHON), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        log = open(self.folder / "server.log", "ab")  # noqa: SIM115  # the server's from now on
        quiet = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=quiet, start_new_session=True)
        log.close()
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "server.log").read_text(encoding="utf-8")
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    assert answer.status == 200
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        raise AssertionError("the server has not started")

    def stop(self) -> None:
        """End it with its workers."""
        if self.process is not None:
            os.killpg(self.process.pid, 15)
            self.process.wait(30)
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if PYTHON is None:
        pytest.skip("there is no MLflow server: pip install mlflow, or name a Python that has it, DFSSD_MLFLOW_PYTHON")
    server = Server(tmp_path_factory.mktemp("mlflow"))
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server.url)
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield server
    server.stop()


def test_run_through_an_outage_and_two_sessions(server: Server, tmp_path: Path, capsys) -> None:
    training, now = Training(tmp_path), [0.0]
    training.record.run = training.record.run.model_copy(update={"command": "x" * 7000})
    tracking = training.tracking(load_trackers(["mlflow"]), clock=lambda: now[0])
    tracking.follow(training.config, training.record)
    server.stop()
    training.trained(4)
    tracking.follow(training.config, training.record)
    assert capsys.readouterr().out.count("warning: track=mlflow") == 1
    server.start()
    now[0] += 1000
    training.trained(5)
    tracking.follow(training.config, training.record)
    tracking.stop("interrupted", training.record)

    client = mlflow.MlflowClient(server.url)
    experiment = client.get_experiment_by_name("plant")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "mine" and run.info.status == "KILLED"
    again = training.tracking(load_trackers(["mlflow"]))
    training.trained(6)
    again.follow(training.config, training.record)
    again.finish(training.record, VERDICT)

    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "student/val/mAP50-95")
    assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]
    assert len(client.get_metric_history(run.info.run_id, "teacher/train/box_loss")) == 30
    assert run.data.metrics["test/student/map50_95"] == 0.412
    assert run.data.metrics["operating/student/balanced/threshold/oil spots"] == 0.31
    assert run.data.params["recipe"] == "dfssd" and run.data.params["response_cls.weight"] == "1.0"
    assert run.data.params["data.train_unlabeled"] == "192"
    assert run.data.tags["verdict"] == run.data.tags["mlflow.note.content"] == VERDICT
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"results.json", "run.yaml", "weights"}
    assert [file.path for file in client.list_artifacts(run.info.run_id, "weights")] == ["weights/student.pt"]
    assert mlflow.active_run() is None, "code of the user may have a run of its own"


def test_names_of_classes_may_hold_anything(server: Server, tmp_path: Path) -> None:
    training = Training(tmp_path, name="odd")
    training.csv.write_text("epoch,pseudo/class/a:b (c)/..\n1,0.5\n", encoding="utf-8")
    tracking = training.tracking(load_trackers(["mlflow"]))
    tracking.follow(training.config, training.record)
    client = mlflow.MlflowClient(server.url)
    found = client.search_runs([client.get_experiment_by_name("plant").experiment_id], "attributes.run_name = 'odd'")
    assert found[0].data.metrics["student/pseudo/class/a_b _c_/_"] == 0.5


def test_server_that_does_not_answer_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"^track=mlflow: no MLflow at http://127\.0\.0\.1:9 \(.*MLFLOW_TRACKING_URI"):
        load_trackers(["mlflow"])
