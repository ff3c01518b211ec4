import pytest

from dfssd.detection.forgetting import forgetting, mean_over
from dfssd.results.sections import BoxScores, ClassScores, Curve

NAMES = ("a", "b", "c", "d", "e", "f")


def test_measures_by_hand() -> None:
    def test_of(*values: float | None) -> BoxScores:
        unused = {"precision": None, "recall": None, "instances": 1}
        per_class = {
            name: ClassScores(ap50=value, ap50_95=value and value / 2, **unused)
            for name, value in zip(NAMES, values, strict=True)
        }
        means = dict.fromkeys(("map50", "map50_95", "precision", "recall", "confidence"))
        return BoxScores(**means, per_class=per_class, pr_curve=Curve(recall=(), precision=()), images=1, instances=6)

    test = {"teacher": test_of(0.8, 0.6, None, 0, 0, 0), "student": test_of(0.6, 0.5, None, 0.9, 0.7, 0.8)}
    found = forgetting(test, NAMES, 3)
    assert found.map_old == pytest.approx(0.55) and found.map_new == pytest.approx(0.8)
    assert found.map_all == pytest.approx((2 * 0.55 + 3 * 0.8) / 5)
    assert found.map_old_before == pytest.approx(0.7) and found.forgetting == pytest.approx(0.15)
    for key in ("old", "new", "all", "old_before"):
        assert getattr(found, f"map50_95_{key}") == pytest.approx(getattr(found, f"map_{key}") / 2)
    assert found.map50_95_forgetting == pytest.approx(0.075)
    assert mean_over(test["student"], ["c"]) is None
