"""Cases of label files in YOLO format, their class lists, descriptions, and lists of images."""

from __future__ import annotations

import cv2
import numpy as np

from tests.field.builders import (
    BOM,
    DATA_YAML,
    NAMES,
    Photo,
    background,
    below,
    changed,
    encoded,
    in_splits,
    labelme,
    loose,
    pairs,
    photo,
    sound,
    voc,
    yolo,
    yolo_polygons,
)
from tests.field.case import LOOSE, SOUND, Taken, case, refused

CLASSES = "bright\ndark\n"


def rows(text: bytes) -> list[list[str]]:
    """The values of each row of a label file."""
    return [line.split() for line in text.decode().splitlines()]


def with_ids_from(first: int):
    """The writer of rows whose ids begin at ``first``."""
    return lambda shown, image: yolo(shown, image, first=first)


def swapped(shown: Photo, _: str = "") -> str:
    """Rows of somebody who lists ``dark`` first."""
    return yolo(shown, names=("dark", "bright"))


def moved(shown: Photo, _: str = "") -> str:
    """An older state of the labels: the boxes lie elsewhere."""
    return "".join(f"{i} 0.5 0.5 0.9 0.9\n" for i, *_ in rows(yolo(shown).encode()))


@case(Taken(loose=8, quiet=True))
def yolo_folders():
    """images/, labels/, and a list of the classes beside them."""
    return loose()


@case(LOOSE, names=["bright", "dark"])
def cr7_folders():
    """CR7-DET: image/ and label/ in a folder of the mill."""
    return pairs("lengzha/image/{}.jpg", "lengzha/label/{}.txt")


@case(LOOSE)
def yolo_side_by_side():
    """Image and label file in one folder, as LabelImg writes them."""
    return {**pairs("{}.jpg", "{}.txt"), "classes.txt": CLASSES}


@case(LOOSE, name="yolo_names_given", names=["bright", "dark"])
@case(Taken(loose=8, names=("class_0", "class_1")))
def yolo_no_names():
    """Nobody says what the ids mean."""
    return pairs("images/{}.png", "labels/{}.txt")


@case(LOOSE, names=["bright", "dark"])
def yolo_class_folders():
    """A folder for each kind of part, each with images/ and labels/; the file names repeat."""
    return {
        **below("bolt", pairs("images/{}.png", "labels/{}.txt", seeds=range(4))),
        **below("nut", pairs("images/{}.png", "labels/{}.txt", seeds=range(4, 8), minus=4)),
    }


@case(LOOSE)
def labelstudio_yolo():
    """Label Studio, "YOLO with images": images and labels carry the same hash; notes.json repeats the classes."""
    notes = '{"categories": [{"id": 0, "name": "bright"}, {"id": 1, "name": "dark"}], "info": {"year": 2025}}'
    names = "{split}/3f2a1b0c-{}.{split}"
    tree = pairs(names.replace("{split}", "png"), names.replace("{split}", "txt"))
    return {
        **{path.replace("png/", "images/").replace("txt/", "labels/"): content for path, content in tree.items()},
        "classes.txt": CLASSES,
        "notes.json": notes,
    }


@case(LOOSE)
def labelstudio_prefix():
    """Label Studio without images: all labels carry a hash, the images of the camera do not."""
    return {**pairs("images/{}.png", "labels/3f2a1b0c-{}.txt"), "classes.txt": CLASSES}


@case(LOOSE)
def labelstudio_prefix_of_half():
    """Half of the labels carry a hash."""
    return {
        **pairs("images/{}.png", "labels/{}.txt", seeds=range(4)),
        **pairs("images/{}.png", "labels/3f2a1b0c-{}.txt", seeds=range(4, 8)),
        "classes.txt": CLASSES,
    }


@case(refused("3f2a1b0c-p001.txt", "9c8b7a6d-p001.txt", "labels="))
def labelstudio_prefix_twice():
    """The same photo was uploaded twice and labeled differently."""
    return {
        **pairs("images/{}.png", "labels/3f2a1b0c-{}.txt"),
        "labels/9c8b7a6d-p001.txt": moved(photo(1)),
        "classes.txt": CLASSES,
    }


@case(refused("labels/p000.txt", "labels_old/p000.txt", "labels="))
@case(LOOSE, name="labels_twice_decided", labels="{d}/labels")
def labels_twice():
    """labels/ and an older labels_old/ with other boxes."""
    return {**loose(), **{p: c for p, c in pairs("-{}.png", "labels_old/{}.txt", moved).items() if p[0] != "-"}}


@case(LOOSE)
def labels_twice_alike():
    """The same labels in two folders."""
    tree = loose()
    return {**tree, **{p.replace("labels/", "copy/"): c for p, c in tree.items() if p.startswith("labels/")}}


@case(refused("p001.jpg", "p001.png"))
def image_under_two_suffixes():
    """p001.jpg and p001.png, one p001.txt."""
    return {**loose(), "images/p001.jpg": encoded(photo(30).pixels, ".jpg")}


@case(Taken(loose=8, unlabeled=8, said=("called like labeled ones", "vis/p000.png")))
def drawings_beside():
    """vis/ with pictures of the same names, on which somebody drew the boxes."""
    return {**loose(), **pairs("vis/{}.png", seeds=range(8))}


@case(Taken(loose=8, unlabeled=8, said=("called like labeled ones",), below="images"))
def drawings_with_boxes():
    """The same with visible boxes in color; the photos are gray and of low contrast."""

    def drawn(seed: int) -> bytes:
        pixels = np.repeat(photo(seed).pixels[..., None], 3, axis=2)
        for p in photo(seed).patches:
            cv2.rectangle(pixels, (p.x1 - 2, p.y1 - 2), (p.x2 + 1, p.y2 + 1), (255, 0, 0), 1)
        return encoded(pixels, ".jpg")

    return {**loose(), **{f"vis/p{seed:03d}.jpg": drawn(seed) for seed in range(8)}}


@case(Taken(loose=8, unlabeled=8, said=("called like labeled ones",), below="images"))
def crops_beside():
    """crops/ of an earlier detection, named like the photos."""
    crops = {f"crops/p{seed:03d}.jpg": encoded(photo(seed).pixels[10:40, 10:40], ".jpg") for seed in range(8)}
    return {**loose(), **crops}


@case(refused("a/p000.png", "b/p000.png", "labels/p000.txt"))
def flat_labels_of_two_folders():
    """a/p000.png and b/p000.png, but only one labels/p000.txt."""
    return {
        **pairs("images/a/{}.png", "labels/{}.txt"),
        "images/b/p000.png": encoded(photo(30).pixels, ".png"),
        "classes.txt": CLASSES,
    }


@case(Taken(train=4, val=4))
def flat_labels_of_splits():
    """images/train and images/val, all labels in one folder, the names unique."""
    return {
        **pairs("images/train/{}.png", "labels/{}.txt", seeds=range(4)),
        **pairs("images/val/{}.png", "labels/{}.txt", seeds=range(4, 8)),
        "classes.txt": CLASSES,
    }


@case(SOUND, source="data.yaml")
@case(SOUND, name="upper_case_folder")
def upper_case():
    """A camera and an editor that write .JPG and .TXT."""
    tree = sound(".jpg")
    return {
        p.replace(".jpg", ".JPG").replace(".txt", ".TXT") if "1" in p or "4" in p else p: c for p, c in tree.items()
    }


def keypoints(text: bytes) -> str:
    """Rows of a pose set with two points without visibility: nine columns, as of a turned box."""
    return "".join(f"{' '.join(v)} {v[1]} {v[2]} {float(v[1]) + 0.01:.6f} {v[2]}\n" for v in rows(text))


def visible_keypoints(text: bytes) -> str:
    """Rows of a pose set with two points with visibility: eleven columns, as of a polygon of five points."""
    return "".join(f"{' '.join(v)} {v[1]} {v[2]} 2 {v[1]} {v[2]} 1\n" for v in rows(text))


@case(SOUND, source="data.yaml")
def pose():
    """Labels of a pose set; kpt_shape tells."""
    return {**changed(sound(), keypoints, ".txt"), "data.yaml": DATA_YAML + "kpt_shape: [2, 2]\n"}


@case(SOUND, source="data.yaml")
def pose_visible():
    """The same with the visibility of each point, which is no coordinate."""
    return {**changed(sound(), visible_keypoints, ".txt"), "data.yaml": DATA_YAML + "kpt_shape: [2, 3]\n"}


@case(SOUND, source="data.yaml")
def polygons():
    """Labels of an instance segmentation: the box around each polygon."""
    return in_splits("images/{split}/{}.png", "labels/{split}/{}.txt", yolo_polygons) | {"data.yaml": DATA_YAML}


@case(SOUND, source="data.yaml")
def upright_oriented_boxes():
    """Four corners per row (oriented boxes that happen to stand upright)."""

    def corners(shown: Photo, image: str) -> str:
        return yolo_polygons(shown, image, middle=False)

    return in_splits("images/{split}/{}.png", "labels/{split}/{}.txt", corners) | {"data.yaml": DATA_YAML}


@case(SOUND, source="data.yaml")
def labels_of_many_editors():
    """Ids such as 0.0, tabs, CRLF, a byte-order mark, blank lines at the end, a row twice."""

    def edited(text: bytes) -> bytes:
        lines = ["\t".join([f"{float(v[0])}", *v[1:]]) for v in rows(text)]
        return BOM + "\r\n".join([*lines, lines[0], "", "  ", ""]).encode()

    return changed(sound(), edited, ".txt")


@case(refused("p006.txt", "id 2", "2 classes"), source="data.yaml")
def ids_from_one():
    """Ids 1 and 2, two names."""
    return in_splits("images/{split}/{}.png", "labels/{split}/{}.txt", with_ids_from(1)) | {"data.yaml": DATA_YAML}


@case(Taken(loose=8, unlabeled=2))
def folder_of_unlabeled():
    """unlabeled/ beside images/ and labels/."""
    return {**loose(), **pairs("unlabeled/{}.png", seeds=(20, 21))}


@case(Taken(loose=9, defect_free=1, unlabeled=1))
@case(Taken(loose=10, defect_free=2), name="missing_labels_are_background", missing_label="background")
def empty_and_missing_labels():
    """An empty label file says: no defect. No label file says nothing."""
    return {
        **loose(),
        "images/good.png": encoded(background(0), ".png"),
        "labels/good.txt": "",
        "images/new.png": encoded(background(1), ".png"),
    }


@case(refused("p100.txt", "p101.txt", "skip_bad"))
@case(
    Taken(loose=8, left_out={"p100.txt": "image", "p101.txt": "image"}),
    name="labels_without_images_skipped",
    skip_bad=True,
)
def labels_without_images():
    """Two photos were deleted, their labels were not."""
    return {**loose(), "labels/p100.txt": yolo(photo(0)), "labels/p101.txt": yolo(photo(1))}


@case(Taken(loose=8, left_out={"README.txt": "", "requirements.txt": "", "notes.md": ""}))
def texts_beside():
    """Texts that are no labels."""
    return {
        **loose(),
        "README.txt": "Photos of line 3, taken in May.\n",
        "requirements.txt": "ultralytics\nlabelImg\n",
        "notes.md": "# To do\n",
    }


@case(refused("p002.txt", "p002.png"))
def label_with_words():
    """Somebody wrote a note into a label file."""
    return {**loose(), "labels/p002.txt": "look at this again\n"}


@case(refused("p002.txt:2"))
def label_cut_off():
    """A copy was interrupted in the middle of a row."""
    return {**loose(), "labels/p002.txt": yolo(photo(2)) + "0 0.5 0.5 0.1"}


@case(refused("p000.txt:1"))
def labels_with_scores():
    """Predictions saved with their scores: six columns."""
    return changed(loose(), lambda text: "".join(f"{' '.join(v)} 0.93\n" for v in rows(text)), "0.txt", "1.txt")


@case(refused("p000.txt:1"))
def labels_in_pixels():
    """Corners in pixels, class last, as in DeepPCB."""

    def corners(shown: Photo, _: str) -> str:
        return "".join(f"{p.x1} {p.y1} {p.x2} {p.y2} {NAMES.index(p.name) + 1}\n" for p in shown.patches)

    return {**pairs("images/{}.png", "labels/{}.txt", corners), "classes.txt": CLASSES}


@case(refused("p000.txt", "p000.xml", "labels="))
@case(LOOSE, name="yolo_beside_other_voc_decided", labels="voc")
def yolo_beside_other_voc():
    """Each image has .txt and .xml; the .txt files are older."""
    older = {p: c for p, c in pairs("-{}.png", "{}.txt", moved).items() if p[0] != "-"}
    return {**pairs("{}.png", "{}.xml", voc), **older, "classes.txt": CLASSES}


@case(LOOSE)
def yolo_beside_same_voc():
    """Each image has .txt and .xml that say the same."""
    return {**pairs("{}.png", "{}.xml", voc), **pairs("{}.png", "{}.txt"), "classes.txt": CLASSES}


@case(LOOSE)
def format_changed_half_way():
    """LabelImg: six images with .txt, then the format button was hit, two with .xml."""
    return {
        **pairs("{}.png", "{}.txt", seeds=range(6)),
        **pairs("{}.png", "{}.xml", voc, seeds=range(6, 8)),
        "classes.txt": CLASSES,
    }


@case(LOOSE)
def half_exported():
    """X-AnyLabeling: half of the images exported to .txt, the other half only in the tool's .json."""
    return {
        **pairs("{}.png", "{}.txt", seeds=range(4)),
        **pairs("{}.png", "{}.json", labelme, seeds=range(4, 8)),
        "classes.txt": CLASSES,
    }


def mask(seed: int) -> bytes:
    """The defects of a photo in white."""
    shown = photo(seed)
    pixels = np.zeros((shown.height, shown.width), np.uint8)
    for p in shown.patches:
        pixels[p.y1 : p.y2, p.x1 : p.x2] = 255
    return encoded(pixels, ".png")


@case(Taken(loose=8, roles={"mask": 8}))
def masks_beside():
    """masks/ with a mask of the same name for each image."""
    return {**loose(".jpg"), **{f"masks/p{seed:03d}.png": mask(seed) for seed in range(8)}}


@case(Taken(train=4, val=2, test=2, unlabeled=2), source="data.yaml")
def background_by_convention():
    """Ultralytics takes an image without label file as free of defects; here it is unlabeled unless told."""
    return {**sound(), **{f"images/train/good{k}.png": encoded(background(k), ".png") for k in range(2)}}


@case(Taken(loose=8, roles={"mask": 8}, said=("8 images|mask",)))
def masks_under_other_names():
    """Masks beside the photos, called as nobody expects."""
    return {**loose(".jpg"), **{f"images/m{seed:03d}_L.png": mask(seed) for seed in range(8)}}


@case(Taken(loose=8, unlabeled=8))
def drawings_in_a_folder_of_their_own():
    """vis/ with a picture of the boxes for each photo: a dull photo is no mask of the picture."""
    tree = loose(".jpg")
    for seed in range(8):
        pixels = np.stack([photo(seed).pixels] * 3, axis=2)
        for p in photo(seed).patches:
            pixels[[p.y1 - 2, p.y2 + 1], p.x1 : p.x2] = (255, 0, 0)
        tree[f"vis/p{seed:03d}.jpg"] = encoded(pixels, ".jpg")
    return tree


@case(Taken(train=4, val=4))
def labels_in_splits():
    """All images in one folder, and the labels in labels/train and labels/val."""
    return {
        **pairs("images/{}.jpg", "labels/train/{}.txt", seeds=range(4)),
        **pairs("images/{}.jpg", "labels/val/{}.txt", seeds=range(4, 8)),
        "classes.txt": CLASSES,
    }


@case(Taken(loose=8))
def predictions_of_ultralytics():
    """runs/detect/predict with pictures of boxes and labels of a model for each photo."""
    return {**loose(), **below("runs/detect/predict", pairs("{}.jpg", "labels/{}.txt", quality=80))}
