"""A real Label Studio server on this machine, started from its package, and what people do with it, by its API."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = "0123456789abcdef0123456789abcdef01234567"
STARTUP = 400
"""[s] The server makes its database first, which takes half a minute of a fast core, and minutes of a busy one."""


def command() -> str | None:
    """The program ``label-studio``: that of ``DFSSD_LABEL_STUDIO``, or on the path; None: it is not installed."""
    return os.environ.get("DFSSD_LABEL_STUDIO") or shutil.which("label-studio")


@dataclass
class Server:
    """A running server.

    Attributes:
        url: Its address.
    """

    url: str

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of the API, parsed."""
        return json.loads(self.fetch(method, path, body) or b"null")

    def fetch(self, method: str, path: str, body: Any = None) -> bytes:
        """The answer as it is."""
        headers = {"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            content: bytes = answer.read()
            return content

    @property
    def version(self) -> str:
        return str(self.call("GET", "/api/version")["release"])

    def project(self, review: Path) -> int:
        """A project made of an exported folder, as docs/review.md says; returns its number."""
        interface = (review / "interface.xml").read_text(encoding="utf-8")
        number = int(self.call("POST", "/api/projects/", {"title": "review", "label_config": interface})["id"])
        storage = {"project": number, "title": "images", "path": str(review / "images"), "use_blob_urls": False}
        self.call("POST", "/api/storages/localfiles/", storage)
        tasks = json.loads((review / "tasks.json").read_text(encoding="utf-8"))
        self.call("POST", f"/api/projects/{number}/import", tasks)
        return number

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """The tasks of a project with their predictions, in order."""
        listed = self.call("GET", f"/api/tasks/?project={project}&fields=all&page_size=100")["tasks"]
        return [self.call("GET", f"/api/tasks/{task['id']}/") for task in sorted(listed, key=lambda own: own["id"])]

    def annotate(self, task: int, result: list[dict[str, Any]], *, skipped: bool = False) -> None:
        """Submit the regions of a task, or skip it."""
        body = {"result": result, "was_cancelled": skipped, "lead_time": 1.0}
        self.call("POST", f"/api/tasks/{task}/annotations/", body)

    def export(self, project: int) -> bytes:
        """The export "JSON"."""
        return self.fetch("GET", f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=true")


@contextlib.contextmanager
def running(program: str, folder: Path, images: Path) -> Iterator[Server]:
    """Start the server with a database in ``folder``, serving files below ``images``, and stop it at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LOCAL_FILES_SERVING_ENABLED": "true",
        "LOCAL_FILES_DOCUMENT_ROOT": str(images),
    }
    words = [program, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    words += ["--data-dir", str(folder), "--username", "reviewer@example.com", "--password", "review-1"]
    words += ["--user-token", TOKEN, "--enable-legacy-api-token"]
    env = {**os.environ, **{f"LABEL_STUDIO_{key}": value for key, value in settings.items()}}
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(words, cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        server = Server(f"http://127.0.0.1:{port}")
        end = time.monotonic() + STARTUP
        while not _answers(server):
            assert process.poll() is None, (folder / "server.log").read_text(errors="replace")[-2000:]
            assert time.monotonic() < end, "the server does not answer"
            time.sleep(0.5)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _answers(server: Server) -> bool:
    try:
        return bool(server.version)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
