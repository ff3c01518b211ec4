"""Settings of the trainings of a run beyond Ultralytics' own arguments.

The settings of a stage lie beside its folder (``train/student.yaml`` for ``train/student/``): Ultralytics rebuilds
trainers from their class and its own arguments alone, on resume and in every process of a multi-GPU run, so ours are
passed by a file. No field has a default; those of the configuration are in ``cfg/default.yaml`` alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from dfssd.config.sections import PseudoSection, SegSection
from dfssd.distillation.semi_loss import Coverage
from dfssd.distillation.terms import find_term
from dfssd.files import read_yaml, write_yaml

_Settings = TypeVar("_Settings", bound="StageSettings")


@dataclass(frozen=True)
class AverageDecay:
    """Decay of the moving average of the weights: average = d(t) * average + (1 - d(t)) * weights after step t >= 1.

    A network that starts untrained has nothing to keep at first: d(t) = min(most, (1 + t) / (10 + t)), about the mean
    of the last tenth of the steps, until ``most`` is reached. One that starts trained has d(t) = ``most`` throughout.

    Attributes:
        most: Largest decay, in (0, 1); 0.999 averages over some 1,000 steps.
        trained: The network starts as a trained one.
    """

    most: float
    trained: bool

    def __call__(self, step: int) -> float:
        """d(t) for step t >= 1."""
        return self.most if self.trained else min(self.most, (1 + step) / (10 + step))


@dataclass(frozen=True)
class StageSettings:
    """Settings of any training.

    Attributes:
        batches_per_epoch: Length of an epoch [batches].
        unlabeled_share: Share of unlabeled images in each batch, [0, 1).
        cpu_bf16: Run the forward passes under bf16 autocast on the CPU.
        loader: Where views are made: ``auto``, ``device`` or ``ultralytics``.
        unlabeled: List file of the unlabeled images; empty without any.
        freeze_bn: Keep the running statistics of the batch normalizations.
        val_every: Epochs from one validation to the next, >= 1; the last epoch is validated in any case.
        way: How forward and backward passes run: ``auto``, ``graph``, ``inductor`` or ``eager``.
        average: Decay of the moving average of the weights; None: that of Ultralytics.
        own_loggers: Ultralytics' own loggers keep the training, where its settings switch them on.
    """

    batches_per_epoch: int
    unlabeled_share: float
    cpu_bf16: bool
    loader: str
    unlabeled: str
    freeze_bn: bool
    val_every: int
    way: str
    average: AverageDecay | None
    own_loggers: bool

    @classmethod
    def labels_alone(
        cls,
        batches_per_epoch: int,
        *,
        cpu_bf16: bool,
        loader: str,
        val_every: int,
        way: str,
        average: AverageDecay | None,
        own_loggers: bool,
    ) -> StageSettings:
        """Settings of a teacher or a baseline: no unlabeled images, every layer learns."""
        return StageSettings(batches_per_epoch, 0.0, cpu_bf16, loader, "", False, val_every, way, average, own_loggers)

    @staticmethod
    def path(stage_dir: str | Path) -> Path:
        """The settings file of the stage in ``stage_dir``."""
        stage_dir = Path(stage_dir)
        return stage_dir.with_name(f"{stage_dir.name}.yaml")

    def write(self, stage_dir: str | Path) -> None:
        """Write the settings beside ``stage_dir``."""
        write_yaml(self.path(stage_dir), _plain(asdict(self)))

    @classmethod
    def read(cls: type[_Settings], stage_dir: str | Path) -> _Settings:
        """Read the settings of the stage in ``stage_dir``."""
        return TypeAdapter(cls).validate_python(read_yaml(cls.path(stage_dir)))


@dataclass(frozen=True)
class StudentSettings(StageSettings):
    """Settings of the training of a detector on labeled and unlabeled images with a teacher.

    Attributes:
        pseudo: Folder of the pseudo-labels made before the training; empty without any.
        labels: How boxes of unlabeled images become labels, for those found during the training.
        keep_thresholds: Start the class thresholds from those of ``pseudo``.
        strong_view: Strength of the student's view of unlabeled images, [0, 1].
        unlabeled_mosaic: Probability of a mosaic in their views, [0, 1]; None: that of labeled images.
        teacher: Checkpoint of the frozen teacher; empty: the teacher is the moving average of the student.
        layers: Layers whose outputs the feature terms compare; empty: the inputs of the detection head.
        terms: Active terms with their options.
        balance: The weights of the terms follow from their gradients.
        coverage: Which classes labels and boxes of the teacher cover.
        unsup_weight: Weight of the YOLO loss on pseudo-labeled images.
        unsup_schedule: Schedule of that weight.
        labels_last: Share of the training, at its end, on labeled images alone, [0, 1).
        selftest_steps: Batches in which every term is checked for signal.
        guard: Validation mAP50-95 of the baseline by epoch, None without validation; empty without guard.
        guard_patience: Epochs below the baseline before the guard acts.
        selected: The network starts at a part of its teacher's weights (weight selection).
    """

    pseudo: str
    labels: PseudoSection
    keep_thresholds: bool
    strong_view: float
    unlabeled_mosaic: float | None
    teacher: str
    layers: tuple[int, ...]
    terms: dict[str, dict[str, Any]]
    balance: bool
    coverage: Coverage
    unsup_weight: float
    unsup_schedule: str
    labels_last: float
    selftest_steps: int
    guard: tuple[float | None, ...]
    guard_patience: int
    selected: bool = False

    def __post_init__(self) -> None:
        """Import the terms: the checkpoints of the training hold them, and cannot be read without their modules."""
        for name in self.terms:
            find_term(name)


@dataclass(frozen=True)
class PretrainSettings(StageSettings):
    """Settings of the training of a detector on images alone.

    Attributes:
        method: ``regions``, ``dense``, or the foundation model whose features are learned.
    """

    method: str


@dataclass(frozen=True)
class SegmentationSettings(StageSettings):
    """Settings of the training of a mask network.

    Attributes:
        teacher: Checkpoint of the teacher; empty without one.
        seg: Losses, views and learning rate; ``kd`` is 0 where no teacher takes part.
        strong_view: Strength of the student's view of unlabeled images, [0, 1].
        selftest_steps: Batches in which every loss is checked for signal.
    """

    teacher: str
    seg: SegSection
    strong_view: float
    selftest_steps: int


def _plain(value: Any) -> Any:
    """Tuples as lists, for YAML."""
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
