"""Damaged sets of masks: whatever is wrong, the answer is a data set with an exact account, or one line."""

import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dfssd.errors import UserError
from tests.configured import load_masks
from tests.datasets.material import picture, zipped
from tests.segmentation.material import ids


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def colored():
    image = Image.fromarray(ids(1, nc=3), "P")
    image.putpalette([7 * k % 256 for k in range(768)])
    return image


def oriented(number):
    tags = Image.Exif()
    tags[0x0112] = number
    return tags


PHOTO = encoded(picture(1), "jpeg")
MASK = encoded(Image.fromarray(ids(1, nc=3)), "png")
LAYOUTS = (
    ("images/{}.jpg", "masks/{}.png"),
    ("images/train/{}.jpg", "annotations/train/{}.png"),
    ("{}.jpg", "{}_mask.png"),
    ("JPEGImages/{}.jpg", "SegmentationClass/{}.png"),
    ("test/hole/{}.png", "ground_truth/hole/{}_mask.png"),
    ("a/{}.jpg", "b/{}.png"),
)
CONTENTS = (
    b"",
    b"\0" * 40,
    b"no picture",
    b"\xff\xfe\0x",
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    PHOTO,
    MASK,
    PHOTO[:-2],
    encoded(colored(), "png"),
    encoded(colored(), "png", bits=2),
    encoded(Image.fromarray(ids(1).astype(np.uint16) * 300), "png"),
    encoded(Image.fromarray(ids(1).astype(np.int32) - 3), "tiff"),
    encoded(Image.fromarray(ids(1).astype(np.float32)), "tiff"),
    encoded(Image.fromarray(ids(1) > 0), "png"),
    encoded(Image.fromarray(ids(1)).convert("RGBA"), "png"),
    encoded(Image.fromarray(ids(1)[:1, :1]), "png"),
    encoded(picture(2), "jpeg", exif=oriented(6)),
    encoded(Image.fromarray(ids(1)), "png", exif=oriented(5)),
    encoded(picture(3), "gif"),
)
TEXTS = (
    b"",
    b"background\npit\ndent\n",
    b"background\n\xff\n",
    b"0 background\n5 pit\n",
    b"Pixel Value, Class\n0, background\n1, pit\n",
    b'"a\nb",\0\n',
    b"a\nb\nc\n",
    b"images/a.jpg masks/a.png\n../../b\n\\\n/\n",
    b"train: images\nnames: [background, pit, dent]\n",
    b"train: .\nval: b\nnames: {0: background, 1: pit}\nmasks_dir: [x]\nlabel_mapping: {a: 1}\n",
    b"train: a.txt\nnames: 5\nmasks_dir: ../..\n",
    b"train: images\nnc: 3\nmasks_dir: masks\nlabel_mapping: {255: 1, -1: 2}\n",
    b"train: {",
    b"[1, 2",
)
NAMES = (
    *("classes.txt", "labels.txt", "labelmap.txt", "_classes.csv", "x.names", "train.txt", "val.txt", "data.yaml"),
    *("old.yml", "ImageSets/Segmentation/train.txt", "ImageSets/Main/val.txt", "notes.json", "images/classes.txt"),
)


@st.composite
def damages(draw):
    """What is done to a set: (what, which file, a number, a content)."""
    kinds = st.sampled_from(["cut", "flip", "replace", "remove", "folder", "copy", "suffix", "text", "text"])
    number = st.integers(0, 10_000)
    return [
        (draw(kinds), draw(number), draw(number), draw(st.sampled_from(CONTENTS)), draw(st.sampled_from(TEXTS)))
        for _ in range(draw(st.integers(0, 4)))
    ]


def apply(root, what, which, number, content, text):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    if not files:
        return
    file = files[which % len(files)]
    data = file.read_bytes()
    if what == "cut":
        file.write_bytes(data[: number % (len(data) + 1)])
    elif what == "flip" and data:
        place = number % len(data)
        file.write_bytes(data[:place] + bytes([data[place] ^ (1 + which % 255)]) + data[place + 1 :])
    elif what == "replace":
        file.write_bytes(content)
    elif what == "remove":
        file.unlink()
    elif what == "folder":
        file.unlink()
        file.mkdir()
    elif what == "copy":
        target = file.with_name(files[number % len(files)].stem + file.suffix)
        if not target.is_dir():
            target.write_bytes(data)
    elif what == "suffix":
        suffix = (".PNG", ".bmp", ".tif", ".jpeg", ".webp", ".txt", ".yaml", ".npy", ".pgm")[number % 9]
        if not file.with_suffix(suffix).exists():
            file.rename(file.with_suffix(suffix))
    elif what == "text":
        target = root / NAMES[number % len(NAMES)]
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_dir():
            target.write_bytes(text)


def uncounted(dataset, count):
    """What contradicts that each of ``count`` files has one role and each image of the data set exists."""
    account = dataset.account
    wrong = [] if account.counted + sum(account.outside.values()) == count else [account.counted]
    wrong += [] if len(dataset.items) + len(account.files) == account.counted else [len(dataset.items)]
    wrong += [item for item in dataset.items if not item.image.exists() or (item.mask and not item.mask.exists())]
    return wrong


@given(st.sampled_from(LAYOUTS), damages(), st.booleans(), st.booleans())
def test_damaged_sets_are_read_or_refused(layout, damaged, skip_bad, is_zip):
    folder = Path(tempfile.mkdtemp())
    try:
        root = folder / "set"
        for name in "abc":
            for pattern, content in zip(layout, (PHOTO, MASK), strict=True):
                path = root / pattern.format(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        for damage in damaged:
            apply(root, *damage)
        count = sum(path.is_file() for path in root.rglob("*"))
        source = zipped(root, folder / "set.zip") if is_zip else root
        try:
            dataset = load_masks(str(source), folder / "sets", skip_bad=skip_bad)
        except UserError as error:
            wrong = [text for text in error.problems if "\n" in text or ".unpacked" in text]
        else:
            wrong = uncounted(dataset, count)
        assert not wrong
    finally:
        shutil.rmtree(folder)
