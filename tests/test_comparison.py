"""``dfssd compare`` and ``dfssd report`` on run folders as finished runs leave them."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dfssd.cli import main
from dfssd.comparison import Compared, compare_runs
from dfssd.errors import UserError
from dfssd.results.record import FILE, BoxRecord
from tests.detection import recorded_run as boxes
from tests.evaluation.test_detections import random_detections
from tests.reporting.records import changed, without
from tests.segmentation import recorded_run as masks


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs on the same test images, one on others, one of masks, and one that is not finished."""
    for name, score, skill, seed in (("labels", 0.38, 2.0, 0), ("dfssd", 0.412, 6.0, 0), ("elsewhere", 0.5, 6.0, 1)):
        folder = boxes.write_run(tmp_path / name, changed(boxes.results(score), "run", recipe=name))
        found = random_detections(seed=seed, skill=skill)
        found = found if seed == 0 else replace(found, images=tuple(f"other {image}" for image in found.images))
        found.write(folder / "test" / "student" / "detections.npz")
    masks.write_run(tmp_path / "masks", masks.results())
    (tmp_path / "begun").mkdir()
    without(boxes.results(), "test", "operating").write(tmp_path / "begun" / FILE)
    return tmp_path


def table(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "comparison.csv", encoding="utf-8", newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


def test_runs_are_compared_with_the_first(runs: Path, capsys) -> None:
    words = [str(runs / name) for name in ("labels", "dfssd", "elsewhere")]
    assert main(["compare", *words, f"out={runs / 'out'}"]) == 0
    shown = capsys.readouterr().out
    assert "labels" in shown and "+0.032 [" in shown and "randomness of" in shown
    found = table(runs / "out")
    assert list(found) == ["labels", "dfssd", "elsewhere"]
    assert found["labels"]["against labels"] == "-"
    assert found["dfssd"]["against labels"].startswith("+0.032 [+")
    assert found["elsewhere"]["against labels"] == "other test images"
    assert found["dfssd"]["recipe"] == "dfssd" and found["dfssd"]["mAP50-95"] == "0.412"
    assert found["dfssd"]["optimizer steps"] == "1,260" and found["dfssd"]["labeled"] == "96"
    assert found["dfssd"]["NG found"].startswith("0.615 [") and found["dfssd"]["NG found"].endswith("] †")
    assert "†: with thresholds for a rate" in " ".join(shown.split()), "20 good images do not resolve 2 %"
    assert "| dfssd | dfssd |" in (runs / "out" / "comparison.md").read_text(encoding="utf-8")
    assert Image.open(runs / "out" / "comparison.png").size[0] > 400


def _with(network: Compared, record: BoxRecord) -> Compared:
    return replace(network, record=record)


def test_another_network_of_each_run(runs: Path) -> None:
    found = compare_runs([runs / "labels", runs / "dfssd"], "teacher")
    assert "†" in found.note
    balanced = [changed(network.record, "operating.teacher", wanted=None) for network in found.networks]
    plain = replace(found, networks=tuple(map(_with, found.networks, balanced)))
    assert "†" not in str(plain)
    assert [network.score("map50_95") for network in found.networks] == [0.455, 0.455]
    assert found.networks[1].gain is None, "their detections are not recorded"


def test_masks_have_their_own_scores(runs: Path) -> None:
    other = masks.write_run(runs / "more" / "masks", masks.results(student=0.83))
    found = compare_runs([runs / "masks", other])
    assert [network.name for network in found.networks] == [f"{runs.name}/masks", "more/masks"]
    assert found.header[6:8] == ["mIoU of the defects", "mIoU with the background"]
    assert found.rows()[1][6] == "0.830"


@pytest.mark.parametrize(
    ("names", "problems"),
    [
        (["labels", "masks"], ["runs of different tasks (detect, semantic)"]),
        (["labels", "begun"], ["begun has no test result of a student"]),
        (["labels", "gone"], ["gone/results.json does not exist"]),
        (["gone", "begun"], ["gone/results.json does not exist", "begun has no test result"]),
    ],
)
def test_runs_that_cannot_be_compared(runs: Path, capsys, names: list[str], problems: list[str]) -> None:
    assert main(["compare", *(str(runs / name) for name in names)]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == len(problems)
    assert all(problem in error for problem, error in zip(problems, errors, strict=True))


@pytest.mark.parametrize(("words", "message"), [([], "runs is missing"), (["a"], "needs two or more runs")])
def test_too_few_runs(capsys, words: list[str], message: str) -> None:
    assert main(["compare", *words]) == 2
    assert message in capsys.readouterr().err


def test_report_is_written_anew_without_networks(runs: Path, capsys) -> None:
    for name, word in (("dfssd", "mAP50-95"), ("masks", "mIoU")):
        assert main(["report", str(runs / name)]) == 0
        assert str(runs / name / "report.html") in capsys.readouterr().out
        assert word in (runs / name / "report.html").read_text(encoding="utf-8")
        assert word in (runs / name / "report.md").read_text(encoding="utf-8")


def test_report_of_what_is_no_run(tmp_path: Path, capsys) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "results.json does not exist: give the folder of a run" in capsys.readouterr().err


def test_comparison_needs_the_record_alone(runs: Path) -> None:
    """Weights and plots may be gone."""
    for file in (runs / "dfssd" / "weights").iterdir():
        file.unlink()
    assert compare_runs([runs / "labels", runs / "dfssd"]).networks[1].gain is not None
    assert isinstance(compare_runs([runs / "labels", runs / "dfssd"]).networks[0].record, BoxRecord)
    with pytest.raises(UserError, match="does not exist"):
        compare_runs([runs / "labels", runs / "nowhere"])
