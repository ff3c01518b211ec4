"""Cases of annotation tools with formats of their own (LabelMe, Label Studio, CVAT), and of tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests.field.builders import SEEDS, Photo, Tree, background, encoded, labelme, pairs, photo
from tests.field.case import LOOSE, Taken, case, refused


@case(Taken(loose=8, quiet=True))
def labelme_side_by_side():
    """Image and JSON in one folder."""
    return pairs("{}.jpg", "{}.json", labelme)


@case(LOOSE)
def labelme_other_folder():
    """imagePath leads from the folder of the JSON to that of the images, with backslashes."""
    return pairs("images/{}.jpg", "json/{}.json", lambda shown, image: labelme(shown, f"..\\images\\{image}"))


@case(LOOSE)
def labelme_polygons():
    """Polygons; the box is the one around them."""
    return pairs("{}.jpg", "{}.json", lambda shown, image: labelme(shown, image, kind="polygon"))


@case(LOOSE)
def labelme_renamed():
    """Images and JSON were renamed together; imagePath names files that are not there."""
    return pairs("{}.jpg", "{}.json", lambda shown, image: labelme(shown, f"DSC_{image}"))


@case(refused("p003.json", "192x128", "96x64", "resize_labels"))
def labelme_of_a_larger_image():
    """One image was shrunk."""
    return {
        **pairs("{}.jpg", "{}.json", labelme),
        "p003.json": labelme(photo(3, 192, 128), "p003.jpg"),
    }


@case(Taken(loose=9, defect_free=1, unlabeled=1))
def labelme_empty():
    """A JSON without shapes says: no defect."""
    good = background(0)
    return {
        **pairs("{}.jpg", "{}.json", labelme),
        "good.jpg": encoded(good, ".jpg"),
        "good.json": labelme(Photo(good, ()), "good.jpg"),
        "new.jpg": encoded(background(1), ".jpg"),
    }


@case(LOOSE)
def x_anylabeling():
    """X-AnyLabeling: rectangles by four corners, further keys, a description."""

    def shapes(shown: Photo, image: str) -> str:
        content = json.loads(labelme(shown, image))
        for shape, patch in zip(content["shapes"], shown.patches):
            shape.update(points=patch.corners, description="", difficult=False, score=None, attributes={})
        return json.dumps({**content, "version": "2.4.0", "description": ""})

    return pairs("{}.png", "{}.json", shapes)


@case(refused("p000.json"))
def labelme_relative():
    """A script wrote 0 to 1 instead of pixels."""

    def relative(shown: Photo, image: str) -> str:
        content = json.loads(labelme(shown, image))
        for shape in content["shapes"]:
            shape["points"] = [[x / 96, y / 64] for x, y in shape["points"]]
        return json.dumps(content)

    return pairs("{}.png", "{}.json", relative)


@case(refused("p002.json"))
def labelme_cut_off():
    """A disk was full."""
    tree = pairs("{}.jpg", "{}.json", labelme)
    return {**tree, "p002.json": str(tree["p002.json"])[:120]}


def label_studio(tasks: Iterable[tuple[str, Photo]], **more: Any) -> list[dict[str, Any]]:
    """The JSON export of Label Studio: boxes in percent."""
    exported = []
    for number, (image, shown) in enumerate(tasks, 1):
        result = [
            {
                "type": "rectanglelabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": shown.width,
                "original_height": shown.height,
                "image_rotation": 0,
                "value": {
                    "x": p.x1 / shown.width * 100,
                    "y": p.y1 / shown.height * 100,
                    "width": (p.x2 - p.x1) / shown.width * 100,
                    "height": (p.y2 - p.y1) / shown.height * 100,
                    "rotation": 0,
                    "rectanglelabels": [p.name],
                },
            }
            for p in shown.patches
        ]
        annotation = {"id": number, "completed_by": 1, "was_cancelled": False, "result": result, **more}
        upload = image.rsplit("/", 1)[-1]
        exported.append(
            {
                "id": number,
                "data": {"image": image},
                "file_upload": upload,
                "annotations": [annotation],
                "predictions": [],
            }
        )
    return exported


def uploads(seeds: Iterable[int] = range(8)) -> list[tuple[str, Photo]]:
    """The photos under the names that Label Studio gives them on upload."""
    return [(f"/data/upload/1/3f2a1b0c-p{seed:03d}.png", photo(seed)) for seed in seeds]


@case(LOOSE)
def label_studio_json():
    """The images lie under their own names, the tasks carry the hash of the upload."""
    return {**pairs("images/{}.png"), "project-1.json": json.dumps(label_studio(uploads()))}


@case(LOOSE)
def label_studio_local_files():
    """Local storage: /data/local-files/?d=may/p000.png."""
    tasks = [(f"/data/local-files/?d=scans/may/p{seed:03d}.png", photo(seed)) for seed in range(8)]
    exported = [{k: v for k, v in task.items() if k != "file_upload"} for task in label_studio(tasks)]
    return {**pairs("may/{}.png"), "export.json": json.dumps(exported)}


@case(Taken(loose=7, unlabeled=1))
def label_studio_skipped():
    """A task that the annotator skipped says nothing."""
    exported = label_studio(uploads())
    exported[2]["annotations"][0].update(was_cancelled=True, result=[])
    return {**pairs("images/{}.png"), "export.json": json.dumps(exported)}


@case(refused("export.json"))
def label_studio_min():
    """JSON-MIN: the boxes under the name of the tag."""
    size = {"original_width": 96, "original_height": 64}
    rows = []
    for task in label_studio(uploads()):
        boxes = [{**result["value"], **size} for result in task["annotations"][0]["result"]]
        rows.append({"id": task["id"], "image": task["data"]["image"], "annotator": 1, "label": boxes})
    return {**pairs("images/{}.png"), "export.json": json.dumps(rows)}


def cvat(images: Iterable[tuple[str, str, Photo]], points: bool = False) -> str:
    """CVAT, "CVAT for images": (name, subset, photo)."""
    rows = ""
    for number, (name, subset, shown) in enumerate(images):
        subset = f' subset="{subset}"' if subset else ""
        rows += f'<image id="{number}" name="{name}"{subset} width="{shown.width}" height="{shown.height}">'
        for p in shown.patches:
            if points:
                corners = ";".join(f"{x:.2f},{y:.2f}" for x, y in p.corners)
                rows += f'<polygon label="{p.name}" source="manual" occluded="0" points="{corners}" z_order="0"/>'
            else:
                rows += (
                    f'<box label="{p.name}" source="manual" occluded="0" xtl="{p.x1}.00" ytl="{p.y1}.00" '
                    f'xbr="{p.x2}.00" ybr="{p.y2}.00" z_order="0"><attribute name="deep">false</attribute></box>'
                )
        rows += "</image>"
    labels = "".join(f"<label><name>{name}</name><attributes/></label>" for name in ("bright", "dark"))
    meta = f"<meta><task><name>plates</name><labels>{labels}</labels></task></meta>"
    return f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{meta}{rows}</annotations>'


def cvat_rows(seeds: Iterable[int], subset: str = "", folder: str = "") -> list[tuple[str, str, Photo]]:
    """Rows for :func:`cvat`."""
    return [(f"{folder}p{seed:03d}.png", subset, photo(seed)) for seed in seeds]


@case(LOOSE)
def cvat_xml():
    """annotations.xml beside images/."""
    return {**pairs("images/{}.png"), "annotations.xml": cvat(cvat_rows(range(8)))}


@case(Taken(train=4, val=2, test=2))
def cvat_xml_subsets():
    """A project with the subsets Train, Validation, and Test."""
    words = {"train": "Train", "val": "Validation", "test": "Test"}
    rows = [row for split, seeds in SEEDS.items() for row in cvat_rows(seeds, words[split])]
    images: Tree = {}
    for split, seeds in SEEDS.items():
        images.update(pairs(f"images/{words[split]}/{{}}.png", seeds=seeds))
    return {**images, "annotations.xml": cvat(rows)}


@case(refused("annotations.xml", "p000.png"))
def cvat_xml_in_two_subsets():
    """An image that two subsets list."""
    rows = [*cvat_rows(range(8), "Train"), *cvat_rows(range(2), "Validation")]
    return {**pairs("images/{}.png"), "annotations.xml": cvat(rows)}


@case(LOOSE)
def cvat_xml_folders():
    """Names with folders; the same name in two of them."""
    rows = [*cvat_rows(range(4), folder="mon/"), *((f"tue/p{s - 4:03d}.png", "", photo(s)) for s in range(4, 8))]
    return {
        **pairs("images/mon/{}.png", seeds=range(4)),
        **pairs("images/tue/{}.png", seeds=range(4, 8), minus=4),
        "annotations.xml": cvat(rows),
    }


@case(LOOSE)
def cvat_xml_polygons():
    """Polygons instead of boxes."""
    return {**pairs("images/{}.png"), "annotations.xml": cvat(cvat_rows(range(8)), points=True)}


@case(refused("annotations.xml", "track"))
def cvat_xml_of_a_video():
    """ "CVAT for video": tracks with frame numbers, no names of images."""
    box = '<box frame="0" outside="0" keyframe="1" xtl="1" ytl="1" xbr="20" ybr="20"/>'
    tracks = f'<annotations><version>1.1</version><track id="0" label="bright">{box}</track></annotations>'
    return {**pairs("images/{}.png"), "annotations.xml": tracks}


def tensorflow(seeds: Iterable[int], columns: Mapping[str, str] | None = None, delimiter: str = ",") -> str:
    """The usual table: one row per box; ``columns`` gives other names to some."""
    usual = ("filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax")
    rows = [delimiter.join((columns or {}).get(column, column) for column in usual)]
    for seed in seeds:
        for p in photo(seed).patches:
            rows.append(delimiter.join(map(str, (f"p{seed:03d}.png", 96, 64, p.name, p.x1, p.y1, p.x2, p.y2))))
    return "\n".join(rows) + "\n"


@case(LOOSE)
def csv_tensorflow():
    """annotations.csv with filename, width, height, class, xmin, ..."""
    return {**pairs("images/{}.png"), "annotations.csv": tensorflow(range(8))}


@case(Taken(train=4, val=2, test=2))
def csv_per_split():
    """A table in the folder of each split (Roboflow: _annotations.csv)."""
    tree: Tree = {}
    for split, seeds in SEEDS.items():
        tree.update(pairs(f"{split}/{{}}.png", seeds=seeds))
        tree[f"{split}/_annotations.csv"] = tensorflow(seeds)
    return tree


@case(LOOSE)
def csv_of_a_spreadsheet():
    """Semicolons and a byte-order mark, as a German spreadsheet saves it."""
    return {**pairs("images/{}.png"), "boxes.csv": b"\xef\xbb\xbf" + tensorflow(range(8), delimiter=";").encode()}


@case(LOOSE)
def csv_retinanet():
    """No header: path, x1, y1, x2, y2, class; an empty row for an image without defects."""
    rows = [f"images/p{s:03d}.png,{p.x1},{p.y1},{p.x2},{p.y2},{p.name}" for s in range(8) for p in photo(s).patches]
    return {**pairs("images/{}.png"), "annotations.csv": "\n".join(rows) + "\n"}


@case(refused("train.csv", "EncodedPixels"))
def csv_run_lengths():
    """Severstal: run lengths of masks."""
    rows = "".join(f"p{seed:03d}.jpg,{1 + seed % 2},100 20 164 20\n" for seed in range(8))
    return {**pairs("train_images/{}.jpg"), "train.csv": f"ImageId,ClassId,EncodedPixels\n{rows}"}


@case(refused("annotations.csv", "3"))
def csv_without_a_number():
    """A cell that is no number."""
    lines = tensorflow(range(8)).splitlines()
    lines[2] = lines[2].rsplit(",", 1)[0] + ",about 40"
    return {**pairs("images/{}.png"), "annotations.csv": "\n".join(lines)}


@case(Taken(loose=8, left_out={"results.csv": ""}))
def csv_of_something_else():
    """A table of measurements beside labels."""
    return {**pairs("{}.jpg", "{}.json", labelme), "results.csv": "epoch,loss\n1,0.5\n2,0.4\n"}


@case(refused("labels"))
def no_labels_at_all():
    """MVTec AD: good and bad parts in folders, masks in ground_truth/, no boxes anywhere."""
    return {
        **pairs("train/good/{}.png", seeds=range(4)),
        **pairs("test/broken/{}.png", seeds=range(4, 8)),
        **{f"ground_truth/broken/p{s:03d}_mask.png": encoded(background(s), ".png") for s in range(4, 8)},
    }


@case(LOOSE)
def csv_of_open_images():
    """Images without suffix, and boxes in 0-1."""
    rows = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf\n"
    for seed in range(8):
        for p in photo(seed).patches:
            box = f"{p.x1 / 96:.6f},{p.x2 / 96:.6f},{p.y1 / 64:.6f},{p.y2 / 64:.6f}"
            rows += f"p{seed:03d},verification,{p.name},1,{box},0,0\n"
    return {**pairs("images/{}.jpg"), "boxes.csv": rows}
