"""Whatever is in a file: it has facts or one line of reason, and a plain file is read by Ultralytics as it is here."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from ultralytics.data.utils import check_image
from ultralytics.utils.patches import imread

from dfssd.datasets.images.headers import SIGNATURES
from dfssd.datasets.images.pixels import probe_bytes, read_pixels
from tests.datasets.image_kinds import readable


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file of any kind with changed bytes, mostly in its header, that may be cut or go on."""
    data = bytearray(draw(st.sampled_from(list(readable().values()))))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, draw(st.sampled_from([20, 100, 500, len(data)])) - 1)) % len(data)
        data[place] = draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 255, data[place] ^ 1])))
    if draw(st.booleans()):
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data) + draw(st.binary(max_size=8))


def check(data: bytes) -> None:
    facts = probe_bytes(data)
    if isinstance(facts, str):
        assert facts and "\n" not in facts
        return
    assert 0 <= facts.low <= facts.high < 1 << facts.bits and min(facts.size) >= 10
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{facts.suffix}")
        path.write_bytes(data)
        pixels = read_pixels(path)
        assert pixels.shape == (facts.height, facts.width, 3) and pixels.dtype == np.uint8
        if facts.plain:
            assert np.array_equal(imread(path), pixels)
            assert check_image(str(path)) == ("", pixels.shape[:2])
            assert path.read_bytes() == data


@given(damaged())
def test_damaged_files(data: bytes) -> None:
    check(data)


@given(st.sampled_from([signature for signature, _ in SIGNATURES]), st.binary(max_size=200))
def test_bytes_behind_a_signature(signature: bytes, data: bytes) -> None:
    check(signature + data)
