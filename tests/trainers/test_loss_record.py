"""Losses are read in blocks; the means, and the batch of a loss that is not finite, are those of every batch."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dfssd.benchmark.operators import count_operators
from dfssd.trainers import loss_record
from dfssd.trainers.loss_record import LossRecord, RecordedLosses, heading


def losses(*values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in zip(("box", "cls"), values, strict=True)}


def test_means_are_those_of_all_batches_whenever_they_are_read() -> None:
    values = torch.rand(7, 2)
    record = LossRecord(read_every=3)
    for i, row in enumerate(values):
        record.add(losses(*row.tolist()))
        seen = (i + 1) // 3 * 3
        expected = values[:seen].double().mean(0) if seen else torch.zeros(2)
        assert list(record.means.values()) == pytest.approx(expected.tolist())
    record.read()
    assert list(record.means.values()) == pytest.approx(values.double().mean(0).tolist())
    assert record.batches == 7 and list(record.means) == ["box", "cls"]
    record.start_epoch()
    record.add(losses(1.0, 2.0))
    record.read()
    assert record.means == {"box": 1.0, "cls": 2.0}


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("at", "batches"), [(0, 1), (1, 3), (4, 5), (2, 8)])
def test_a_loss_that_is_not_finite_is_found_with_its_batch(value: float, at: int, batches: int) -> None:
    """Batches after the first bad one are bad as well, as in a training."""
    record = LossRecord(read_every=2)
    for i in range(batches):
        assert record.not_finite is None or i > at
        record.add(losses(1.0, value if i >= at else 0.5))
    record.read()
    assert record.not_finite == batches - 1 - at
    record.start_epoch()
    record.add(losses(1.0, 1.0))
    record.read()
    assert record.not_finite is None


def test_a_batch_takes_one_operator_and_no_wait() -> None:
    record = LossRecord()
    batch = losses(1.0, 2.0)
    record.add(batch)
    counted = count_operators(lambda: record.add(batch))
    assert (counted.launched, counted.waits) == (1, 0)


class Trainer(RecordedLosses):
    """The part of Ultralytics' loop that handles losses."""

    def __init__(self, batches: int):
        self.train_loader = range(batches)
        self.shown: list[dict[str, float]] = []

    def epoch(self, values: Tensor) -> None:
        self.tloss = None
        assert self.tloss is None
        for i, row in enumerate(values):
            self.loss_items = dict(zip(("box", "cls"), row, strict=True))
            self.tloss = (
                self.loss_items
                if self.tloss is None
                else {k: (self.tloss[k] * i + v) / (i + 1) for k, v in self.loss_items.items()}
            )
            self.shown.append({name: float(f"{value:.6g}") for name, value in self.tloss.items()})


def means(values: Tensor) -> dict[str, Any]:
    return {name: pytest.approx(float(value), rel=1e-5) for name, value in zip(("box", "cls"), values.double().mean(0))}


def test_ultralytics_loop_sees_the_means_of_every_batch_on_a_cpu() -> None:
    trainer, values = Trainer(6), torch.rand(6, 2)
    trainer.epoch(values)
    for i, shown in enumerate(trainer.shown):
        assert shown == means(values[: i + 1])
    trainer.epoch(2 * values)
    assert trainer.tloss == means(2 * values)
    assert trainer.loss_items is not None and torch.equal(trainer.loss_items["cls"], 2 * values[-1, 1])
    trainer.loss_items = trainer.tloss = None  # too large a batch
    assert trainer.tloss is None and trainer.loss_items is None


def test_means_are_numbers_to_callbacks() -> None:
    trainer = Trainer(3)
    trainer.epoch(torch.tensor([[1.0, 2.0]] * 3))
    box, cls = trainer.tloss["box"], trainer.tloss["cls"]
    assert (box + cls, cls * 3, cls / 4, 3 * cls + box, cls * 3 + box, sum((box, cls))) == (3, 6, 0.5, 7, 7, 3)


def test_elsewhere_the_host_looks_at_the_first_batch_at_blocks_and_at_the_last(monkeypatch) -> None:
    """A device other than the CPU, which only names itself differently."""
    monkeypatch.setattr(loss_record, "HOST", SimpleNamespace())
    trainer, values = Trainer(9), torch.rand(9, 2)
    trainer._losses = LossRecord(read_every=4)
    trainer.epoch(values)
    read = [1, 1, 1, 1, 5, 5, 5, 5, 9]
    assert trainer.shown == [means(values[:seen]) for seen in read]


def test_the_loop_launches_nothing_for_its_means() -> None:
    trainer, values = Trainer(5), torch.rand(5, 2)
    counted = count_operators(lambda: trainer.epoch(values))
    assert counted.waits == 0
    assert not {"aten.add.Tensor", "aten.div.Tensor", "aten.mul.Tensor"} & set(counted.by_name)


def test_heading_has_room_for_long_names() -> None:
    """Columns of 11, names folded behind underscores, or anywhere."""
    lines = heading(["Epoch", "box_loss", "response_cls", "abcdefghijklm"]).splitlines()
    assert lines == [
        "                        response_ abcdefghij",
        "      Epoch   box_loss        cls        klm",
    ]
    assert heading(["Epoch", "box_loss"]) == "      Epoch   box_loss"
