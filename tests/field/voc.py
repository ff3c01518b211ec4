"""Cases of Pascal VOC: XML files, their image sets, and what lies beside them."""

from __future__ import annotations

import re

import numpy as np

from tests.field.builders import (
    NAMES,
    SEEDS,
    Photo,
    Tree,
    background,
    below,
    changed,
    encoded,
    in_splits,
    pairs,
    photo,
    sound,
    voc,
)
from tests.field.case import LOOSE, SOUND, Taken, case, refused


def annotated(writer=voc) -> Tree:
    """Eight images in the folders of VOC."""
    return pairs("JPEGImages/{}.jpg", "Annotations/{}.xml", writer)


def image_sets(sets: dict[str, range], folder: str = "ImageSets/Main") -> Tree:
    """A list of stems for each set."""
    return {f"{folder}/{name}.txt": "".join(f"p{seed:03d}\n" for seed in seeds) for name, seeds in sets.items()}


@case(Taken(loose=8, quiet=True))
def voc_folders():
    """JPEGImages/ and Annotations/."""
    return annotated()


@case(LOOSE)
def voc_side_by_side():
    """Image and XML in one folder, the suffix in capitals."""
    return pairs("{}.png", "{}.XML", voc)


@case(SOUND)
def voc_splits():
    """train/, valid/, test/ with image and XML side by side, as Roboflow exports them."""
    return in_splits("{split}/{}.jpg", "{split}/{}.xml", voc, words={"val": "valid"})


@case(Taken(train=4, val=2, test=2))
def voc_image_sets():
    """The official split; trainval and the lists of single classes repeat it."""
    of_a_class = {
        f"ImageSets/Main/{name}_train.txt": "".join(
            f"p{seed:03d} {' 1' if any(p.name == name for p in photo(seed).patches) else '-1'}\n" for seed in range(4)
        )
        for name in NAMES
    }
    return {**annotated(), **image_sets({**SEEDS, "trainval": range(6)}), **of_a_class}


@case(refused("train.txt", "val.txt", "p003"))
def voc_image_sets_overlap():
    """An image in two sets."""
    return {**annotated(), **image_sets({"train": range(4), "val": range(3, 8)})}


@case(Taken(train=4, val=4, said=("val.txt|p099",)))
def voc_image_set_names_missing():
    """A set names an image that is gone."""
    tree = {**annotated(), **image_sets({"train": range(4), "val": range(4, 8)})}
    return changed(tree, lambda text: text + b"p099\n", "val.txt")


@case(Taken(train=4, val=4, roles={"mask": 4}))
def voc_with_segmentation():
    """A release with SegmentationClass/ and SegmentationObject/, PNG masks with the names of the photos."""
    mask = np.zeros((64, 96), np.uint8)
    mask[10:30, 10:40] = 1
    return {
        **annotated(),
        **image_sets({"train": range(4), "val": range(4, 8)}),
        **image_sets({"train": range(2)}, "ImageSets/Segmentation"),
        **{
            f"{folder}/p{seed:03d}.png": encoded(mask, ".png")
            for folder in ("SegmentationClass", "SegmentationObject")
            for seed in range(2)
        },
    }


def at_double_size(shown: Photo, image: str) -> str:
    """Annotations made before the images were shrunk to half."""
    doubled = photo(int(image[1:4]), 192, 128)
    return voc(doubled, image)


@case(refused("192x128", "96x64", "resize_labels"))
@case(LOOSE, name="voc_of_larger_images_scaled", resize_labels=True)
def voc_of_larger_images():
    """Images were shrunk after they had been annotated."""
    tree = pairs("images/{}.png", "xml/{}.xml", at_double_size)
    for seed in range(8):
        large = photo(seed, 192, 128).pixels
        tree[f"images/p{seed:03d}.png"] = encoded(large.reshape(64, 2, 96, 2).mean((1, 3)).astype(np.uint8), ".png")
    return tree


@case(refused("p003.xml", "96x64", "resize_labels"))
def voc_one_cropped():
    """One image of the set was cropped: no factor turns its size into the stated one."""
    tree = annotated()
    tree["JPEGImages/p003.jpg"] = encoded(photo(3).pixels[:, :70], ".jpg")
    return tree


@case(LOOSE)
def voc_without_size():
    """<size> 0x0, coordinates such as 12.0, difficult objects."""

    def careless(shown: Photo, image: str) -> str:
        text = voc(shown, image, size=(0, 0))
        return text.replace("</xmin>", ".0</xmin>").replace("<difficult>0", "<difficult>1")

    return annotated(careless)


@case(refused("p000.xml"))
def voc_relative():
    """A script wrote 0 to 1 instead of pixels."""

    def relative(shown: Photo, image: str) -> str:
        text = voc(shown, image)
        for tag, side in (("xmin", 96), ("xmax", 96), ("ymin", 64), ("ymax", 64)):
            for found in set(re.findall(rf"<{tag}>(\d+)</{tag}>", text)):
                text = text.replace(f"<{tag}>{found}<", f"<{tag}>{int(found) / side:.4f}<")
        return text

    return annotated(relative)


@case(refused("p005.xml"))
def voc_box_without_area():
    """A click without a drag: xmin = xmax."""
    corners = "<xmin>20</xmin><ymin>20</ymin><xmax>20</xmax><ymax>30</ymax>"
    click = f"<object><name>dark</name><bndbox>{corners}</bndbox></object>"
    return {**annotated(), "Annotations/p005.xml": voc(photo(5), "p005.jpg", more=click)}


@case(refused("p005.xml", "bndbox"))
def voc_turned_box():
    """roLabelImg: robndbox instead of bndbox."""
    return {**annotated(), "Annotations/p005.xml": voc(photo(5), "p005.jpg").replace("bndbox>", "robndbox>")}


@case(LOOSE)
def voc_names_with_blanks():
    """Names with a blank at the end, or broken into lines by a formatter."""

    def spaced(shown: Photo, image: str) -> str:
        return voc(shown, image, spelled={"bright": "\n      bright\n   "} if "1" in image or "4" in image else None)

    return annotated(spaced)


@case(refused("'bright'", "p000.xml"))
def voc_names_of_two_cases():
    """Bright in one file, bright in the others."""
    return {**annotated(), "Annotations/p000.xml": voc(photo(0), "p000.jpg", spelled={"bright": "Bright"})}


@case(refused("p001.xml", "drak", "names="), names=["bright", "dark"])
@case(Taken(loose=8, names=("bright", "dark", "drak"), shown=("bright", "dark", "dark")), name="voc_third_name")
def voc_unknown_name():
    """A name that is not among those given: a typing error, or a third class."""
    tree = annotated()
    tree["Annotations/p001.xml"] = voc(photo(1), "p001.jpg", spelled={"dark": "drak"})
    return tree


@case(Taken(loose=8, names=("亮斑", "暗斑")))
def voc_in_gbk():
    """XML that says that it is GBK."""

    def chinese(shown: Photo, image: str) -> bytes:
        text = voc(shown, image, spelled={"bright": "亮斑", "dark": "暗斑"})
        return f'<?xml version="1.0" encoding="gbk"?>{text}'.encode("gbk")

    return annotated(chinese)


@case(refused("p004.xml"))
def voc_in_gbk_undeclared():
    """The same without saying so."""
    text = voc(photo(4), "p004.jpg", spelled={"bright": "亮斑"})
    return {**annotated(), "Annotations/p004.xml": text.encode("gbk")}


@case(LOOSE)
def voc_stale_file_names():
    """The images were renamed after annotation; <filename> and <path> name files that are not there."""

    def stale(_: Photo, image: str) -> str:
        return voc(photo(int(image[1:4])), f"IMG_20240501_{image}").replace(
            "<size>", r"<path>C:\Users\anna\Desktop\IMG.jpg</path><size>", 1
        )

    return annotated(stale)


@case(refused("p002.xml"))
def voc_cut_off():
    """A file that ends early."""
    return changed(annotated(), lambda text: text[:150], "p002.xml")


@case(refused("p002.xml"))
def voc_with_entities():
    """A file that expands entities (the "billion laughs")."""
    bomb = b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
    return changed(annotated(), lambda text: bomb + text.replace(b"Unspecified", b"&b;"), "p002.xml")


@case(Taken(loose=8, left_out={"machine.xml": ""}))
def voc_beside_settings():
    """An XML file of the camera's software."""
    return {**annotated(), "machine.xml": "<settings><exposure unit='us'>120</exposure></settings>"}


@case(Taken(loose=9, defect_free=1))
def voc_without_objects():
    """XML without objects: no defect."""
    tree = annotated()
    tree["JPEGImages/good.jpg"] = encoded(background(0), ".jpg")
    tree["Annotations/good.xml"] = voc(Photo(background(0), ()), "good.jpg")
    return tree


@case(Taken(train=6, val=2))
def neu_of_kaggle():
    """train/images/<class>/x.jpg, train/annotations/x.xml, validation/...; one XML lies in the wrong part."""
    tree: Tree = {}
    for seed in range(8):
        part, kind = ("train" if seed < 6 else "validation"), ("crazing" if seed % 2 else "inclusion")
        tree[f"{part}/images/{kind}/{kind}_{seed}.jpg"] = encoded(photo(seed).pixels, ".jpg")
        part = "validation" if seed == 3 else part
        tree[f"{part}/annotations/{kind}_{seed}.xml"] = voc(photo(seed), f"{kind}_{seed}.jpg")
    return tree


@case(Taken(loose=7, unlabeled=1, names=("10_yaozhed", "3_yueyawan")))
def gc10():
    """GC10-DET: photos in numbered folders, all XML in lable/; one photo has none."""
    tree: Tree = {}
    for seed in range(8):
        tree[f"{seed % 4 + 1}/img_{seed:02d}_4402.jpg"] = encoded(photo(seed).pixels, ".jpg")
        spelled = {"bright": "10_yaozhed", "dark": "3_yueyawan"}
        if seed != 6:
            tree[f"lable/img_{seed:02d}_4402.xml"] = voc(photo(seed), f"img_{seed:02d}_4402.jpg", spelled=spelled)
    return tree


@case(SOUND, source="data.yaml", labels="yolo")
def voc_left_over_in_yaml_set():
    """A data set YAML with YOLO labels, and an older Annotations/ that is not asked."""

    def older(shown: Photo, image: str) -> str:
        return voc(shown.without("dark"), image)

    return {**sound(), **{p: c for p, c in pairs("-{}.png", "Annotations/{}.xml", older).items() if p[0] != "-"}}


@case(Taken(train=4, val=4))
def voc_of_two_years():
    """Two complete sets with the same names, and image sets of each."""
    tree: Tree = {}
    for year, first in (("VOC2007", 0), ("VOC2012", 4)):
        own = pairs("JPEGImages/{}.jpg", "Annotations/{}.xml", voc, range(first, first + 4), minus=first)
        tree.update(below(f"VOCdevkit/{year}", {**own, **image_sets({"train": range(2), "val": range(2, 4)})}))
    return tree
