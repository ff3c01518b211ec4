"""The moving average of the weights, which is what is validated and kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from ultralytics.utils.torch_utils import ModelEMA

from dfssd.trainers.checkpoints import trained_classes
from dfssd.trainers.settings import AverageDecay
from dfssd.trainers.stage import StageTrainer
from tests import configured
from tests.trainers.test_stages import overrides


def test_the_decay_rises_only_where_the_start_is_not_worth_keeping() -> None:
    fresh, trained = AverageDecay(0.99, trained=False), AverageDecay(0.99, trained=True)
    assert [fresh(t) for t in (1, 8, 90)] == [2 / 11, 0.5, 0.91]
    assert fresh(889) < 0.99 == fresh(890) == fresh(10_000)
    assert trained(1) == trained(10_000) == 0.99


@pytest.mark.train
@pytest.mark.parametrize("trained", [True, False])
def test_a_training_keeps_the_average_that_it_was_told(squares: Path, tmp_path: Path, trained: bool) -> None:
    stage, decay = tmp_path / "train" / "baseline", AverageDecay(0.6, trained=trained)
    configured.labels_alone(3, average=decay).write(stage)
    trainer = StageTrainer(overrides=overrides(squares, stage, epochs=2))
    expected: dict[str, Tensor] = {}

    def weights(of: torch.nn.Module) -> dict[str, Tensor]:
        return {name: p.detach().clone() for name, p in of.named_parameters()}

    def begin(trainer: StageTrainer) -> None:
        expected.update(weights(trainer.model))

    def follow(trainer: StageTrainer) -> None:
        share = decay(trainer.ema.updates)
        for name, value in weights(trainer.model).items():
            expected[name] = share * expected[name] + (1 - share) * value

    def replace_average(trainer: StageTrainer) -> None:
        """What Ultralytics does after a loss that is not finite."""
        before, trainer.ema = trainer.ema, ModelEMA(trainer.model, updates=trainer.ema.updates)
        trainer.ema.ema.load_state_dict(before.ema.state_dict())

    trainer.add_callback("on_train_start", begin)
    trainer.add_callback("on_train_batch_end", follow)
    trainer.add_callback("on_fit_epoch_end", replace_average)
    trainer.train()
    assert trainer.ema.updates == 6
    for name, value in trainer.ema.ema.named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.train
def test_the_classes_of_a_checkpoint_tell_whether_it_is_trained_for_the_data(teacher_file: Path) -> None:
    assert trained_classes(teacher_file)
    assert not trained_classes("yolov8n.yaml")
