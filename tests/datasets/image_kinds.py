"""Small image files of many kinds, as bytes by name."""

from __future__ import annotations

import struct
from functools import cache
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from tests.datasets.material import picture

WIDTH, HEIGHT = 64, 48
SIDEWAYS = (5, 6, 7, 8)


def blocks(seed: int = 0) -> Image.Image:
    """Colored blocks of 8x8 px, which survive lossy compression; no symmetry."""
    return picture(seed, WIDTH // 8, HEIGHT // 8).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)


def deep(highest: int = 4095) -> np.ndarray:
    """(HEIGHT, WIDTH) uint16 noise from 0 to ``highest``, both included."""
    values = np.random.default_rng(1).integers(0, highest, (HEIGHT, WIDTH), dtype=np.uint16, endpoint=True)
    values[0, 0], values[0, 1] = 0, highest
    return values


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.copy().save(buffer, kind, **options)  # saving leaves settings behind in an image
    return buffer.getvalue()


def encoded(suffix: str, values: np.ndarray) -> bytes:
    return cv2.imencode(suffix, values)[1].tobytes()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def xmp(orientation: int) -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def tiff(values: np.ndarray, photometric: int = 1, separate: bool = False, alpha: int = 0) -> bytes:
    """An uncompressed TIFF with the tags that neither Pillow nor OpenCV writes."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    data = (np.moveaxis(values, -1, 0) if separate else values).tobytes()
    strips = channels if separate else 1
    bits, kind = 8 * values.dtype.itemsize, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("H", [width]),
        257: ("H", [height]),
        258: ("H", [bits] * channels),
        259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [0] * strips),
        277: ("H", [channels]),
        278: ("H", [height]),
        279: ("I", [len(data) // strips] * strips),
        284: ("H", [2 if separate else 1]),
        **({338: ("H", [0] * alpha)} if alpha else {}),
        339: ("H", [kind] * channels),
    }
    start = 8 + 2 + 12 * len(tags) + 4
    extra = sum(struct.calcsize(f"<{len(v)}{c}") for c, v in tags.values() if struct.calcsize(f"<{len(v)}{c}") > 4)
    tags[273] = ("I", [start + extra + i * (len(data) // strips) for i in range(strips)])
    entries, values_behind = b"", b""
    for tag, (code, numbers) in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}{code}", *numbers)
        if len(packed) > 4:
            place = struct.pack("<I", start + len(values_behind))
            values_behind += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, 3 if code == "H" else 4, len(numbers)) + place
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + values_behind + data


@cache
def readable() -> dict[str, bytes]:
    """Files that training can use, by what is special about them."""
    rgb, gray = blocks(), blocks().convert("L")
    rgba = Image.merge("RGBA", (*rgb.split(), gray))
    palette = rgb.convert("P", palette=Image.Palette.ADAPTIVE)
    color = np.dstack([deep(65535), deep(4095), deep(300)])
    files = {
        "jpg": saved(rgb, "JPEG"),
        "jpg gray": saved(gray, "JPEG"),
        "jpg progressive": saved(rgb, "JPEG", progressive=True),
        "jpg cmyk": saved(rgb.convert("CMYK"), "JPEG"),
        "jpg of several pictures": saved(rgb, "MPO", save_all=True, append_images=[blocks(1)]),
        "jpg of several pictures without end": saved(rgb, "MPO", save_all=True, append_images=[blocks(1)])[:-2],
        "jpg broken exif": saved(rgb, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"),
        "jpg orientation 9": saved(rgb, "JPEG", exif=oriented(9)),
        "jpg without end": saved(rgb, "JPEG")[:-2],
        "jpg padded": saved(rgb, "JPEG") + bytes(100),
        "jpg without end, padded": saved(rgb, "JPEG")[:-2] + bytes(100),
        "jpg with a tail": saved(rgb, "JPEG") + b"written by a camera",
        "png": saved(rgb, "PNG"),
        "png gray": saved(gray, "PNG"),
        "png palette": saved(palette, "PNG"),
        "png palette transparent": saved(palette, "PNG", transparency=3),
        "png 1 bit": saved(rgb.convert("1"), "PNG"),
        "png 2 bits": saved(rgb.convert("P", palette=Image.Palette.ADAPTIVE, colors=4), "PNG", bits=2),
        "png alpha": saved(rgba, "PNG"),
        "png gray alpha": saved(rgb.convert("LA"), "PNG"),
        "png animated": saved(rgb, "PNG", save_all=True, append_images=[blocks(1)]),
        "png 16 bit": encoded(".png", deep()),
        "png 16 bit color": encoded(".png", color),
        "bmp": saved(rgb, "BMP"),
        "bmp gray": saved(gray, "BMP"),
        "bmp palette": saved(palette, "BMP"),
        "bmp 1 bit": saved(rgb.convert("1"), "BMP"),
        "tif": saved(rgb, "TIFF"),
        "tif gray": saved(gray, "TIFF"),
        "tif palette": saved(palette, "TIFF"),
        "tif 1 bit": saved(rgb.convert("1"), "TIFF"),
        "tif fax": saved(rgb.convert("1"), "TIFF", compression="group4"),
        "tif lzw": saved(rgb, "TIFF", compression="tiff_lzw"),
        "tif deflate": saved(gray, "TIFF", compression="tiff_adobe_deflate"),
        "tif jpeg": saved(rgb, "TIFF", compression="jpeg"),
        "tif alpha": saved(rgba, "TIFF"),
        "tif gray alpha": saved(rgb.convert("LA"), "TIFF"),
        "tif cmyk": saved(rgb.convert("CMYK"), "TIFF"),
        "tif lab": saved(rgb.convert("LAB"), "TIFF"),
        "tif near infrared": tiff(np.asarray(rgba), photometric=2, alpha=1),
        "tif planes": tiff(np.asarray(rgb), photometric=2, separate=True),
        "tif white is 0": tiff(np.asarray(gray), photometric=0),
        "tif big": saved(rgb, "TIFF", big_tiff=True),
        "tif pages": saved(rgb, "TIFF", save_all=True, append_images=[blocks(1)]),
        "tif gray pages": saved(gray, "TIFF", save_all=True, append_images=[blocks(1).convert("L")]),
        "tif pages of different sizes": saved(rgb, "TIFF", save_all=True, append_images=[blocks(1).resize((20, 30))]),
        "tif 16 bit": tiff(deep()),
        "tif 16 bit color": encoded(".tif", color),
        "tif 16 bit lzw": saved(Image.fromarray(deep()), "TIFF", compression="tiff_lzw"),
        "webp": saved(rgb, "WEBP"),
        "webp lossless": saved(rgb, "WEBP", lossless=True),
        "webp alpha": saved(rgba, "WEBP"),
        "webp animated": saved(rgb, "WEBP", save_all=True, append_images=[blocks(1)], lossless=True),
        "jp2": saved(rgb, "JPEG2000"),
        "jp2 gray": saved(gray, "JPEG2000"),
        "jp2 alpha": saved(rgba, "JPEG2000"),
        "jp2 lossy": saved(rgb, "JPEG2000", quality_mode="rates", quality_layers=[20]),
        "jp2 code stream": saved(rgb, "JPEG2000", no_jp2=True),
        "jp2 16 bit": encoded(".jp2", deep()),
        "pnm color": saved(rgb, "PPM"),
        "pnm gray": saved(gray, "PPM"),
        "pnm 1 bit": saved(rgb.convert("1"), "PPM"),
        "pnm 12 bit": b"P5\n%d %d\n4095\n" % (WIDTH, HEIGHT) + deep().astype(">u2").tobytes(),
    }
    for orientation in range(1, 9):
        for kind, name in (("JPEG", "jpg"), ("PNG", "png"), ("TIFF", "tif"), ("WEBP", "webp"), ("JPEG2000", "jp2")):
            files[f"{name} orientation {orientation}"] = saved(rgb, kind, exif=oriented(orientation))
        files[f"tif gray orientation {orientation}"] = saved(gray, "TIFF", exif=oriented(orientation))
        files[f"jpg orientation {orientation} in xmp"] = saved(rgb, "JPEG", xmp=xmp(orientation))
    return files
