"""Cases of COCO: one file or several, and how their images are called."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tests.field.builders import (
    BOM,
    CATEGORIES,
    SEEDS,
    Photo,
    Tree,
    background,
    coco,
    encoded,
    loose,
    pairs,
    photo,
    yolo,
)
from tests.field.case import LOOSE, SOUND, Taken, case, refused


def entries(seeds: Iterable[int] = range(8), name: str = "{}.png") -> list[tuple[str, Photo]]:
    """(file name, photo), the names with ``{}`` for the stem."""
    return [(name.format(f"p{seed:03d}"), photo(seed)) for seed in seeds]


def one_file(change: Callable[[dict[str, Any]], object] = lambda content: None, name: str = "{}.png") -> Tree:
    """images/ and annotations.json, its content changed in place."""
    content = coco(entries(name=name))
    change(content)
    return {**pairs("images/{}.png"), "annotations.json": json.dumps(content)}


def file_per_split(
    image: str, file: str, name: str = "{}.png", words: dict[str, str] | None = None, categories=CATEGORIES
) -> Tree:
    """A file for each split; ``{split}`` in all paths stands for the split or its word."""
    tree: Tree = {}
    for split, seeds in SEEDS.items():
        word = (words or {}).get(split, split)
        tree.update(pairs(image.replace("{split}", word), seeds=seeds))
        content = coco(entries(seeds, name.replace("{split}", word)), categories)
        tree[file.replace("{split}", word)] = json.dumps(content)
    return tree


@case(Taken(loose=8, quiet=True))
def coco_one_file():
    """One file beside images/."""
    return one_file()


@case(SOUND)
def coco_of_roboflow():
    """A folder per split with its images and _annotations.coco.json."""
    return file_per_split("{split}/{}.jpg", "{split}/_annotations.coco.json", "{}.jpg", words={"val": "valid"})


@case(SOUND)
def coco_official():
    """annotations/instances_train2017.json and train2017/."""
    words = {split: f"{split}2017" for split in SEEDS}
    return file_per_split("{split}/{}.jpg", "annotations/instances_{split}.json", "{}.jpg", words)


@case(SOUND)
def coco_files_side_by_side():
    """train.json, val.json, test.json side by side, all images in images/."""
    return file_per_split("images/{}.png", "{split}.json")


@case(SOUND)
def coco_in_one_folder():
    """annotations/instances_<split>.json, all images in images/."""
    return file_per_split("images/{}.jpg", "annotations/instances_{split}.json", "{}.jpg")


@case(refused("p004.png", "train.json", "val.json"))
def coco_in_two_splits():
    """Two images are listed in train.json and in val.json."""
    return {
        **pairs("images/{}.png"),
        "train.json": json.dumps(coco(entries(range(6)))),
        "val.json": json.dumps(coco(entries(range(4, 8)))),
    }


@case(refused("train.json", "val/p004.png"))
def coco_against_folders():
    """train.json lists images that lie in val/."""
    return {
        **pairs("train/{}.png", seeds=range(4)),
        **pairs("val/{}.png", seeds=range(4, 8)),
        "train.json": json.dumps(coco(entries(range(6)))),
        "val.json": json.dumps(coco(entries(range(6, 8)))),
    }


@case(SOUND)
def coco_of_cvat():
    """CVAT: annotations/instances_<subset>.json, images/<subset>/."""
    words = {split: split.capitalize() for split in SEEDS}
    return file_per_split("images/{split}/{}.png", "annotations/instances_{split}.json", words=words)


@case(SOUND)
def coco_names_with_folders():
    """file_name holds the path below the folder of the images."""
    return file_per_split("images/{split}/{}.png", "annotations/{split}.json", "{split}/{}.png")


@case(LOOSE)
def coco_names_of_windows():
    """file_name is an absolute path of another machine, with backslashes."""
    return one_file(name="D:\\scans\\may\\{}.png")


@case(LOOSE)
def coco_of_label_studio():
    """Label Studio: images/ below result.json, file_name with its folder."""
    tree = one_file(name="images/3f2a1b0c-{}.png")
    return {
        ("result.json" if p == "annotations.json" else p.replace("images/", "images/3f2a1b0c-")): c
        for p, c in tree.items()
    }


@case(LOOSE)
def coco_with_byte_order_mark():
    """A file saved by Notepad, PowerShell, or C#."""
    tree = one_file()
    return {**tree, "annotations.json": BOM + str(tree["annotations.json"]).encode()}


@case(SOUND)
def coco_val_with_byte_order_mark():
    """Only one of three files has the mark."""
    tree = file_per_split("{split}/{}.png", "{split}/_annotations.coco.json")
    return {**tree, "val/_annotations.coco.json": BOM + str(tree["val/_annotations.coco.json"]).encode()}


@case(refused("val/_annotations.coco.json", "UTF-8"))
def coco_val_in_gbk():
    """One of three files in the code page of a Chinese Windows."""
    categories = [{**CATEGORIES[0]}, {**CATEGORIES[1], "supercategory": "缺陷"}]
    tree = file_per_split("{split}/{}.png", "{split}/_annotations.coco.json", categories=categories)
    text = json.dumps(json.loads(str(tree["val/_annotations.coco.json"])), ensure_ascii=False)
    return {**tree, "val/_annotations.coco.json": text.encode("gbk")}


@case(SOUND)
def coco_supercategory_is_the_name():
    """SAHI writes supercategory = name; test has no dark."""
    categories = [{"id": i, "name": name, "supercategory": name} for i, name in enumerate(("bright", "dark"))]
    tree = file_per_split("{split}/{}.png", "{split}/_annotations.coco.json", categories=categories)
    tree["test/_annotations.coco.json"] = json.dumps(coco(entries([8, 12]), categories))
    return {p: c for p, c in tree.items() if not p.startswith("test/p")} | pairs("test/{}.png", seeds=[8, 12])


@case(Taken(loose=8, said=("kind3",)))
def coco_unused_categories():
    """A project with ten categories, of which two occur."""
    more = [{"id": i, "name": f"kind{i}", "supercategory": ""} for i in range(3, 11)]
    return one_file(lambda content: content["categories"].extend(more))


@case(Taken(loose=8, said=("crowd",)))
def coco_crowd():
    """A region of many defects, marked as a crowd with run lengths."""

    def crowd(content: dict[str, Any]) -> None:
        counts = {"size": [64, 96], "counts": [0, 6144]}
        box = {"id": 99, "image_id": 1, "category_id": 1, "bbox": [0, 0, 96, 64], "area": 6144}
        content["annotations"].append({**box, "iscrowd": 1, "segmentation": counts})

    return one_file(crowd)


@case(LOOSE)
def coco_of_two_annotators():
    """a.json and b.json of the same images; each holds the boxes of one class."""
    parts = {
        f"annotations/{person}.json": json.dumps(coco([(n, shown.without(other)) for n, shown in entries()]))
        for person, other in (("a", "bright"), ("b", "dark"))
    }
    return {**pairs("images/{}.png"), **parts}


@case(Taken(loose=8, names=("bright", "dark", "black"), shown=("bright", "dark", "dark")))
def coco_of_two_projects():
    """Two files whose categories differ: names count, not ids."""
    other = [{"id": 1, "name": "bright"}, {"id": 2, "name": "black"}]
    first, second = coco(entries(range(4))), coco(entries(range(4, 8)))
    return {
        **pairs("images/{}.png"),
        "a.json": json.dumps(first),
        "b.json": json.dumps({**second, "categories": other}),
    }


@case(Taken(train=4, val=4))
def coco_ids_differ_between_files():
    """The same categories under other ids: names count."""
    other = [{"id": 7, "name": "dark"}, {"id": 9, "name": "bright"}]
    return {
        **pairs("images/{}.png"),
        "train.json": json.dumps(coco(entries(range(4)))),
        "val.json": json.dumps(coco(entries(range(4, 8)), other)),
    }


@case(refused("p000.png", "a/", "b/"))
def coco_same_name_in_two_folders():
    """CVAT tasks merged: p000.png is listed twice, the folders are lost."""
    tree: Tree = {**pairs("images/a/{}.png"), **pairs("images/b/{}.png", seeds=range(8, 16), minus=8)}
    listed = [*entries(), *((f"p{seed:03d}.png", photo(seed + 8)) for seed in range(8))]
    return {**tree, "annotations.json": json.dumps(coco(listed))}


@case(refused("192x128", "96x64", "resize_labels"))
@case(LOOSE, name="coco_of_larger_images_scaled", resize_labels=True)
def coco_of_larger_images():
    """Images were shrunk after they had been annotated."""
    large = [(f"p{seed:03d}.png", photo(seed, 192, 128)) for seed in range(8)]
    small = {
        f"images/{name}": encoded(shown.pixels.reshape(64, 2, 96, 2).mean((1, 3)).astype(np.uint8), ".png")
        for name, shown in large
    }
    return {**small, "annotations.json": json.dumps(coco(large))}


@case(LOOSE)
def coco_polygons_without_boxes():
    """Labelbox and scripts write no "bbox"."""

    def polygons(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            x, y, w, h = annotation.pop("bbox")
            annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]

    return one_file(polygons)


@case(Taken(train=4, val=2, test=2, defect_free=2, names=("bright",)))
def coco_project_named_like_its_class():
    """Roboflow: category 0 is the project, called as its only class; test has no boxes at all."""
    categories = [
        {"id": 0, "name": "bright", "supercategory": "none"},
        {"id": 1, "name": "bright", "supercategory": "bright"},
    ]
    tree: Tree = {}
    for split, seeds in (("train", (0, 4, 8, 12)), ("valid", (16, 20)), ("test", (24, 28))):
        shown = [(f"p{seed:03d}.png", photo(seed)) for seed in seeds]
        if split == "test":
            tree.update({f"test/p{seed:03d}.png": encoded(background(seed), ".png") for seed in seeds})
            shown = [(name, Photo(one.pixels, ())) for name, one in shown]
        else:
            tree.update(pairs(f"{split}/{{}}.png", seeds=seeds))
        tree[f"{split}/_annotations.coco.json"] = json.dumps(coco(shown, categories))
    return tree


@case(refused("annotations.json"))
def coco_cut_off():
    """A download that ended early."""
    tree = one_file()
    return {**tree, "annotations.json": str(tree["annotations.json"])[:900]}


@case(refused("annotations.json", "77"))
def coco_unknown_image():
    """An annotation of an image that is not listed."""
    return one_file(lambda content: content["annotations"][2].update(image_id=77))


@case(refused("annotations.json", "9"))
def coco_unknown_category():
    """An annotation of a category that is not listed."""
    return one_file(lambda content: content["annotations"][2].update(category_id=9))


@case(refused("annotations.json", "corners"))
def coco_corners_instead_of_sizes():
    """bbox holds x1, y1, x2, y2."""

    def corners(content: dict[str, Any]) -> None:
        for annotation in content["annotations"]:
            x, y, w, h = annotation["bbox"]
            annotation["bbox"] = [x, y, x + w, y + h]

    return one_file(corners)


@case(refused("annotations.json", "p003.png", "skip_bad"))
@case(Taken(loose=7), name="coco_image_missing_skipped", skip_bad=True)
def coco_image_missing():
    """An image of the list was deleted."""
    return {p: c for p, c in one_file().items() if p != "images/p003.png"}


@case(LOOSE)
def coco_ids_as_text():
    """Ids in quotes."""

    def quoted(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["id"] = str(image["id"])
        for annotation in content["annotations"]:
            annotation["image_id"] = str(annotation["image_id"])

    return one_file(quoted)


@case(Taken(loose=9, defect_free=1, unlabeled=1))
def coco_image_not_listed():
    """An image with an entry and no boxes is free of defects; one without an entry is unlabeled."""
    shown = [*entries(), ("good.png", Photo(background(0), ()))]
    return {
        **pairs("images/{}.png"),
        "images/good.png": encoded(background(0), ".png"),
        "images/new.png": encoded(background(1), ".png"),
        "annotations.json": json.dumps(coco(shown)),
    }


@case(Taken(loose=8, left_out={"package.json": "", "predictions.json": ""}))
def coco_beside_other_json():
    """JSON files that are no labels: settings, detections of a network."""
    found = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "score": 0.4}]
    return {**one_file(), "package.json": '{"name": "viewer", "version": "1.0"}', "predictions.json": json.dumps(found)}


@case(LOOSE)
def coco_beside_same_yolo():
    """The same labels, exported twice."""
    return {**loose(), "annotations.json": json.dumps(coco(entries()))}


@case(refused("annotations.json", "p001.txt", "labels="))
@case(LOOSE, name="coco_beside_other_yolo_decided", labels="coco")
def coco_beside_other_yolo():
    """An older export of labels beside the JSON."""
    old = {f"labels/p{seed:03d}.txt": yolo(photo(seed).without("dark")) for seed in range(8)}
    return {**loose(), **old, "annotations.json": json.dumps(coco(entries()))}


@case(Taken(loose=8))
def coco_of_two_lines():
    """line1 and line2, each with images and a file, and with the same names."""
    tree: Tree = {}
    for line, seeds in (("line1", range(4)), ("line2", range(4, 8))):
        tree.update(pairs(f"{line}/images/{{}}.png", seeds=seeds, minus=seeds[0]))
        names = [(f"p{seed - seeds[0]:03d}.png", photo(seed)) for seed in seeds]
        tree[f"{line}/annotations/instances.json"] = json.dumps(coco(names))
    return tree


@case(LOOSE)
def coco_of_images_converted_since():
    """The file names p000.bmp, and the images are p000.png."""
    return {**pairs("images/{}.png"), "annotations.json": json.dumps(coco(entries(name="{}.bmp")))}
