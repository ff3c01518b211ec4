import pytest

from dfssd.evaluation.forgetting import forgetting, mean_over

NAMES = ("a", "b", "c", "d", "e", "f")


def test_measures_by_hand() -> None:
    def test_of(*values: float | None) -> dict:
        return {"per_class": {n: {"ap50": v, "ap50_95": v and v / 2} for n, v in zip(NAMES, values, strict=True)}}

    test = {"teacher": test_of(0.8, 0.6, None, 0, 0, 0), "student": test_of(0.6, 0.5, None, 0.9, 0.7, 0.8)}
    found = forgetting(test, NAMES, 3)
    assert found["map_old"] == pytest.approx(0.55) and found["map_new"] == pytest.approx(0.8)
    assert found["map_all"] == pytest.approx((2 * 0.55 + 3 * 0.8) / 5)
    assert found["map_old_before"] == pytest.approx(0.7) and found["forgetting"] == pytest.approx(0.15)
    for key in ("old", "new", "all", "old_before"):
        assert found[f"map50_95_{key}"] == pytest.approx(found[f"map_{key}"] / 2)
    assert found["map50_95_forgetting"] == pytest.approx(0.075)
    assert mean_over(test["student"], ["c"]) is None
