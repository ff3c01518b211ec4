"""What a trainer leaves beside the folder of its training, for the record of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from dfssd.errors import UserError, reason
from dfssd.results.record import upgraded_scores
from dfssd.results.sections import Distill, Pretraining, Training


class Summary(NamedTuple):
    """What a trainer has recorded: of any network, of a student with a teacher, of a network that saw images alone."""

    training: Training
    distill: Distill | None
    pretraining: Pretraining | None


def read_summary(file: Path, kind: type[Training]) -> Summary:
    """Read the summary that a trainer has written beside its folder.

    Args:
        file: ``train/<role>.json``; also one of the version before records had a ``schema``, since a training may
            have ended in a session of that version, but its stage not.
        kind: Type of the record of a training.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        summary = upgraded_scores(json.loads(file.read_text(encoding="utf-8")))
        distill, pretraining = summary.pop("distill", None), summary.pop("pretraining", None)
        return Summary(
            kind.model_validate(summary),
            Distill.model_validate(distill) if distill else None,
            Pretraining.model_validate(pretraining) if pretraining else None,
        )
    except (OSError, ValueError, TypeError, AttributeError) as e:  # of the types, too: pydantic's is a ValueError
        raise UserError(
            f"{file} is damaged or missing ({reason(e)}); remove {file.with_suffix('')}, and that training is repeated "
            "on resume="
        ) from e
