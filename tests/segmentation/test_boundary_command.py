"""The command that shows the distance maps of the boundary loss."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfssd.datasets.records import IGNORE, MaskItem, MaskSet
from dfssd.errors import UserError
from dfssd.segmentation import boundary_command as boundary
from dfssd.segmentation.boundary import distance_maps
from dfssd.segmentation.inspection import MARK, ClassDistances, write_distances
from tests.segmentation.material import NEU_NAMES, ids, neu_seg, write_mask

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "boundary.py"


@pytest.fixture(scope="module")
def steel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return neu_seg(tmp_path_factory.mktemp("steel") / "NEU-Seg", train=3, test=2)


def run(steel: Path, folder: Path, *words: str) -> int:
    return boundary.main([f"data={steel}", f"data_dir={folder / 'sets'}", f"out={folder / 'out'}", *words])


def written(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != MARK)


def mask_set(folder: Path, masks: list[np.ndarray], names: tuple[str, ...]) -> MaskSet:
    items = []
    for i, mask in enumerate(masks):
        image = folder / "images" / f"{i}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", mask.shape[::-1], (90, 90, 90)).save(image)
        items.append(MaskItem(image, write_mask(folder / "masks" / f"{i}.png", mask), None))
    return MaskSet("plates", names, tuple(items))


def test_arrays_are_the_distance_maps(steel, tmp_path, capsys):
    assert run(steel, tmp_path, "pictures=1") == 0
    names = [f"test/00000{i}" for i in (1, 2)] + [f"train/00000{i}" for i in (1, 2, 3)]
    arrays = {name: np.load(tmp_path / "out" / f"{name}.npy") for name in names}
    for name, maps in arrays.items():
        part, stem = name.split("/")
        expected = distance_maps(ids(int(stem) + (100 if part == "test" else 0)), 4)
        assert maps.dtype == np.float32 and maps.shape == (3, 48, 64)
        np.testing.assert_allclose(maps, expected, atol=1e-5)
    assert len(written(tmp_path / "out")) == 6
    said = capsys.readouterr().out
    for c, name in enumerate(NEU_NAMES[1:]):
        full = [maps[c] for maps in arrays.values() if maps[c].any()]
        low, high = min(m.min() for m in full), max(m.max() for m in full)
        assert f"| {name} | {len(full)} | {low:.1f} | {high:.1f} | {1 - len(full) / 5:.0%} |" in said
    assert "5 images of NEU-Seg, 1 with a picture" in said


def test_limit_and_pictures_are_spread_evenly(steel, tmp_path):
    assert run(steel, tmp_path, "limit=3", "pictures=2") == 0
    files = written(tmp_path / "out")
    arrays, pictures = ([f for f in files if f.endswith(suffix)] for suffix in (".npy", ".png"))
    assert arrays == ["test/000001.npy", "test/000002.npy", "train/000002.npy"]
    assert pictures == ["test/000001.png", "test/000002.png"]
    assert run(steel, tmp_path / "none", "limit=1", "pictures=0") == 0
    assert len(written(tmp_path / "none" / "out")) == 1


def test_picture_shows_inside_red_and_outside_blue(tmp_path):
    mask = np.zeros((60, 60), np.uint8)
    mask[15:45, 15:45] = 1
    write_distances(mask_set(tmp_path, [mask], ("background", "hole")), tmp_path / "out")
    with Image.open(tmp_path / "out" / "all" / "0.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    red, green, blue = pixels.transpose(2, 0, 1)
    panel = slice(int(pixels.shape[1] * 0.55), int(pixels.shape[1] * 0.85))
    assert ((red > green + 80) & (red > blue + 80))[:, panel].sum() > 100
    assert ((blue > red + 80) & (green > red + 20))[:, panel].sum() > 100


def test_old_files_are_overwritten_whole_and_others_kept(steel, tmp_path):
    assert run(steel, tmp_path, "limit=1", "pictures=1") == 0
    first, second = (tmp_path / "out" / name for name in written(tmp_path / "out"))
    before = np.load(first)
    for file in (first, second, tmp_path / "out" / "notes.txt"):
        file.write_bytes(b"x" * 100_000)
    assert run(steel, tmp_path, "limit=1", "pictures=1") == 0
    np.testing.assert_allclose(np.load(first), before, atol=1e-5)  # OpenCV may round the last bit differently
    assert second.stat().st_size != 100_000
    assert written(tmp_path / "out") == [
        "notes.txt",
        *(p.relative_to(tmp_path / "out").as_posix() for p in (first, second)),
    ]


def test_summary_by_hand(tmp_path):
    """An image with a square, one full of it but for ignored pixels, one without, and one without a mask."""
    square, full = np.zeros((9, 9), np.uint8), np.full((9, 9), 1, np.uint8)
    square[2:7, 2:7] = 1
    full[0] = IGNORE
    dataset = mask_set(tmp_path, [square, full, np.zeros((9, 9), np.uint8)], ("background", "hole", "crack"))
    unknown = MaskItem(dataset.items[0].image, None, "unlabeled")
    dataset = MaskSet(dataset.name, dataset.names, (unknown, *dataset.items))
    count, rows = write_distances(dataset, tmp_path / "out", pictures=3)
    assert count == 3
    assert rows == [
        ClassDistances("hole", 2, -2.0, pytest.approx(8**0.5), pytest.approx(2 / 3)),
        ClassDistances("crack", 0, None, None, 1.0),
    ]
    assert written(tmp_path / "out") == [f"all/{i}.{suffix}" for i in range(3) for suffix in ("npy", "png")]


def test_many_classes_take_several_rows(tmp_path):
    mask = np.arange(12, dtype=np.uint8).reshape(3, 4).repeat(8, 0).repeat(8, 1)
    names = tuple(f"class {i}" for i in range(12))
    write_distances(mask_set(tmp_path, [mask], names), tmp_path / "out")
    with Image.open(tmp_path / "out" / "all" / "0.png") as picture:
        assert picture.height > picture.width / 3


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("limt=8", "unknown key 'limt'; did you mean 'limit'?"),
        ("limit=0", "limit=0 must be"),
        ("limit=1.5", "limit=1.5 must be"),
        ("pictures=-1", "pictures=-1 must be a whole number >= 0"),
        ("pictures=true", "pictures=True must be"),
        ("skip_bad=2", "skip_bad=2 must be"),
        ("boundary", "'boundary' is not an argument"),
        ("names=[a]", "one class"),
    ],
)
def test_mistakes_are_one_line(steel, tmp_path, word, message, capsys):
    assert run(steel, tmp_path, word) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"), [([], "data is missing"), (["data=nowhere.zip"], "data=nowhere.zip does not exist")]
)
def test_data_must_be_there(words, message, capsys):
    assert boundary.main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]


@pytest.mark.parametrize("folder", ["", "images", "annotations", "annotations/training"])
def test_nothing_is_written_among_other_files(steel, tmp_path, capsys, folder):
    before = {file: (steel / file).read_bytes() for file in written(steel)}
    assert boundary.main([f"data={steel}", f"data_dir={tmp_path}", f"out={steel / folder}"]) == 2
    assert "holds other files, which could be overwritten" in capsys.readouterr().err
    assert {file: (steel / file).read_bytes() for file in written(steel)} == before


def test_a_file_in_the_way_is_named(steel, tmp_path, capsys):
    (tmp_path / "out").write_text("a file")
    assert run(steel, tmp_path) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "cannot be made a folder" in lines[0]
    assert (tmp_path / "out").read_text() == "a file"


def test_images_without_masks_have_no_distances(tmp_path):
    dataset = MaskSet("plain", ("background", "hole"), (MaskItem(tmp_path / "0.png", None, None),))
    with pytest.raises(UserError, match="plain has no image with a mask"):
        write_distances(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_image_that_vanished_is_named(tmp_path):
    dataset = mask_set(tmp_path, [ids(0)], NEU_NAMES)
    dataset.items[0].image.unlink()
    with pytest.raises(UserError, match=r"0\.png: the image cannot be decoded"):
        write_distances(dataset, tmp_path / "out")


def test_help_names_every_argument(capsys):
    assert boundary.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"{key}=" in said for key in boundary.DEFAULTS)


@pytest.mark.train
def test_it_runs_from_any_folder(steel, tmp_path):
    command = [sys.executable, str(SCRIPT), f"data={steel}", "limit=1", "pictures=0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    assert len(written(tmp_path / "boundary")) == 1
