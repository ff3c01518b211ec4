"""Images are decoded once, kept where they fit, and equal to those that Ultralytics loads."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dfssd.errors import UserError
from dfssd.loading.store import (
    GRAY,
    MACHINE,
    NO_CLASS,
    Images,
    Memory,
    NoRoomError,
    bytes_needed,
    keys_of,
    open_store,
    release_stores,
)
from tests.loading.replay import SIZES, dataset, write_images

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path)


@pytest.fixture(autouse=True)
def no_store_stays():
    yield
    release_stores()


class Counted:
    """Images that count how often they are read."""

    def __init__(self, images: Images):
        self.read = 0
        self.images = Images(images.files, self._read)
        self._inner = images.read

    def _read(self, number: int) -> np.ndarray:
        self.read += 1
        return self._inner(number)


def room(device_bytes: int, host_bytes: int) -> Memory:
    """A machine with so much free memory; on ``meta`` nothing is stored."""
    return Memory(
        lambda device: host_bytes if device.type == "cpu" else device_bytes,
        lambda size, device: torch.empty(size, dtype=torch.uint8, device=device),
        lambda size: torch.zeros(size, dtype=torch.uint8),
    )


@pytest.mark.parametrize("side", [64, 100])
def test_pixels_equal_those_that_ultralytics_loads(folder: Path, side: int) -> None:
    data = dataset(folder, side)
    store = open_store([Images.of_dataset(data)], side, CPU)
    assert not store.beside and store.pixels.shape == (len(SIZES), side + 2, side + 2, 4)
    for number, place in enumerate(store.numbers(data.im_files)):
        image = data.load_image(number)[0]
        h, w = store.sizes[place]
        assert image.shape == (h, w, 3) and max(h, w) == side
        kept = store.pixels[place].numpy()
        assert np.array_equal(kept[1 : h + 1, 1 : w + 1, :3], image[..., ::-1])
        kept[1 : h + 1, 1 : w + 1, :3] = GRAY
        assert (kept[..., :3] == GRAY).all() and (kept[..., 3] == NO_CLASS).all()


def test_reading_leaves_nothing_in_the_buffers_of_the_data_set(folder: Path) -> None:
    data = dataset(folder)
    data.cache, data.ims = None, [None] * len(data)
    open_store([Images.of_dataset(data)], 96, CPU)
    assert not data.buffer and data.ims == [None] * len(data) and data.augment


def test_trainings_of_a_run_share_what_is_decoded(folder: Path) -> None:
    files = dataset(folder).im_files
    images = Images.of_dataset(dataset(folder))
    labeled, more = Counted(Images(files[:4], images.read)), Counted(Images(files[4:], lambda i: images.read(i + 4)))
    teacher = open_store([labeled.images], 96, CPU)
    assert open_store([labeled.images], 96, CPU) is teacher and labeled.read == 4
    student = open_store([labeled.images, more.images], 96, CPU)
    assert (labeled.read, more.read) == (4, 3)
    for file in files[:4]:
        before, after = teacher.numbers([file]), student.numbers([file])
        assert torch.equal(student.pixels[after], teacher.pixels[before])
        assert (student.sizes[after] == teacher.sizes[before]).all()
    assert open_store([labeled.images], 96, CPU) is student, "a part of the images is there already"
    open_store([Images.of_dataset(dataset(folder, 64))], 64, CPU)
    again = Counted(images)
    open_store([again.images], 96, CPU)
    assert again.read == len(files), "another size has taken its place"


def test_a_file_that_has_changed_is_read_anew(folder: Path) -> None:
    counted = Counted(Images.of_dataset(dataset(folder)))
    open_store([counted.images], 96, CPU)
    os.utime(counted.images.files[2], (1, 1))
    open_store([counted.images], 96, CPU)
    assert counted.read == len(SIZES) + 1
    release_stores()
    open_store([counted.images], 96, CPU)
    assert counted.read == 2 * len(SIZES) + 1


def test_images_go_beside_the_device_where_it_is_too_small(folder: Path, caplog) -> None:
    images = Images.of_dataset(dataset(folder))
    needed = bytes_needed(len(SIZES), 96)
    pinned: list[int] = []

    def pin(size: int) -> torch.Tensor:
        pinned.append(size)
        return torch.zeros(size, dtype=torch.uint8)

    machine = replace(room(2 * needed - 1, 2 * needed), pinned=pin)
    beside = open_store([images], 96, META, memory=machine)
    assert pinned == [bytes_needed(128, 96)], "pinned is what is decoded at once, not all images"
    assert beside.beside and beside.pixels.device == CPU
    assert "kept in the memory beside meta" in caplog.text
    release_stores()
    with pytest.raises(NoRoomError, match=r"^7 images of 96 px: .*, more than half of the free memory$"):
        open_store([images], 96, META, memory=room(2 * needed - 1, 2 * needed - 1))


@pytest.mark.parametrize(("free", "fits"), [(8.0, True), (7.9, False)])
def test_images_that_are_there_count_as_free_when_more_join_them(folder: Path, free: float, fits: bool) -> None:
    """7 images after 6, with room for 8 beside these: they take half of 14."""
    images, one = Images.of_dataset(dataset(folder)), bytes_needed(1, 96)
    open_store([Images(images.files[:6], images.read)], 96, CPU)
    with contextlib.nullcontext() if fits else pytest.raises(NoRoomError):
        open_store([images], 96, CPU, memory=room(0, int(free * one)))


def test_memory_that_is_free_but_in_pieces(folder: Path) -> None:
    def full(size: int, device: torch.device) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    images = Images.of_dataset(dataset(folder))
    machine = room(1 << 40, 1 << 40)
    assert open_store([images], 96, META, memory=replace(machine, there=full)).beside
    release_stores()
    with pytest.raises(NoRoomError):
        open_store([images], 96, CPU, memory=replace(machine, there=full))


def test_images_beside_the_device_are_copied_once_each(folder: Path) -> None:
    images = Images.of_dataset(dataset(folder))
    there = open_store([images], 96, CPU)
    wanted = np.array([[3, 0, 3], [6, 6, 0]])
    pixels, places = there.fetch(wanted)
    assert pixels is there.pixels and places is wanted
    copied, places = replace(there, beside=True).fetch(wanted)
    assert places.tolist() == [[1, 0, 1], [2, 2, 0]] and torch.equal(copied, there.pixels[[0, 3, 6]])
    assert replace(there, beside=True, device=META).fetch(wanted)[0].device == META


def test_unreadable_and_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    data = dataset(folder)
    images = Images.of_dataset(data)
    damaged = Path(images.files[3])
    data.ims = [None] * len(data)  # cached before it was damaged
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(UserError, match=rf"^cannot read {damaged}: restore the file, or prepare the data anew"):
        open_store([Images.of_dataset(data)], 96, CPU)
    with pytest.raises(UserError, match=r"cannot read .*gone\.png"):
        keys_of([str(tmp_path / "gone.png")])


def test_what_was_decoded_is_told(folder: Path, caplog) -> None:
    with caplog.at_level(logging.INFO):
        open_store([Images.of_dataset(dataset(folder))], 96, CPU)
    assert "decoded 7 images in" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("device_bytes", [1 << 60, 0])
def test_images_on_and_beside_a_gpu(folder: Path, device_bytes: int) -> None:
    gpu = torch.device("cuda", 0)
    images = Images.of_dataset(dataset(folder))
    expected = open_store([images], 96, CPU).pixels.clone()
    release_stores()
    free = Memory(lambda device: device_bytes if device.type == "cuda" else 1 << 60, MACHINE.there, MACHINE.pinned)
    store = open_store([images], 96, gpu, memory=free)
    assert store.beside != bool(device_bytes) and not store.pixels.is_pinned()
    pixels, places = store.fetch(np.array([2, 5]))
    assert pixels.device == gpu and torch.equal(pixels[torch.from_numpy(places)].cpu(), expected[[2, 5]])
