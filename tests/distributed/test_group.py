"""What processes tell each other; here of one that is alone. :mod:`tests.distributed.test_joint_batch` has two."""

from __future__ import annotations

import numpy as np
import torch

from dfssd.distributed import group


def test_alone_each_function_gives_back_what_it_gets() -> None:
    assert not group.several() and group.rank() == 0 and group.world() == 1 and group.is_first()
    assert group.total(np.array([1, 2])).tolist() == [1.0, 2.0]
    assert group.from_first("x") == "x"
    own = torch.tensor([2.0, 3.0], requires_grad=True)
    assert group.mean_of(own).tolist() == [2.0, 3.0] and not group.mean_of(own).requires_grad
    group.wait_for_all()
    with group.together():
        assert not group.several()


def test_normalizer_is_at_least_one_or_as_given() -> None:
    sums = torch.tensor([0.0, 0.5, 7.0])
    assert group.normalizer(sums).tolist() == [1.0, 1.0, 7.0]
    assert group.normalizer(sums, 4).tolist() == [4.0, 4.0, 7.0]
