"""Names of images in an annotation tool, and the way back."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfssd.review.names import ReviewNames

IMAGES = [Path("/a/plate 7.PNG"), Path("/a/001.jpg"), Path("/b/001.jpg"), Path("/a/Straße.png"), Path("/a/0002-x.png")]


@pytest.fixture
def names() -> ReviewNames:
    return ReviewNames(IMAGES)


def test_names_are_safe_unique_and_do_not_depend_on_the_order(names: ReviewNames) -> None:
    given = [names.name(image, 12) for image in IMAGES]
    assert given[0] == "0012-plate_7.png" and given[3] == "0012-Straße.png"
    assert given[1].startswith("0012-001-") and len(set(given)) == len(IMAGES)
    other = ReviewNames(IMAGES[::-1])
    assert [other.name(image, 12) for image in IMAGES] == given
    assert names.name(IMAGES[0], 12345) == "12345-plate_7.png"


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("form", ["{}", "images/{}", "3f2a1b0c-{}", "upload/1/3F2A1B0C-{}"])
def test_a_name_leads_back(names: ReviewNames, image: Path, form: str) -> None:
    found = names.find(form.format(names.name(image, 3)))
    assert found.images == (image,) and found.rank == 3


@pytest.mark.parametrize(
    ("entry", "image"),
    [("plate 7.png", 0), ("x/PLATE 7.tif", 0), ("plate_7", 0), ("Straße", 3), ("0002-x.png", 4), ("x.png", None)],
)
def test_a_name_without_a_rank_leads_back(names: ReviewNames, entry: str, image: int | None) -> None:
    assert names.find(entry).images == (() if image is None else (IMAGES[image],))


def test_a_name_that_several_images_share_means_none(names: ReviewNames) -> None:
    assert names.find("001.jpg").images == ()


def test_a_rank_that_may_be_part_of_the_name_is_doubtful() -> None:
    images = [Path("/a/0002-x.png"), Path("/a/x.png")]
    assert set(ReviewNames(images).find("0002-x.png").images) == set(images)
    assert ReviewNames(images).find("0001-0002-x.png").images == (images[0],)
