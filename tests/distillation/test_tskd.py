"""TSKD on a pair: every part counts, and the boxes are those of this step."""

from __future__ import annotations

import pytest
import torch

from tests.configured import pair as build_pair
from tests.distillation.test_crd import trained
from tests.distillation.test_pair import labeler, make_batch, make_pair, model, without_boxes

TSKD = ("crd_cls", "crd_dfl", "crd_giou", "ded", "ded_structure", "drd_pixel", "drd_instance")


@pytest.mark.parametrize("name", TSKD)
def test_every_weight_of_tskd_changes_the_total(name: str) -> None:
    """The published code lost two of its three parts to a line break and multiplied the third by nothing."""
    batch, totals = make_batch([True, False]), []
    for weight in (1.0, 3.0):
        torch.manual_seed(0)
        terms = {n: {"weight": weight if n == name else 1.0, "schedule": "constant"} for n in TSKD}
        teacher, student = trained(model("yolov8s.yaml")), trained(model("yolov8n.yaml"))
        pair = build_pair(teacher, student, terms=terms).train()
        vector, items = pair(batch)
        value = float(pair.values[name])
        assert value > 0 and vector[list(items).index(name)].item() == pytest.approx(2 * weight * value, rel=1e-5)
        totals.append((vector.double().sum().item(), value))
    (one, value), (three, again) = totals
    assert again == pytest.approx(value, rel=1e-3)
    assert three - one == pytest.approx(2 * 2 * value, rel=1e-2)


@pytest.mark.parametrize("name", ["ded", "drd_instance", "ld"])
def test_terms_with_boxes_see_those_that_were_accepted_in_this_step(name: str) -> None:
    batch = without_boxes(make_batch([False, False]), [0, 1])
    terms = {name: {"weight": 1.0, "schedule": "constant"}}
    values = {}
    for accepts in (True, False):
        rule = {} if accepts else {"tau_low": 0.999, "tau0": 0.999, "tau_max": 0.999}
        pair = make_pair(terms=terms, labeler=labeler(**rule))
        pair(batch)
        assert (pair.boxes > 0) is accepts
        values[accepts] = float(pair.values[name])
    if name == "ded":  # it also knows the background, but nothing of an image that is ignored as a whole
        assert values[True] > 0
    else:
        assert values[True] > 0 and values[False] == 0
