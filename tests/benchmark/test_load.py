"""The load test, against a server of this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dfssd.benchmark.load import Load, load_of, main
from tests.serving.networks import Bright, plate, served


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name, box in (("a.png", None), ("b.png", (5, 5, 20, 20))):
        (tmp_path / "photos" / name).write_bytes(plate(box))
    return tmp_path / "photos"


def test_numbers_are_those_of_the_answers() -> None:
    load = Load(2, 4.0, [10.0, 20.0, 30.0, 40.0])
    load.statuses.update({"200": 4, "503": 3})
    assert load.as_json() == {
        "clients": 2,
        "answers": 4,
        "per_second": 1.0,
        "ms_median": 25.0,
        "ms_p95": pytest.approx(38.5),
        "ms_p99": pytest.approx(39.7),
        "others": {"503": 3},
    }


def test_every_answer_is_counted(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    network = Bright(tmp_path)
    with served(network) as address:
        words = [str(photos), f"url={address}", "clients=[1,3]", "seconds=0.3", f"out={tmp_path / 'load.json'}"]
        assert main(words) == 0
    tree = json.loads((tmp_path / "load.json").read_text(encoding="utf-8"))
    assert [load["clients"] for load in tree["loads"]] == [1, 3]
    assert sum(load["answers"] for load in tree["loads"]) + 3 == len(network.seen)
    for load in tree["loads"]:
        assert load["others"] == {} and 0 < load["ms_median"] <= load["ms_p95"] <= load["ms_p99"]
        assert load["answers"] / load["per_second"] == pytest.approx(0.3, abs=0.25)
    assert "clients" in capsys.readouterr().out and tree["server"]["model"]["name"] == "bright.onnx"


def test_refusals_and_broken_connections_are_told(photos: Path, tmp_path: Path) -> None:
    images = [path.read_bytes() for path in sorted(photos.iterdir())]
    with served(Bright(tmp_path), rate=5) as address:
        load = load_of(images, address, clients=2, seconds=0.2).as_json()
        assert load["answers"] == 5 and load["others"]["429"] > 0
    gone = load_of(images, address, clients=1, seconds=0.05).as_json()
    assert gone["answers"] == 0 and gone["ms_median"] is None and gone["others"]["ConnectionRefusedError"] > 0


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["gone"], "source=gone: does not exist"),
        (["photos", "clients=0"], "clients=0: must be one or more whole numbers from 1 to 1024"),
        (["photos", "url=ftp://a"], "url=ftp://a: must be an address such as http://127.0.0.1:8000"),
        (["photos", "url=http://127.0.0.1:1"], "url=http://127.0.0.1:1: there is no dfssd serve ("),
    ],
)
def test_what_cannot_be_tested_is_one_line(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, words: list[str], problem: str
) -> None:
    monkeypatch.chdir(photos.parent)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {problem}") and error.count("\n") == 1


def test_server_that_refuses_the_first_image_is_told(photos: Path, tmp_path: Path, capsys) -> None:
    with served(Bright(tmp_path), token="a-token-of-20-letters") as address:
        assert main([str(photos), f"url={address}"]) == 2
    assert "answers the first image with 401: this server wants its token" in capsys.readouterr().err
