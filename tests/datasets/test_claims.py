"""Which image an annotation belongs to: certain, or a problem that names both files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dfssd.datasets.annotations import Annotation, LabelFile
from dfssd.datasets.claims import Claims, ImageIndex, claim

ROOT = Path("/set")


def assigned(
    images: Sequence[str], *annotations: tuple[str, str | None], same: bool = False
) -> tuple[dict[str, list[str]], Claims]:
    claims = claim(
        [LabelFile(ROOT / file, "x", (Annotation(ROOT / file, image),)) for file, image in annotations],
        ImageIndex(ROOT, [ROOT / image for image in images]),
        lambda a, b: same,
    )
    found = {
        image.relative_to(ROOT).as_posix(): [own.file.relative_to(ROOT).as_posix() for own in claimed]
        for image, claimed in claims.by_image.items()
    }
    return found, claims


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("p.png", "p.txt"),
        ("images/p.png", "labels/p.txt"),
        ("images/train/p.png", "labels/train/p.txt"),
        ("train/images/p.png", "train/labels/p.txt"),
        ("JPEGImages/p.png", "Annotations/p.xml"),
        ("IMAGES/P.PNG", "labels/p.TXT"),
        ("a/deep/p.png", "xml/p.xml"),
        ("cam_1.png", "labels/8c1b2a3d-cam_1.txt"),
    ],
)
def test_a_label_file_belongs_to_the_image_of_its_name(image: str, label: str) -> None:
    assert assigned([image, "other.png"], (label, None))[0] == {image: [label]}


def test_a_date_before_a_name_is_not_the_prefix_of_an_upload() -> None:
    found, claims = assigned(["q001.png"], ("labels/20240131_q001.txt", None))
    assert not found and len(claims.orphans) == 1
    assert assigned(["q001.png"], ("labels/20249931-q001.txt", None))[0] == {"q001.png": ["labels/20249931-q001.txt"]}


def test_the_image_beside_a_label_file_comes_first() -> None:
    found, claims = assigned(["a/1.png", "b/1.png"], ("a/1.txt", None), ("b/1.txt", None))
    assert found == {"a/1.png": ["a/1.txt"], "b/1.png": ["b/1.txt"]} and not claims.problems


def test_a_flat_label_of_two_images_of_its_stem() -> None:
    found, claims = assigned(["a/1.png", "b/1.png"], ("labels/1.txt", None))
    assert not found
    ((file, problem),) = claims.problems
    assert file == ROOT / "labels/1.txt"
    assert all(word in problem for word in ("/set/labels/1.txt", "/set/a/1.png or /set/b/1.png", "keep one"))


def test_the_split_of_the_label_decides_between_images_of_one_stem() -> None:
    found, _ = assigned(["train/images/x/1.png", "val/images/y/1.png"], ("val/annotations/1.xml", None))
    assert found == {"val/images/y/1.png": ["val/annotations/1.xml"]}


def test_one_label_file_for_an_image_in_two_kinds_of_files() -> None:
    images = ["images/p.jpg", "images/p.png"]
    assert assigned(images, ("labels/p.txt", None), same=True)[0] == {image: ["labels/p.txt"] for image in images}
    found, claims = assigned(images, ("labels/p.txt", None))
    assert not found and "p.jpg or /set/images/p.png" in claims.problems[0][1]


def test_two_label_files_of_one_image_both_count() -> None:
    found, _ = assigned(["images/p.png"], ("labels/p.txt", None), ("labels_old/p.txt", None))
    assert found == {"images/p.png": ["labels/p.txt", "labels_old/p.txt"]}


@pytest.mark.parametrize(
    "entry", ["p.png", "images/p.png", "./images/p.png", "P.png", "../old/p.png", "/data/upload/1/8c1b2a3d-p.png"]
)
def test_a_path_in_a_file_names_the_image_that_it_ends_with(entry: str) -> None:
    assert assigned(["images/p.png", "images/q.png"], ("all.json", entry))[0] == {"images/p.png": ["all.json"]}


def test_a_name_of_two_images() -> None:
    found, claims = assigned(["a/p.png", "b/p.png"], ("all.json", "p.png"))
    assert not found and "put the folder before the name" in claims.problems[0][1]
    assert assigned(["a/p.png", "b/p.png"], ("all.json", "b/p.png"))[0] == {"b/p.png": ["all.json"]}
    assert assigned(["a/p.png", "b/p.png"], ("a/all.json", "p.png"))[0] == {"a/p.png": ["a/all.json"]}


@pytest.mark.parametrize("entry", ["p", "images/p", "p.bmp", "D/images/p.heic"])
def test_an_image_named_without_its_suffix_or_converted_since(entry: str) -> None:
    assert assigned(["images/p.png", "images/p.x.png"], ("all.csv", entry))[0] == {"images/p.png": ["all.csv"]}


@pytest.mark.parametrize("entry", ["q.png", "", "/", "q", "xp.png"])
def test_orphans(entry: str) -> None:
    found, claims = assigned(["p.png"], ("all.json", entry))
    assert not found and len(claims.orphans) == 1


def test_entries_of_lists_may_be_stems() -> None:
    index = ImageIndex(ROOT, [ROOT / "JPEGImages/p.png", ROOT / "JPEGImages/q.png"])
    for entry in ("p", "p.png", "JPEGImages/p", "data/obj/p.png"):
        assert index.named(entry, ROOT / "ImageSets/Main/train.txt").images == (ROOT / "JPEGImages/p.png",), entry
    assert not index.named("r", ROOT / "x.txt").images
