"""Cases of image files: bit depth, orientation, kinds of pixels, damage, and suffixes."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from tests.field.builders import (
    DATA_YAML,
    Photo,
    Tree,
    background,
    changed,
    encoded,
    loose,
    oriented,
    pairs,
    photo,
    sound,
    voc,
    yolo,
)
from tests.field.case import LOOSE, SOUND, Taken, case, refused


def recoded(tree: Tree, encode: Callable[[np.ndarray], bytes], suffix: str) -> Tree:
    """All images (PNG) of the tree encoded anew, under another suffix."""
    again: Tree = {}
    for path, content in tree.items():
        if path.endswith(".png"):
            assert isinstance(content, bytes)
            again[path[:-4] + suffix] = encode(np.asarray(Image.open(io.BytesIO(content)).convert("L")))
        else:
            again[path] = content
    return again


def deep(bits: int, suffix: str) -> Callable[[np.ndarray], bytes]:
    """Encodes gray values with so many bits in a file of 16."""
    top = 2**bits - 1
    return lambda gray: encoded((gray.astype(np.uint32) * top // 255).astype(np.uint16), suffix)


@case(Taken(train=4, val=2, test=2, said=("12",)), source="data.yaml")
def png_12_bit():
    """A 12-bit camera: values up to 4095 in a file of 16 bits."""
    return recoded(sound(), deep(12, ".png"), ".png")


@case(Taken(train=4, val=2, test=2, said=("10",)), source="data.yaml")
def tiff_10_bit():
    """A 10-bit camera, TIFF."""
    return recoded(sound(), deep(10, ".tif"), ".tif")


@case(Taken(loose=8, said=("14",)))
def tiff_14_bit():
    """A 14-bit camera, TIFF, folder import."""
    return recoded(loose(), deep(14, ".tiff"), ".tiff")


@case(SOUND, source="data.yaml")
def png_16_bit():
    """All 16 bits in use."""
    return recoded(sound(), deep(16, ".png"), ".png")


@case(Taken(loose=8, unlabeled=4, said=("12",)))
def mixed_bit_depths():
    """Labeled images with 8 bits, the new ones come from a 12-bit camera; one scale for those."""
    return {**loose(), **recoded(pairs("unlabeled/{}.png", seeds=range(20, 24)), deep(12, ".png"), ".png")}


@case(Taken(loose=8, unlabeled=1, said=("12",)))
def dim_image_among_12_bit():
    """An image of a 12-bit camera whose brightest pixel fills 8 bits only: the camera has 12 bits there, too."""
    tree = recoded(loose(), deep(12, ".png"), ".png")
    return {**tree, "images/dim.png": encoded(background(0).astype(np.uint16), ".png")}


@case(SOUND, source="data.yaml")
def tiff_8_bit():
    """Gray TIFF of an industrial camera."""
    return sound(".tif")


@case(Taken(loose=8, said=("page",)))
def tiff_pages():
    """Two pages of one part under two lights; the first is labeled."""

    def pages(gray: np.ndarray) -> bytes:
        return encoded(gray, ".tif", save_all=True, append_images=[Image.fromarray(255 - gray)])

    return recoded(loose(), pages, ".tif")


@case(refused("p000.tif", "float"), source="data.yaml")
def tiff_float():
    """32-bit float, 0 to 1, of a profile scanner."""
    return recoded(sound(), lambda gray: encoded(gray.astype(np.float32) / 255, ".tif"), ".tif")


@case(refused("u020.tif"), source="data.yaml")
def tiff_float_unlabeled():
    """The same among the unlabeled images only."""
    gray = photo(20).pixels.astype(np.float32) / 255
    return {**sound(), "more/u020.tif": encoded(gray, ".tif"), "data.yaml": DATA_YAML + "unlabeled: more\n"}


KINDS = {"1": ".png", "P": ".png", "LA": ".png", "RGBA": ".png", "RGB": ".png", "CMYK": ".jpg", "L": ".bmp"}


@case(Taken(loose=10))
def kinds():
    """1 bit, palette, transparency, color, CMYK, BMP, WebP, color TIFF."""
    tree: Tree = {"classes.txt": "bright\ndark\n"}
    for seed, (kind, suffix) in enumerate([*KINDS.items(), ("RGB", ".webp"), ("RGB", ".tif"), ("CMYK", ".tif")]):
        image = Image.fromarray(photo(seed).pixels).convert("RGB").convert(kind)
        if kind == "RGBA":
            image.putalpha(0)
        tree[f"images/k{seed}{suffix}"] = encoded(image, suffix)
        tree[f"labels/k{seed}.txt"] = yolo(photo(seed))
    return tree


def portrait(seed: int) -> Photo:
    """An upright photo: 64 px wide, 96 px high."""
    return photo(seed, 64, 96)


def upright(orientation: int, suffix: str, label: str, writer: Callable[[Photo, str], str]) -> Tree:
    """Photos that viewers show upright, stored as a camera held in another way stores them, labels of what is shown."""
    tree: Tree = {}
    for seed in range(8):
        shown = portrait(seed)
        tree[f"images/p{seed:03d}{suffix}"] = oriented(shown.pixels, suffix, orientation)
        tree[label.format(f"p{seed:03d}")] = writer(shown, f"p{seed:03d}{suffix}")
    return tree


@case(LOOSE, names=["bright", "dark"])
def exif_yolo():
    """JPEG with EXIF orientation 6, labels of the photo as it is shown."""
    return upright(6, ".jpg", "labels/{}.txt", yolo)


@case(LOOSE)
def exif_voc():
    """Orientation 8, VOC."""
    return upright(8, ".jpg", "xml/{}.xml", voc)


@case(LOOSE, names=["bright", "dark"])
def exif_upside_down():
    """Orientation 3: the size does not tell."""
    return upright(3, ".jpg", "labels/{}.txt", yolo)


@case(LOOSE)
def exif_png():
    """PNG with an eXIf block."""
    return upright(6, ".png", "xml/{}.xml", voc)


@case(refused("p000.xml", "96x64", "64x96"))
def exif_labels_of_stored_pixels():
    """VOC of a tool that does not turn images: the stated size is that of the stored pixels."""
    tree: Tree = {}
    for seed in range(8):
        stored = photo(seed)
        shown = np.rot90(stored.pixels, -1)
        tree[f"images/p{seed:03d}.jpg"] = oriented(np.ascontiguousarray(shown), ".jpg", 6)
        tree[f"xml/p{seed:03d}.xml"] = voc(stored, f"p{seed:03d}.jpg")
    return tree


def with_segment(jpeg: bytes, payload: bytes) -> bytes:
    """A JPEG with one more APP1 segment at its begin."""
    return jpeg[:2] + b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload + jpeg[2:]


XMP = (
    b'http://ns.adobe.com/xap/1.0/\x00<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


@case(LOOSE)
def xmp_orientation():
    """XMP alone says "turn"; OpenCV and LabelImg do not read it."""
    return changed(pairs("images/{}.jpg", "xml/{}.xml", voc), lambda jpeg: with_segment(jpeg, XMP), ".jpg")


@case(SOUND, source="data.yaml")
def exif_broken():
    """An EXIF block that no reader understands."""
    garbage = b"Exif\x00\x00XX*\x00\x08\x00\x00\x00" + b"\x01" * 20
    return changed(sound(".jpg"), lambda jpeg: with_segment(jpeg, garbage), "p000.jpg", "p001.jpg", "p004.jpg")


@case(refused("p001.jpg", "skip_bad"), source="data.yaml")
@case(Taken(train=3, val=2, test=2), name="jpeg_cut_off_skipped", source="data.yaml", skip_bad=True)
def jpeg_cut_off():
    """A JPEG that ends after half of its bytes."""
    return changed(sound(".jpg"), lambda jpeg: jpeg[: len(jpeg) // 2], "p001.jpg")


@case(SOUND, source="data.yaml")
def jpeg_without_end_mark():
    """Only the two bytes at the end are missing, no pixels."""
    return changed(sound(".jpg"), lambda jpeg: jpeg[:-2], "p001.jpg")


@case(refused("p002.png", "skip_bad"), source="data.yaml")
def image_empty():
    """A file without content."""
    return changed(sound(), lambda _: b"", "p002.png")


@case(refused("p002.png", "skip_bad"), source="data.yaml")
def image_is_text():
    """A pointer of Git LFS instead of the image."""
    return changed(sound(), lambda _: "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "p002.png")


@case(refused("tiny.png", "skip_bad"))
def image_tiny():
    """Ultralytics drops images with a side below 10 px."""
    return {**loose(), "images/tiny.png": encoded(np.full((8, 8), 120, np.uint8), ".png"), "labels/tiny.txt": ""}


@case(SOUND, source="data.yaml")
def suffix_lies():
    """PNG files called .jpg."""
    tree = sound()
    return {p.replace(".png", ".jpg") if "p00" in p and "3" in p else p: c for p, c in tree.items()}


@case(Taken(train=4, val=2, test=2, unlabeled=4), source="data.yaml")
def rare_suffixes():
    """.jfif and .jpe of a browser, .jp2, among the unlabeled ones."""
    jpeg, jp2 = (encoded(photo(20).pixels, suffix) for suffix in (".jpg", ".jp2"))
    more = {
        "x.jfif": jpeg,
        "y.JPE": encoded(photo(21).pixels, ".jpg"),
        "z.jp2": jp2,
        "w.jpg": encoded(photo(22).pixels, ".jpg"),
    }
    return {
        **sound(),
        **{f"more/{name}": content for name, content in more.items()},
        "data.yaml": DATA_YAML + "unlabeled: more\n",
    }


@case(Taken(loose=8))
def jpeg_2000_labeled():
    """Labeled .jp2, which Ultralytics reads."""
    return {
        **pairs("images/{}.png", "labels/{}.txt", seeds=range(4)),
        **pairs("images/{}.jp2", "labels/{}.txt", seeds=range(4, 8)),
        "classes.txt": "bright\ndark\n",
    }


@case(Taken(loose=8, left_out={"p100.heic": "", "clip.mp4": "", "p101.CR2": ""}))
def photos_that_nobody_reads():
    """HEIC of a phone, raw of a camera, a film: counted, not passed over."""
    return {
        **loose(),
        "images/p100.heic": b"\0\0\0\x18ftypheic" + bytes(40),
        "images/clip.mp4": b"\0\0\0\x18ftypmp42",
        "images/p101.CR2": b"II*\0\x10\0\0\0CR\2\0" + bytes(40),
    }


@case(Taken(loose=9, defect_free=1, said=("black.png",)))
def image_black():
    """The lamp was off."""
    return {**loose(), "images/black.png": encoded(np.zeros((64, 96), np.uint8), ".png"), "labels/black.txt": ""}


@case(Taken(loose=9, defect_free=1, said=("white.png",)))
def image_constant():
    """A sensor at its limit: one value everywhere."""
    return {**loose(), "images/white.png": encoded(np.full((64, 96), 255, np.uint8), ".png"), "labels/white.txt": ""}
