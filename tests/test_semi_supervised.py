"""The semi-supervised stage on real, small trainings: poisoned, silent and absent teachers, seven labels, resume.

The networks learn two easy classes from random weights within seconds, so "not worse than the baseline" is a statement
about numbers well above 0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.patches import torch_load

from dfssd.cli import main
from dfssd.detection.trainer import StudentTrainer
from dfssd.distillation.selection import select
from dfssd.files import read_yaml
from dfssd.reporting.run_files import read_csv
from tests import processes
from tests.conftest import write_squares
from tests.key_reads import USED_TEACHER, dead_keys, recorded_reads
from tests.tiny_detection import TINY

EPOCHS = 12
FAST = [f"student={TINY}", "imgsz=64", "batch=8", "nbs=8", "device=cpu", "workers=0", "plots=false", "amp=false"]
SHORT = [*FAST, "optimizer=AdamW", "lr0=0.02", "mosaic=0", "warmup_epochs=1", "unlabeled_ratio=3", "seed=1"]
LEARN = [*SHORT, f"epochs={EPOCHS}"]


@pytest.fixture(scope="module")
def plates(tmp_path_factory) -> Path:
    """Dataset YAML with 24 labeled, 72 unlabeled, 12 val and 12 test images."""
    return write_squares(tmp_path_factory.mktemp("plates"), train=24, val=12, test=12, plain=72)


def run(plates: Path, name: str, *words: str) -> Path:
    folder = plates.parent
    where = [f"data={plates}", f"project={folder / 'runs'}", f"data_dir={folder / 'd'}", f"name={name}"]
    assert main([*where, *words]) == 0
    return folder / "runs" / name


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def base(plates: Path) -> Path:
    """A run whose baseline has learned the two classes, with itself as the teacher of later runs."""
    folder = run(plates, "base", "recipe=baseline", "teacher=none", *LEARN)
    assert results(folder)["test"]["baseline"]["map50_95"] > 0.5
    return folder


@pytest.mark.train
def test_run_without_student_is_reported_as_such(base: Path) -> None:
    record = results(base)
    assert "student" not in record["test"] and record["export"] is None
    assert "No student was trained" in (base / "report.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def poisoned(base: Path) -> Path:
    """The baseline with its two classes swapped: a sure teacher that is always wrong."""
    checkpoint = torch_load(base / "weights" / "baseline.pt", map_location="cpu")
    with torch.no_grad():
        for level in checkpoint["model"].model[-1].cv3:
            level[-1].weight.copy_(level[-1].weight.flip(0).clone())
            level[-1].bias.copy_(level[-1].bias.flip(0).clone())
    path = base.parent / "poisoned.pt"
    torch.save(checkpoint, path)
    return path


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize("mode", ["online", pytest.param("offline", marks=pytest.mark.long)])
def test_poisoned_teacher_cannot_drag_the_student_under_its_baseline(plates, base, poisoned, mode, capsys) -> None:
    folder = run(
        plates, f"poisoned-{mode}", f"teacher={poisoned}", f"baseline={base}", f"pseudo={mode}",
        "guard_patience=2", *LEARN,
    )  # fmt: skip
    record = results(folder)
    assert record["pseudo_labels"]["accepted"] > 0, "the teacher must be sure of what is wrong"
    events = record["guard"]["events"]
    assert [e["factor"] for e in events][:1] == [0.25], "the guard must have acted"
    assert f"After epoch {events[0]['epoch']} the weight" in (folder / "report.md").read_text(encoding="utf-8")
    val = record["guard"]
    chosen = max(val["student_val_score"], val["baseline_val_score"])
    assert val[f"{val['chosen']}_val_score"] == chosen
    assert record["test"]["student"]["map50_95"] >= record["test"]["baseline"]["map50_95"] - 0.05
    if val["chosen"] == "baseline":
        assert record["test"]["student"]["map50_95"] == record["test"]["baseline"]["map50_95"]
        assert "the baseline is shipped" in capsys.readouterr().out


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_without_guard_the_poison_works(plates, base, poisoned) -> None:
    """The counterpart: otherwise the test above could not fail."""
    folder = run(plates, "unguarded", f"teacher={poisoned}", f"baseline={base}", "guard=off", *LEARN)
    record = results(folder)
    assert record["test"]["student"]["map50_95"] < record["test"]["baseline"]["map50_95"] - 0.05
    assert record["guard"]["chosen"] == "student" and record["guard"]["events"] == []


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_responses_are_taught_where_no_box_is_accepted(plates, base) -> None:
    """A student that learns no pseudo boxes anyway needs none."""
    words = ["recipe=distill-only", f"teacher={base / 'weights' / 'baseline.pt'}", "baseline=off", "pseudo.tau0=1"]
    record = results(run(plates, "responses", *words, "pseudo.tau_max=1", *SHORT, "epochs=2"))
    assert record["pseudo_labels"]["accepted"] == 0
    assert record["training"]["student"]["epochs_done"] == 2 and "response_cls" in record["distill"]["terms"]


@pytest.mark.train
def test_teacher_without_accepted_labels_leads_to_the_baseline_and_a_clear_message(
    plates, base, tmp_path, capsys
) -> None:
    checkpoint = torch_load(base / "weights" / "baseline.pt", map_location="cpu")
    with torch.no_grad():
        for level in checkpoint["model"].model[-1].cv3:
            level[-1].bias.fill_(-50.0)
    torch.save(checkpoint, tmp_path / "silent.pt")
    folder = run(plates, "silent", f"teacher={tmp_path / 'silent.pt'}", f"baseline={base}", *LEARN)
    out = capsys.readouterr().out
    assert "the teacher found no box at all in 72 unlabeled images" in out and "The student is the baseline" in out
    record = results(folder)
    assert record["guard"]["chosen"] == "baseline" and "training" in record and "student" not in record["training"]
    assert record["test"]["student"]["map50_95"] == record["test"]["baseline"]["map50_95"]
    assert "is the baseline, trained on the 24 labeled images alone" in (folder / "report.md").read_text(
        encoding="utf-8"
    )
    assert (folder / "weights" / "student.onnx").is_file()
    words = [
        f"data={plates}",
        f"project={tmp_path}",
        f"teacher={tmp_path / 'silent.pt'}",
        "baseline=off",
        *FAST,
        "epochs=1",
    ]
    assert main([*words, f"data_dir={plates.parent / 'd'}"]) == 2
    assert "no other network to ship" in capsys.readouterr().err


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_good_teacher_online_is_metered_every_epoch(plates, base) -> None:
    teacher = base / "weights" / "baseline.pt"
    folder = run(plates, "online", f"teacher={teacher}", "baseline=off", "pseudo=both", *SHORT, "epochs=3")
    health = results(folder)["distill"]["health"]
    assert len(health) == 3 and all(h["accepted"] > 0 and 0 < h["score"] <= 1 for h in health)
    assert health[-1]["agreement"] is not None and health[0]["precision"] is None, "the truth is not known here"
    columns = read_csv(folder / "train" / "student" / "results.csv")
    assert len(columns["pseudo/accepted"]) == 3 and "pseudo/class/dark" in columns
    assert (folder / "plots" / "health.png").is_file()


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_seven_labeled_images_work(plates, base, capsys) -> None:
    teacher = base / "weights" / "baseline.pt"
    folder = run(
        plates, "seven", "labeled=7", "pseudo=online", f"teacher={teacher}", *SHORT, "epochs=4",
    )  # fmt: skip
    record = results(folder)
    assert record["data"]["train_labeled"] == 7 and record["data"]["train_unlabeled"] == 89
    assert record["training"]["student"]["batches"] == record["training"]["baseline"]["batches"] == 4 * 4
    health = record["distill"]["health"]
    assert all(h["accepted"] > 0 for h in health) and health[0]["precision"] > 0, "hidden labels are known to the meter"
    assert "warning: baseline: 16 optimizer steps are too few to learn from random weights: " in capsys.readouterr().out
    guard = record["guard"]
    assert guard[f"{guard['chosen']}_val_score"] >= guard["baseline_val_score"]


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_mean_teacher_needs_no_other_network(plates, capsys) -> None:
    sure = [f"pseudo.{name}=0.000001" for name in ("tau_low", "tau0", "tau_max")]
    words = ["teacher_kind=ema", "pseudo=online", "baseline=off", "strong_view=0.5", *sure, *SHORT, "epochs=2"]
    folder = run(plates, "mean", *words)
    record = results(folder)
    assert "teacher" not in record["test"] and record["pseudo_labels"] is None
    assert "teacher_unchanged" not in record["distill"]["selftest"]
    assert len(record["distill"]["health"]) == 2 and record["distill"]["health"][-1]["accepted"] > 0
    assert read_csv(folder / "train" / "student" / "results.csv")["train/u_cls_loss"][-1] > 0
    assert main([f"data={plates}", "teacher_kind=ema", "pseudo=offline", *SHORT]) == 2
    assert "teacher_kind=ema needs pseudo.mode=online" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["recipe=ultralytics", "teacher_kind=ema"],
            "teacher_kind has no effect with student_training=ultralytics",
        ),
        (["recipe=baseline", "teacher=none", "teacher_rounds=1"], "teacher_rounds needs a teacher"),
        (["pseudo=online", "pseudo.tta=true"], "pseudo=online does not use"),
        (["teacher_kind=ema", "pseudo=online", "layers=[99]"], "these models have layers 0 to 21"),
        (["teacher=none"], "teacher=none works only with recipe=baseline"),
        (["recipe=baseline", "baseline=off"], "nothing to train"),
        (["unsup_schedule=linear"], "unsup_schedule=linear must be one of"),
        (["strong_view=2"], "strong_view=2 must be"),
        (["pseudo=sometimes"], "pseudo.mode=sometimes must be one of: offline, online, both"),
        (["cutmix=0.5"], "cutmix is not available here"),
        (
            [f"teacher={TINY}", "student=yolov8n.yaml", "student_start=teacher"],
            "is no narrower network of the same depth as teacher",
        ),
        (["recipe=start-only", "student_start=own"], "trains the baseline once more"),
        (["recipe=baseline", "teacher=yolov8n.yaml", "student_start=auto"], "student_start has no effect"),
        (["teacher=yolov8n.yaml", "baseline=nowhere"], "no finished baseline there"),
    ],
)
def test_contradictions_are_rejected_before_anything_is_computed(plates, tmp_path, words, message, capsys) -> None:
    others = [word for word in FAST if not word.startswith("student=") or not any("student=" in w for w in words)]
    assert main([f"data={plates}", f"project={tmp_path}", "name=refused", *others, "epochs=1", *words]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "refused").exists()


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_self_training_keeps_the_better_teacher(plates, base) -> None:
    folder = run(
        plates, "rounds", f"teacher={base / 'weights' / 'baseline.pt'}", "teacher_rounds=1", "baseline=off", *SHORT,
        "epochs=2",
    )  # fmt: skip
    record = results(folder)
    tried, taken = record["self_training"]["val_score"], record["self_training"]["taken"]
    assert len(tried) == 2 and tried[taken] == max(tried)
    kept = (folder / "weights" / "teacher.pt").read_bytes()
    assert kept == (folder / "weights" / f"teacher_round{taken}.pt").read_bytes()
    assert record["training"]["teacher_round1"]["batches"] == record["training"]["student"]["batches"]


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize(
    ("given", "begins", "at_teacher"),
    [
        ("architecture", "auto", True),
        pytest.param("architecture", "own", False, marks=pytest.mark.long),
        pytest.param("trained", "own", True, marks=pytest.mark.long),
    ],
)
def test_a_round_is_the_training_of_the_student_for_a_network_of_the_teachers_size(
    plates, base, given, begins, at_teacher
) -> None:
    trained = str(base / "weights" / "baseline.pt")
    teacher = trained if given == "trained" else TINY
    folder = run(
        plates, f"round-{given}-{begins}", f"teacher={teacher}", f"student_start={begins}", "teacher_rounds=1",
        "baseline=off", "pseudo=online",
        "unsup_weight=0", "teacher_min_batches=6", *SHORT, "epochs=2",
    )  # fmt: skip
    of_round, of_student = (read_yaml(folder / "train" / f"{role}.yaml") for role in ("teacher_round1", "student"))
    differing = {key for key in of_student if of_round[key] != of_student[key]}
    part = {"selected"} if begins == "auto" else set()  # the round goes on from the whole teacher
    assert of_student["terms"] and differing == {"teacher", "pseudo", *part}
    assert Path(of_round["teacher"]).name == "teacher_round0.pt"
    start = read_yaml(folder / "train" / "teacher_round1" / "args.yaml")["model"]
    first = folder / "weights" / "teacher_round0.pt"
    assert Path(start).samefile(first) if at_teacher else start == teacher


@pytest.mark.train
def test_a_student_starts_at_a_part_of_its_teacher(plates, base, tmp_path) -> None:
    wide = tmp_path / "yolov8n-wide.yaml"
    wide.write_text(Path(TINY).read_text(encoding="utf-8").replace("0.125", "0.25"), encoding="utf-8")
    teacher = run(plates, "wide", "recipe=baseline", "teacher=none", *SHORT[1:], f"student={wide}", "epochs=1")
    words = [f"teacher={teacher / 'weights' / 'baseline.pt'}", "baseline=off", *SHORT, "epochs=1", "unsup_weight=0"]
    folder = run(plates, "selected", "student_start=auto", *words)
    assert results(folder)["distill"]["start"] == "teacher"
    assert "started at a part of its teacher" in (folder / "report.md").read_text(encoding="utf-8")
    start = folder / "weights" / "student_start.pt"
    assert Path(read_yaml(folder / "train" / "student" / "args.yaml")["model"]).samefile(start)
    assert read_yaml(folder / "train" / "student.yaml")["selected"], "the adapters start where the student does"
    own, theirs = (load_checkpoint(str(file))[0].state_dict() for file in (start, folder / "weights" / "teacher.pt"))
    assert any(value.shape != theirs[name].shape for name, value in own.items())
    assert all(torch.equal(value, select(theirs[name], value.shape)) for name, value in own.items() if ".bn." in name)
    with recorded_reads() as reads:
        alone = run(plates, "start-only", "recipe=start-only", *words[:-1])
    no_warmup = ("warmup_bias_lr",)  # in a single epoch
    assert dead_keys(["recipe=start-only", *words[:-1]], reads, besides=[*USED_TEACHER, *no_warmup]) == []
    same = load_checkpoint(str(alone / "weights" / start.name))[0].state_dict()
    assert all(torch.equal(value, same[name]) for name, value in own.items() if ".bn." in name)
    assert Path(read_yaml(alone / "train" / "student" / "args.yaml")["model"]).samefile(alone / "weights" / start.name)
    record = results(alone)
    assert record.get("distill") is None and record.get("pseudo_labels") is None, "neither terms nor pseudo-labels"
    assert record["training"]["student"]["batches"] == results(folder)["training"]["student"]["batches"]


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize("own", ["student_start=own", "student_start=auto"])
def test_a_student_without_a_wider_teacher_of_its_kind_starts_as_given(plates, base, own) -> None:
    given = str(base / "weights" / "baseline.pt")  # auto leaves trained weights alone
    words = [f"teacher={given}", "baseline=off", *SHORT[1:], f"student={given}", "epochs=1", "unsup_weight=0"]
    folder = run(plates, own.replace("=", "-"), own, *words)
    assert results(folder)["distill"]["start"] == "own"
    assert Path(read_yaml(folder / "train" / "student" / "args.yaml")["model"]).samefile(given)


@pytest.mark.train
def test_ultralytics_own_distillation_gets_the_same_budget(plates, base) -> None:
    teacher = base / "weights" / "baseline.pt"
    words = ["recipe=ultralytics", f"teacher={teacher}", *SHORT, "epochs=2"]
    with recorded_reads() as reads:
        folder = run(plates, "peer", *words)
    assert dead_keys(words, reads, besides=USED_TEACHER) == []
    record = results(folder)
    assert record["training"]["student"]["batches"] == record["training"]["baseline"]["batches"]
    assert "train/dis_loss" in read_csv(folder / "train" / "student" / "results.csv")
    assert record["pseudo_labels"] is None and record["export"]["passed"]


@pytest.mark.train
def test_baseline_of_another_budget_is_rejected(plates, base, tmp_path, capsys) -> None:
    words = [w for w in SHORT if w != "lr0=0.02"]
    given = [f"data={plates}", f"project={tmp_path}", f"data_dir={plates.parent / 'd'}", f"baseline={base}", *words]
    teacher = f"teacher={base / 'weights' / 'baseline.pt'}"
    assert main([*given, teacher, "epochs=5", "lr0=0.02"]) == 2
    assert f"it differs in epochs ({EPOCHS} there)" in capsys.readouterr().err
    assert main([*given[:3], f"baseline={tmp_path / 'nowhere'}", *words, teacher, f"epochs={EPOCHS}", "lr0=0.02"]) == 2
    assert "no finished baseline there" in capsys.readouterr().err


def die_in_the_second_epoch(words: Sequence[str]) -> None:
    """Run the command line, and die in the first batch of epoch 1 (from 0), when there is a checkpoint of epoch 0."""
    end_batch = StudentTrainer._end_batch

    def die(trainer: StudentTrainer) -> None:
        end_batch(trainer)
        if trainer.epoch == 1:
            trainer.writer.wait()
            os._exit(9)

    pytest.MonkeyPatch().setattr(StudentTrainer, "_end_batch", staticmethod(die))
    main(words)


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_meter_and_thresholds_continue_after_a_kill(plates, base, tmp_path, monkeypatch) -> None:
    words = [
        f"data={plates}", f"project={tmp_path}", f"data_dir={plates.parent / 'd'}", "name=killed", "pseudo=online",
        f"teacher={base / 'weights' / 'baseline.pt'}", "baseline=off", *SHORT, "epochs=3",
    ]  # fmt: skip
    done = processes.run(die_in_the_second_epoch, words, folder=tmp_path)
    assert done.returncode == 9, done.output[-2000:]
    before = json.loads((tmp_path / "killed" / "train" / "student.json").read_text(encoding="utf-8"))["distill"]
    assert len(before["health"]) == 1 and before["thresholds"]["batches"] != [0, 0]
    go_on, seen = StudentTrainer.load_watch_state, []

    def watch(trainer: StudentTrainer, state: dict[str, Any]) -> None:
        go_on(trainer, state)
        seen.append(trainer.pair.labeler.thresholds.state_dict())

    monkeypatch.setattr(StudentTrainer, "load_watch_state", watch)
    assert main([f"resume={tmp_path / 'killed'}"]) == 0
    assert seen == [before["thresholds"]]
    record = results(tmp_path / "killed")
    assert len(record["distill"]["health"]) == 3 and record["distill"]["health"][:1] == before["health"]
