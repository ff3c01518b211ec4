from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from dfssd.batches import Batch
from dfssd.benchmark import speed
from tests.batch_fields import check_fields

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "benchmark_speed.py"


def configure(**given):
    from dfssd.runs.configure import configure

    return configure({**speed.DEFAULTS, "imgsz": 64, "batch": 4, "device": "cpu", **given})


def test_it_measures_and_writes(tmp_path, capsys):
    out = tmp_path / "speed.json"
    assert speed.main(["imgsz=64", "batch=2", "rounds=1", "device=cpu", "amp=bf16", f"out={out}"]) == 0
    result = json.loads(out.read_text())
    assert set(result["ms"]) == {"student", "ultralytics", "ours", "teacher forward"}
    assert all(len(values) == 1 and values[0] > 0 for values in result["ms"].values())
    ours, both = result["ms"]["ours"][0], result["ms"]["student"][0] + result["ms"]["teacher forward"][0]
    ratio = result["ratios"]["ours / (student + teacher forward)"]
    assert ratio["value"] == pytest.approx(ours / both) and ratio["met"] == (ours / both <= 1.10)
    output = capsys.readouterr().out
    assert "teacher forward" in output and "<= 1.10" in output and ("met" in output or "missed" in output)
    assert str(Path.home()) not in out.read_text() and str(tmp_path) not in output


def test_steps_train_the_student_and_leave_the_teacher_alone(monkeypatch):
    """What is timed is real training: every step changes its student, and no teacher."""
    seen = {}
    plain = speed.training_step

    def watched(model, *args):
        seen[type(model).__name__] = model
        return plain(model, *args)

    monkeypatch.setattr(speed, "training_step", watched)
    todo = speed.timed_steps(configure())
    for name, kind in (
        ("student", "DetectionModel"),
        ("ultralytics", "DistillationModel"),
        ("ours", "DistillationPair"),
    ):
        model = seen[kind]
        student = getattr(model, "student_model", model).model[0].conv.weight
        teacher = getattr(model, "teacher_model", None)
        before, frozen = student.detach().clone(), teacher and teacher.model[0].conv.weight.detach().clone()
        todo[name]()
        todo[name]()
        assert not torch.equal(before, student), name
        assert torch.isfinite(student).all(), name
        if teacher is not None:
            assert torch.equal(frozen, teacher.model[0].conv.weight), name
            assert not teacher.training


def test_recipe_reaches_the_pair():
    config = configure(**{"hwjs.weight": 0, "pseudo": "online"})
    teacher, student = (speed.network("yolov8n.yaml", speed_args(config)) for _ in range(2))
    pair = speed.build_pair(config, teacher, student)
    assert set(pair.projector) == {"response_cls", "response_dfl"} and pair.labeler is not None
    assert speed.build_pair(configure(), teacher, student).labeler is None


def speed_args(config):
    from ultralytics.cfg import get_cfg

    return get_cfg(overrides={"imgsz": config.train["imgsz"]})


def test_random_teacher_marks_boxes():
    teacher = speed.network("yolov8n.yaml", speed_args(configure()))
    image = torch.rand(3, 3, 64, 64)
    speed.mark_boxes(teacher, image, 0.1)
    with torch.no_grad():
        scores = teacher.eval()(image)[1]["scores"].amax(1).sigmoid()
    assert (scores >= 0.1 - 1e-6).sum() == pytest.approx(3 * speed.MARKED, abs=2)


def test_batch_is_that_of_the_trainers():
    batch = speed.synthetic_batch(8, 64, 6, weak=True, device="cpu", nc=7)
    check_fields(batch, Batch)
    assert batch["labeled"].tolist() == [True] * 2 + [False] * 6
    assert len(batch["weak_img"]) == 6 and len(batch["ignore_bboxes"]) == 6 * speed.IGNORED
    corners = torch.cat(
        [batch["bboxes"][:, :2] - batch["bboxes"][:, 2:] / 2, batch["bboxes"][:, :2] + batch["bboxes"][:, 2:] / 2]
    )
    assert corners.min() >= 0 and corners.max() <= 1
    assert batch["ignore_batch_idx"].min() == 2
    again = speed.synthetic_batch(8, 64, 6, weak=False, device="cpu", nc=7)
    assert torch.equal(batch["img"], again["img"]) and "weak_img" not in again


def test_order_turns_and_warm_up_is_not_counted():
    called: list[str] = []
    durations = speed.measure({name: partial(called.append, name) for name in "abc"}, 3, lambda: None)
    assert [len(values) for values in durations.values()] == [3, 3, 3]
    counted = ["".join(called[i : i + 3]) for i in range(0, len(called), 3)][speed.WARM_UP :]
    assert counted == ["abc", "bca", "cab"]


def test_ratios_by_hand():
    durations = {"student": [10, 20], "teacher forward": [10, 20], "ultralytics": [20, 40], "ours": [21, 44]}
    first, second = speed.ratios(durations).values()
    assert first == {"value": pytest.approx(1.075), "target": 1.10, "met": True}
    assert second == {"value": pytest.approx(1.075), "target": 1.00, "met": False}


@pytest.mark.parametrize(
    ("word", "message"), [("rounds=0", "rounds=0"), ("epoch=2", "epoch"), ("hwjs.weigt=1", "hwjs")]
)
def test_mistakes_are_one_line(word, message, capsys):
    assert speed.main([word]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]


@pytest.mark.train
def test_script_runs_from_any_folder(tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT), "rounds=0"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr == "error: rounds=0: must be a whole number >= 1\n"
