"""The section of a report on what to do next, from what the run has recorded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from dfssd.detection.verdict import noise
from dfssd.reporting.operating import FEW
from dfssd.reporting.sections import Lines
from dfssd.reporting.tables import format_number
from dfssd.results.record import BoxRecord
from dfssd.results.sections import Role, Training
from dfssd.runs.length import LEAST_STEPS
from dfssd.trust.texts import in_markdown
from dfssd.wording import are, counted

_LATE = 0.9
"""Share of a training after which a best epoch says that it was still improving."""
_WEAK = 3
"""Most classes that are named."""
_FEW_DEFECTS = 100
"""Defects of the test part with which scores are uncertain by some 0.05."""


def advice_section(record: BoxRecord) -> Lines:
    """What would probably help, the most important first; nothing before the student has been tested."""
    if "student" not in record.test or record.incremental:
        return []
    lines = [line for part in (_teacher, _steps, _classes, _good_images, _test_images) for line in part(record)]
    if not lines:
        lines = ["Nothing stands out. Repeat the run with another seed to see how far its results depend on chance."]
        return ["## What to do next", "", *lines]
    return ["## What to do next", "", *(f"- {line}" for line in lines)]


def _score(record: BoxRecord, role: Role) -> float | None:
    scores = record.test.get(role)
    return scores.map50_95 if scores else None


def _teacher(record: BoxRecord) -> Iterator[str]:
    """Whether there is something to learn from the teacher."""
    teacher, baseline = _score(record, "teacher"), _score(record, "baseline")
    if teacher is None or baseline is None or "teacher" not in record.training:
        return
    if teacher - baseline < noise(record):
        yield (
            f"**A better teacher.** It has {teacher:.3f} mAP50-95, hardly more than the baseline ({baseline:.3f}), so "
            "it has little to teach. More labels help it most; else train it longer (`teacher_epochs`, "
            "`teacher_min_batches`) or start it from pretrained weights (`teacher=yolov8s.pt`)."
        )


def _steps(record: BoxRecord) -> Iterator[str]:
    """Whether networks had too few optimizer steps, or were still improving when their training ended."""
    known = {role: done for role in ("teacher", "baseline", "student") if (done := record.training.get(role))}
    short = {role: done for role, done in known.items() if _hardly_began(done)}
    yield from _more_steps(short)
    late = {
        role: done
        for role, done in known.items()
        if role != "baseline"
        and role not in short
        and done.best_epoch is not None
        and done.epochs_done == done.epochs
        and done.best_epoch > _LATE * done.epochs
    }
    if late:
        names = " and ".join(late)
        was = "was" if len(late) == 1 else "were"
        epochs = max(done.epochs for role, done in late.items() if role == "student") if "student" in late else None
        more = f"`epochs={2 * epochs}`" if epochs else "`teacher_epochs`"
        yield (
            f"**Longer training.** The {names} {was} still improving in the last tenth of the training; try {more}. "
            "The baseline then trains longer, too, so that the comparison stays fair."
        )


def _hardly_began(done: Training) -> bool:
    """Whether a network started from random weights and ended, as planned, before it is expected to find anything."""
    few = done.optimizer_steps is not None and done.optimizer_steps < LEAST_STEPS
    return bool(done.from_scratch) and few and done.epochs_done == done.epochs


def _more_steps(short: Mapping[Role, Training]) -> Iterator[str]:
    """What gives such networks more optimizer steps."""
    if not short:
        return
    key, done = next((("epochs", done) for role, done in short.items() if role != "teacher"), ("", None))
    if done is None:
        key, done = "teacher_epochs", short["teacher"]
    steps = done.optimizer_steps or 1
    ways = [f"`{key}={math.ceil(done.epochs * LEAST_STEPS / steps)}` or more"]
    if done.batches > steps:
        ways.append(f"`nbs={done.batch}`, which makes a step with every batch")
    made = " and ".join(f"the {role} made {own.optimizer_steps:,}" for role, own in short.items())
    yield (
        f"**Longer training.** From random weights a detector finds next to nothing before some {LEAST_STEPS} "
        f"optimizer steps; {made}. So a score near 0 says nothing about the data or the method. Try "
        f"{', or '.join(ways)}."
    )


def _classes(record: BoxRecord) -> Iterator[str]:
    """Which classes need labels."""
    known = {name: own for name, own in record.test["student"].per_class.items() if own.ap50_95 is not None}
    values = sorted(own.ap50_95 or 0.0 for own in known.values())
    if len(values) < 2:
        return
    middle = values[len(values) // 2]
    weak = sorted((own.ap50_95 or 0.0, name) for name, own in known.items() if (own.ap50_95 or 0.0) < 0.6 * middle)
    if weak:
        listed = ", ".join(f"{in_markdown(name)} ({format_number(value)})" for value, name in weak[:_WEAK])
        yield (
            f"**Labels of the weak classes**: {listed}, where the class in the middle has {middle:.3f} AP50-95. Label "
            "more images that show them; check that their labels are drawn alike."
        )


def _good_images(record: BoxRecord) -> Iterator[str]:
    """Whether there are enough good images to choose thresholds."""
    operating = record.operating.get("student")
    if operating and (good := operating.points[0].val.good) < FEW:
        how = "`missing_label=background` takes images without a label file as good ones"
        yield (
            f"**Images of good parts.** There {are(good)} {good} of them in the validation part; with {FEW} or more, "
            f"a low rate of false alarms can be kept ({how})."
        )


def _test_images(record: BoxRecord) -> Iterator[str]:
    """Whether the test part is large enough."""
    instances = record.test["student"].instances
    if instances < _FEW_DEFECTS:
        yield (
            f"**A larger test part.** With {counted(instances, 'defect')} its scores are uncertain; see the intervals "
            "above."
        )
