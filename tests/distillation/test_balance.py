"""balance=auto: weights from gradients, worked out by hand and measured on a pair."""

from __future__ import annotations

import pytest
import torch

from dfssd.distillation.balance import DECAY, EVERY, MOST, SETTLE, GradientBalance, is_due
from tests.configured import pair as build_pair
from tests.distillation.test_pair import make_batch, model

TERMS = {
    "cwd": {"weight": 1.0, "schedule": "constant", "share": 0.1},
    "mimic": {"weight": 1.0, "schedule": "constant", "share": 0.3},
}


def test_weight_gives_the_share() -> None:
    balance = GradientBalance({"a": 1.0}, {"a": 0.25})
    assert balance.weight("a") == 1.0, "the configured one until there is a measurement"
    balance.update({"det": 8.0, "a": 4.0})
    assert balance.weight("a") == pytest.approx(0.25 * 8 / 4)


def test_measurements_are_smoothed_as_geometric_means() -> None:
    balance = GradientBalance({"a": 1.0}, {"a": 1.0})
    for norm in (7.0, 0.3, 1.0)[:SETTLE]:  # those of an untrained network: each replaces the one before
        balance.update({"det": 1.0, "a": norm})
    assert balance.weight("a") == pytest.approx(1.0)
    balance.update({"det": 1.0, "a": 100.0})
    assert 1 / balance.weight("a") == pytest.approx(100 ** (1 - DECAY))


def test_early_batches_are_measured_more_often() -> None:
    due = [step for step in range(3 * EVERY) if is_due(step)]
    assert due[:3] == [0, 1, 2] and due[-2:] == [EVERY, 2 * EVERY] and 5 < len(due) < 12


def test_silence_is_no_evidence_and_is_not_shouted() -> None:
    balance = GradientBalance({"a": 0.5}, {"a": 1.0})
    balance.update({"det": 1.0, "a": 1.0})
    balance.update({"det": 1.0, "a": 0.0})
    balance.update({"det": 1.0, "a": float("nan")})
    assert balance.weight("a") == pytest.approx(1) and balance.held_back() == []
    quiet = GradientBalance({"a": 0.5}, {"a": 1.0})
    quiet.update({"det": 1.0, "a": 1e-9})
    assert quiet.weight("a") == pytest.approx(MOST * 0.5) and quiet.held_back() == ["a"]


def test_state_goes_on() -> None:
    balance, other = (GradientBalance({"a": 1.0}, {"a": 0.25}) for _ in range(2))
    for _ in range(SETTLE):
        balance.update({"det": 8.0, "a": 4.0})
    other.load_state_dict(balance.state_dict())
    assert other.weight("a") == balance.weight("a")
    for b in (balance, other):
        b.update({"det": 8.0, "a": 1.0})
    assert other.weight("a") == balance.weight("a") < 2.0, "it does not begin anew"


def test_terms_get_their_share_of_the_gradient_whatever_their_scale() -> None:
    batch = make_batch([True, True, False])
    for scale in (1.0, 1000.0):
        terms = {name: {**options, "weight": scale} for name, options in TERMS.items()}
        pair = build_pair(model("yolov8s.yaml"), model("yolov8n.yaml"), terms=terms, balance=True).train()
        pair.probe = True
        _, items = pair(batch)
        for name, options in TERMS.items():
            assert pair.gradients[name] / pair.gradients["det"] == pytest.approx(options["share"], rel=1e-3)
            assert items[name].item() == pytest.approx(pair.weight(name) * float(pair.values[name]), rel=1e-4)
        pair.probe = False
        weights = [pair.weight(name) for name in TERMS]
        pair({**batch, "img": torch.rand_like(batch["img"])})
        assert [pair.weight(name) for name in TERMS] == weights, "they move with a measurement only"


def test_fixed_weights_stay_whatever_is_measured() -> None:
    pair = build_pair(model("yolov8s.yaml"), model("yolov8n.yaml"), terms=TERMS).train()
    pair.probe = True
    _, items = pair(make_batch([True, False]))
    assert pair.balance is None and all(pair.weight(name) == 1.0 for name in TERMS)
    assert items["cwd"].item() == pytest.approx(float(pair.values["cwd"]))


def test_schedule_and_trust_act_on_top() -> None:
    pair = build_pair(
        model("yolov8s.yaml"),
        model("yolov8n.yaml"),
        terms={"cwd": {**TERMS["cwd"], "schedule": "cosine"}},
        balance=True,
    ).train()
    pair.probe, pair.trust = True, 0.25
    pair.set_progress(50, 100, 10)
    pair(make_batch([True, False]))
    assert pair.gradients["cwd"] / pair.gradients["det"] == pytest.approx(0.1 * 0.25 * 0.55, rel=1e-3)


def test_probes_measure_what_the_backward_pass_does_under_autocast() -> None:
    """The gradients of a training step, up to the rounding of bf16: a probe scales them by another factor."""
    terms = {name: {**options, "weight": 0.7} for name, options in TERMS.items()}
    pair = build_pair(model("yolov8s.yaml"), model("yolov8n.yaml"), terms=terms).train()
    pair.probe = True
    with torch.autocast("cpu", torch.bfloat16):
        vector, items = pair(make_batch([True, False]))
    parameters = [p for p in pair.student_model.parameters() if p.requires_grad]
    for name in TERMS:
        loss = vector[list(items).index(name)]
        grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        norm = torch.stack([g.float().norm() for g in grads if g is not None]).norm()
        assert pair.gradients[name] == pytest.approx(float(norm), rel=1e-2)
