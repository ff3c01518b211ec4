"""TensorBoard: event files in the folder ``tensorboard`` of the run, for ``tensorboard --logdir <project>``."""

from __future__ import annotations

from collections.abc import Mapping

from torch.utils.tensorboard import SummaryWriter

from dfssd.tracking.tracker import Outcome, TrackedRun

FOLDER = "tensorboard"
"""In the run folder."""


class TensorBoard:
    """Writes event files; a session of the run adds a file to those of the earlier ones."""

    def __init__(self) -> None:
        """Nothing is written yet."""
        self._writer: SummaryWriter | None = None

    def check(self) -> None:
        """A folder can always be used."""

    @property
    def writer(self) -> SummaryWriter:
        """The writer of this session."""
        assert self._writer is not None, "start comes first"
        return self._writer

    def start(self, run: TrackedRun) -> str:
        """Write the parameters as a table, in the first session."""
        folder = run.folder / FOLDER
        first = not folder.exists()
        self._writer = SummaryWriter(str(folder))
        if first:
            rows = [f"| {name} | {value} |" for name, value in run.parameters.items()]
            self.writer.add_text("parameters", "\n".join(["| name | value |", "| --- | --- |", *rows]))
            self.writer.flush()
        return f"tensorboard --logdir {run.folder.parent}"

    def epoch(self, network: str, values: Mapping[str, float], step: int) -> None:
        """Write the values of an epoch as ``<network>/<name>``."""
        for name, value in values.items():
            self.writer.add_scalar(f"{network}/{name}", value, step)
        self.writer.flush()

    def finish(self, outcome: Outcome) -> None:
        """Write results, verdict, and the names of the files."""
        for name, value in outcome.values.items():
            self.writer.add_scalar(name, value)
        texts = {"verdict": outcome.verdict, "files": "\n".join(f"- {file}" for file in outcome.files)}
        for name, text in texts.items():
            if text:
                self.writer.add_text(name, text)
        self.writer.close()
