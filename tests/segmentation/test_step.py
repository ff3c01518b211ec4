"""What a training step of masks dispatches beyond that of the network, and that it never makes the host wait."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dfssd.benchmark.operators import _Counting, count_operators
from dfssd.segmentation.model import build_model
from dfssd.segmentation.teacher import SegmentationTeacher
from dfssd.segmentation.trainer import SemanticStageTrainer
from tests.configured import segmentation_settings
from tests.segmentation.material import NEU_NAMES, mask_data
from tests.segmentation.test_model import checkpoint, lively
from tests.segmentation.test_trainer import overrides


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    return checkpoint(tmp_path_factory.mktemp("teacher") / "t.pt", lively(build_model("mffmetal-12", 4, NEU_NAMES)))


def operators_of_a_step(folder: Path, **settings) -> tuple[int, int]:
    """(launched, waits) of a step of the trainer's own loop, from batch to optimizer, after the self-test."""
    data = mask_data(folder, side=40)
    if "teacher" in settings:
        settings = {**settings, "unlabeled": str(folder / "unlabeled.txt"), "unlabeled_share": 0.5}
    segmentation_settings(batches_per_epoch=4, selftest_steps=1, **settings).write(folder / "train" / "student")
    # SGD: Adam reads its step counters, which lie on the host on every device
    trainer = SemanticStageTrainer(overrides=overrides(data, folder / "train" / "student", epochs=1, optimizer="SGD"))
    seen = []
    inner = trainer._do_train

    def marked() -> None:
        for event in ("on_train_batch_start", "on_train_batch_end"):
            trainer.callbacks[event].append(lambda _: seen.append((mode.launched, mode.waits)))
        inner()

    trainer._do_train = marked
    with _Counting() as mode:
        trainer.train()
    start, end = seen[-2:]
    return end[0] - start[0], end[1] - start[1]


@pytest.mark.train
def test_a_step_costs_little_beyond_the_network_and_waits_for_nothing(teacher: Path, tmp_path: Path) -> None:
    plain, waits = operators_of_a_step(tmp_path / "plain", dice=0.0, boundary=0.0)
    alone, waits_alone = operators_of_a_step(tmp_path / "alone")
    taught, waits_taught = operators_of_a_step(tmp_path / "taught", teacher=str(teacher), kd=15.0)
    mixed, waits_mixed = operators_of_a_step(tmp_path / "mixed", teacher=str(teacher), kd=15.0, cutmix=1.0)
    frozen = SegmentationTeacher(teacher, dict(enumerate(NEU_NAMES)), torch.device("cpu"))
    forward = count_operators(lambda: frozen(torch.rand(4, 3, 40, 40))).launched
    assert waits == waits_alone == waits_taught == waits_mixed == 0
    assert 0 < alone - plain <= 30
    assert 0 < taught - plain - forward <= 50
    assert 0 < mixed - taught <= 35


def test_frozen_weights_are_rounded_once(teacher: Path) -> None:
    """Autocast rounds them in every call: an operator for each, for the same logits."""
    frozen = SegmentationTeacher(teacher, dict(enumerate(NEU_NAMES)), torch.device("cpu"))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = frozen.model(images)
        every_time = count_operators(lambda: frozen.model(images)).launched
        found = frozen(images)
        once = count_operators(lambda: frozen(images)).launched
    assert torch.equal(found, expected) and frozen.unchanged()
    assert once < 0.6 * every_time
    next(iter(frozen.model.parameters()))[0, 0, 0, 0] += 0.5
    assert not frozen.unchanged()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_rounded_weights_give_the_logits_of_autocast_on_a_gpu(teacher: Path, precision: torch.dtype) -> None:
    frozen = SegmentationTeacher(teacher, dict(enumerate(NEU_NAMES)), torch.device("cuda"))
    images = torch.rand(2, 3, 64, 64, device="cuda")
    with torch.no_grad(), torch.autocast("cuda", precision):
        expected = frozen.model(images)
        found = frozen(images)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    assert frozen.unchanged()
