"""The order of the images: values by hand, and a choice that does not repeat itself."""

from __future__ import annotations

import numpy as np
import pytest

from dfssd.review.proposals import Proposals, proposals
from dfssd.review.ranking import Ranking
from tests.review.material import Box, found, hashes

PLACE = (0.5, 0.5, 0.2, 0.4)
NAMES = ("pit", "scratch")
RNG = np.random.default_rng


def ranking(*images: Proposals, labeled: tuple[float, float] = (10, 10), student: bool = True) -> Ranking:
    return Ranking(images, NAMES, np.array([0.3, 0.3]), 0.1, np.array(labeled), student=student)


def pair(teacher: Box | None, student: Box | None) -> Proposals:
    return proposals(found(*[teacher] if teacher else []), found(*[student] if student else []))


def order(own: Ranking, *first_bytes: list[int], n: int = 9, labeled: tuple[list[int], ...] = ()) -> list[int]:
    seen = hashes(*labeled) if labeled else np.zeros((0, 8, 8), np.uint8)
    return [choice.index for choice in own.most_valuable(n, hashes(*first_bytes), seen, RNG(0))]


SURE, ALONE = pair((0, 0.99, PLACE), (0, 0.99, PLACE)), pair(None, (0, 0.9, PLACE))
DOUBTFUL = pair((0, 0.3, PLACE), None)
APART: list[list[int]] = [[255, 255], [0, 0, 255, 255], [0, 0, 0, 0, 255, 255], [0] * 6 + [255, 255]]


def test_value_by_hand() -> None:
    """Disagreement (0.9 - 0.1) / 0.9, closeness 1 - 0.6 / 0.7, rarity 0.9 (1 - 5 / 10), their mean, nothing alike."""
    own = ranking(ALONE, labeled=(5, 10))
    [choice] = own.most_valuable(1, hashes(APART[0]), np.zeros((0, 8, 8), np.uint8), RNG(0))
    assert choice.disagreement == pytest.approx(8 / 9) and choice.uncertainty == pytest.approx(1 / 7)
    assert choice.rarity == pytest.approx(0.45) and choice.novelty == 1
    assert choice.value == pytest.approx((8 / 9 + 1 / 7 + 0.45) / 3)
    assert choice.reason == "pit: only the student: 0.90; pit is rare (5 labeled boxes)"


def test_doubt_comes_before_certainty() -> None:
    assert order(ranking(SURE, ALONE, DOUBTFUL), *APART[:3])[-1] == 0


def test_several_doubtful_boxes_count_more_than_one() -> None:
    two = proposals(found(), found((0, 0.55, PLACE), (1, 0.55, PLACE)))
    own = ranking(two, pair(None, (0, 0.55, PLACE)))
    assert own.disagreement == pytest.approx([0.75, 0.5], abs=1e-6)


def test_many_small_doubts_are_a_reason() -> None:
    """Four boxes about which the scores differ by 0.2 each, none of them near the threshold: 1 - 0.8 to the fourth."""
    places = [(0.1 + 0.25 * i, 0.5, 0.1, 0.4) for i in range(4)]
    own = ranking(proposals(found(*((0, 0.98, at) for at in places)), found(*((0, 0.78, at) for at in places))))
    [choice] = own.drawn(1, RNG(0))
    assert choice.disagreement == pytest.approx(1 - 0.8**4, abs=1e-5)
    assert choice.reason == "teacher and student differ a little about many boxes"


def test_without_a_student_nobody_disagrees() -> None:
    own = ranking(proposals(found((0, 0.9, PLACE)), None), student=False)
    assert own.disagreement.tolist() == [0]


def test_a_rare_class_comes_first() -> None:
    pit, scratch = pair((0, 0.6, PLACE), (0, 0.6, PLACE)), pair((1, 0.6, PLACE), (1, 0.6, PLACE))
    assert order(ranking(pit, scratch, labeled=(100, 3)), *APART[:2]) == [1, 0]
    assert order(ranking(pit, scratch, labeled=(3, 100)), *APART[:2]) == [0, 1]


def test_a_class_that_was_chosen_is_rare_no_more() -> None:
    """Both images of the rare class would come first; after one of them both classes are equally frequent."""
    pit, scratch, other = pair((0, 1.0, PLACE), (0, 1.0, PLACE)), pair((1, 1.0, PLACE), (1, 1.0, PLACE)), ALONE
    chosen = order(ranking(scratch, scratch, pit, other, labeled=(1, 0)), *APART, n=2)
    assert chosen[0] == 3 and chosen[1] in (0, 1)
    assert order(ranking(scratch, scratch, labeled=(1, 0)), *APART[:2], n=1)[0] in (0, 1)


def test_images_that_look_alike_are_not_both_at_the_top() -> None:
    """The second of two equal images, and the one that looks like a labeled one, come after one without much doubt."""
    chosen = order(ranking(ALONE, ALONE, SURE), [1], [1], APART[1])
    assert set(chosen[::2]) == {0, 1} and chosen[1] == 2
    assert order(ranking(ALONE, SURE), [1], APART[1], labeled=([1],)) == [1, 0]


def test_a_turned_copy_looks_alike() -> None:
    turned = hashes([0], [0])
    turned[1, :, :4] = 255
    turned[1, 3] = 0  # in its fourth pose it is the first image
    own = ranking(ALONE, ALONE, SURE)
    prints = np.concatenate([turned, hashes(APART[3])])
    prints[0] = hashes([0])[0]
    chosen = own.most_valuable(3, prints, prints[1:2], RNG(0))
    assert [choice.novelty for choice in chosen if choice.index == 0] == [0]


def test_equal_values_are_ordered_by_the_seed_alone() -> None:
    empty = [proposals(found(), found()) for _ in range(20)]
    own, prints = ranking(*empty), hashes(*[[255 * (i % 2), i] for i in range(20)])
    nobody = np.zeros((0, 8, 8), np.uint8)
    chosen = [[c.index for c in own.most_valuable(5, prints, nobody, RNG(seed))] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2] and chosen[0] != [0, 1, 2, 3, 4]


def test_a_draw_looks_at_no_value() -> None:
    own = ranking(*[SURE] * 50, *[ALONE] * 50)
    drawn = [choice.index for choice in own.drawn(40, RNG(3))]
    assert len(set(drawn)) == 40 and 8 <= sum(i < 50 for i in drawn) <= 32
    assert drawn == [choice.index for choice in own.drawn(40, RNG(3))]
    assert drawn != [choice.index for choice in own.drawn(40, RNG(4))]


def test_more_than_there_are() -> None:
    own = ranking(SURE, ALONE)
    assert len(order(own, *APART[:2])) == 2 and len(own.drawn(9, RNG(0))) == 2
