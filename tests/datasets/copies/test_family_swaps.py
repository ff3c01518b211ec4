import numpy as np

from dfssd.datasets.copies.family_swaps import reunited


def together(parts, families, kinds=None):
    """``reunited`` for images of one kind each (their class, "a" if not given)."""
    kinds = kinds or {}

    def features(unit):
        return np.array([sum(kinds.get(i, "a") == kind for i in unit) for kind in "abc"])

    return reunited(parts, families, features)


def parts(labeled, val, test, unlabeled=()):
    units = {"train_labeled": labeled, "train_unlabeled": unlabeled, "val": val, "test": test}
    return {name: [[i] if isinstance(i, int) else list(i) for i in some] for name, some in units.items()}


def test_nothing_changes_where_no_family_is_torn():
    before = parts([0, 1, 2], [3, 4], [5, 6])
    assert together(before, [0, 0, 2, 3, 3, 5, 6]) == before


def test_a_torn_pair_meets_on_the_held_side_in_exchange_for_the_first_of_its_kind():
    families = [0, 1, 2, 3, 4, 2, 6, 7]  # 2 and 5 are turned copies
    kinds = {4: "b"}
    before = parts([0, 1, 2], [3], [4, 5, 6, 7])
    assert together(before, families, kinds) == parts([0, 1, 6], [3], [2, 4, 5, 7])


def test_a_family_of_val_and_train_meets_in_val():
    assert together(parts([0, 1], [2, 3], [4]), [0, 1, 0, 3, 4]) == parts([1, 3], [0, 2], [4])


def test_the_smaller_side_moves():
    families = [0, 0, 2, 3, 0, 5]  # 0 and 1 in train, 4 in test
    assert together(parts([0, 1, 2], [3], [4, 5]), families) == parts([0, 1, 4], [3], [2, 5])


def test_an_unlabeled_image_is_exchanged_for_one_that_becomes_unlabeled():
    before = parts([0], [1], [2, 3], unlabeled=[4, 5])
    assert together(before, [0, 1, 2, 3, 2, 5]) == parts([0], [1], [2, 4], unlabeled=[3, 5])


def test_units_of_several_images_change_places_with_units_of_their_size():
    before = parts([(0, 1), 2], [3], [4, 5, (6, 7), 8])
    families = [0, 0, 2, 3, 0, 5, 6, 6, 8]
    # one image is the smaller side: it comes to train, and the first single one of train goes
    assert together(before, families) == parts([(0, 1), 4], [3], [2, 5, (6, 7), 8])


def test_copies_within_val_and_test_do_not_matter():
    before = parts([0, 1], [2], [3])
    assert together(before, [0, 1, 2, 2]) == before


def test_without_a_partner_there_is_no_answer():
    assert together(parts([0, 1], [2], [3]), [0, 1, 2, 0], {3: "b", 0: "b"}) is None, "no other of its class"
    assert together(parts([0, 1], [2], [3, 4]), [0, 1, 2, 0, 1]) is None, "those left have families of their own"
