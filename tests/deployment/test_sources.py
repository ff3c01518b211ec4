"""What a source is, and its frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dfssd.deployment.sources import ImageFile, Moving, find_inputs
from dfssd.errors import UserError


def gray(value: int, size: tuple[int, int] = (40, 30)) -> np.ndarray:
    return np.full((size[1], size[0], 3), value, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "line 2").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "line 2/c.png", ".hidden.png"):
        Image.fromarray(gray(90)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "phone.heic").write_bytes(b"heic")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames whose gray values are 20, 40, ..., 200."""
    path = tmp_path_factory.mktemp("video") / "belt.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (40, 30))
    for number in range(10):
        writer.write(gray(20 * number + 20))
    writer.release()
    return path


def names(source: str | list[str]) -> list[str]:
    return [one.name for one in find_inputs(source)]


def test_folders_are_searched_in_order_and_hidden_files_left_out(folder: Path) -> None:
    assert names(str(folder)) == ["a.JPG", "b.png", "line 2/c.png", "phone.heic"]


def test_globs_and_lists_of_sources(folder: Path) -> None:
    assert names(f"{folder}/*.png") == ["b.png"]
    assert names(f"{folder}/**/*.png") == ["b.png", "line 2/c.png"]
    assert names([f"{folder}/line 2", f"{folder}/b.png", f"{folder}/*.png"]) == ["line 2/c.png", "b.png"]
    assert names(str(folder / "b.png")) == ["b.png"]


def test_list_of_paths_is_relative_to_itself(folder: Path) -> None:
    (folder.parent / "list.txt").write_text("photos/b.png\n\nphotos/line 2/c.png\n", encoding="utf-8")
    assert names(str(folder.parent / "list.txt")) == ["b.png", "line 2/c.png"]
    (folder.parent / "bad.txt").write_text("photos/gone.png\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"bad\.txt: lists .*gone\.png, which does not exist"):
        find_inputs(str(folder.parent / "bad.txt"))


def test_cameras_and_streams() -> None:
    camera, stream = find_inputs([0, "rtsp://user:secret@10.0.0.7/line"])
    assert camera == Moving(0, "camera 0", live=True)
    assert stream == Moving("rtsp://user:secret@10.0.0.7/line", "rtsp://10.0.0.7/line", live=True)
    assert find_inputs("3") == [Moving(3, "camera 3", live=True)]


@pytest.mark.parametrize("source", ["nowhere", "no*where.png"])
def test_nothing_to_look_at(tmp_path: Path, source: str) -> None:
    with pytest.raises(UserError, match=r"does not exist|holds no images"):
        find_inputs(str(tmp_path / source))
    with pytest.raises(UserError, match="holds no images or videos"):
        find_inputs(str(tmp_path))


def test_deep_images_are_scaled_as_in_training(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 20), 2048, np.uint16)).save(tmp_path / "deep.png")
    [twelve], [sixteen] = (list(ImageFile(tmp_path / "deep.png", "deep.png").frames(bits, 1)) for bits in (12, 16))
    assert (twelve.pixels == 128).all() and (sixteen.pixels == 8).all()


def test_unreadable_images_say_why(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"no image")
    (tmp_path / "phone.heic").write_bytes(b"heic")
    cut, phone = (next(one.frames(16, 1)) for one in find_inputs(str(tmp_path)))
    assert cut.pixels is None and "cut.png" not in cut.problem and cut.problem
    assert phone.problem == "not read: convert it to .png or .jpg"


def test_videos_give_every_nth_frame(video: Path) -> None:
    [clip] = find_inputs(str(video))
    assert clip.count == 10 and not clip.live
    frames = list(clip.frames(16, 3))
    assert [frame.number for frame in frames] == [0, 3, 6, 9] and frames[0].name == "belt.avi"
    assert [int(frame.pixels.mean()) for frame in frames] == pytest.approx([20, 80, 140, 200], abs=3)


def test_live_sources_give_the_newest_frame_and_end(video: Path) -> None:
    """Played from a file, which is faster than any reader: frames are left out, the last one never is."""
    live = Moving(str(video), "camera 0", live=True)
    assert live.count is None
    numbers = [frame.number or 0 for frame in live.frames(16, 1)]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 9


def test_video_that_breaks_off_is_told(video: Path, monkeypatch) -> None:
    monkeypatch.setattr(Moving, "count", 400)
    *frames, last = find_inputs(str(video))[0].frames(16, 1)
    assert len(frames) == 10 and last.pixels is None and last.problem == "breaks off after 10 of 400 frames"


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    [broken] = find_inputs(str(tmp_path / "broken.mp4"))
    [frame] = broken.frames(16, 1)
    assert frame.pixels is None and frame.problem.startswith("cannot be opened")
