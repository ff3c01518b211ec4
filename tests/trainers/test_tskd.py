"""TSKD in a real, small training: its signal, its record, a plain result, and a resume that restores all of it."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest
import torch

from dfssd.cli import configure
from dfssd.trainers.stage import finish_checkpoint, read_results_csv
from dfssd.trainers.student import StudentTrainer
from tests.trainers.test_stages import overrides, student_settings


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
    stage, terms = tmp_path / "train" / "student", terms_of("tskd")
    student_settings(pseudo, teacher_file, terms=terms, balance=True, pseudo_mode=mode).write(stage)
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
    seen = {}

    def look(trainer: StudentTrainer) -> None:
        seen["norms"] = dict(trainer.pair.balance.norms)
        seen["graphs"] = {k: v.clone() for k, v in trainer.pair.projector.state_dict().items() if k in graphs}
        seen["learnt"] = {n for n, p in trainer.pair.projector.named_parameters() if p.requires_grad}

    second.add_callback("on_train_start", look)
    second.train()
    assert seen["norms"] == norms, "the weights go on where they were"
    for name, value in graphs.items():
        half = value.half().float()  # checkpoints hold half precision
        assert torch.equal(seen["graphs"][name].float(), half)
        assert torch.equal(second.pair.projector.state_dict()[name].float(), half), "a graph is never trained"
    assert not any(".graphs." in name for name in seen["learnt"])

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


@pytest.mark.parametrize("recipe", ["tskd", "tkd"])
def test_result_is_a_plain_file(squares, pseudo, teacher_file, tmp_path, recipe) -> None:
    stage = tmp_path / "train" / "student"
    student_settings(pseudo, teacher_file, terms=terms_of(recipe), balance=True).write(stage)
    StudentTrainer(overrides=overrides(squares, stage, epochs=1)).train()
    finish_checkpoint(stage, tmp_path / "student.pt")
    code = (
        "import sys; sys.modules['dfssd'] = None\n"
        "from ultralytics import YOLO\n"
        f"m = YOLO({str(tmp_path / 'student.pt')!r}).model\n"
        "print('kind', type(m).__name__, sum(len(x._forward_hooks) for x in m.modules()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "kind DetectionModel 0" in done.stdout


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
