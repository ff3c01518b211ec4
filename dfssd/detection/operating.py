"""The measurement of a detector: thresholds chosen on the validation images, everything else on the test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.evaluation.detections import DETECTIONS, PREDICTIONS, Detections
from dfssd.evaluation.errors import errors, match, recall_by_size
from dfssd.evaluation.operating import LOWEST, ImageScores, operating_points
from dfssd.evaluation.settings import EvalSettings
from dfssd.results.sections import BoxScores, Operating, Role


@dataclass(frozen=True)
class MeasuredDetector:
    """What a detector did.

    Attributes:
        scores: Its scores on the test images.
        operating: Its thresholds, and what they do to whole images.
        detections: What its average precision on the test images is computed from.
    """

    scores: BoxScores
    operating: Operating
    detections: Detections


def measure(
    weights: Path,
    settings: Callable[[str], EvalSettings],
    folder: Path,
    role: Role,
    names: Sequence[str],
    wanted: float | None,
) -> MeasuredDetector:
    """Measure a detector on the validation and the test images.

    Args:
        weights: Its checkpoint.
        settings: Part (``val``, ``test``) -> how it is evaluated there.
        folder: Folder of the run; detections and predictions are written to ``<part>/<role>/``.
        role: The network.
        names: Class names in id order.
        wanted: ``false_alarms``.
    """
    from dfssd.detection.evaluate import balanced_confidence, evaluate

    def run(part: str, confidence: float | None = None) -> tuple[dict[str, Any], Detections]:
        where = folder / part / role
        metrics = evaluate(weights, settings(part), save_dir=where, keep_detections=True, confidence=confidence)
        return metrics, Detections.read(where / PREDICTIONS)

    _, val = run("val")
    confidence = balanced_confidence(val)
    on_test, test = run("test", confidence)
    balanced = LOWEST if confidence is None else max(LOWEST, round(confidence, 4))
    operating = operate(val, test, names, balanced, wanted, settings("test").imgsz)
    return MeasuredDetector(
        BoxScores.model_validate(on_test), operating, Detections.read(folder / "test" / role / DETECTIONS)
    )


def operate(
    val: Detections, test: Detections, names: Sequence[str], confidence: float, wanted: float | None, imgsz: int
) -> Operating:
    """Choose thresholds on the validation images, and see what they do on the test images.

    Args:
        val: Predictions on the validation images.
        test: Predictions on the test images.
        names: Class names in id order.
        confidence: Score threshold that balances precision and recall on the validation images.
        wanted: ``false_alarms``.
        imgsz: Longer side of the network's input [px].
    """
    balanced = np.full(len(names), confidence)
    known, tested = (ImageScores.of(found, len(names)) for found in (val, test))
    matches = match(test, balanced)
    return Operating(
        wanted=wanted,
        points=operating_points(known, tested, names, balanced, wanted),
        errors=errors(test, matches, len(names)),
        sizes=recall_by_size(test, matches, imgsz),
    )
