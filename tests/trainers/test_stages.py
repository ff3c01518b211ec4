"""The stage trainers on a tiny real training: budget, self-test, resume after a kill, plain checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ultralytics import YOLO
from ultralytics.utils.torch_utils import EarlyStopping

from dfssd.detection.trainer import StudentTrainer
from dfssd.errors import UserError
from dfssd.trainers.checkpoints import finish_checkpoint, read_checkpoint
from dfssd.trainers.results_csv import read_results_csv
from dfssd.trainers.settings import StudentSettings
from dfssd.trainers.stage import StageTrainer
from tests import configured, processes
from tests.conftest import NAMES
from tests.tiny_detection import TINY

TERMS = {
    "hwjs": {"weight": 2.0, "schedule": "constant"},
    "response_cls": {"weight": 1.0, "schedule": "constant"},
    "response_dfl": {"weight": 1.0, "schedule": "constant"},
}


def overrides(squares: Path, stage: Path, **changes) -> dict:
    return {
        "model": TINY,
        "data": str(squares),
        "task": "detect",
        "mode": "train",
        "project": str(stage.parent),
        "name": stage.name,
        "save_dir": str(stage),
        "exist_ok": True,
        "epochs": 2,
        "batch": 4,
        "imgsz": 64,
        "device": "cpu",
        "workers": 0,
        "plots": False,
        "amp": False,
        "optimizer": "AdamW",
        "nbs": 4,
        "warmup_epochs": 0,
        **changes,
    }


def student_settings(pseudo: tuple[Path, Path], teacher: Path, **changes) -> StudentSettings:
    values = {
        "batches_per_epoch": 3,
        "unlabeled_share": 0.5,
        "unlabeled": str(pseudo[0]),
        "pseudo": str(pseudo[1]),
        "teacher": str(teacher),
        "terms": TERMS,
        "selftest_steps": 2,
    }
    return configured.student_settings(**{**values, **changes})


def test_settings_survive_the_file(tmp_path: Path, pseudo, teacher_file: Path) -> None:
    settings = student_settings(pseudo, teacher_file, layers=(15, 18))
    settings.write(tmp_path / "train" / "student")
    assert StudentSettings.read(tmp_path / "train" / "student") == settings


@pytest.mark.parametrize("content", ["empty", "cut", "something else", "another file"])
def test_damaged_checkpoint_is_named_with_what_to_remove(tmp_path: Path, teacher_file: Path, content: str) -> None:
    whole = teacher_file.read_bytes()
    stage = tmp_path / "train" / "student"
    last = stage / "weights" / "last.pt"
    last.parent.mkdir(parents=True)
    last.write_bytes(
        {"empty": b"", "cut": whole[: len(whole) // 2], "something else": b"no checkpoint"}.get(content, b"")
    )
    if content == "another file":
        torch.save([1, 2], last)
    for read in (lambda: read_checkpoint(last), lambda: finish_checkpoint(stage, tmp_path / "student.pt")):
        with pytest.raises(
            UserError, match=rf"^{last} is damaged \(.+\); remove {stage}, and that training is repeated"
        ):
            read()
    assert not (tmp_path / "student.pt").exists()


@pytest.mark.train
def test_labeled_stage_has_the_requested_budget_and_a_plain_checkpoint(squares: Path, tmp_path: Path) -> None:
    stage = tmp_path / "train" / "baseline"
    configured.labels_alone(5).write(stage)
    trainer = StageTrainer(overrides=overrides(squares, stage))
    trainer.train()
    summary = json.loads(stage.with_name("baseline.json").read_text(encoding="utf-8"))
    assert summary["epochs_done"] == 2 and summary["batches"] == trainer.batches_done == 10
    assert summary["optimizer_steps"] == 10
    assert read_checkpoint(stage / "weights" / "last.pt")["epoch"] == -1
    assert not list(stage.glob("weights/writing_*"))
    finish_checkpoint(stage, tmp_path / "weights" / "baseline.pt")
    assert YOLO(tmp_path / "weights" / "baseline.pt").names == dict(enumerate(NAMES))


@pytest.mark.train
def test_student_stage_learns_from_both_lists_and_proves_its_signal(squares, pseudo, teacher_file, tmp_path) -> None:
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file).write(stage)
    StudentTrainer(overrides=overrides(squares, stage)).train()
    summary = json.loads(stage.with_name("student.json").read_text(encoding="utf-8"))
    assert summary["batches"] == 6 and summary["optimizer_steps"] == 6
    distill = summary["distill"]
    assert distill["selftest"] == {
        "adapters_in_optimizer": True,
        "teacher_in_optimizer": False,
        "checked_batches": 2,
        "terms_alive": sorted(TERMS),
        "teacher_unchanged": True,
        "adapters_changed": True,
    }
    for name in TERMS:
        term = distill["terms"][name]
        assert len(term["by_epoch"]) == 2 and 0 < term["grad_share"] < 1
    columns = read_results_csv(stage / "results.csv")[0]
    detection = [f"train/{u}{k}_loss" for u in ("", "u_") for k in ("box", "cls", "dfl")]
    assert {*detection, *(f"train/{t}" for t in TERMS)} <= set(columns)

    finish_checkpoint(stage, tmp_path / "student.pt")
    code = (
        "from ultralytics import YOLO\n"
        "import numpy as np\n"
        f"m = YOLO({str(tmp_path / 'student.pt')!r})\n"
        "m.predict(np.zeros((64, 64, 3), 'uint8'), imgsz=64, verbose=False)\n"
        "print('kind', type(m.model).__name__, type(m.model).__module__)\n"
        "m.export(format='torchscript', imgsz=64, verbose=False)\n"
    )
    done = processes.run_without_dfssd(code, tmp_path)
    assert done.returncode == 0, done.output[-2000:]
    assert "kind DetectionModel ultralytics.nn.tasks" in done.output


@pytest.mark.train
def test_checkpoint_that_fails_while_written_leaves_the_old_one(squares, tmp_path, monkeypatch) -> None:
    stage = tmp_path / "train" / "baseline"
    configured.labels_alone(1).write(stage)
    trainer = StageTrainer(overrides=overrides(squares, stage, epochs=2))
    write, written = Path.write_bytes, []

    def full(path: Path, content: bytes) -> int:
        if path.name == "writing_last.pt":
            written.append(path)
        if len(written) == 2:
            write(path, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.train()
    assert read_checkpoint(stage / "weights" / "last.pt")["epoch"] == 0


@pytest.mark.train
def test_bf16_on_the_cpu_reaches_the_forward_pass_and_ends_with_the_step(squares, tmp_path) -> None:
    stage = tmp_path / "train" / "baseline"
    configured.labels_alone(1, cpu_bf16=True).write(stage)
    trainer = StageTrainer(overrides=overrides(squares, stage, epochs=1))
    seen = []

    def hook(trainer: StageTrainer) -> None:
        trainer.model.model[0].register_forward_hook(
            lambda m, i, o: seen.append((m.training, o.dtype)), always_call=True
        )

    trainer.add_callback("on_train_start", hook)
    trainer.train()
    assert (True, torch.bfloat16) in seen
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.train
def test_term_without_gradient_stops_the_training(squares, pseudo, teacher_file, tmp_path, monkeypatch) -> None:
    from dfssd.distillation.terms import TERMS as REGISTERED
    from dfssd.distillation.terms.base import Term

    class Dead(Term):
        """Looks like a loss, is a constant: what the published code did."""

        def forward(self, student, teacher, batch):
            with torch.no_grad():
                return student.scores.float().pow(2).mean()

    monkeypatch.setitem(REGISTERED, "dead", Dead)
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file, terms={"dead": {"weight": 1.0, "schedule": "constant"}}).write(stage)
    with pytest.raises(UserError, match=r"self-test: dead gave the student no gradient in the first 2 batches"):
        StudentTrainer(overrides=overrides(squares, stage)).train()


@pytest.mark.train
def test_training_shorter_than_the_selftest_is_judged_all_the_same(
    squares, pseudo, teacher_file, tmp_path, monkeypatch
) -> None:
    from dfssd.distillation.terms import TERMS as REGISTERED
    from dfssd.distillation.terms.base import Term

    class Dead(Term):
        """A constant."""

        def forward(self, student, teacher, batch):
            return student.scores.detach().float().pow(2).mean()

    monkeypatch.setitem(REGISTERED, "dead", Dead)
    stage = tmp_path / "train" / "student"
    terms = {"dead": {"weight": 1.0, "schedule": "constant"}}
    student_settings(pseudo, teacher_file, terms=terms, batches_per_epoch=2, selftest_steps=9).write(stage)
    with pytest.raises(UserError, match=r"dead gave the student no gradient in the first 2 batches"):
        StudentTrainer(overrides=overrides(squares, stage)).train()


@pytest.mark.train
def test_teacher_that_moves_is_found_before_a_checkpoint_exists(squares, pseudo, teacher_file, tmp_path) -> None:
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file).write(stage)
    trainer = StudentTrainer(overrides=overrides(squares, stage))

    def push(trainer: StudentTrainer) -> None:
        next(trainer.pair.teacher_model.parameters()).data.add_(1e-6)

    trainer.add_callback("on_train_epoch_end", push)
    with pytest.raises(UserError, match="the teacher's weights changed"):
        trainer.train()
    assert not (stage / "weights" / "last.pt").exists()


@pytest.mark.train
def test_resume_takes_the_precision_of_the_new_device(squares, tmp_path) -> None:
    stage = tmp_path / "train" / "baseline"
    configured.labels_alone(1).write(stage)
    first = StageTrainer(overrides=overrides(squares, stage, epochs=2))

    def stop(trainer: StageTrainer) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    first.add_callback("on_train_epoch_start", stop)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    last = stage / "weights" / "last.pt"
    checkpoint = torch.load(last, weights_only=False)
    checkpoint["train_args"]["amp"] = "bf16"  # what a checkpoint from a GPU holds
    torch.save(checkpoint, last)
    resumed = StageTrainer(overrides=overrides(squares, stage, epochs=2, resume=str(last)))
    assert resumed.args.amp is False


@pytest.mark.train
def test_term_that_is_not_finite_stops_the_training(squares, pseudo, teacher_file, tmp_path, monkeypatch) -> None:
    from dfssd.distillation.terms import TERMS as REGISTERED
    from dfssd.distillation.terms.base import Term

    class Broken(Term):
        """Divides by nothing."""

        def forward(self, student, teacher, batch):
            return student.scores.float().sum() / 0.0

    monkeypatch.setitem(REGISTERED, "broken", Broken)
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file, terms={"broken": {"weight": 1.0, "schedule": "constant"}}).write(stage)
    with pytest.raises(UserError, match=r"self-test: term broken is not finite"):
        StudentTrainer(overrides=overrides(squares, stage)).train()


def test_worker_of_a_multi_gpu_run_rebuilds_the_same_trainer(squares, pseudo, teacher_file, tmp_path) -> None:
    """Ultralytics' workers get the class, the arguments and the callbacks, nothing else (``generate_ddp_file``)."""
    from ultralytics.utils import DEFAULT_CFG_DICT

    stage = tmp_path / "train" / "student"
    settings = student_settings(pseudo, teacher_file)
    settings.write(stage)
    first = StudentTrainer(overrides=overrides(squares, stage))
    cfg = {**DEFAULT_CFG_DICT, "save_dir": ""}
    worker = type(first)(cfg=cfg, overrides=vars(first.args), _callbacks=first.callbacks)
    assert worker.settings == settings and worker.save_dir == first.save_dir
    counts = [{event: len(found) for event, found in t.callbacks.items()} for t in (first, worker)]
    assert counts[0] == counts[1]


class Watched(StudentTrainer):
    """Notes the composition of every batch; dies in epoch ``dies`` (from 0)."""

    dies = 99

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.labeled: list[list[bool]] = []

    def preprocess_batch(self, batch: dict) -> dict:
        if self.epoch == self.dies:
            raise KeyboardInterrupt
        batch = super().preprocess_batch(batch)
        self.labeled.append(batch["labeled"].tolist())
        return batch


@pytest.mark.train
@pytest.mark.parametrize("workers", [0, 1])
def test_guard_switches_the_teacher_off_and_stays_off_after_a_resume(
    squares, pseudo, teacher_file, tmp_path, workers, monkeypatch
) -> None:
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file, guard=(0.9,) * 5, guard_patience=1, mode="online").write(stage)
    words = overrides(squares, stage, epochs=5)
    monkeypatch.setattr(Watched, "dies", 3)
    first = Watched(overrides=words)
    first.args.workers = workers  # Ultralytics takes none on a CPU
    with pytest.raises(KeyboardInterrupt):
        first.train()
    assert [sum(flags) for flags in first.labeled] == [2] * 6 + [4] * 3, "mixed until the second verdict"
    assert [e["factor"] for e in first.guard.events] == [0.25, 0.0]
    monkeypatch.setattr(Watched, "dies", 99)
    second = Watched(overrides={**words, "resume": str(stage / "weights" / "last.pt")})
    second.args.workers = workers
    second.train()
    assert [sum(flags) for flags in second.labeled] == [4] * 6
    distill = json.loads(stage.with_name("student.json").read_text(encoding="utf-8"))["distill"]
    assert [e["epoch"] for e in distill["guard"]["events"]] == [1, 2]
    assert [h["accepted"] is None for h in distill["health"]] == [False, False, True, True, True]
    assert distill["terms"]["hwjs"]["by_epoch"][2:] == [0.0] * 3


@pytest.mark.train
def test_the_last_epochs_hold_labeled_images_alone_also_after_a_resume(
    squares, pseudo, teacher_file, tmp_path, monkeypatch
) -> None:
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file, labels_last=0.4, mode="online").write(stage)
    words = overrides(squares, stage, epochs=5)
    monkeypatch.setattr(Watched, "dies", 4)
    first = Watched(overrides=words)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    assert [sum(flags) for flags in first.labeled] == [2] * 9 + [4] * 3, "two epochs of five"
    monkeypatch.setattr(Watched, "dies", 99)
    second = Watched(overrides={**words, "resume": str(stage / "weights" / "last.pt")})
    second.train()
    assert [sum(flags) for flags in second.labeled] == [4] * 3
    distill = json.loads(stage.with_name("student.json").read_text(encoding="utf-8"))["distill"]
    assert distill["guard"]["events"] == []
    assert [h["accepted"] is None for h in distill["health"]] == [False, False, False, True, True]
    assert all(value > 0 for value in distill["terms"]["hwjs"]["by_epoch"]), "terms go on with the labeled images"


@pytest.mark.train
def test_mean_teacher_is_the_moving_average_of_the_student(squares, pseudo, tmp_path) -> None:
    stage = tmp_path / "train" / "student"
    rule = {"tau_low": 0.1, "tau0": 0.5, "tau_max": 0.9, "ema_decay": 0.9}
    settings = student_settings(pseudo, Path(""), mode="online", **rule)
    replace(settings, pseudo="", teacher="").write(stage)
    trainer = StudentTrainer(overrides=overrides(squares, stage, epochs=1))
    compared = []

    def compare(trainer: StudentTrainer) -> None:
        own, average = trainer.pair.teacher_model.state_dict(), trainer.ema.ema.student_model.state_dict()
        compared.append(all(torch.equal(own[k], average[k]) for k in own))
        assert not any(p.requires_grad for p in trainer.pair.teacher_model.parameters())

    trainer.add_callback("on_train_batch_end", compare)
    trainer.train()
    assert compared == [True] * 3


def test_patience_begins_when_something_is_learned() -> None:
    """Chance values around 0.005 for 15 epochs, then a rise, then a plateau of more epochs than the patience."""
    values = [0.0, 0.007, *[0.003] * 13, 0.08, 0.2, *[0.1] * 9]
    trainer = SimpleNamespace(stopper=EarlyStopping(patience=5), epoch=0)
    stops = []
    for trainer.epoch, value in enumerate(values):
        stops.append(trainer.stopper(trainer.epoch + 1, value))
        StageTrainer._wait_for_learning(trainer)
    assert stops.index(True) == 16 + 5
