from pathlib import Path

import pytest
from PIL import Image

from dfssd.datasets.image_files import find_images, image_size, map_files, safe_names
from tests.datasets.material import picture, write_picture


def test_images_are_found_in_subfolders_but_not_hidden_ones(tmp_path):
    wanted = [write_picture(tmp_path / "b" / "x y.PNG", 0), write_picture(tmp_path / "c.jpg", 1)]
    write_picture(tmp_path / ".cache" / "d.png", 2)
    write_picture(tmp_path / "__MACOSX" / "e.png", 2)
    write_picture(tmp_path / "._c.jpg", 2)
    (tmp_path / "notes.txt").write_text("no image")
    assert find_images(tmp_path) == wanted


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_size_is_width_and_height(tmp_path, suffix):
    assert image_size(write_picture(tmp_path / f"a{suffix}", 0, 64, 48)) == (64, 48)


def test_size_follows_the_orientation_tag(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0, 64, 48).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(tmp_path / "a.jpg") == (48, 64)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_file_is_found(tmp_path, suffix):
    path = write_picture(tmp_path / f"a{suffix}", 0, 200, 200)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "cannot be decoded" in image_size(path)


def test_other_unusable_files_have_a_reason(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "b.jpg").write_text("hello")
    assert "cannot be decoded" in image_size(tmp_path / "a.jpg")
    assert "cannot be decoded" in image_size(tmp_path / "b.jpg")
    assert image_size(tmp_path / "c.jpg") == "no such file"
    assert "64x5 px is too small" in image_size(write_picture(tmp_path / "d.png", 0, 64, 5))


def test_names_are_kept_where_they_can_be_and_unique():
    files = [Path("a/oil spots1.JPG"), Path("b/oil spots1.png"), Path("c/Oil Spots1.png"), Path("d/x:y*.png")]
    names = safe_names(files)
    assert names[0] == "oil spots1.jpg"
    assert names[1].startswith("oil spots1-") and names[2].startswith("Oil Spots1-")
    assert names[3] == "x_y_.png"
    assert len({Path(name).stem.casefold() for name in names}) == 4
    assert names == safe_names(files)


def test_map_files_keeps_the_order():
    assert map_files(lambda x: x * 2, list(range(1000)), "doubling") == list(range(0, 2000, 2))
