import numpy as np
import pytest

from dfssd.datasets.copies import index
from dfssd.datasets.copies.duplicates import join_pairs
from dfssd.datasets.copies.fingerprints import Fingerprints
from dfssd.datasets.copies.index import HASH_BITS, MOST_CANDIDATES, candidates


def prints_of(hashes, posed=None):
    """Fingerprints with these upright hashes (n, 8), 0 in the other poses, and spectral prints that all agree."""
    n = len(hashes)
    everything = np.zeros((n, 8, 8), np.uint8)
    everything[:, 0] = hashes
    for pose, values in (posed or {}).items():
        everything[:, pose] = values
    digests = np.arange(n, dtype=np.int64).view("V8")
    return Fingerprints(digests, everything, np.full((n, 64), 255, np.uint8))


def random_hashes(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 8), dtype=np.uint8)


def flipped(hashes, bits, seed=0):
    """Hashes with exactly ``bits`` other bits each."""
    rng = np.random.default_rng(seed)
    table = np.unpackbits(hashes, axis=1)
    for row in table:
        row[rng.choice(64, bits, replace=False)] ^= 1
    return np.packbits(table, axis=1)


def by_hand(hashes, queries, most=MOST_CANDIDATES):
    """The candidates of each image, by comparing all pairs."""
    a, b = (np.unpackbits(side, axis=1).astype(int) for side in (queries, hashes))
    found = []
    for i in range(len(hashes)):
        distance = (a[i] != b).sum(1)
        later = [j for j in range(i + 1, len(hashes)) if distance[j] <= HASH_BITS]
        found.append(sorted(later, key=lambda j: (distance[j], j))[:most])
    return found


@pytest.fixture(params=["all pairs", "graph"])
def way(request, monkeypatch):
    """Each of the two ways to look for candidates."""
    monkeypatch.setattr(index, "EXACT", 0 if request.param == "graph" else 10**9)
    return request.param


def test_nearest_later_images_are_found_nearest_first(way):
    order = np.random.default_rng(1).permutation(360)
    hashes = np.concatenate([flipped(np.repeat(random_hashes(6), 20, axis=0), 3, seed) for seed in range(3)])[order]
    found = [[j for j, _ in others] for others in candidates(prints_of(hashes), (0,))]
    expected = by_hand(hashes, hashes)
    assert max(map(len, expected)) == MOST_CANDIDATES
    if way == "all pairs":
        assert found == expected
    else:
        # Earlier images are among them, and the order of entries that are as near is that of the graph.
        every = by_hand(hashes, hashes, most=None)
        assert all(j in every[i] or i in every[j] for i, others in enumerate(found) for j in others)
        centers = order // 20 % 6
        joined = join_pairs(360, ((i, j) for i, others in enumerate(found) for j in others))
        assert {(centers[i], center) for i, center in enumerate(joined)} == {
            (center, int(np.flatnonzero(centers == center)[0])) for center in range(6)
        }


@pytest.mark.parametrize(("bits", "near"), [(0, True), (HASH_BITS, True), (HASH_BITS + 1, False)])
def test_hashes_are_near_up_to_16_bits(way, bits, near):
    hashes = random_hashes(300)
    hashes[299] = flipped(hashes[7:8], bits)
    found = list(candidates(prints_of(hashes), (0,)))
    assert ((299, 0) in found[7]) is near
    assert len(found) == 300


def test_turned_images_are_found_in_their_pose(way):
    hashes = random_hashes(200)
    posed = random_hashes(200, seed=1)
    hashes[150] = flipped(posed[20:21], 2)
    found = list(candidates(prints_of(hashes, {5: posed}), (0, 5)))
    assert found[20] == [(150, 5)]
    assert (150, 0) not in list(candidates(prints_of(hashes, {5: posed}), (0,)))[20]


def test_spectral_prints_exclude_candidates(way):
    hashes = np.repeat(random_hashes(1), 5, axis=0)
    prints = prints_of(hashes)
    prints.spectral[2] = 170
    found = [{j for j, _ in others} for others in candidates(prints, (0,))]
    if way == "all pairs":
        assert found == [{1, 3, 4}, {3, 4}, set(), {4}, set()]
    else:
        assert found == [{1, 3, 4}, {0, 3, 4}, set(), {0, 1, 4}, {0, 1, 3}]


def test_equal_hashes_take_a_bounded_number_of_candidates(way):
    prints = prints_of(np.repeat(random_hashes(1), 3000, axis=0))
    found = list(candidates(prints, (0,)))
    assert found[0] == [(j, 0) for j in range(1, MOST_CANDIDATES + 1)]
    assert found[1500] == [(j, 0) for j in range(1501, 1501 + MOST_CANDIDATES)]
    assert found[2999] == ([] if way == "all pairs" else [(j, 0) for j in range(2970, 2999)])
    assert all(len(others) <= MOST_CANDIDATES for others in found)


def test_none_and_one(way):
    assert list(candidates(prints_of(random_hashes(0)), range(8))) == []
    assert list(candidates(prints_of(random_hashes(1)), range(8))) == [[]]


def test_the_graph_finds_copies_among_many_and_the_same_ones_each_time(monkeypatch):
    monkeypatch.setattr(index, "EXACT", 0)
    hashes = random_hashes(20_000)
    hashes[10_000:] = flipped(hashes[:10_000], 4)
    found = list(candidates(prints_of(hashes), (0,)))
    assert sum((i + 10_000, 0) in found[i] or (i, 0) in found[i + 10_000] for i in range(10_000)) >= 9_990
    assert list(candidates(prints_of(hashes), (0,))) == found
