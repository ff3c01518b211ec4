from __future__ import annotations

import pytest

from dfssd.errors import UserError
from dfssd.trainers.watch import TermSignals, check_teacher, gradient_shares, no_gradient, not_finite


def test_a_term_is_dead_only_after_so_many_batches_that_apply_to_it():
    terms = TermSignals()
    for alive in (False, False):
        terms.add("fgd", alive=alive)
    terms.add("ld", alive=False)
    for alive in (False, True, False):
        terms.add("cwd", alive=alive)
    assert terms.names == ["cwd"] and terms.most_batches == 3
    assert terms.dead(2) == ["fgd"], "ld has had one batch, cwd has given a gradient once, which is enough"
    assert terms.dead(1) == ["fgd", "ld"] and terms.dead(3) == []
    assert terms.batches("cwd") == 3 and terms.batches("never seen") == 0


def test_no_term_at_all_is_not_dead():
    assert TermSignals().dead(0) == [] and TermSignals().most_batches == 0


def test_shares_add_up_to_one_unless_nothing_moves():
    assert gradient_shares({"a": 3.0, "b": 1.0}) == {"a": 0.75, "b": 0.25}
    assert gradient_shares({"a": 0.0, "b": 0.0}) == {"a": 0.0, "b": 0.0}
    assert gradient_shares({}) == {}


def test_messages():
    assert str(not_finite("the kd loss", 0, "lr0")) == "self-test: the kd loss is not finite in epoch 1; lower lr0"
    assert str(no_gradient(["fgd", "ld"], 3, "set the weight to 0")) == (
        "self-test: fgd, ld gave the student no gradient in the first 3 batches; check that the teacher is trained, or "
        "set the weight to 0"
    )


def test_a_moved_teacher_is_recorded_and_stops():
    result: dict = {}
    check_teacher(result, unchanged=True)
    assert result == {"teacher_unchanged": True}
    with pytest.raises(UserError, match="the teacher's weights changed during training"):
        check_teacher(result, unchanged=False)
    assert result == {"teacher_unchanged": False}
