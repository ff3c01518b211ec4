"""Ultralytics reads from every plain file what we read, and its check leaves the file alone."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from ultralytics.data.utils import IMG_FORMATS, check_image
from ultralytics.utils import patches
from ultralytics.utils.patches import imread

from dfssd.datasets.images.headers import MOST_PIXELS
from dfssd.datasets.images.pixels import SMALLEST, probe, read_pixels, suffix_for_training, write_plain
from tests.datasets.image_kinds import blocks, readable, saved

NAMES = list(readable())


def put(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("name", NAMES)
def test_plain_files_are_read_as_they_are(tmp_path, name):
    data = readable()[name]
    facts = probe(put(tmp_path / "a", data))
    path = put(tmp_path / f"a{facts.suffix}", data)
    same = facts.suffix[1:] in IMG_FORMATS and np.array_equal(imread(path), read_pixels(path))
    try:
        message, shape = check_image(str(path))
    except (AssertionError, OSError):
        message, shape = "rejected", (0, 0)
    taken = not message and shape == (facts.height, facts.width) and path.read_bytes() == data
    if facts.plain:
        assert same and taken
    elif facts.bits == 8 and facts.pages == 1 and "pictures without end" not in name:  # these to be on the safe side
        assert not (same and taken), "a plain file would be rewritten"


@pytest.mark.parametrize("name", [name for name in NAMES if "without end" not in name and "pnm" not in name])
def test_the_upper_eight_bits_and_the_first_page_are_what_ultralytics_reads(tmp_path, name):
    data = readable()[name]
    facts = probe(put(tmp_path / "a", data))
    path = put(tmp_path / f"b{facts.suffix}", data)
    assert np.array_equal(imread(path), read_pixels(path))


@pytest.mark.parametrize("name", NAMES)
def test_rewritten_files_are_read_as_they_were(tmp_path, name):
    path = put(tmp_path / "a", readable()[name])
    write_plain(path, tmp_path / "b.png", 12)
    pixels = read_pixels(path, 12)
    assert np.array_equal(imread(tmp_path / "b.png"), pixels)
    assert check_image(str(tmp_path / "b.png")) == ("", pixels.shape[:2])


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".jp2", ".tif", ".tiff", ".jfif", ""])
@pytest.mark.parametrize(
    "name", ["jpg orientation 6", "png palette", "tif alpha", "tif gray orientation 6", "webp alpha"]
)
def test_a_kept_suffix_changes_nothing(tmp_path, name, suffix):
    data = readable()[name]
    own = put(tmp_path / f"a{suffix}", data)
    kept = suffix_for_training(own, probe(own))
    assert kept[1:] in IMG_FORMATS
    assert np.array_equal(imread(put(tmp_path / f"b{kept}", data)), read_pixels(own))


def test_a_jpeg_without_end_would_be_rewritten(tmp_path):
    path = put(tmp_path / "a.jpg", readable()["jpg padded"])
    assert "restored and saved" in check_image(str(path))[0]
    assert path.read_bytes() != readable()["jpg padded"]


@pytest.mark.parametrize(("side", "taken"), [(SMALLEST - 1, False), (SMALLEST, True)])
def test_the_smallest_side(tmp_path, side, taken):
    path = put(tmp_path / "a.png", saved(blocks().resize((40, side)), "PNG"))
    assert isinstance(probe(path), str) is not taken
    if taken:
        assert check_image(str(path))[1] == (side, 40)
    else:
        with pytest.raises(AssertionError, match="<10 pixels"):
            check_image(str(path))


def test_the_largest_size_is_that_of_pillow():
    from PIL import Image

    assert MOST_PIXELS == 2 * (1024 * 1024 * 1024 // 4 // 3)
    assert Image.MAX_IMAGE_PIXELS in {None, MOST_PIXELS // 2}


def test_ultralytics_still_reads_in_the_way_that_is_followed():
    source = inspect.getsource(patches.imread)
    for part in ('endswith((".tiff", ".tif"))', "cv2.imdecodemulti(file_bytes, cv2.IMREAD_UNCHANGED)", "im >> 8"):
        assert part in source
