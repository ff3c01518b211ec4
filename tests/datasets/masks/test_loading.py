import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from ultralytics.data.utils import img2label_paths

from dfssd.datasets.demo import MASK_COUNTS, MASK_NAMES, make_mask_demo
from dfssd.datasets.images.facts import CACHE
from dfssd.datasets.masks.files import read_mask
from dfssd.errors import UserError
from tests.configured import load_masks
from tests.datasets.material import write_label, write_picture, zipped
from tests.segmentation.material import NEU_NAMES, ids, neu_seg, write_mask


@pytest.fixture
def root(tmp_path):
    return neu_seg(tmp_path / "NEU-Seg")


@pytest.fixture
def sets(tmp_path):
    return tmp_path / "sets"


def described(root, **entries):
    content: dict[str, object] = {
        "path": str(root),
        "train": "images/training",
        "test": "images/test",
        "masks_dir": "annotations",
    }
    content |= {"names": dict(enumerate(NEU_NAMES)), **entries}
    file = root.parent / "neu.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return str(file)


def contents(folder):
    """Paths and times of all files but the cache of what is known of files."""
    return sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.name != CACHE)


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_neu_seg_zip_keeps_its_parts_and_the_names_of_its_card(root, sets):
    dataset = load_masks(str(zipped(root, root.parent / "NEU-Seg.zip")), sets)
    assert (dataset.name, dataset.names) == ("NEU-Seg", NEU_NAMES)
    assert [item.split for item in dataset.items] == ["test"] * 2 + ["train"] * 4
    first = {item.split: item for item in dataset.items if item.image.stem == "000001"}
    assert np.array_equal(read_mask(first["train"].mask), ids(1))
    assert np.array_equal(read_mask(first["test"].mask), ids(101))
    assert np.array_equal(pixels_of(first["test"].image), pixels_of(root / "images" / "test" / "000001.jpg"))
    assert not [path for path in sets.iterdir() if path.name.startswith(".") and path.name != CACHE]


def test_ultralytics_finds_the_masks_where_they_are(root, sets):
    dataset = load_masks(str(root), sets)
    assert all(str(i.mask) == img2label_paths([str(i.image)], "masks", ".png")[0] for i in dataset.items)


def test_pixels_are_counted_per_class_without_ignored_ones(root, sets):
    item = load_masks(str(root), sets).items[0]
    expected = [int((ids(101) == k).sum()) for k in range(4)]
    assert item.pixels == tuple(expected) and sum(expected) == 64 * 48 - 1
    assert item.classes == {k: n for k, n in enumerate(expected) if k and n}


def test_a_folder_is_imported_once_and_left_as_it_was(root, sets):
    before = contents(root)
    first = load_masks(str(root), sets)
    assert load_masks(str(root), sets) == first and contents(root) == before
    write_mask(root / "annotations" / "test" / "000001.png", ids(7))
    assert load_masks(str(root), sets).items[0].mask != first.items[0].mask


def test_a_yaml_of_ultralytics_is_imported_with_its_unlabeled_images(root, sets):
    write_picture(root / "images" / "more" / "a.png", 9)
    before = contents(root)
    dataset = load_masks(described(root, unlabeled="images/more"), sets)
    assert dataset.names == NEU_NAMES and contents(root) == before
    assert [item.split for item in dataset.items] == ["train"] * 4 + ["test"] * 2 + ["unlabeled"]
    assert dataset.items[-1].mask is None and not dataset.items[-1].known and not dataset.items[-1].classes


def test_a_zip_with_a_yaml_of_its_own(root, sets):
    (root / "data.yaml").write_text((root.parent / described(root, names=["plain", "a", "b", "c"])).read_text())
    dataset = load_masks(str(zipped(root, root.parent / "x.zip")), sets)
    assert dataset.names == ("plain", "a", "b", "c") and len(dataset.items) == 6


def test_masks_beside_images_need_no_parts_and_no_names(tmp_path, sets):
    for i in range(3):
        write_picture(tmp_path / "plates" / "images" / f"{i}.png", i)
        write_mask(tmp_path / "plates" / "masks" / f"{i}.png", ids(i, nc=3))
    dataset = load_masks(str(tmp_path / "plates"), sets)
    assert dataset.names == ("background", "class_1", "class_2")
    assert {item.split for item in dataset.items} == {None} and all(len(item.pixels) == 3 for item in dataset.items)


def test_same_stems_in_folders_of_one_part_are_distinguished(tmp_path, sets):
    for i, line in enumerate(("line 1", "line 2")):
        write_picture(tmp_path / "x" / "images" / "train" / line / "a.png", i)
        write_mask(tmp_path / "x" / "masks" / "train" / line / "a.png", ids(i))
    items = load_masks(str(tmp_path / "x"), sets).items
    assert len({item.image for item in items}) == 2
    assert all(np.array_equal(read_mask(item.mask), ids(i)) for i, item in enumerate(items))


def test_unlabeled_folders_are_used_in_place(root, sets, tmp_path):
    extra = write_picture(tmp_path / "more" / "x.png", 5)
    dataset = load_masks(str(root), sets, unlabeled=str(tmp_path / "more"))
    assert dataset.items[-1].image == extra and dataset.items[-1].split == "unlabeled"
    assert len(dataset.items) == 7


def test_images_of_a_folder_called_unlabeled_need_no_mask(root, sets):
    write_picture(root / "images" / "unlabeled" / "1.jpg", 5)
    assert [i.known for i in load_masks(str(root), sets).items if i.split == "unlabeled"] == [False]


@pytest.mark.parametrize("kind", ["palette", "gray palette", "16 bit", "1 bit", "tif"])
def test_ids_are_read_unscaled_from_every_kind_of_file(tmp_path, sets, kind):
    stored = ids(1) if kind != "1 bit" else (ids(1) == 2).astype(np.uint8)
    image = Image.fromarray(stored)
    if kind == "palette":
        image = Image.fromarray(stored, "P")
        image.putpalette([(7 * k + c) % 256 for k in range(256) for c in range(3)])
    elif kind == "gray palette":
        image = Image.fromarray((stored > 0).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 3, 3, 3])
        stored = (3 * (stored > 0)).astype(np.uint8)
    elif kind == "16 bit":
        image = Image.fromarray(stored.astype(np.uint16))
    elif kind == "1 bit":
        image = Image.fromarray(stored.astype(bool))
    write_picture(tmp_path / "x" / "images" / "a.png", 0)
    (tmp_path / "x" / "masks").mkdir()
    image.save(tmp_path / "x" / "masks" / ("a.tif" if kind == "tif" else "a.png"))
    (item,) = load_masks(str(tmp_path / "x"), sets, names=NEU_NAMES).items
    assert item.mask.suffix == ".png"
    with Image.open(item.mask) as written:
        assert written.mode == "L" and np.array_equal(np.asarray(written), stored)


def test_label_mapping_is_applied(root, sets):
    file = described(root, names=["steel", "defect"], label_mapping={-1: 1, 1: 1, 2: 1, 3: "ignore_label"})
    for item in load_masks(file, sets).items:
        original = pixels_of(root / "annotations" / item.split.replace("train", "training") / item.mask.name)
        expected = np.where(original == 3, 255, np.where(original == 255, 255, original > 0))
        assert np.array_equal(read_mask(item.mask), expected)


def spoil(root, what):
    image, mask = root / "images" / "test" / "000002.jpg", root / "annotations" / "test" / "000002.png"
    if what == "missing":
        mask.unlink()
    elif what == "size":
        write_mask(mask, ids(1, width=32))
    elif what == "ids":
        write_mask(mask, np.where(ids(1) > 0, np.uint8(4), np.arange(64, dtype=np.uint8) % 2 * 9))
    elif what == "beyond 8 bit":
        write_mask(mask, np.full((48, 64), 300, np.uint16))
    elif what == "colors":
        write_mask(mask, ids(1), "RGB")
    elif what == "alpha":
        write_mask(mask, ids(1), "LA")
    elif what == "damaged mask":
        mask.write_bytes(mask.read_bytes()[:60])
    elif what == "damaged image":
        image.write_bytes(b"\xff\xd8\xff no picture")
    elif what == "jpeg":
        mask.unlink()
        write_mask(mask.with_suffix(".jpg"), ids(1))
    elif what == "two masks":
        write_mask(mask.with_suffix(".bmp"), ids(1))
    elif what == "stem":
        write_picture(image.with_suffix(".png"), 3)


PROBLEMS = {
    "missing": r"images/test/000002\.jpg: has no mask of the same name; add one \(all 0 if there is no defect\), or",
    "size": r"annotations/test/000002\.png: 32x48 px, but 000002\.jpg has 64x48 px; make them agree",
    "ids": r"000002\.png: contains the ids 4, 9; correct them: 0 to 3 \(background, inclusion, .*\), or 255 = ignored",
    "beyond 8 bit": r"000002\.png: contains the ids 300; correct them",
    "colors": r"000002\.png: has 3 channels \(mode RGB\); save class ids as integers",
    "alpha": r"000002\.png: has 2 channels \(mode LA\)",
    "damaged mask": r"000002\.png: the mask cannot be decoded \(.*\); replace it",
    "damaged image": r"images/test/000002\.jpg: cannot be decoded",
    "jpeg": r"000002\.jpg: is a JPEG, whose lossy compression changes ids; save masks as PNG",
    "two masks": r"000002\.jpg: has masks that differ, .*000002\.bmp and .*000002\.png; remove one, or name .*data=",
    "stem": r"000002\.jpg: has the stem of 000002\.png, so that both match the mask .*000002\.png; rename one",
}


@pytest.mark.parametrize("what", PROBLEMS)
def test_an_unusable_pair_is_reported_in_one_line(root, sets, what):
    spoil(root, what)
    with pytest.raises(UserError, match=PROBLEMS[what]) as error:
        load_masks(str(root), sets)
    message = str(error.value)
    assert (
        message.startswith(("2 problems" if what == "stem" else "1 problem") + " (")
        and "\n" not in message
        and "skip_bad=true" in message
    )
    assert not contents(sets)
    dataset = load_masks(str(root), sets, skip_bad=True)
    assert len(dataset.items) == 5 and len(dataset.skipped) == 1 + (what == "stem")


def test_messages_about_a_zip_name_the_zip(root, sets):
    spoil(root, "size")
    file = zipped(root, root.parent / "NEU-Seg.zip")
    with pytest.raises(UserError, match=f"{file}/annotations/test/000002.png: 32x48 px"):
        load_masks(str(file), sets)


def test_a_missing_mask_of_a_yaml_names_the_file_that_is_looked_for(root, sets):
    spoil(root, "missing")
    expected = rf"has no mask {root}/annotations/test/000002\.png; add it \(all 0 .*\), or list"
    with pytest.raises(UserError, match=expected):
        load_masks(described(root), sets)


def test_unusable_unlabeled_images_are_reported(root, sets, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.png").write_text("no picture")
    with pytest.raises(UserError, match=r"1 problem \(0 images are usable\): .*x\.png: cannot be decoded"):
        load_masks(str(root), sets, unlabeled=str(tmp_path / "more"))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"masks_dir": None}, r"neu\.yaml has no entry masks_dir:"),
        ({"names": ["steel"]}, r"neu\.yaml: only one class, 'steel'; masks need the background"),
        ({"label_mapping": [1]}, r"label_mapping: must give a class id or ignore_label"),
        ({"label_mapping": {1: "pit"}}, r"label_mapping: 1: pit is not from an id to a class id"),
        ({"label_mapping": {1: 9}}, r"contains the ids 1(, 2)?(, 3)?; correct them"),
        ({"val": "images/test"}, r"is in both val: and test:"),
    ],
)
def test_a_wrong_yaml_is_reported(root, sets, entries, message):
    with pytest.raises(UserError, match=message):
        load_masks(described(root, **entries), sets)


def test_images_of_a_yaml_outside_of_images_are_reported(tmp_path, sets):
    write_picture(tmp_path / "plates" / "a.png", 0)
    with pytest.raises(UserError, match=r"a\.png: is not in a folder images/, which masks_dir: annotations replaces"):
        load_masks(described(tmp_path / "plates", train=".", test=None), sets)


def test_sources_without_masks_are_reported(tmp_path, sets):
    with pytest.raises(UserError, match=r"data=nowhere\.zip does not exist"):
        load_masks("nowhere.zip", sets)
    write_picture(tmp_path / "a" / "images" / "a.png", 0)
    with pytest.raises(UserError, match=r"no masks for 1 image in .*a; expected images/ with annotations/"):
        load_masks(str(tmp_path / "a"), sets)
    write_label(tmp_path / "b" / "readme.txt", "nothing")
    with pytest.raises(UserError, match=r"no images in .*b\.zip; expected"):
        load_masks(str(zipped(tmp_path / "b", tmp_path / "b.zip")), sets)


def test_masks_of_0_and_255_are_not_taken_for_a_class(tmp_path, sets):
    write_picture(tmp_path / "x" / "images" / "a.png", 0)
    write_mask(tmp_path / "x" / "masks" / "a.png", np.where(ids(1) == 2, 255, 0).astype(np.uint8))
    for names in (None, ["background", "hole"]):
        with pytest.raises(UserError, match=r"no mask shows a defect, only 0 .* label_mapping: \{255: 1\}"):
            load_masks(str(tmp_path / "x"), sets, names=names)


def test_the_reader_names_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"a\.png: no such file"):
        read_mask(tmp_path / "a.png")


def test_the_demo_has_all_parts_and_every_class_in_each(sets):
    dataset = load_masks("demo", sets)
    made = contents(sets)
    assert load_masks("demo", sets) == dataset and contents(sets) == made  # drawn and imported once
    assert (dataset.name, dataset.names) == ("demo", MASK_NAMES)
    parts = {part: [i for i in dataset.items if i.split == part] for part in ("train", "unlabeled", "val", "test")}
    assert {part: len(items) for part, items in parts.items()} == MASK_COUNTS
    assert not any(item.known for item in parts.pop("unlabeled"))
    for items in parts.values():
        assert all(item.known for item in items) and {c for i in items for c in i.classes} == {1, 2, 3}


def test_masks_of_the_demo_lie_on_its_defects(sets):
    """In each defect the gray differs from that of the steel, two pixels away from all of them it does not."""
    folder = make_mask_demo(sets, {"train": 30}).parent
    images = sorted((folder / "images").rglob("*.jpg"))
    assert len(images) == 30
    for file in images:
        image, mask = pixels_of(file).astype(float), read_mask(folder / "masks" / "train" / f"{file.stem}.png")
        assert image.shape == mask.shape == (96, 96) and mask.dtype == np.uint8 and mask.max() <= 3
        steel = cv2.dilate((mask > 0).astype(np.uint8), np.ones((5, 5))) == 0
        off = np.abs(image - np.median(image[steel]))
        assert off[steel].mean() < 12
        for class_id in set(np.unique(mask)) - {0}:
            assert off[mask == class_id].mean() > 24, (file, MASK_NAMES[class_id])


def test_the_demo_depends_on_its_seed_alone(tmp_path):
    counts = {"train": 4, "unlabeled": 2, "val": 2, "test": 2}

    def files(folder, seed):
        root = make_mask_demo(tmp_path / folder, counts, seed, 64).parent
        return {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    first = files("a", 0)
    assert len(first) == 10 + 8 + 1 and not [path for path in first if path.match("masks/unlabeled/*")]
    assert len({content for path, content in first.items() if path.suffix == ".jpg"}) == 10
    assert files("b", 0) == first != files("c", 1)


def test_unlabeled_images_of_a_yaml_may_lie_anywhere(tmp_path, sets):
    root = neu_seg(tmp_path / "steel", train=3, test=2)
    write_picture(root / "more" / "a.png", 50)
    content = {"train": "images/training", "test": "images/test", "unlabeled": "more", "masks_dir": "annotations"}
    (root / "data.yaml").write_text(yaml.safe_dump({**content, "names": list(NEU_NAMES)}), encoding="utf-8")
    dataset = load_masks(str(root / "data.yaml"), sets)
    (item,) = (item for item in dataset.items if item.split == "unlabeled")
    assert item.mask is None and len(dataset.items) == 6


def test_masks_that_hide_their_defects_are_reported(tmp_path, sets):
    for i in range(4):
        write_picture(tmp_path / "x" / "images" / f"{i}.png", i)
        mask = np.zeros((48, 64), np.uint8)
        mask[10:20, 10:20] = 255 if i < 2 else 1
        write_mask(tmp_path / "x" / "masks" / f"{i}.png", mask)
    (warning,) = load_masks(str(tmp_path / "x"), sets).account.warnings
    assert warning.startswith("2 of 4 masks hold only 0 and 255, which means ignored, such as") and "0.png" in warning
    assert not load_masks(str(neu_seg(tmp_path / "fine")), sets).account.warnings


@pytest.mark.parametrize("damage", ["mask", "image", "gone"])
def test_an_import_that_somebody_has_changed_is_made_anew(root, sets, damage):
    first = load_masks(str(root), sets)
    item = next(item for item in first.items if item.mask)
    file = item.image if damage == "image" else item.mask
    file.unlink()  # a link to the file of the user, which is not to be changed
    if damage == "image":
        write_picture(file, seed=99)
    elif damage == "mask":
        write_mask(file, np.zeros_like(ids(1)))
    second = load_masks(str(root), sets)
    assert second == first
    assert np.array_equal(pixels_of(item.image), pixels_of(item.source))
    n = len(item.pixels)
    assert np.bincount(read_mask(item.mask).ravel(), minlength=n)[:n].tolist() == list(item.pixels)
