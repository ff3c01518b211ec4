import errno
import os
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from ultralytics.data.utils import img2label_paths

from dfssd.datasets.images.facts import CACHE
from dfssd.errors import UserError
from tests.configured import load_dataset, preprocess
from tests.datasets.material import CR7_NAMES, coco_json, cr7, neu, write_label, write_picture, zipped
from tests.field.builders import loose, write_tree


@pytest.fixture
def cr7_zip(tmp_path):
    return zipped(cr7(tmp_path / "cr7"), tmp_path / "CR7-DET.zip")


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(".") and not p.name.startswith(CACHE)]


def test_cr7_zip_is_converted_to_what_ultralytics_reads(cr7_zip, tmp_path):
    dataset = load_dataset(str(cr7_zip), tmp_path / "sets")
    assert (dataset.name, dataset.names, len(dataset.items)) == ("CR7-DET", CR7_NAMES, 14)
    for item in dataset.items:
        assert item.image.is_absolute() and item.image.parent.name == "images"
        with open(img2label_paths([str(item.image)])[0]) as label:
            assert label.read().split()[0] == str(int(item.boxes[0, 0]))
    assert "oil spots1.jpg" in {item.image.name for item in dataset.items}
    assert not leftovers(tmp_path / "sets")


def test_a_conversion_is_made_once_and_again_after_a_change(cr7_zip, tmp_path):
    sets = tmp_path / "sets"
    first = load_dataset(str(cr7_zip), sets)
    stamp = first.items[0].image.stat().st_mtime_ns
    again = load_dataset(str(cr7_zip), sets)
    assert again.items[0].image == first.items[0].image
    assert again.items[0].image.stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(again.items[3].boxes, first.items[3].boxes)
    write_label(tmp_path / "cr7" / "lengzha" / "label" / "pits1.txt", "3 0.4 0.4 0.2 0.2")
    changed = load_dataset(str(zipped(tmp_path / "cr7", cr7_zip)), sets)
    assert changed.items[0].image.parent != first.items[0].image.parent


def test_an_interrupted_conversion_is_not_taken_for_whole(cr7_zip, tmp_path):
    sets = tmp_path / "sets"
    folder = load_dataset(str(cr7_zip), sets).items[0].image.parents[1]
    (folder / "dataset.json").unlink()
    (folder / "images" / "pits1.jpg").unlink()
    assert len(load_dataset(str(cr7_zip), sets).items) == 14


def test_a_folder_is_left_as_it_was(tmp_path):
    root = neu(tmp_path / "my plates")
    before = sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*"))
    dataset = load_dataset(str(root), tmp_path / "sets")
    assert dataset.names == ("crazing", "patches", "scratches") and dataset.name == "my plates"
    assert before == sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*"))


def test_the_card_gives_the_class_order_of_neu(tmp_path):
    dataset = load_dataset(str(zipped(neu(tmp_path / "x"), tmp_path / "NEU-DET.zip")), tmp_path / "sets")
    assert dataset.names[0] == "crazing" and dataset.names[-1] == "scratches" and len(dataset.names) == 6


def test_coco_folder(tmp_path):
    write_picture(tmp_path / "c" / "a.png", 0)
    (tmp_path / "c" / "a.json").write_text(coco_json({"a.png": [(7, [0, 0, 32, 24])]}))
    item = load_dataset(str(tmp_path / "c"), tmp_path / "sets").items[0]
    np.testing.assert_allclose(item.boxes, [[0, 0.25, 0.25, 0.5, 0.5]])  # the unused category is dropped


def test_a_zip_with_its_own_data_yaml(tmp_path):
    for split in ("train", "valid"):
        write_picture(tmp_path / "r" / split / "images" / f"{split}.png", len(split))
        write_label(tmp_path / "r" / split / "labels" / f"{split}.txt", "0 0.5 0.5 0.1 0.1")
    content = {"train": "../train/images", "val": "../valid/images", "names": ["rust"], "nc": 1}
    (tmp_path / "r" / "data.yaml").write_text(yaml.safe_dump(content))
    dataset = load_dataset(str(zipped(tmp_path / "r", tmp_path / "r.zip")), tmp_path / "sets")
    assert dataset.names == ("rust",) and [i.split for i in dataset.items] == ["train", "val"]


def test_a_dataset_yaml_is_imported_and_takes_more_unlabeled_images(squares, tmp_path):
    write_picture(tmp_path / "more" / "x.png", 0)
    before = {path: path.stat().st_mtime_ns for path in squares.parent.rglob("*")}
    dataset = load_dataset(str(squares), tmp_path / "sets", unlabeled=str(tmp_path / "more"))
    assert {item.split for item in dataset.items} == {"train", "val", "test", "unlabeled"}
    for item in dataset.items:
        if item.boxes is not None:  # whatever Ultralytics writes beside labels, it writes there
            assert tmp_path / "sets" in item.image.parents and item.source in before
            assert item.image.read_bytes() == item.source.read_bytes()
    last = dataset.items[-1]
    assert last.boxes is None and last.image == last.source == tmp_path / "more" / "x.png", "there may be a million"
    assert before == {path: path.stat().st_mtime_ns for path in squares.parent.rglob("*")}


def test_labels_edited_to_the_same_size_and_time_are_noticed(tmp_path):
    root = cr7(tmp_path / "cr7")
    label = root / "lengzha" / "label" / "pits1.txt"
    stat = label.stat()
    before = load_dataset(str(root), tmp_path / "sets", names=CR7_NAMES)
    label.write_text(label.read_text().replace("0.25", "0.75"))
    os.utime(label, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = load_dataset(str(root), tmp_path / "sets", names=CR7_NAMES)
    boxes = [next(i.boxes for i in d.items if i.image.name == "pits1.jpg") for d in (before, after)]
    np.testing.assert_allclose([own[0, 3] for own in boxes], [0.25, 0.75])


def test_a_source_that_has_been_moved_keeps_its_import(tmp_path):
    root = cr7(tmp_path / "cr7")
    before = load_dataset(str(root), tmp_path / "sets", names=CR7_NAMES)
    (tmp_path / "elsewhere").mkdir()
    root.rename(tmp_path / "elsewhere" / "cr7")
    after = load_dataset(str(tmp_path / "elsewhere" / "cr7"), tmp_path / "sets", names=CR7_NAMES)
    assert [item.image for item in after.items] == [item.image for item in before.items]
    assert all(item.source.is_file() for item in after.items)


def test_missing_labels_may_mean_background(tmp_path):
    root = cr7(tmp_path / "cr7")
    (root / "lengzha" / "label" / "pits1.txt").unlink()
    found = [
        load_dataset(str(root), tmp_path / "sets", names=CR7_NAMES, missing_label=m)
        for m in ("unlabeled", "background")
    ]
    boxes = [{i.image.name: i.boxes for i in dataset.items}["pits1.jpg"] for dataset in found]
    assert boxes[0] is None and boxes[1].shape == (0, 5)


def test_preprocessing_changes_pixels_and_boxes_once(tmp_path):
    write_picture(tmp_path / "y" / "images" / "a.png", 0)
    write_picture(tmp_path / "y" / "images" / "b.png", 1)
    write_label(tmp_path / "y" / "labels" / "a.txt", "0 0.5 0.5 0.25 0.5")
    dataset = load_dataset(str(tmp_path / "y"), tmp_path / "sets", preprocess=preprocess(resize=32, pad=True))
    a, b = dataset.items
    with Image.open(a.image) as image:
        assert image.size == (32, 32)
    np.testing.assert_allclose(a.boxes, [[0, 0.5, 0.5, 0.25, 0.375]], atol=1e-6)
    assert b.boxes is None


def test_preprocessing_of_a_yaml_in_place_makes_a_copy(squares, tmp_path):
    before = squares.read_bytes()
    dataset = load_dataset(str(squares), tmp_path / "sets", preprocess=preprocess(resize=32))
    assert all(tmp_path / "sets" in item.image.parents for item in dataset.items)
    assert {item.split for item in dataset.items} == {"train", "val", "test", "unlabeled"}
    assert squares.read_bytes() == before


def test_a_crop_that_does_not_fit_names_the_image(tmp_path):
    with pytest.raises(UserError, match=r"\.jpg: preprocess\.crop=\[0, 0, 99, 48\]"):
        load_dataset(str(cr7(tmp_path / "cr7")), tmp_path / "sets", preprocess=preprocess(crop=[0, 0, 99, 48]))


def spoil(root):
    (root / "lengzha" / "image" / "dents1.jpg").write_bytes(b"\xff\xd8\xff no picture")
    write_label(root / "lengzha" / "label" / "pits2.txt", "3 0.5 0.5 0.1 nan")


def test_unusable_files_are_all_reported_in_one_line(tmp_path):
    root = cr7(tmp_path / "cr7")
    spoil(root)
    file = zipped(root, tmp_path / "CR7-DET.zip")
    with pytest.raises(UserError) as error:
        load_dataset(str(file), tmp_path / "sets")
    message = str(error.value)
    assert message.startswith("2 problems (12 images are usable): ") and "\n" not in message
    assert f"{file / 'lengzha' / 'image' / 'dents1.jpg'}: cannot be decoded" in message
    assert f"{file / 'lengzha' / 'label' / 'pits2.txt'}:1: contains NaN" in message
    assert "skip_bad=true" in message
    assert not leftovers(tmp_path / "sets")


def test_skip_bad_lists_them_and_goes_on(tmp_path):
    root = cr7(tmp_path / "CR7-DET")
    spoil(root)
    for _ in range(2):  # the second time from the finished conversion
        dataset = load_dataset(str(root), tmp_path / "sets", skip_bad=True)
        assert len(dataset.items) == 12
        assert [file.name for file, _ in dataset.skipped] == ["dents1.jpg", "pits2.jpg"]
    with pytest.raises(UserError, match="2 problems"):  # a conversion without them is no license to skip
        load_dataset(str(root), tmp_path / "sets")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere.zip", r"data=nowhere\.zip does not exist"),
        ("nowhere.yaml", r"data=nowhere\.yaml does not exist"),
        ("CR7-DTE", "did you mean data=CR7-DET"),
    ],
)
def test_a_missing_source_is_reported(tmp_path, source, message):
    with pytest.raises(UserError, match=message):
        load_dataset(source, tmp_path / "sets")


def test_sources_that_are_no_data_set_are_reported(tmp_path):
    (tmp_path / "a.zip").write_text("no zip")
    with pytest.raises(UserError, match=r"a\.zip is not a zip file"):
        load_dataset(str(tmp_path / "a.zip"), tmp_path / "sets")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no images in .*empty"):
        load_dataset(str(tmp_path / "empty"), tmp_path / "sets")
    (tmp_path / "b.txt").write_text("x")
    with pytest.raises(UserError, match=r"neither a folder nor a \.zip nor a \.yaml"):
        load_dataset(str(tmp_path / "b.txt"), tmp_path / "sets")
    (tmp_path / "c.yaml").write_text("a: [1\nb: 2\n")
    with pytest.raises(UserError, match=r"c\.yaml:2: is not valid YAML"):
        load_dataset(str(tmp_path / "c.yaml"), tmp_path / "sets")
    with pytest.raises(UserError, match="duplicate class name 'pit'"):
        load_dataset("demo", tmp_path / "sets", names=["pit", "pit"])


def test_a_message_about_a_zip_names_the_zip_not_its_temporary_copy(tmp_path):
    write_label(tmp_path / "x" / "readme.txt", "nothing here")
    file = zipped(tmp_path / "x", tmp_path / "x.zip")
    with pytest.raises(UserError, match=f"no images in {file}"):
        load_dataset(str(file), tmp_path / "sets")


def test_a_data_dir_that_cannot_be_written_to_is_reported(cr7_zip, squares, tmp_path):
    (tmp_path / "sets").write_text("a file where a folder should be")
    for source in (str(cr7_zip), str(tmp_path / "cr7"), "demo"):
        with pytest.raises(UserError, match=r"cannot write .*sets.* data_dir="):
            load_dataset(source, tmp_path / "sets")


def test_a_full_disk_leaves_nothing_behind(cr7_zip, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dfssd.datasets.formats.link_or_copy", full)
    with pytest.raises(UserError, match="No space left on device; free some space"):
        load_dataset(str(cr7_zip), tmp_path / "sets")
    assert [path.name for path in (tmp_path / "sets").iterdir() if not path.name.startswith(CACHE)] == []


def test_names_of_the_user_make_a_conversion_of_their_own(cr7_zip, tmp_path):
    usual = load_dataset(str(cr7_zip), tmp_path / "sets")
    renamed = load_dataset(str(cr7_zip), tmp_path / "sets", names=list("abcdefg"))
    assert usual.names == CR7_NAMES and renamed.names == tuple("abcdefg")
    with pytest.raises(UserError, match="class id 6 is out of range, the data set has 6 classes"):
        load_dataset(str(cr7_zip), tmp_path / "sets", names=list("abcdef"))


@pytest.mark.parametrize("damage", ["labels/p000.txt", "labels/p001.txt", "images/p000.png", "items.jsonl"])
def test_an_import_that_somebody_has_changed_is_made_anew(damage, tmp_path) -> None:
    write_tree(loose(), tmp_path / "d")
    first = load_dataset(str(tmp_path / "d"), tmp_path / "sets")
    target = first.items[0].image.parent.parent
    if damage == "labels/p001.txt":
        (target / damage).write_text("0 0.5 0.5 0.5 0.5\n")
    else:
        (target / damage).unlink()
    second = load_dataset(str(tmp_path / "d"), tmp_path / "sets")
    for one, other in zip(first.items, second.items, strict=True):
        assert one.image == other.image and one.image.is_file()
        assert np.array_equal(one.boxes, other.boxes)


def _free_of_defects(dataset) -> set[str]:
    return {
        (item.source or item.image).name for item in dataset.items if item.boxes is not None and not len(item.boxes)
    }


@pytest.mark.parametrize("missing", ["background", "unlabeled"])
def test_an_image_that_a_left_out_label_may_belong_to_is_left_out(missing, tmp_path) -> None:
    """It may show a defect, so it is not one without."""
    for seed, folder in enumerate("ab"):
        write_picture(tmp_path / f"d/images/{folder}/p.png", seed=seed)
    write_picture(tmp_path / "d/images/q.png", seed=2)
    write_picture(tmp_path / "d/images/r.png", seed=3)
    for name in "pq":
        write_label(tmp_path / f"d/labels/{name}.txt", "0 0.5 0.5 0.2 0.2")
    dataset = load_dataset(str(tmp_path / "d"), tmp_path / "sets", skip_bad=True, missing_label=missing)
    assert [(item.source or item.image).name for item in dataset.items] == ["q.png", "r.png"]
    assert _free_of_defects(dataset) == ({"r.png"} if missing == "background" else set())
    assert dataset.account.counted == len(dataset.items) + len(dataset.account.files)


def test_images_without_labels_are_not_defect_free_if_labels_of_any_cannot_be_read(tmp_path) -> None:
    for seed, name in enumerate("qr"):
        write_picture(tmp_path / f"d/images/{name}.png", seed=seed)
    write_label(tmp_path / "d/labels/q.txt", "0 0.5 0.5 0.2 0.2")
    write_label(tmp_path / "d/val.json", '{"images": [{"id": 1, "file_name": "r.png"}], "annotations": [')
    dataset = load_dataset(str(tmp_path / "d"), tmp_path / "sets", skip_bad=True, missing_label="background")
    assert _free_of_defects(dataset) == set() and len(dataset.items) == 2
    assert any("not taken for defect-free" in line for line in dataset.account.warnings)


def test_an_image_that_was_changed_in_place_and_restored_elsewhere(tmp_path) -> None:
    """The import links to the file that was changed, and is not taken for the import of the restored one."""
    write_tree(loose(), tmp_path / "d")
    load_dataset(str(tmp_path / "d"), tmp_path / "sets")
    image = tmp_path / "d/images/p000.png"
    before = image.read_bytes()
    image.write_bytes((tmp_path / "d/images/p001.png").read_bytes())
    image.unlink()
    image.write_bytes(before)
    dataset = load_dataset(str(tmp_path / "d"), tmp_path / "sets")
    assert dataset.items[0].image.read_bytes() == before


def test_names_of_files_that_are_no_text(tmp_path) -> None:
    write_tree(loose(), tmp_path / "d")
    for name in (b"\xe4.zip", b"\xe4.txt"):
        Path(os.fsdecode(os.fsencode(tmp_path / "d") + b"/" + name)).write_bytes(b"what is this")
    for _ in range(2):
        dataset = load_dataset(str(tmp_path / "d"), tmp_path / "sets")
        assert [os.fsencode(file.path.name) for file in dataset.account.left_out] == [b"\xe4.txt", b"\xe4.zip"]


def test_one_scale_has_to_suit_labeled_and_other_images(tmp_path):
    write_label(tmp_path / "set" / "labels" / "a.txt", "0 0.5 0.5 0.5 0.5")
    (tmp_path / "set" / "images").mkdir()
    (tmp_path / "more").mkdir()
    deep = np.random.default_rng(0).integers(0, 4096, (48, 64)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "set" / "images" / "a.png")
    Image.fromarray(deep * 4).save(tmp_path / "more" / "b.png")
    dataset = load_dataset(str(tmp_path / "set"), tmp_path / "sets", unlabeled=str(tmp_path / "more"))
    assert [np.asarray(Image.open(item.image)).max() for item in dataset.items] == [63, 255], "14 bits for both"
    Image.fromarray(deep * 16).save(tmp_path / "more" / "b.png")
    with pytest.raises(UserError, match="the labeled images use 12 bits and images without labels 16"):
        load_dataset(str(tmp_path / "set"), tmp_path / "sets", unlabeled=str(tmp_path / "more"))


def test_classes_of_a_list_without_boxes_may_be_kept(tmp_path):
    """As for new classes: the labels of a step need not show those that the teacher knows."""
    write_picture(tmp_path / "set" / "a.png", 0)
    write_label(tmp_path / "set" / "a.txt", "1 0.5 0.5 0.5 0.5")
    (tmp_path / "set" / "classes.txt").write_text("old\nnew\n")
    dropped, kept = (load_dataset(str(tmp_path / "set"), tmp_path / "sets", keep_unused=k) for k in (False, True))
    assert dropped.names == ("new",) and dropped.items[0].boxes[0, 0] == 0
    assert kept.names == ("old", "new") and kept.items[0].boxes[0, 0] == 1
    assert "classes.txt without a box: old" in kept.account.warnings[0]
