"""Damages of small data sets, as short descriptions that can be applied to a tree and shown when a test fails."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

from tests.field.builders import DATA_YAML, Tree, coco, labelme, pairs, photo, raw, voc, zipped
from tests.field.tools import cvat, cvat_rows, label_studio, tensorflow, uploads

SEEDS = range(3)
IMAGES = pairs("images/{}.png", seeds=SEEDS)
BOXES = pairs("images/{}.png", "labels/{}.txt", seeds=SEEDS)
DARKNET = "classes = 2\ntrain = train.txt\nnames = obj.names\n"

SOUND: dict[str, Tree] = {
    "yolo": {**BOXES, "classes.txt": "bright\ndark\n"},
    "yaml": {**BOXES, "data.yaml": re.sub("/(train|val|test)", "", DATA_YAML)},
    "darknet": {**BOXES, "obj.names": "bright\ndark\n", "obj.data": DARKNET, "train.txt": "images/p000.png\n"},
    "voc": {**pairs("JPEGImages/{}.jpg", "Annotations/{}.xml", voc, SEEDS), "ImageSets/Main/val.txt": "p002\n"},
    "coco": {**IMAGES, "annotations.json": json.dumps(coco((f"p{seed:03d}.png", photo(seed)) for seed in SEEDS))},
    "labelme": pairs("{}.png", "{}.json", labelme, SEEDS),
    "label-studio": {**IMAGES, "export.json": json.dumps(label_studio(uploads(SEEDS)))},
    "cvat": {**IMAGES, "annotations.xml": cvat(cvat_rows(SEEDS))},
    "csv": {**IMAGES, "boxes.csv": tensorflow(SEEDS)},
}
"""A set of three images in each format."""

VALUE = re.compile(rb'-?\d+(?:\.\d+)?|"[^"]*"|[A-Za-z_]\w*')

ODD_VALUES = (
    *("nan", "NaN", "inf", "-Infinity", "-1", "0", "1e400", "-0.0", "1.5", "0x10", "1_000", "٣", "²"),
    *("null", "true", "[]", "{}", "[[]]", '"', "'", "<", ">", "&", "&#0;", "]]>", "\\", "\\u0000", ","),
    *(";", ":", "-", "{", "}", "]", "%", "..", "../..", "/", "/etc/passwd", "C:\\x", "~", "*", "é", "缺"),
    *("!!python/object:os.x", "images/p000.png", "p000", "dark", "BRIGHT", "", " ", "\0", "\n", "\t"),
    *("\ufeff", "\u2028", "bright ", "&a [*a]", '"\\ud800"', "9" * 30, "1" * 5000, "[" * 2000, "x" * 300),
)
"""What may stand where a number or a name is expected."""

ODD_BYTES = (
    *(b"", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\n\n\n", bytes(range(256)), b"{", b"[" * 3000, b"<a>" * 3000),
    *(b"PK\x03\x04", b"%PDF-1.4", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0\x08\0\0\0\xff\xff", b"BM"),
    *(b"RIFF\0\0\0\0WEBP", b"0 0.5 0.5 0.1 0.1", b"train: [", b"names: {0: a, 0: b}", b"a,b,c\n1,2", b"<annotation/>"),
    *(b'{"images": 1}', b'[{"data": 1}]', b'{"shapes": [{}]}', b"<annotations><image/></annotations>"),
)
"""What may stand in a file instead, or in its midst."""

NAMES = (
    *("a.png", "a.txt", "p000.txt", "p000.jpg", "p000.PNG", "p000.webp", "p000", "labels.json"),
    *("data.yaml", "z.tif", "classes.txt", "x.csv", "y.xml", "README", "train", "images", "-", "é.png"),
    *(".hidden", "test/p000.png", "unlabeled/u.png", "labels_old/p000.txt", "in.zip", "e\u0301.png"),
    *("p\n1.png", "p\r.txt", " ", "\udcff.png", "x" * 240 + ".png"),
)
"""What a file may be called instead."""

ENCODINGS = ("utf-8-sig", "utf-16", "utf-32", "cp037")


@dataclass(frozen=True)
class Damage:
    """One damage.

    Attributes:
        kind: What happens.
        file: Which file it happens to, counted in path order, modulo their number.
        at: Where in the file, or which of several, modulo the number of places.
        value: What takes the place of a value, a part, or the file.
        name: What the file is called then.
    """

    kind: str
    file: int
    at: int
    value: bytes
    name: str

    def apply(self, tree: Tree) -> None:
        """Change the tree."""
        paths = sorted(tree)
        path = paths[self.file % len(paths)]
        if self.kind == "name":
            tree[str(Path(path).parent / self.name)] = tree.pop(path)
        elif self.kind == "folder":
            tree[f"{path}/{self.name}"] = tree.pop(path)
        elif self.kind == "gone" and len(tree) > 1:
            del tree[path]
        elif self.kind == "swap":
            other = paths[self.at % len(paths)]
            tree[path], tree[other] = tree[other], tree[path]
        elif self.kind == "add":
            tree[self.name] = self.value
        elif self.kind == "copy":
            tree[self.name] = tree[path]
        else:
            tree[path] = self.changed(raw(tree[path]))

    def changed(self, content: bytes) -> bytes:
        """The damaged content of a file."""
        at = self.at % (len(content) + 1)
        found = list(VALUE.finditer(content)) if self.kind == "value" else []
        if found:
            start, stop = found[self.at % len(found)].span()
            return content[:start] + self.value + content[stop:]
        if self.kind == "cut":
            return content[:at]
        if self.kind == "flip":
            return content[:at] + bytes(byte ^ 255 for byte in content[at : at + 1]) + content[at + 1 :]
        if self.kind == "insert":
            return content[:at] + self.value + content[at:]
        if self.kind == "encode":
            return content.decode("latin-1").encode(ENCODINGS[self.at % len(ENCODINGS)])
        return content + content if self.kind == "twice" else self.value


IN_FILE = ("value", "value", "value", "value", "cut", "flip", "insert", "encode", "twice", "other")
OF_FILES = ("name", "folder", "gone", "swap", "add", "copy")


def damages(kinds: tuple[str, ...] = (*IN_FILE, *OF_FILES)) -> st.SearchStrategy[Damage]:
    """One damage of these kinds."""
    values = st.one_of(
        st.sampled_from([value.encode("utf-8", "surrogatepass") for value in ODD_VALUES]),
        st.sampled_from(ODD_BYTES),
        st.binary(max_size=20),
    )
    numbers = st.integers(0, 20), st.integers(0, 9999)
    return st.builds(Damage, st.sampled_from(kinds), *numbers, values, st.sampled_from(NAMES))


@dataclass(frozen=True)
class Move:
    """A file that somebody moves, copies, or removes; it keeps its name, so that all labels remain true.

    Attributes:
        kind: "move", "copy" or "remove".
        file: Which file, as in :class:`Damage`.
        folder: Where to.
    """

    kind: str
    file: int
    folder: str

    def apply(self, tree: Tree) -> None:
        """Change the tree."""
        paths = sorted(tree)
        path = paths[self.file % len(paths)]
        content = tree[path]
        if self.kind != "copy" and len(tree) > 1:
            del tree[path]
        if self.kind != "remove":
            tree[f"{self.folder}/{Path(path).name}"] = content


FOLDERS = (
    "images",
    "labels",
    "labels_old",
    "train",
    "test",
    "unlabeled",
    "a/images",
    "a/labels",
    "b",
    "Annotations",
    "masks",
)

moves = st.builds(
    Move, st.sampled_from(["move", "move", "copy", "remove"]), st.integers(0, 20), st.sampled_from(FOLDERS)
)


@dataclass(frozen=True)
class Damaged:
    """A data set with damages; ``base`` is a key of :data:`SOUND`."""

    base: str
    damages: tuple[Damage | Move, ...]

    def tree(self) -> Tree:
        """Its files."""
        tree = dict(SOUND[self.base])
        for damage in self.damages:
            damage.apply(tree)
        return tree


rearranged = st.builds(Damaged, st.sampled_from(sorted(SOUND)), st.lists(moves, min_size=1, max_size=4).map(tuple))
damaged = st.builds(Damaged, st.sampled_from(sorted(SOUND)), st.lists(damages(), min_size=1, max_size=3).map(tuple))

MEMBERS = (
    *("../x.txt", "/x.txt", "C:\\x.txt", "a\\b.png", "a//b.png", "./a.png", "images/", "images", "CON.png"),
    *("IMAGES/P000.PNG", "images/p000.png", "inner.zip", "~/x.png", "", "p\n.png", "a\0b.png"),
    *("x" * 300 + ".png", "a/" * 200 + "a.png"),
)
"""What a member of an archive may be called."""


@dataclass(frozen=True)
class Archive:
    """A zip file of a data set with odd members, damaged itself or not."""

    content: Damaged
    members: tuple[str, ...]
    damage: Damage | None

    def file(self) -> bytes:
        """Its bytes."""
        tree = {**self.content.tree(), **dict.fromkeys(self.members, b"0 0.5 0.5 0.1 0.1\n")}
        whole = zipped(tree, lambda name: name.encode(errors="replace").decode())  # a zip file holds valid names
        return whole if self.damage is None else self.damage.changed(whole)


archives = st.builds(
    Archive,
    st.one_of(st.sampled_from(sorted(SOUND)).map(lambda base: Damaged(base, ())), damaged),
    st.lists(st.sampled_from(MEMBERS), max_size=2).map(tuple),
    st.one_of(st.none(), damages(("cut", "flip", "insert", "other"))),
)
