from pathlib import Path

import numpy as np
import pytest

from dfssd.datasets.images.files import gray_values, map_files, open_image, safe_names
from dfssd.files import atomic_write
from tests.datasets.image_kinds import HEIGHT, WIDTH, deep, encoded, readable


def test_names_are_kept_where_they_can_be_and_unique():
    files = [Path("a/oil spots1.JPG"), Path("b/oil spots1.png"), Path("c/Oil Spots1.png"), Path("d/x:y*.png")]
    names = safe_names(files)
    assert names[0] == "oil spots1.jpg"
    assert names[1].startswith("oil spots1-") and names[2].startswith("Oil Spots1-")
    assert names[3] == "x_y_.png"
    assert len({Path(name).stem.casefold() for name in names}) == 4
    assert names == safe_names(files)


def test_ordinary_names_stay_as_they_were():
    names = ["a.jpg", "oil spots1.JPG", "IMG (2).png", "缺陷-1.bmp", "crazing_10.jpg", "a.b.tif", "x" * 180 + ".png"]
    assert safe_names([Path("some", name) for name in names]) == [n.replace("JPG", "jpg") for n in names]
    assert safe_names([Path("a/x.jpg"), Path("b/x.png")]) == ["x.jpg", "x-29cc070f.png"]


@pytest.mark.parametrize("stem", ["缺" * 83, "é" * 124, "x" * 250, "𠀀" * 62])
def test_long_names_leave_room_for_what_is_appended(tmp_path, stem):
    files = [Path(folder, f"{stem}{suffix}") for folder in "abc" for suffix in (".jpeg", ".png")]
    names = safe_names(files)
    assert len(set(names)) == len(names) and names == safe_names(files)
    for name in names:
        assert len(name.encode()) <= 186 and stem.startswith(name.rpartition("-")[0])
        with atomic_write(tmp_path / name) as temporary:
            temporary.write_text("")
        (tmp_path / f".{name}.{'0' * 32}.part").write_text("")


def test_long_names_that_begin_alike_differ():
    assert len({*safe_names([Path("a", "x" * 200 + str(i) + ".png") for i in range(50)])}) == 50


def test_names_that_no_file_should_have():
    names = safe_names(
        [Path("a/x\ny\r\x01\x7f.png"), Path("a/\udcff\udcfe.PNG"), Path("b/\udcff\udcfe.png"), Path("a/ . .png")]
    )
    assert names[:2] == ["x_y___.png", "__.png"]
    assert names[2].startswith("__-") and names[3] == "image.png"
    for name in names:
        name.encode()


def test_names_are_unique_where_letters_are_composed_and_where_a_hash_is_taken():
    composed, decomposed = safe_names([Path("a/\uac00.png"), Path("b/\u1100\u1161.png")])
    assert composed == "\uac00.png" and decomposed != composed
    taken = safe_names([Path("a/x.jpg"), Path("b/x.png")])[1]
    again = safe_names([Path("a/x.jpg"), Path("c") / taken, Path("b/x.png")])
    assert len({Path(name).stem for name in again}) == 3


def test_suffixes_can_be_given():
    assert safe_names([Path("a/x.tif"), Path("b/x.jfif")], [".png", ".jpg"]) == ["x.png", "x-188361fd.jpg"]


@pytest.mark.parametrize("name", ["jpg", "png", "bmp", "tif", "webp", "jp2", "jp2 code stream", "pnm gray", "tif big"])
def test_images_are_opened_by_their_content(tmp_path, name):
    (tmp_path / "a").write_bytes(readable()[name])
    with open_image(tmp_path / "a") as image:
        assert image.size == (WIDTH, HEIGHT)


def test_gray_values_use_the_bits_of_the_camera(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(".png", deep(4095)))
    for depth, highest in ((16, 15), (12, 255), (10, 255)):
        with open_image(tmp_path / "a.png") as image:
            gray = np.asarray(gray_values(image, depth))
        wanted = np.minimum(deep(4095) >> (depth - 8), 255)
        assert gray.dtype == np.uint8 and gray.max() == highest and np.array_equal(gray, wanted)


def test_map_files_keeps_the_order():
    assert map_files(lambda x: x * 2, list(range(1000)), "doubling") == list(range(0, 2000, 2))
