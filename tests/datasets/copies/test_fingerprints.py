import hashlib
import io

import imagehash
import numpy as np
import pytest
from PIL import Image

from dfssd.datasets.copies.fingerprints import FINGERPRINT_BYTES, Fingerprints, can_be_copies, describe, turned_prints
from dfssd.datasets.copies.grain import SIDE, poses
from dfssd.datasets.drawings import draw_image
from dfssd.errors import UserError


def texture(seed, size=200):
    return draw_image(np.random.default_rng(seed), size)[0]


def described(tmp_path, *images, quality=None):
    files = []
    for i, image in enumerate(images):
        files.append(tmp_path / f"{i}.{'jpg' if quality else 'png'}")
        Image.fromarray(np.ascontiguousarray(image)).save(files[-1], **({"quality": quality} if quality else {}))
    return Fingerprints.of(describe(file) for file in files)


def different(a, b):
    return int(np.unpackbits(a ^ b).sum())


def test_the_fingerprint_depends_on_the_content_alone(tmp_path):
    Image.fromarray(texture(0)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.png").read_bytes())
    assert describe(tmp_path / "a.png") == describe(tmp_path / "b.jpg")
    assert len(describe(tmp_path / "a.png")) == FINGERPRINT_BYTES == 141
    digest = hashlib.sha1((tmp_path / "a.png").read_bytes()).digest()
    assert Fingerprints.of([describe(tmp_path / "a.png")]).digests[0].tobytes() == digest


@pytest.mark.parametrize("shape", [(200, 200), (120, 200)])
def test_hashes_are_those_of_imagehash_in_each_pose(tmp_path, shape):
    image = texture(1)[: shape[0], : shape[1]]
    prints = described(tmp_path, image)
    small = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.LANCZOS))
    for pose, turned in enumerate(poses(small)):
        expected = imagehash.phash(Image.fromarray(np.ascontiguousarray(turned))).hash
        assert np.array_equal(np.unpackbits(prints.hashes[0, pose]), expected.ravel()), pose
    assert np.array_equal(np.unpackbits(prints.hashes[0, 0]), imagehash.phash(Image.fromarray(image)).hash.ravel())


def test_fingerprints_of_turned_images_are_turned_fingerprints(tmp_path):
    image = texture(2, SIDE)
    prints = described(tmp_path, *poses(image))
    for pose in range(8):
        assert different(prints.hashes[0, pose], prints.hashes[pose, 0]) <= 2
        turned = turned_prints(prints.spectral[:1], pose)
        assert different(turned, prints.spectral[pose]) <= 4
        others = [p for p in range(8) if p != pose]
        assert min(different(prints.hashes[0, p], prints.hashes[pose, 0]) for p in others) > 8


def test_a_shift_does_not_change_the_spectral_print_and_another_image_does(tmp_path):
    image = np.random.default_rng(0).normal(128, 20, (SIDE, SIDE)).clip(0, 255).astype(np.uint8)
    other = np.random.default_rng(1).normal(128, 20, (SIDE, SIDE)).clip(0, 255).astype(np.uint8)
    prints = described(tmp_path, image, np.roll(image, (20, -11), (0, 1)), other)
    assert different(prints.spectral[0], prints.spectral[1]) < 40  # of 450; the grain at the border differs
    assert 180 < different(prints.spectral[0], prints.spectral[2]) < 270
    first = prints.spectral[[0, 0, 0]]
    assert can_be_copies(first, prints.spectral).tolist() == [True, True, False]


def test_lossy_copies_can_be_copies_and_other_images_mostly_not(tmp_path):
    images = [texture(seed) for seed in range(30)]
    (tmp_path / "lossy").mkdir()
    prints, lossy = described(tmp_path, *images), described(tmp_path / "lossy", *images, quality=50)
    assert can_be_copies(prints.spectral, lossy.spectral).all()
    assert can_be_copies(prints.spectral, np.roll(lossy.spectral, 1, axis=0)).sum() <= 1


def test_flat_images_cannot_be_copies(tmp_path):
    prints = described(tmp_path, *(np.full((64, 64), gray, np.uint8) for gray in (100, 101)))
    assert not prints.spectral.any()
    assert can_be_copies(prints.spectral, prints.spectral[::-1]).tolist() == [False, False]


def test_equal_files_are_told_by_their_first(tmp_path):
    prints = described(tmp_path, *(texture(seed, 64) for seed in (5, 3, 5, 4, 3)))
    assert prints.first_alike().tolist() == [0, 1, 0, 3, 1]
    assert len(prints.subset(np.array([0, 1, 3]))) == 3
    assert Fingerprints.of([]).first_alike().tolist() == []


def test_a_damaged_file_is_named(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(texture(0)).save(stream, "PNG")
    (tmp_path / "cut.png").write_bytes(stream.getvalue()[:40])
    with pytest.raises(UserError, match=r"cut\.png: cannot be decoded"):
        describe(tmp_path / "cut.png")
    with pytest.raises(UserError, match=r"gone\.png: cannot be read"):
        describe(tmp_path / "gone.png")
