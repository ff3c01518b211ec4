"""Cases of folders and archives: what never belongs to a data set, odd names, links, zip files."""

from __future__ import annotations

import unicodedata

from tests.field.builders import (
    DATA_YAML,
    Link,
    Tree,
    background,
    below,
    encoded,
    in_splits,
    loose,
    pairs,
    photo,
    sound,
    yolo,
    zipped,
)
from tests.field.case import SOUND, Taken, case, refused


@case(Taken(train=4, val=2, test=2, quiet=True))
def thumbnails_of_a_nas():
    """Synology: @eaDir/<name>/SYNOPHOTO_THUMB_M.jpg beside each image."""
    tree = sound()
    thumb = encoded(photo(40, 48, 32).pixels, ".jpg")
    folders = [path.rsplit("/", 1) for path in tree if path.endswith(".png")]
    return {**tree, **{f"{folder}/@eaDir/{name}/SYNOPHOTO_THUMB_M.jpg": thumb for folder, name in folders}}


@case(Taken(train=4, val=2, test=2, quiet=True))
def leftovers_of_systems():
    """Thumbs.db, .DS_Store, ._files of a Mac, __MACOSX, a trash folder, Ultralytics' cache."""
    fork = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(200) + b"\xb0\xff"
    tree = sound()
    forks = {"/".join([*p.split("/")[:-1], f"._{p.split('/')[-1]}"]).lstrip("/"): fork for p in tree}
    return {
        **tree,
        **forks,
        "images/train/Thumbs.db": b"\xd0\xcf\x11\xe0",
        ".DS_Store": b"\0\0\0\1Bud1",
        "__MACOSX/images/train/._p000.png": fork,
        "$RECYCLE.BIN/x.png": encoded(photo(41).pixels, ".png"),
        ".git/HEAD": "ref: refs/heads/main\n",
        "labels/train.cache": b"\x93NUMPY",
    }


@case(Taken(train=6, val=2, test=2), source="set/data.yaml")
@case(Taken(train=6, val=2, test=2), name="links_to_another_disk_folder", source="set")
def links_to_another_disk():
    """images/train/line_b and labels/train/line_b are links."""
    nas = {**pairs("nas/images/b{}.png", "nas/labels/b{}.txt", seeds=(20, 21))}
    tree = {**below("set", sound()), **nas}
    return {
        **tree,
        "set/images/train/line_b": Link("../../../nas/images"),
        "set/labels/train/line_b": Link("../../../nas/labels"),
    }


@case(SOUND)
def link_in_a_circle():
    """A link to the folder above."""
    return {**sound(), "images/train/all": Link("../../images")}


@case(Taken(loose=8))
def link_without_target():
    """A link to a file that is gone."""
    return {**loose(), "images/p100.png": Link("../gone.png")}


@case(Taken(train=12, val=2, test=2), source="Linie 3 [neu] (ä)/data.yaml")
@case(Taken(train=12, val=2, test=2), name="odd_names_folder")
def odd_names():
    """Chinese, blanks, #, %, a long name, brackets; a folder with blanks and brackets."""
    tree = sound()
    odd = ["划痕 1", "a#b", "100%", "a;b&c", "x" * 120, "é", "[1]", "a.b.c"]
    for seed, name in enumerate(odd, 20):
        tree[f"images/train/{name}.png"] = encoded(photo(seed).pixels, ".png")
        tree[f"labels/train/{name}.txt"] = yolo(photo(seed))
    return below("Linie 3 [neu] (ä)", tree)


@case(Taken(loose=8))
def names_of_a_mac():
    """A Mac writes ä as a and two dots; the labels were made elsewhere, with one character."""
    tree = pairs("images/Maß-ä-{}.png", "labels/Maß-ä-{}.txt")
    return {
        **{unicodedata.normalize("NFD" if path.endswith(".png") else "NFC", path): c for path, c in tree.items()},
        "classes.txt": "bright\ndark\n",
    }


@case(Taken(loose=12))
def blanks_at_the_ends():
    """File names that begin or end with a blank."""
    tree = loose()
    for seed, name in enumerate((" lead", "trail ", " both ", "two  blanks"), 20):
        tree[f"images/{name}.png"] = encoded(photo(seed).pixels, ".png")
        tree[f"labels/{name}.txt"] = yolo(photo(seed))
    return tree


@case(Taken(loose=8))
def names_that_differ_in_case():
    """P000.png and p000.png, each with its label."""
    return {
        **pairs("images/{}.png", "labels/{}.txt", seeds=range(4)),
        **{
            p.replace("/p", "/P"): c
            for p, c in pairs("images/{}.png", "labels/{}.txt", seeds=range(4, 8), minus=4).items()
        },
        "classes.txt": "bright\ndark\n",
    }


@case(Taken(loose=8))
def long_names():
    """Two photos of the same name of 249 bytes in two folders."""
    tree: Tree = {"classes.txt": "bright\ndark\n"}
    for folder, first in (("a", 0), ("b", 4)):
        part = pairs("images/{}.png", "labels/{}.txt", seeds=range(first, first + 4), minus=first)
        tree.update(below(folder, {p.replace("p000", "缺" * 83): c for p, c in part.items()}))
    return tree


@case(SOUND, source="set.zip")
def zip_file():
    """The set as a zip file."""
    return {"set.zip": zipped(sound())}


@case(SOUND, source="set.zip")
def zip_with_one_folder():
    """A zip file with one folder at the top, as file managers make it."""
    return {"set.zip": zipped(below("plates", sound()))}


@case(SOUND, source="set.zip")
def zip_with_backslashes():
    """A zip file of .NET."""
    return {"set.zip": zipped(sound(), lambda name: name.replace("/", "\\"))}


@case(refused("set.zip"), source="set.zip")
def zip_cut_off():
    """A download that ended early."""
    return {"set.zip": zipped(sound())[:20_000]}


@case(refused("set.zip"), source="set.zip")
def zip_damaged():
    """A byte of an image is wrong; the checksum tells."""
    content = bytearray(zipped(sound()))
    content[3000] ^= 255
    return {"set.zip": bytes(content)}


@case(refused("set.zip", "outside"), source="set.zip")
def zip_that_climbs():
    """A member called ../../x."""
    return {"set.zip": zipped({**loose(), "../../x.txt": "0 0.5 0.5 0.1 0.1\n"})}


@case(refused("set.zip"), source="set.zip")
def zip_in_zip():
    """An archive of archives."""
    return {"set.zip": zipped({"images.zip": zipped(pairs("{}.png")), "labels.zip": zipped(loose())})}


@case(refused("train.zip", "data="))
def zips_in_a_folder():
    """A folder that holds the set as two archives."""
    return {"train.zip": zipped(loose()), "val.zip": zipped(loose())}


@case(Taken(loose=8, left_out={"backup.zip": ""}))
def zip_beside():
    """An archive beside an unpacked set is left out."""
    return {**loose(), "backup.zip": zipped({"old.txt": "x"})}


@case(refused("no image"))
def folder_without_images():
    """Labels only."""
    return {p: c for p, c in loose().items() if not p.endswith(".png")}


@case(refused("set.rar"), source="set.rar")
def rar_file():
    """An archive of another kind."""
    return {"set.rar": b"Rar!\x1a\x07\x01\x00" + bytes(50)}


@case(refused("missing"), source="missing")
def nothing_there():
    """A typing error in the path."""
    return loose()


@case(Taken(train=4, val=2, test=2, unlabeled=10), source="set", unlabeled="{d}/all")
def unlabeled_names_all_photos():
    """unlabeled= names a folder with copies of all photos: which count is up to the search for copies."""
    copies = {f"all/{p.split('/')[-1]}": c for p, c in sound().items() if p.endswith(".png")}
    return {**below("set", sound()), **copies, **pairs("all/u{}.png", seeds=(20, 21))}


@case(Taken(train=4, val=2, test=2), source="set", unlabeled="{d}/set/images")
def unlabeled_names_the_set():
    """unlabeled= names the folder of the labeled images."""
    return below("set", sound())


@case(refused("00000000.txt"))
def deep_pcb():
    """DeepPCB: photo and golden board beside each other, labels in pixels in a folder of their own."""
    tree: Tree = {}
    for seed in range(8):
        folder = "group00001/00001"
        tree[f"{folder}/{seed:08d}_test.jpg"] = encoded(photo(seed).pixels, ".jpg")
        tree[f"{folder}/{seed:08d}_temp.jpg"] = encoded(background(seed), ".jpg")
        rows = "".join(f"{p.x1} {p.y1} {p.x2} {p.y2} 1\n" for p in photo(seed).patches)
        tree[f"{folder}_not/{seed:08d}.txt"] = rows
    return tree


@case(SOUND, name="yaml_with_path_of_another_machine_in_folder")
@case(refused("data.yaml", "/home/anna"), source="data.yaml")
def yaml_with_path_of_another_machine():
    """path: names a folder of the machine where the set was made."""
    return {**sound(), "data.yaml": "path: /home/anna/sets/plates\n" + DATA_YAML}


@case(SOUND, name="run_folder_inside")
def run_folder_inside():
    """runs/ with pictures of an earlier run, and an imported copy of the set, lie in the folder of the data."""
    run = {
        "run.yaml": "data: .\n",
        "results.json": "{}",
        "student/train_batch0.jpg": encoded(photo(50).pixels, ".jpg"),
        "student/args.yaml": "task: detect\n",
    }
    imported = {"dataset.json": "{}", **in_splits("images/{split}{}.png", "labels/{split}{}.txt")}
    return {**sound(), **below("runs/exp", run), **below("datasets/plates-0123456789", imported)}


@case(Taken(loose=8, unlabeled=1))
def photo_twice_under_two_names():
    """A copy of a labeled photo without a label."""
    return {**loose(), "images/copy of p001.png": encoded(photo(1).pixels, ".png")}
