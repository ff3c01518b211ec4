"""TSKD in a real, small training: its signal, its record, a plain result, and a resume that restores all of it."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dfssd.detection.trainer import StudentTrainer
from dfssd.errors import UserError
from dfssd.runs.configure import configure
from dfssd.trainers.checkpoints import finish_checkpoint
from dfssd.trainers.results_csv import read_results_csv
from tests import processes
from tests.trainers.test_stages import overrides, student_settings

pytestmark = pytest.mark.train


def terms_of(recipe: str) -> dict:
    return {name: dict(options) for name, options in configure({"recipe": recipe}).terms.items()}


class Mortal(StudentTrainer):
    """Dies at the start of epoch ``dies`` (from 0)."""

    dies = 99

    def preprocess_batch(self, batch: dict) -> dict:
        if self.epoch == self.dies:
            raise KeyboardInterrupt
        return super().preprocess_batch(batch)


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_training_killed_and_resumed(squares, pseudo, teacher_file, tmp_path, monkeypatch, mode) -> None:
    stage, terms = tmp_path / "train" / "student", terms_of("tskd-paper")
    student_settings(pseudo, teacher_file, terms=terms, balance=True, mode=mode).write(stage)
    monkeypatch.setattr(Mortal, "dies", 2)
    first = Mortal(overrides=overrides(squares, stage, epochs=4))
    with pytest.raises(KeyboardInterrupt):
        first.train()
    graphs = {k: v.clone() for k, v in first.pair.projector.state_dict().items() if ".graphs." in k}
    assert len(graphs) == 15
    norms = copy.deepcopy(first.pair.balance.state_dict()["norms"])
    assert set(norms) == {"det", *terms}

    monkeypatch.setattr(Mortal, "dies", 99)
    last = stage / "weights" / "last.pt"
    second = Mortal(overrides=overrides(squares, stage, epochs=4, resume=str(last)))
    seen: dict[str, Any] = {}

    def look(trainer: StudentTrainer) -> None:
        if seen:
            return
        seen["norms"] = dict(trainer.pair.balance.norms)
        seen["graphs"] = {k: v.clone() for k, v in trainer.pair.projector.state_dict().items() if k in graphs}
        seen["learned"] = {n for n, p in trainer.pair.projector.named_parameters() if p.requires_grad}

    second.add_callback("on_train_epoch_start", look)
    second.train()
    assert seen["norms"] == norms, "the weights go on where they were"
    for name, value in graphs.items():
        assert torch.equal(seen["graphs"][name], value)
        assert torch.equal(second.pair.projector.state_dict()[name], value), "a graph is never trained"
    assert not any(".graphs." in name for name in seen["learned"])

    distill = json.loads(stage.with_name("student.json").read_text(encoding="utf-8"))["distill"]
    assert distill["selftest"]["terms_alive"] == sorted(terms) and distill["selftest"]["teacher_unchanged"]
    rows = read_results_csv(stage / "results.csv")
    assert len(rows) == 4
    for name in terms:
        record = distill["terms"][name]
        assert len(record["by_epoch"]) == len(record["weight_by_epoch"]) == 4
        assert record["weight"] == record["weight_by_epoch"][-1] > 0
        assert float(rows[-1][f"train/{name}"]) >= 0
        assert float(rows[-1][f"weight/{name}"]) == pytest.approx(record["weight"], rel=1e-3)


@pytest.mark.parametrize("recipe", ["tskd", "tskd-paper", "tkd"])
def test_result_is_a_plain_file(squares, pseudo, teacher_file, tmp_path, recipe) -> None:
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file, terms=terms_of(recipe), balance=True).write(stage)
    StudentTrainer(overrides=overrides(squares, stage, epochs=1)).train()
    finish_checkpoint(stage, tmp_path / "student.pt")
    code = (
        "from ultralytics import YOLO\n"
        f"m = YOLO({str(tmp_path / 'student.pt')!r}).model\n"
        "print('kind', type(m).__name__, sum(len(x._forward_hooks) for x in m.modules()))\n"
    )
    done = processes.run_without_dfssd(code, tmp_path)
    assert done.returncode == 0, done.output[-2000:]
    assert "kind DetectionModel 0" in done.output


def test_term_that_waits_for_a_box_is_not_called_dead(squares, pseudo, teacher_file, tmp_path) -> None:
    """Most batches of a line that makes few defects have none; ``drd_instance`` and ``ld`` are 0 then."""
    stage = tmp_path / "train" / "student"
    terms = {name: {"weight": 1.0, "schedule": "constant", "share": 0.2} for name in ("drd_instance", "pkd")}

    class Clean(StudentTrainer):
        """Shows no box in the batches before ``first``."""

        first = 5

        def preprocess_batch(self, batch: dict) -> dict:
            batch = super().preprocess_batch(batch)
            if self.batches_done < self.first:
                for key in ("batch_idx", "bboxes", "cls", "score"):
                    batch[key] = batch[key][:0]
            return batch

    for first, alive in ((5, ["drd_instance", "pkd"]), (99, ["pkd"])):
        student_settings(pseudo, teacher_file, terms=terms, batches_per_epoch=3).write(stage)
        Clean.first = first
        Clean(overrides=overrides(squares, stage, epochs=3)).train()
        distill = json.loads(stage.with_name("student.json").read_text(encoding="utf-8"))["distill"]
        assert distill["selftest"]["terms_alive"] == alive and distill["selftest"]["checked_batches"] == 2


@pytest.mark.parametrize(("balance", "expected"), [(True, [0, 1, 2, 4, 6, 8]), (False, [0, 1, 3, 6])])
def test_gradients_are_measured_when_they_are_due(
    squares, pseudo, teacher_file, tmp_path, monkeypatch, balance, expected
) -> None:
    """With ``balance=auto`` in the first batches and in every so many, else at the start of each epoch."""
    monkeypatch.setattr("dfssd.distillation.balance.EVERY", 2)
    monkeypatch.setattr("dfssd.distillation.balance.EARLY", (0, 1))
    stage = tmp_path / "train" / "student"
    terms = {"pkd": {"weight": 1.0, "schedule": "constant", "share": 0.2}}
    student_settings(pseudo, teacher_file, terms=terms, batches_per_epoch=3, balance=balance).write(stage)
    probed = []

    class Watched(StudentTrainer):
        def preprocess_batch(self, batch: dict) -> dict:
            batch = super().preprocess_batch(batch)
            if self.pair.probe:
                probed.append(self.pair.progress[0])
            return batch

    Watched(overrides=overrides(squares, stage, epochs=3)).train()
    assert probed == expected


def test_term_without_gradient_despite_boxes_is_dead(squares, pseudo, teacher_file, tmp_path, monkeypatch) -> None:
    from dfssd.distillation.terms import TERMS as REGISTERED
    from dfssd.distillation.terms.base import Term

    class Dead(Term):
        """Waits for boxes, and does nothing with them."""

        needs_boxes = True

        def forward(self, student, teacher, batch):
            return 0.0 * student.scores.float().sum()

    monkeypatch.setitem(REGISTERED, "dead", Dead)
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file, terms={"dead": {"weight": 1.0, "schedule": "constant"}}).write(stage)
    with pytest.raises(UserError, match="dead gave the student no gradient"):
        StudentTrainer(overrides=overrides(squares, stage)).train()


def test_moving_average_as_teacher_has_an_epoch_to_become_another(squares, pseudo, tmp_path) -> None:
    """It begins as the student itself: through one and the same head there is nothing to correct at first."""
    stage = tmp_path / "train" / "student"
    rule = {"tau_low": 0.1, "tau0": 0.5, "tau_max": 0.9, "ema_decay": 0.9}
    settings = student_settings(
        pseudo, Path(""), mode="online", **rule, terms=terms_of("tkd"), balance=True, selftest_steps=2
    )
    replace(settings, pseudo="", teacher="", cpu_bf16=True).write(stage)
    # in bf16 a tiny network moves too little for its moving average to become another
    StudentTrainer(overrides=overrides(squares, stage, epochs=2, model="yolov8n.yaml")).train()
    distill = json.loads(stage.with_name("student.json").read_text(encoding="utf-8"))["distill"]
    assert set(distill["terms"]) == set(terms_of("tkd")) and "checked_batches" in distill["selftest"]
