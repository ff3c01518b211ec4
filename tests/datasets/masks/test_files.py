import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from dfssd.datasets.images.pixels import probe
from dfssd.datasets.masks.files import fitted, is_gray_png, looks_drawn, read_mask, turned, write_ids
from dfssd.errors import UserError
from tests.datasets.material import picture, write_picture
from tests.segmentation.material import ids, write_mask


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def write_turned(path, orientation, size=(64, 48), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, *size).save(path, exif=exif(orientation))
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_is_turned_as_viewers_turn_its_image(orientation):
    stored = np.arange(12, dtype=np.uint8).reshape(3, 4)
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "png", exif=exif(orientation))
    assert np.array_equal(turned(stored, orientation), np.asarray(ImageOps.exif_transpose(Image.open(file))))


@pytest.mark.parametrize(
    ("orientation", "image", "mask", "frame"),
    [
        (1, (64, 48), (64, 48), ""),
        (6, (64, 48), (48, 64), "turned"),
        (6, (64, 48), (64, 48), "stored"),
        (8, (64, 48), (64, 48), "stored"),
        (6, (48, 48), (48, 48), "either"),
        (3, (64, 48), (64, 48), "either"),
        (2, (64, 48), (64, 48), "either"),
    ],
)
def test_the_size_tells_on_which_pixels_a_mask_was_drawn(tmp_path, orientation, image, mask, frame):
    file = write_turned(tmp_path / "a.jpg", orientation, image)
    facts = probe(file)
    drawn = ids(1, width=mask[0], height=mask[1])
    found, its_frame = fitted(drawn, tmp_path / "m.png", file, facts)
    assert its_frame == frame and found.shape == (facts.height, facts.width)
    assert np.array_equal(found, turned(drawn, orientation) if frame == "stored" else drawn)


def test_a_mask_of_stored_pixels_lies_on_the_same_spot_as_training_reads_it(tmp_path):
    """A white patch in the stored image, and the mask drawn there: after both are turned they still agree."""
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[5:15, 40:55] = 255
    Image.fromarray(stored).save(tmp_path / "a.jpg", quality=95, exif=exif(6))
    drawn = (stored[..., 0] > 0).astype(np.uint8)
    found, _ = fitted(drawn, tmp_path / "m.png", tmp_path / "a.jpg", probe(tmp_path / "a.jpg"))
    seen = cv2.imread(str(tmp_path / "a.jpg"))[..., 0]
    assert seen.shape == (60, 40) and seen[found == 1].mean() > 230 and seen[found == 0].mean() < 25
    assert seen[drawn.T == 1].mean() < 230  # turning alone, without mirroring, is not enough


def test_an_orientation_that_training_does_not_apply_does_not_count(tmp_path):
    """Pillow reads the orientation of XMP, OpenCV does not."""
    write_picture(tmp_path / "a.jpg", 1)
    raw = (tmp_path / "a.jpg").read_bytes()
    xmp = (
        b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
        b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    (tmp_path / "a.jpg").write_bytes(raw[:2] + b"\xff\xe1" + (len(xmp) + 2).to_bytes(2, "big") + xmp + raw[2:])
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.getexif()[0x0112] == 6
    facts = probe(tmp_path / "a.jpg")
    assert fitted(ids(1), tmp_path / "m.png", tmp_path / "a.jpg", facts)[1] == ""
    with pytest.raises(UserError, match=r"m\.png: 48x64 px, but a\.jpg has 64x48 px; make them agree"):
        fitted(ids(1, width=48, height=64), tmp_path / "m.png", tmp_path / "a.jpg", facts)


def test_a_mask_of_neither_size_names_both(tmp_path):
    file = write_turned(tmp_path / "a.jpg", 6)
    expected = r"m\.png: 50x50 px, but a\.jpg has 48x64 px \(64x48 px before its EXIF orientation is applied\)"
    with pytest.raises(UserError, match=expected):
        fitted(ids(1, width=50, height=50), tmp_path / "m.png", file, probe(file))


def test_masks_that_are_none_are_refused(tmp_path):
    Image.fromarray(np.zeros((9, 9), np.float32)).save(tmp_path / "float.tif")
    first, second = Image.fromarray(ids(1)), Image.fromarray(ids(2))
    first.save(tmp_path / "pages.tif", save_all=True, append_images=[second])
    first.save(tmp_path / "turned.png", exif=exif(6))
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    for name, message in {
        "float.tif": "holds fractions",
        "pages.tif": "has 2 pages; save the one",
        "turned.png": "has an EXIF orientation",
        "folder.png": "cannot be decoded",
        "text.png": "cannot be decoded",
        "missing.png": "no such file",
    }.items():
        with pytest.raises(UserError, match=f"{name}: .*{message}"):
            read_mask(tmp_path / name)


def test_every_cut_of_a_mask_is_read_or_refused(tmp_path):
    colored = Image.fromarray(ids(1), "P")
    colored.putpalette([7 * k % 256 for k in range(768)])
    for name, image in {"gray.png": Image.fromarray(ids(1)), "palette.png": colored, "deep.tif": colored}.items():
        image.save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        refused = []
        for end in range(0, len(whole), max(1, len(whole) // 60)):
            (tmp_path / name).write_bytes(whole[:end])
            try:
                assert np.array_equal(read_mask(tmp_path / name), ids(1))
            except UserError as e:
                refused.append(str(e))
        assert len(refused) > 30 and all(name in text and "\n" not in text for text in refused)


def test_pixels_tell_masks_from_photographs(tmp_path):
    noise = np.random.default_rng(0).normal(10, 2, (48, 64)).astype(np.uint8)  # dark: fewer than 64 gray levels
    assert len(np.unique(noise)) < 32
    Image.fromarray(noise).save(tmp_path / "dark.png")
    write_mask(tmp_path / "mask.png", ids(1))
    write_mask(tmp_path / "colors.png", ids(1), "RGB")
    write_mask(tmp_path / "lossy.jpg", ids(1))
    write_picture(tmp_path / "photo.png", 1)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    found = {file.stem: looks_drawn(file) for file in tmp_path.iterdir()}
    assert found == {"dark": False, "mask": True, "colors": True, "lossy": False, "photo": False, "broken": None}


def test_only_gray_pngs_need_no_conversion(tmp_path):
    write_ids(ids(1), tmp_path / "a.png")
    write_mask(tmp_path / "b.bmp", ids(1))
    write_mask(tmp_path / "c.png", ids(1), "P")
    assert [is_gray_png(tmp_path / name) for name in ("a.png", "b.bmp", "c.png")] == [True, False, False]
    assert np.array_equal(read_mask(tmp_path / "a.png"), ids(1))
