"""The search for keys that nobody reads finds them."""

from __future__ import annotations

import pytest

from dfssd.config import KEYS, Config, defaults
from dfssd.config.arguments import argument
from dfssd.trainers.settings import StageSettings
from tests.configured import labels_alone
from tests.key_reads import Reads, dead_keys, other_values, recorded_reads

LINE = ["recipe=baseline", "data=demo", "student=yolov8n.yaml"]


def test_key_that_nobody_reads_is_found() -> None:
    reads = Reads()
    reads.update(other_values())
    reads.update(f"ultralytics {name}" for name in other_values())
    assert dead_keys(LINE, reads) == []
    reads -= {"labeled", "ultralytics mosaic", "strong_view"}  # the last one is refused in any case
    reads.discard("mosaic")
    assert dead_keys(LINE, reads) == ["labeled", "mosaic"]
    reads.kinds.add(StageSettings)
    assert "val_every" in dead_keys(LINE, reads), "handed to the training, which does not read it"


def test_reads_are_recorded_where_values_are_used_alone() -> None:
    with recorded_reads() as reads:
        config = Config(defaults(), {}, {"epochs": 3})
        seen = config["labeled"], config.epochs, config.section("preprocess"), config.pseudo
        labels_alone(3)
    assert seen[:2] == (1.0, 3) and {"labeled", "epochs", "preprocess.clahe"} <= reads
    assert "pseudo.tau0" not in reads and not reads.kinds, "the section was made, and no field of it used"


@pytest.mark.parametrize("name", sorted(other_values()))
def test_other_values_are_allowed(name: str) -> None:
    check = KEYS[name].check if name in KEYS else argument(name).check
    assert check is None or check.problem(other_values()[name]) is None
