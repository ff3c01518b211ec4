"""The health meter: hand-worked numbers, nothing to divide by, the line for the log."""

from __future__ import annotations

import json
import math

import numpy as np
import torch

from dfssd.pseudo_labels.meter import HealthMeter


def filled() -> HealthMeter:
    meter = HealthMeter(["pit", "dent"])
    meter.update(
        images=2, classes=np.array([0.0, 0.0, 0.0]), scores=np.array([0.5, 0.7, 0.9]), ignored=1, agreed=3, sure=4
    )
    meter.update(images=2, classes=np.zeros(0), scores=np.zeros(0), ignored=2, agreed=0, sure=0)
    return meter


def test_numbers_by_hand() -> None:
    numbers = filled().summary()
    assert numbers["accepted"] == 0.75 and numbers["ignored"] == 0.75
    assert math.isclose(numbers["score"], 0.7) and numbers["agreement"] == 0.75
    assert numbers["class/pit"] == 0.75 and numbers["class/dent"] == 0
    assert math.isnan(numbers["precision"]) and math.isnan(numbers["recall"])


def test_comparison_with_truth_by_hand() -> None:
    """Image 0: one right, one wrong class, one true box missed. Image 1: unknown truth, not judged."""
    meter = HealthMeter(["pit", "dent"])
    boxes = np.array(
        [[0.3, 0.3, 0.2, 0.2, 0.9, 0, 0], [0.7, 0.7, 0.2, 0.2, 0.8, 1, 0], [0.5, 0.5, 0.1, 0.1, 0.7, 0, 1]]
    )
    truth = np.array([[0.3, 0.31, 0.2, 0.2, 1, 0, 0], [0.7, 0.7, 0.2, 0.2, 1, 0, 0], [0.1, 0.1, 0.1, 0.1, 1, 1, 0]])
    meter.update(images=2, classes=boxes[:, 5], scores=boxes[:, 4], ignored=0, agreed=0, sure=0)
    meter.compare(boxes, truth)
    numbers = meter.summary()
    assert numbers["precision"] == 1 / 2 and numbers["recall"] == 1 / 3


def test_keys_never_change_and_fit_json() -> None:
    empty, full = HealthMeter(["pit", "dent"]), filled()
    assert list(empty.summary()) == list(full.summary())
    assert json.loads(json.dumps(empty.record(), allow_nan=False))["accepted"] is None
    full.reset()
    assert str(full.summary()) == str(empty.summary())


def test_counts_on_a_device_add_up_to_the_same_numbers() -> None:
    counted, plain = (HealthMeter(["pit", "dent"]) for _ in range(2))
    for agreed, sure in ((3, 4), (2**24, 2**24 + 1)):  # exact beyond what fp32 can count
        batch = {"images": 1, "classes": np.zeros(1), "scores": np.ones(1), "ignored": 0}
        counted.update(**batch, agreed=torch.tensor(agreed), sure=torch.tensor(sure))
        plain.update(**batch, agreed=agreed, sure=sure)
    assert counted.summary()["agreement"] == plain.summary()["agreement"] == (2**24 + 3) / (2**24 + 5)


def test_line_names_starved_classes() -> None:
    assert "none of: dent" in filled().line() and "0.75 accepted" in filled().line()
    assert "no unlabeled image" in HealthMeter(["pit"]).line()
