import io
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dfssd.datasets.images import pixels
from dfssd.datasets.images.pixels import (
    SUFFIXES,
    UNREAD_SUFFIXES,
    ImageFacts,
    camera_depth,
    pixel_remarks,
    probe,
    probe_bytes,
    read_pixels,
    suffix_for_training,
    write_plain,
)
from dfssd.datasets.images.same_picture import same_picture
from dfssd.errors import UserError
from tests.datasets.image_kinds import HEIGHT, SIDEWAYS, WIDTH, blocks, deep, encoded, readable, saved, tiff

TURNED = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}
DEEP = [name for name in readable() if "16 bit" in name or "12 bit" in name]


def facts_of(data: bytes) -> ImageFacts:
    facts = probe_bytes(data)
    assert isinstance(facts, ImageFacts), facts
    return facts


def put(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", readable())
def test_facts_of_every_kind(name):
    data = readable()[name]
    facts = facts_of(data)
    sideways = any(f"orientation {i}" in name for i in SIDEWAYS) and not name.startswith("jp2") and "xmp" not in name
    assert facts.size == ((HEIGHT, WIDTH) if sideways else (WIDTH, HEIGHT))
    assert facts.suffix == f".{name[:4].strip()}"
    assert facts.bits == (16 if name in DEEP else 8)
    assert facts.pages == (2 if "pages" in name or "animated" in name else 1)
    assert not facts.constant and facts.low < facts.high < 1 << facts.bits


def test_files_that_training_would_read_otherwise_are_not_plain():
    not_plain = {name for name, data in readable().items() if not facts_of(data).plain}
    wanted = {name for name in readable() if name in DEEP or "pages" in name or "animated" in name or "pnm" in name}
    wanted |= {"jpg without end", "jpg padded", "jpg without end, padded", "jpg with a tail"}
    wanted |= {"jpg of several pictures without end"}
    wanted |= {f"jpg orientation {i} in xmp" for i in SIDEWAYS}  # Pillow turns these, OpenCV does not
    assert not_plain == wanted


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
def test_pixels_are_turned_as_exif_says(tmp_path, kind, orientation):
    straight = read_pixels(put(tmp_path / "a", readable()[f"{kind} orientation 1"])).astype(int)
    turned = read_pixels(put(tmp_path / "b", readable()[f"{kind} orientation {orientation}"]))
    wanted = TURNED[orientation](straight)
    assert turned.shape == wanted.shape
    assert np.abs(turned - wanted).mean() < 2  # a JPEG is not decoded to the same values from all sides
    others = (TURNED[i](straight) for i in TURNED if i != orientation)
    assert all(other.shape != turned.shape or np.abs(turned - other).mean() > 20 for other in others)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_pixels_are_not_turned_by_xmp_and_not_in_jpeg_2000(tmp_path, orientation):
    straight = put(tmp_path / "a", readable()["jpg"])
    assert np.array_equal(
        read_pixels(put(tmp_path / "b", readable()[f"jpg orientation {orientation} in xmp"])), read_pixels(straight)
    )
    lossless = np.asarray(blocks())[..., ::-1]
    assert np.array_equal(read_pixels(put(tmp_path / "c", readable()[f"jp2 orientation {orientation}"])), lossless)


def test_only_the_end_mark_may_be_missing(tmp_path):
    rng = np.random.default_rng(5)
    for i in range(12):
        smooth = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (88, 56), interpolation=cv2.INTER_CUBIC)
        whole = saved(Image.fromarray(smooth), "JPEG", quality=60 + 3 * i, restart_marker_blocks=i % 3)
        wanted = read_pixels(put(tmp_path / "a.jpg", whole))
        for padding in (b"", bytes(300)):
            unmarked = put(tmp_path / "b.jpg", whole[:-2] + padding)
            assert np.array_equal(read_pixels(unmarked), wanted)
            for missing in range(4, len(whole) - 700, 17):
                facts = probe_bytes(whole[:-missing] + padding)
                assert facts == "cannot be decoded (the file is truncated); restore it", missing


@pytest.mark.parametrize("name", [name for name in readable() if "orientation" not in name])
def test_a_cut_file_is_refused_or_has_lost_nothing(tmp_path, name):
    data = readable()[name]
    wanted = read_pixels(put(tmp_path / "a", data))
    refused = 0
    for length in [*range(0, len(data), max(1, len(data) // 30)), len(data) - 3, len(data) - 1]:
        facts = probe_bytes(data[:length])
        refused += isinstance(facts, str)
        if not isinstance(facts, str):
            assert np.array_equal(read_pixels(put(tmp_path / "b", data[:length])), wanted), length
    assert refused > 10


def test_reasons(tmp_path):
    assert probe(tmp_path / "a.png") == "no such file"
    assert probe(tmp_path).startswith("cannot be read (")
    cases = {
        b"": "is empty",
        b"hello": "cannot be decoded (it is not an image)",
        bytes(1000): "holds only zeros; restore it",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1": "git lfs pull",
        saved(blocks(), "GIF"): "is a GIF, which is not read: convert it to .png or .jpg",
        b"\0\0\0\x18ftypheic" + bytes(40): "is a HEIC, which is not read: convert it to .png or .jpg",
        b"\x89PNG\r\n\x1a\n": "cannot be decoded (",
        tiff(deep().astype(np.float32)): "holds 32-bit float values; convert it to 8 or 16 bit",
        saved(Image.fromarray(deep().astype(np.int32)), "TIFF"): "holds 32-bit signed values",
        tiff(deep().astype(np.uint32)): "holds 32-bit unsigned values",
        tiff(deep().astype(np.int16) - 5): "holds 16-bit signed values",
        tiff(np.dstack([deep()] * 3), photometric=2, separate=True): "holds 16-bit channels in separate planes",
        tiff(np.zeros((20, 20, 5), np.uint8), photometric=2, alpha=2): "cannot be decoded (",
        saved(blocks().resize((9, 40)), "PNG"): "9x40 px is too small, each side needs at least 10 px",
    }
    for data, reason in cases.items():
        assert reason in str(probe_bytes(data)), reason
        assert "\n" not in str(probe_bytes(data))


def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch):
    huge = io.BytesIO()
    Image.new("1", (20_000, 9_000)).save(huge, "PNG")
    monkeypatch.setattr(cv2, "imdecode", None)  # would raise
    assert probe_bytes(huge.getvalue()) == "180 million px are too many, at most 178 are read"


def test_a_chunk_that_claims_gigabytes_reserves_none(monkeypatch):
    png = bytearray(readable()["png"])
    place = png.index(b"IDAT") - 4
    png[place : place + 4] = (1 << 31).to_bytes(4, "big")
    monkeypatch.setattr(cv2, "imdecode", None)  # would raise
    assert probe_bytes(bytes(png)) == "cannot be decoded (the file is truncated); restore it"


def test_large_images_are_decoded_one_at_a_time(monkeypatch):
    monkeypatch.setattr(pixels, "_LARGE", 100)
    inside, most = 0, 0
    values = pixels._values

    def counted(*arguments):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        found = values(*arguments)
        inside -= 1
        return found

    monkeypatch.setattr(pixels, "_values", counted)
    data = saved(blocks().resize((900, 700)), "PNG")
    threads = [threading.Thread(target=probe_bytes, args=(data,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_values_of_a_camera_are_scaled_before_they_are_cut(tmp_path):
    values = deep(4095)
    for suffix in (".png", ".tif"):
        path = put(tmp_path / f"a{suffix}", encoded(suffix, values))
        facts = facts_of(path.read_bytes())
        assert (facts.bits, facts.low, facts.high) == (16, 0, 4095)
        assert camera_depth([facts]) == 12
        assert np.array_equal(read_pixels(path, 12), np.dstack([(values >> 4).astype(np.uint8)] * 3))
        assert read_pixels(path).max() == 15  # what Ultralytics reads


def test_values_beyond_the_depth_are_white(tmp_path):
    path = put(tmp_path / "a.png", encoded(".png", deep(4095)))
    assert read_pixels(path, 10)[0, 1].tolist() == [255, 255, 255]


def test_white_may_be_zero(tmp_path):
    dark = tiff(np.full((20, 20), 65000, np.uint16), photometric=0)
    assert read_pixels(put(tmp_path / "a.tif", dark)).max() == (65535 - 65000) >> 8
    assert read_pixels(put(tmp_path / "b.tif", tiff(np.full((20, 20), 65000, np.uint16)))).min() == 65000 >> 8


@pytest.mark.parametrize(
    ("highest", "depth"), [(200, 8), (255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 14), (16384, 16)]
)
def test_depth_holds_the_highest_value_of_all_files(highest, depth):
    files = [facts_of(encoded(".png", deep(value))) for value in (90, highest, 100)]
    assert camera_depth([*files, facts_of(readable()["png"])]) == depth


def test_depth_without_deep_files():
    assert camera_depth([]) == 8
    assert camera_depth([facts_of(readable()["png"])]) == 8


@pytest.mark.parametrize("name", readable())
def test_what_is_written_is_plain_and_has_the_same_pixels(tmp_path, name):
    path = put(tmp_path / "a", readable()[name])
    write_plain(path, tmp_path / "b.png", 12)
    facts = facts_of((tmp_path / "b.png").read_bytes())
    assert facts.plain and facts.suffix == ".png" and facts.bits == 8
    assert np.array_equal(read_pixels(tmp_path / "b.png"), read_pixels(path, 12))
    assert {p.name for p in tmp_path.iterdir()} == {"a", "b.png"}


def test_gray_is_written_as_one_channel(tmp_path):
    write_plain(put(tmp_path / "a", readable()["tif gray pages"]), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as image:
        assert image.mode == "L"


def test_an_unreadable_file_is_named(tmp_path):
    path = put(tmp_path / "a.png", b"hello")
    for use in (lambda: read_pixels(path), lambda: write_plain(path, tmp_path / "b.png")):
        with pytest.raises(UserError, match=r"a\.png: cannot be decoded \(it is not an image\); restore it"):
            use()
    with pytest.raises(UserError, match=r"c\.png: cannot be read \(No such file"):
        read_pixels(tmp_path / "c.png")
    assert not (tmp_path / "b.png").exists()


def test_suffixes_for_training():
    facts = {name: facts_of(data) for name, data in readable().items()}
    cases = {
        ("a.JPG", "jpg"): ".jpg",
        ("a.jpeg", "jpg"): ".jpeg",
        ("a.jfif", "jpg"): ".jpg",
        ("a.png", "jpg"): ".png",  # Ultralytics goes by the content, too
        ("a.tif", "jpg"): ".jpg",  # except for this suffix
        ("a.TIFF", "tif"): ".tiff",
        ("a.png", "tif"): ".tif",
        ("a.j2k", "jp2 code stream"): ".jp2",
        ("a.tif", "tif 16 bit"): ".png",
        ("a.jpg", "jpg without end"): ".png",
        ("a.pgm", "pnm gray"): ".png",
        ("a", "bmp"): ".bmp",
    }
    assert {case: suffix_for_training(Path(case[0]), facts[case[1]]) for case in cases} == cases


def test_suffixes_are_read_or_not():
    assert not SUFFIXES & UNREAD_SUFFIXES
    assert {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2"} <= SUFFIXES
    assert {
        ".heic",
        ".heif",
        ".avif",
        ".gif",
        ".dng",
        ".raw",
        ".cr2",
        ".nef",
        ".arw",
        ".psd",
        ".svg",
    } <= UNREAD_SUFFIXES


def test_remarks_name_three_and_count_all():
    def gray(value, other=None):
        values = np.full((20, 20), value, np.uint8)
        values[0, 0] = value if other is None else other
        return facts_of(encoded(".png", values))

    normal = gray(10, 200)
    flat = [(Path(f"flat{i}.png"), gray(90 + i)) for i in range(5)]
    black = [(Path("dark.png"), gray(0, 23)), (Path("nearly.png"), gray(0, 24))]
    remarks = pixel_remarks([(Path("a.png"), normal), *flat, *black], 8)
    assert len(remarks) == 2
    assert remarks[0].startswith("5 constant images (flat0.png, flat1.png, flat2.png, and 2 more)")
    assert remarks[1].startswith("1 nearly black image (dark.png)")
    assert pixel_remarks([(Path("a.png"), normal)], 8) == []


def test_one_color_is_constant():
    image = Image.new("RGB", (20, 20), (255, 0, 0))
    assert facts_of(saved(image, "PNG")).constant
    image.putpixel((3, 3), (254, 0, 0))
    assert not facts_of(saved(image, "PNG")).constant


def test_remarks_see_the_values_that_training_sees():
    dark = facts_of(encoded(".png", deep(300)))
    assert "nearly black" not in " ".join(pixel_remarks([(Path("a.png"), dark)], 10))
    assert "1 nearly black image (a.png)" in " ".join(pixel_remarks([(Path("a.png"), dark)], 12))
    assert "1 constant image (a.png)" in " ".join(pixel_remarks([(Path("a.png"), replace(dark, high=250))], 16))
    said = pixel_remarks([(Path("a.png"), dark)], 10)[0]
    assert "1 image of more than 8 bits (a.png): read as 10-bit" in said and "300" in said


def test_pages_are_remarked():
    pages = facts_of(readable()["tif pages"])
    assert "only the first page" in pixel_remarks([(Path("a.tif"), pages)], 8)[0]


@pytest.mark.parametrize("quality", [40, 60, 95])
def test_a_jpeg_shows_the_same_picture(tmp_path, quality):
    cv2.imwrite(str(tmp_path / "p.png"), _smooth(0, 40))
    cv2.imwrite(str(tmp_path / "p.jpg"), _smooth(0, 40), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert same_picture(tmp_path / "p.png", tmp_path / "p.jpg")


def test_two_parts_with_different_defects_are_not_the_same_picture(tmp_path):
    cv2.imwrite(str(tmp_path / "p.png"), _smooth(0, 40))
    cv2.imwrite(str(tmp_path / "p.jpg"), _smooth(1, 90))
    assert not same_picture(tmp_path / "p.png", tmp_path / "p.jpg")


def _smooth(seed: int, place: int) -> np.ndarray:
    """A smooth gray surface of 256x256 px with a defect of 12x12 px."""
    pixels = np.random.default_rng(seed).normal(120, 2, (256, 256)).clip(0, 255).astype(np.uint8)
    pixels[place : place + 12, place : place + 12] = 150
    return pixels


def test_reading_leaves_the_settings_of_the_process_alone(capfd):
    level = cv2.utils.logging.getLogLevel()
    filters = list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [probe_bytes(data[:-50]) for data in readable().values()]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cv2.utils.logging.getLogLevel() == level
    assert warnings.filters == filters
    assert "WARN:" not in capfd.readouterr().err


def test_a_file_beyond_two_gigabytes_is_not_read(tmp_path, monkeypatch):
    path = put(tmp_path / "a.png", readable()["png"])
    monkeypatch.setattr(pixels, "_LARGEST_FILE", path.stat().st_size)
    assert not isinstance(probe(path), str)
    monkeypatch.setattr(pixels, "_LARGEST_FILE", path.stat().st_size - 1)
    assert probe(path).startswith("cannot be read (it is larger than")
