"""Cases of descriptions: data set YAMLs, class lists, and lists of images."""

from __future__ import annotations

from tests.field.builders import (
    BOM,
    DATA_YAML,
    NAMES,
    SEEDS,
    Tree,
    below,
    changed,
    in_splits,
    loose,
    pairs,
    sound,
)
from tests.field.case import LOOSE, SOUND, Taken, case, refused
from tests.field.yolo import CLASSES, swapped, with_ids_from


@case(Taken(train=4, val=2, test=2, unlabeled=2, quiet=True), source="data.yaml")
def yolo_yaml():
    """The usual layout, unlabeled images in a folder of their own."""
    return {**sound(), **pairs("more/{}.png", seeds=(20, 21)), "data.yaml": DATA_YAML + "unlabeled: more\n"}


@case(SOUND)
def yolo_yaml_in_folder():
    """The same set, passed as the folder."""
    return sound()


@case(SOUND, source="data.yaml")
@case(SOUND, name="roboflow_yolo_folder")
def roboflow_yolo():
    """Export of Roboflow: train/images, valid/images; its data.yaml says ../train/images."""
    image = "{split}/images/{}_png.rf.0123456789abcdef0123456789abcdef.jpg"
    return {
        **in_splits(image, image.replace("images", "labels").replace(".jpg", ".txt"), words={"val": "valid"}),
        "data.yaml": "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\n"
        "names: ['bright', 'dark']\n\nroboflow:\n  workspace: w\n  project: p\n  version: 1\n  license: CC BY 4.0\n",
        "README.roboflow.txt": "p - v1\n==============\n\nThis data set was exported from roboflow.com.\n",
        "README.dataset.txt": "# p > v1\nhttps://universe.roboflow.com\n",
    }


@case(Taken(train=8))
def cvat_yolo():
    """CVAT, "YOLO 1.1": obj.data, obj.names, train.txt, and all images in obj_train_data/."""
    return {
        **pairs("obj_train_data/{}.png", "obj_train_data/{}.txt"),
        "obj.names": CLASSES,
        "obj.data": "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
        "train.txt": "".join(f"data/obj_train_data/p{seed:03d}.png\n" for seed in range(8)),
    }


@case(Taken(train=4, val=2, test=2))
def cvat_yolo_subsets():
    """The same with the subsets of the project."""
    lists = {
        f"{word}.txt": "".join(f"data/obj_{word}_data/p{seed:03d}.png\n" for seed in seeds)
        for word, seeds in zip(("train", "valid", "test"), SEEDS.values())
    }
    image = "obj_{split}_data/{}.png"
    return {
        **in_splits(image, image.replace(".png", ".txt"), words={"val": "valid"}),
        **lists,
        "obj.names": CLASSES,
        "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\ntest = data/test.txt\n"
        "names = data/obj.names\nbackup = backup/\n",
    }


@case(refused("train.txt:1", "data/images/train/p000.png"), source="data.yaml")
def list_with_a_foreign_folder():
    """Entries begin with a folder of another machine."""
    tree = cvat_ultralytics()
    return changed(tree, lambda text: text.replace(b"images/", b"data/images/"), "train.txt")


@case(SOUND, source="data.yaml")
@case(SOUND, name="cvat_ultralytics_folder")
def cvat_ultralytics():
    """CVAT, "Ultralytics YOLO Detection": data.yaml with lists, which hold images/<subset>/<name>."""
    lists = {
        f"{split}.txt": "".join(f"images/{split}/p{seed:03d}.png\n" for seed in seeds) for split, seeds in SEEDS.items()
    }
    return {
        **in_splits("images/{split}/{}.png", "labels/{split}/{}.txt"),
        **lists,
        "data.yaml": "names:\n  0: bright\n  1: dark\npath: ./\ntest: test.txt\ntrain: train.txt\nval: val.txt\n",
    }


@case(Taken(train=4, val=2, test=2))
def darknet_lists():
    """Darknet: one folder with images and labels, three lists with paths of the folder, and a .data file."""
    lists = {
        f"{word}.txt": "".join(f"data/obj/p{seed:03d}.jpg\n" for seed in seeds)
        for word, seeds in zip(("train", "valid", "test"), SEEDS.values())
    }
    return below(
        "data",
        {
            **pairs("obj/{}.jpg", "obj/{}.txt"),
            **lists,
            "obj.names": CLASSES,
            "obj.data": "classes= 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\n",
        },
    )


@case(Taken(train=4, val=4))
def lists_of_another_machine():
    """train.txt and val.txt with the absolute paths of the machine where the set was made; no data set YAML."""
    return {
        **loose(),
        "train.txt": "".join(f"/home/anna/sets/plates/images/p{seed:03d}.png\n" for seed in range(4)),
        "val.txt": "".join(f"/home/anna/sets/plates/images/p{seed:03d}.png\n" for seed in range(4, 8)),
    }


@case(refused("train.txt", "p099.png"), name="list_with_missing_image", source="data.yaml")
def list_with_missing_image():
    """A list of a data set YAML names an image that is gone."""
    return {
        **sound(),
        "train.txt": "images/train/p000.png\nimages/train/p099.png\n",
        "data.yaml": DATA_YAML.replace("images/train", "train.txt"),
    }


@case(SOUND, source="data.yaml")
def windows_lists():
    """Lists made on Windows: backslashes, CRLF, a byte-order mark."""
    lists: Tree = {
        f"{split}.txt": BOM + "".join(f"images\\{split}\\p{seed:03d}.png\r\n" for seed in seeds).encode()
        for split, seeds in SEEDS.items()
    }
    return {**sound(), **lists, "data.yaml": "train: train.txt\nval: val.txt\ntest: test.txt\nnames: [bright, dark]\n"}


PRESET = tuple(f"animal{i}" for i in range(15))


@case(Taken(loose=8, said=("animal0",)))
@case(Taken(loose=8, names=(*PRESET, *NAMES)), name="preset_classes_kept", names=[*PRESET, *NAMES])
def preset_classes():
    """LabelImg with its preset list before the real classes: ids 15 and 16."""
    return {
        **pairs("images/{}.png", "labels/{}.txt", with_ids_from(15)),
        "labels/classes.txt": "".join(f"{name}\n" for name in (*PRESET, *NAMES)),
    }


@case(refused("train/classes.txt", "val/classes.txt", "names="))
def class_lists_disagree():
    """LabelImg lists the classes in the order of their first use, one list per folder."""
    return {
        **pairs("images/train/{}.png", "labels/train/{}.txt", seeds=range(4)),
        **pairs("images/val/{}.png", "labels/val/{}.txt", swapped, seeds=range(4, 8)),
        "labels/train/classes.txt": CLASSES,
        "labels/val/classes.txt": "dark\nbright\n",
    }


@case(Taken(train=4, val=4))
def class_lists_agree():
    """The same list in each folder, once with CRLF and a blank at the end of a name."""
    return {
        **pairs("images/train/{}.png", "labels/train/{}.txt", seeds=range(4)),
        **pairs("images/val/{}.png", "labels/val/{}.txt", seeds=range(4, 8)),
        "labels/train/classes.txt": CLASSES,
        "labels/val/classes.txt": BOM + b"bright \r\ndark\r\n\r\n",
    }


@case(refused("classes.txt", "UTF-8"), name="class_list_in_gbk_skipped", skip_bad=True)
@case(refused("classes.txt", "UTF-8"))
def class_list_in_gbk():
    """A list in the code page of a Chinese Windows."""
    return {**loose(), "classes.txt": "亮斑\n暗斑\n".encode("gbk")}


@case(refused("classes.txt", "data.yaml", "names="))
def list_and_yaml_disagree():
    """A left-over classes.txt in another order than the data set YAML beside it."""
    return {**sound(), "classes.txt": "dark\nbright\n"}


@case(refused("data.yaml", "data_old.yaml", "data="))
@case(SOUND, name="two_yamls_decided", source="data.yaml")
def two_yamls():
    """data_old.yaml lists the classes in the other order."""
    return {**sound(), "data_old.yaml": DATA_YAML.replace("[bright, dark]", "[dark, bright]")}


@case(SOUND)
def two_yamls_alike():
    """The same description twice, once with other words for the same."""
    return {**sound(), "copy.yaml": "# a copy\nnames: {0: bright, 1: dark}\n" + DATA_YAML.rsplit("names", 1)[0]}


@case(SOUND)
def yaml_hidden():
    """An editor's hidden copy is no description."""
    return {**sound(), ".data.yaml": DATA_YAML.replace("[bright, dark]", "[dark, bright]")}


@case(refused("data.yaml", "quot"), source="data.yaml")
def yaml_boolean_name():
    """names: [no, ok] is [False, 'ok'] in YAML."""
    return {**sound(), "data.yaml": DATA_YAML.replace("[bright, dark]", "[no, ok]")}


@case(refused("data.yaml", "quot"), source="data.yaml")
def yaml_octal_name():
    """names: [010, 1_000] is [8, 1000] in YAML."""
    return {**sound(), "data.yaml": DATA_YAML.replace("[bright, dark]", "[010, 1_000]")}


@case(Taken(train=4, val=2, test=2, names=("no", "010")), source="data.yaml")
def yaml_quoted_names():
    """The same names in quotes. (The pixels are held against the first and second class.)"""
    return {**sound(), "data.yaml": DATA_YAML.replace("[bright, dark]", "['no', \"010\"]")}


@case(SOUND, source="data.yaml")
def yaml_ids_as_text():
    """Ids in quotes, which Ultralytics accepts."""
    return {**sound(), "data.yaml": DATA_YAML.replace("[bright, dark]", "{'0': bright, '1': dark}")}


@case(refused("data.yaml", "names"), source="data.yaml")
def yaml_ids_from_one():
    """A mapping that begins with 1."""
    return {**sound(), "data.yaml": DATA_YAML.replace("[bright, dark]", "{1: bright, 2: dark}")}


@case(Taken(train=4, val=2, test=2, names=("class_0", "class_1")), source="data.yaml")
def yaml_number_of_classes_only():
    """nc: without names."""
    return {**sound(), "data.yaml": DATA_YAML.replace("names: [bright, dark]", "nc: 2")}


@case(refused("data.yaml", "nc", "3"), source="data.yaml")
def yaml_number_disagrees():
    """nc: 3 and two names."""
    return {**sound(), "data.yaml": DATA_YAML + "nc: 3\n"}


@case(Taken(train=4, val=2, test=2, names=('crack "A"', "o'ring, loose: #2")), source="data.yaml")
def yaml_names_with_quotes():
    """Names with quotes, commas, and colons."""
    return {**sound(), "data.yaml": DATA_YAML.replace("[bright, dark]", '[\'crack "A"\', "o\'ring, loose: #2"]')}


@case(refused("data.yaml"), source="data.yaml")
def yaml_broken():
    """A tab and an open bracket."""
    return {**sound(), "data.yaml": "train: images/train\n\tval: [images/val\nnames: [bright, dark]\n"}


@case(refused("data.yaml"), name="yaml_broken_in_folder_skipped", skip_bad=True)
@case(refused("data.yaml"))
def yaml_broken_in_folder():
    """The same, passed as the folder: what looks like the description is not skipped."""
    return {**sound(), "data.yaml": "train: images/train\n\tval: [images/val\nnames: [bright, dark]\n"}


@case(SOUND)
def yaml_of_something_else():
    """Other YAML files (settings of a training, a workflow) are no descriptions."""
    return {**sound(), "hyp.yaml": "lr0: 0.01\nmosaic: 1.0\n", "docker-compose.yml": "services:\n  cvat: {image: c}\n"}


@case(Taken(train=4, val=2, test=2, unlabeled=2), source="data.yaml")
def unlabeled_names_the_parent():
    """train: lists the labeled images, unlabeled: names the folder of all."""
    return {
        **sound(),
        **pairs("images/train/{}.png", seeds=(20, 21)),
        "train.txt": "".join(f"./images/train/p{seed:03d}.png\n" for seed in range(4)),
        "data.yaml": DATA_YAML.replace("images/train", "train.txt") + "unlabeled: images/train\n",
    }


@case(SOUND, source="images/batch1/data.yaml")
def images_twice_in_the_path():
    """The set lies in images/batch1: only the last images/ is swapped for labels/."""
    return below("images/batch1", sound())


@case(Taken(loose=6, test=2, said=("bench/test",)))
def test_by_chance():
    """A folder that merely happens to be called test (of the test bench) beside others."""
    return {
        **pairs("bench/plates/{}.png", "bench/plates/{}.txt", seeds=range(6)),
        **pairs("bench/test/{}.png", "bench/test/{}.txt", seeds=(6, 7)),
        "classes.txt": CLASSES,
    }


@case(refused("data.yaml", "p000.png"), source="data.yaml")
def val_overlaps_train():
    """val: names a list with some of the training images."""
    return {**sound(), "val.txt": "images/train/p000.png\n", "data.yaml": DATA_YAML.replace("images/val", "val.txt")}


@case(SOUND)
def yaml_far_below():
    """Somebody passes the folder above the folder of an unpacked zip file in a folder."""
    return below("plates/v3/export", sound())


@case(LOOSE)
def yaml_of_a_tool_far_below():
    """A checkout of YOLOv5 beside the images."""
    return {**loose(), "tools/yolov5/data/coco.yaml": "train: train2017.txt\nval: val2017.txt\nnames: [person]\n"}
