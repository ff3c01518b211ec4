"""Which images are worth a person's time: four reasons, and a choice that does not repeat itself.

Each image gets four numbers in [0, 1]:

* *disagreement*: 1 - prod(1 - d) over its boxes, d how much teacher and student disagree about one
  (:func:`~dfssd.review.proposals.disagreements`); 0 without a student,
* *uncertainty*: the largest closeness of a score to the threshold of its class
  (:func:`~dfssd.review.proposals.closeness`),
* *rarity*: the largest score of a box times 1 - n / N, with n labeled boxes of its class and N of the most frequent
  one,
* *novelty*: 1 - the similarity to the most similar image among those with labels and those chosen before, by perceptual
  hashes in eight poses: 1 for equal hashes, 0 from 16 different bits of 64 on.

The *value* is the mean of the first three times the last. Images are chosen one by one, the most valuable first; after
each choice its boxes count as labeled boxes, weighted by their scores, and it counts as seen: what the next one adds is
valued, not what it is alone. The first three weigh the same, since nothing measured says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dfssd.datasets.copies.index import HASH_BITS
from dfssd.review.proposals import BOTH, Proposals, closeness, disagreements
from dfssd.wording import counted

_NOTABLE = 0.3
"""Numbers from here on are named as a reason."""


@dataclass(frozen=True)
class Choice:
    """An image that was chosen, and why.

    Attributes:
        index: Its index.
        value: What it was chosen by.
        disagreement: See the top of this module, like the following.
        uncertainty: As above.
        rarity: As above, at the time of the choice.
        novelty: As above, at the time of the choice; None if it was not looked at.
        reason: The same for people.
    """

    index: int
    value: float
    disagreement: float
    uncertainty: float
    rarity: float
    novelty: float | None
    reason: str


class Ranking:
    """The unlabeled images of a run in the order in which a person should see them."""

    def __init__(
        self,
        found: Sequence[Proposals],
        names: Sequence[str],
        thresholds: np.ndarray,
        lowest: float,
        labeled_boxes: np.ndarray,
        *,
        student: bool,
    ):
        """Value the images.

        Args:
            found: Their boxes.
            names: Class names in id order.
            thresholds: (nc,) the score from which a box of each class is accepted.
            lowest: Score from which boxes are kept.
            labeled_boxes: (nc,) number of boxes of each class with labels.
            student: Whether a student has looked at the images, too.
        """
        self.found, self.names, self.thresholds, self.lowest = found, names, thresholds, lowest
        self.labeled_boxes = np.asarray(labeled_boxes, dtype=np.float64)
        self._doubts = [disagreements(own, lowest) if student else np.zeros(len(own)) for own in found]
        self._near = [closeness(own, thresholds, lowest) for own in found]
        self.disagreement = np.array([1 - np.prod(1 - d) for d in self._doubts])
        self.uncertainty = np.array([near.max(initial=0) for near in self._near])
        self._highest = np.zeros((len(found), len(names)))
        self._expected = np.zeros((len(found), len(names)))
        for i, own in enumerate(found):
            np.maximum.at(self._highest[i], own.classes, own.scores)
            np.add.at(self._expected[i], own.classes, own.scores)

    def most_valuable(self, n: int, hashes: np.ndarray, labeled: np.ndarray, rng: np.random.Generator) -> list[Choice]:
        """The ``n`` most valuable images, the most valuable first.

        Args:
            n: How many; all if there are fewer.
            hashes: (N, 8, 8) uint8, perceptual hashes of the images in eight poses, 8 bytes each.
            labeled: (M, 8, 8) those of the images with labels.
            rng: Decides between images of the same value.
        """
        similar = np.zeros(len(self.found))
        for seen in labeled:
            np.maximum(similar, _similarity(hashes, seen), out=similar)
        boxes = self.labeled_boxes.copy()
        left = np.ones(len(self.found), dtype=bool)
        tie = rng.random(len(self.found))
        chosen = []
        for _ in range(min(n, len(self.found))):
            rarity = self._rarity(boxes)
            value = (self.disagreement + self.uncertainty + rarity) / 3 * (1 - similar)
            pick = int(np.lexsort((tie, np.where(left, value, -1)))[-1])
            chosen.append(self._choice(pick, boxes, float(rarity[pick]), float(1 - similar[pick])))
            left[pick] = False
            boxes += self._expected[pick]
            np.maximum(similar, _similarity(hashes, hashes[pick]), out=similar)
        return chosen

    def drawn(self, n: int, rng: np.random.Generator) -> list[Choice]:
        """``n`` images drawn at random, with the values that they have on their own."""
        rarity = self._rarity(self.labeled_boxes)
        picks = rng.permutation(len(self.found))[:n].tolist()
        return [self._choice(pick, self.labeled_boxes, float(rarity[pick]), None) for pick in picks]

    def _rarity(self, boxes: np.ndarray) -> np.ndarray:
        rarity: np.ndarray = (self._highest * _rareness(boxes)).max(1, initial=0)
        return rarity

    def _choice(self, i: int, boxes: np.ndarray, rarity: float, novelty: float | None) -> Choice:
        disagreement, uncertainty = float(self.disagreement[i]), float(self.uncertainty[i])
        value = (disagreement + uncertainty + rarity) / 3 * (1 if novelty is None else novelty)
        return Choice(i, value, disagreement, uncertainty, rarity, novelty, self._reason(i, boxes, novelty))

    def _reason(self, i: int, boxes: np.ndarray, novelty: float | None) -> str:
        """Why a person should look at an image, in words."""
        found = self.found[i]
        if not len(found):
            return "no box found"
        parts = []
        doubt = int(self._doubts[i].argmax())
        if self._doubts[i][doubt] >= _NOTABLE:
            name, by = self.names[found.classes[doubt]], found.found_by[doubt]
            t, s = found.teacher[doubt], found.student[doubt]
            scores = f"teacher {t:.2f}, student {s:.2f}" if by == BOTH else f"only the {by}: {max(t, s):.2f}"
            parts.append(f"{name}: {scores}")
        elif self.disagreement[i] >= _NOTABLE:
            parts.append("teacher and student differ a little about many boxes")
        near = int(self._near[i].argmax())
        if self._near[i][near] >= _NOTABLE:
            class_id = found.classes[near]
            threshold = self.thresholds[class_id]
            parts.append(f"{self.names[class_id]} {found.scores[near]:.2f} is near its threshold {threshold:.2f}")
        rare = self._highest[i] * _rareness(boxes)
        if rare.max() >= _NOTABLE:
            class_id = int(rare.argmax())
            parts.append(
                f"{self.names[class_id]} is rare ({counted(int(self.labeled_boxes[class_id]), 'labeled box')})"
            )
        if novelty is not None and novelty <= 1 - _NOTABLE:
            parts.append("looks like another one")
        return "; ".join(parts) or "little doubt"


def _rareness(boxes: np.ndarray) -> np.ndarray:
    """(nc,) 1 - n / N for each class."""
    rareness: np.ndarray = 1 - boxes / max(boxes.max(initial=0), 1)
    return rareness


def _similarity(hashes: np.ndarray, one: np.ndarray) -> np.ndarray:
    """(N,) similarity of images, upright, to one image in any of its eight poses."""
    different = np.unpackbits(hashes[:, None, 0] ^ one[None], axis=2).sum(2, dtype=np.int64)
    similarity: np.ndarray = np.clip(1 - different.min(1) / HASH_BITS, 0, 1)
    return similarity
