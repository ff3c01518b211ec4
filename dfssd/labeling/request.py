"""What is to be labeled, and how: the line that was typed, checked, and what it means for plan and workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dfssd.config.sections import PseudoSection
from dfssd.distributed.ray_cluster import EXTRA
from dfssd.errors import UserError
from dfssd.files import file_digest
from dfssd.hardware import check_device
from dfssd.labeling.engines import Engine, opened
from dfssd.labeling.listing import root_of
from dfssd.labeling.models import MODELS, Models
from dfssd.labeling.names import SERIAL
from dfssd.labeling.worker import Job
from dfssd.process import trusts_files
from dfssd.pseudo_labels.teacher_inference import STRIDE
from dfssd.trust.limits import limits


@dataclass(frozen=True)
class Request:
    """What is to be labeled, and how.

    Attributes:
        images: See :func:`~dfssd.labeling.listing.write_listing`.
        models: See :func:`~dfssd.labeling.models.read_models`; the boxes of several are fused.
        out: Folder of the labels.
        rule: How boxes are found, and which of them become labels.
        imgsz: Side of the input [px]; None: that of the training of the first model.
        batch: Images in a forward pass, at least, and of an update of the thresholds.
        shard: Images in a shard.
        sample: Images of the first pass.
        seed: Of their draw.
        val: Labeled images, with ``rule.precision``; else None.
        engine: One of :data:`~dfssd.labeling.names.ENGINES`.
        workers: Actors of Ray; None: as many as the cluster bears.
        cpus: Cores of an actor.
        gpus: GPUs of an actor.
        device: Without Ray; None: the first GPU, else the CPU.
    """

    images: Path
    models: Sequence[str]
    out: Path
    rule: PseudoSection
    imgsz: int | None
    batch: int
    shard: int
    sample: int
    seed: int
    val: Path | None
    engine: str
    workers: int | None
    cpus: int
    gpus: float
    device: str | None

    def check(self) -> None:
        """Refuse what makes no sense together.

        Raises:
            UserError: Something does not.
        """
        alone = self.engine == SERIAL
        problems = []
        for key, path in (("images", self.images), ("val", self.val)):
            if path is not None and not path.exists():
                problems.append(f"{key}={path}: does not exist; give a folder, or a .txt file with a path in each line")
        if not alone and find_spec("ray") is None:
            problems.append(EXTRA)
        if (self.val is None) != (self.rule.precision is None):
            problems.append("pseudo.precision and val belong together: labeled images tell how precise boxes are")
        if alone and (self.workers is not None or self.cpus != 1 or self.gpus):
            problems.append("workers, cpus, and gpus are those of Ray's actors: add engine=ray")
        if not alone and self.device is not None:
            problems.append(f"device={self.device}: an actor of Ray computes on what gpus= gives it; leave device out")
        if self.imgsz is not None and self.imgsz % STRIDE:
            problems.append(f"imgsz={self.imgsz}: must be a multiple of {STRIDE}")
        low, first, most = self.rule.tau_low, self.rule.tau0, self.rule.tau_max
        if not low <= first <= most:
            problems.append(f"pseudo.tau_low={low} <= pseudo.tau0={first} <= pseudo.tau_max={most} must hold")
        if problems:
            raise UserError(*problems)

    def settings(self, models: Models) -> dict[str, Any]:
        """What the labels depend on: two lines with the same make the same labels."""
        val = self.val and [_text_of(self.val), file_digest(self.val) if self.val.is_file() else None]
        rule = {key: value for key, value in asdict(self.rule).items() if key not in {"mode", "weigh", "teachers"}}
        return {
            "images": _text_of(self.images),
            "models": [file_digest(file) for file in models.files],
            "imgsz": self.imgsz or models.imgsz,
            **{key: getattr(self, key) for key in ("batch", "shard", "sample", "seed")},
            "val": val,
            **{f"pseudo.{key}": value for key, value in rule.items()},
        }

    def job(self, models: Models) -> Job:
        """What the workers need to know for the first pass."""
        actors = self.engine != SERIAL
        device = ("0" if self.gpus else "cpu") if actors else check_device(self.device)
        return Job(
            models=models.copies((self.out / MODELS).absolute()),
            names=models.names,
            imgsz=self.imgsz or models.imgsz,
            batch=self.batch,
            device=device,
            rule=self.rule,
            root=root_of(self.images).absolute(),
            out=self.out.absolute(),
            bits=models.bits,
            steps=models.steps,
            limits=limits(),
            trust=trusts_files(),
            threads=self.cpus if actors else None,
        )

    def opened(self) -> AbstractContextManager[Engine]:
        """The engine, for a block."""
        return opened(self.engine, self.workers, self.cpus, self.gpus)


def _text_of(path: Path) -> str:
    """A path as JSON holds it, whatever bytes it has."""
    return os.fsencode(path.resolve()).decode("utf-8", "backslashreplace")
