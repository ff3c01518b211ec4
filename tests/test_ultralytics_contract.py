"""Facts about Ultralytics that the design rests on, one test each, so that an upgrade fails by name."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
import ultralytics
from ultralytics.cfg import get_cfg
from ultralytics.engine import trainer as engine
from ultralytics.nn.distill_model import DistillationModel, FeatureHook
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT
from ultralytics.utils.torch_utils import ModelEMA, autocast

from dfssd.config import ALIASES, ARGUMENTS, defaults
from dfssd.config.resolution import TRAINING_DEFAULTS


def model(name: str = "yolov8n.yaml", nc: int = 3) -> DetectionModel:
    made = DetectionModel(name, nc=nc, verbose=False)
    made.args = get_cfg()
    return made


def test_version_is_the_tested_one() -> None:
    assert ultralytics.__version__ == "8.4.190"


def test_our_keys_do_not_shadow_training_keys_by_accident() -> None:
    shared = set(defaults()) & set(DEFAULT_CFG_DICT)
    assert shared == {"task", "data", "split", "compile", "format", "project", "name", "exist_ok", "resume"}
    former = {"half", "int8"}  # still taken by Ultralytics' exporter
    assert set(ARGUMENTS) <= set(DEFAULT_CFG_DICT) | {"save_dir", "augmentations"} | former
    assert not set(ALIASES) & set(DEFAULT_CFG_DICT)


def test_defaults_that_are_read_here_are_those_of_ultralytics() -> None:
    assert {key: DEFAULT_CFG_DICT[key] for key in TRAINING_DEFAULTS} == TRAINING_DEFAULTS


def test_train_output_is_a_dict_of_raw_maps() -> None:
    out = model().train()(torch.zeros(2, 3, 64, 64))
    assert out["boxes"].shape == (2, 64, 84) and out["scores"].shape == (2, 3, 84)
    assert [tuple(f.shape[1:]) for f in out["feats"]] == [(64, 8, 8), (128, 4, 4), (256, 2, 2)]


def test_eval_output_is_decoded_plus_the_same_dict() -> None:
    with torch.no_grad():
        decoded, raw = model().eval()(torch.zeros(1, 3, 64, 64))
    assert decoded.shape == (1, 7, 84)
    assert torch.allclose(decoded[:, 4:], raw["scores"].sigmoid())


def test_detection_loss_is_scaled_by_the_batch_and_named() -> None:
    net = model().train()
    batch = {
        "img": torch.rand(2, 3, 64, 64),
        "cls": torch.zeros(2, 1),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]] * 2),
        "batch_idx": torch.tensor([0.0, 1.0]),
    }
    vector, items = net.loss(batch)
    assert list(items) == ["box_loss", "cls_loss", "dfl_loss"]
    assert torch.allclose(vector, 2 * torch.stack(list(items.values())))


def test_classification_loss_goes_through_a_replaceable_bce() -> None:
    net = model().train()
    criterion = net.init_criterion()
    calls = []

    def bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append((logits.shape, targets.shape))
        return logits * 0

    criterion.bce = bce
    empty = {"cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4), "batch_idx": torch.zeros(0)}
    _, items = criterion(net(torch.zeros(2, 3, 64, 64)), empty)
    assert calls == [((2, 84, 3), (2, 84, 3))]
    assert items["cls_loss"] == 0


def test_distillation_model_is_kept_by_the_trainer_and_stripped_by_the_ema() -> None:
    setup = inspect.getsource(engine.BaseTrainer._setup_train)
    assert "not isinstance(unwrap_model(self.model), DistillationModel)" in setup
    pair = DistillationModel(model("yolov8s.yaml"), model())
    ema = ModelEMA(pair)
    assert ema.ema.teacher_model is None
    assert pair.teacher_model is not None
    assert isinstance(next(iter(pair.student_model.model[15]._forward_hooks.values())), FeatureHook)


def test_recovery_and_stripping_know_only_student_and_projector() -> None:
    recovery = inspect.getsource(engine.BaseTrainer._handle_nan_recovery)
    assert "model.student_model.load_state_dict" in recovery and "model.projector.load_state_dict" in recovery


def test_preprocess_batch_runs_inside_autocast_which_restores_the_state() -> None:
    loop = inspect.getsource(engine.BaseTrainer._do_train)
    start = loop.index("with autocast(")
    assert 0 < loop.index("batch = self.preprocess_batch(batch)", start) - start < 300
    assert not torch.is_autocast_enabled("cpu")
    with autocast(False, device="cpu"):
        torch.set_autocast_enabled("cpu", True)
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


def test_bf16_is_still_rejected_without_cuda() -> None:
    with pytest.raises(RuntimeError, match="bfloat16 autocast requires CUDA"):
        autocast(torch.bfloat16, device="cpu")


def test_image_without_label_file_would_be_background(tmp_path) -> None:
    from PIL import Image
    from ultralytics.data.utils import verify_image_label

    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    result = verify_image_label((str(tmp_path / "a.png"), str(tmp_path / "a.txt"), "", False, 3, 0, 0, False))
    assert result[5] == 1 and len(result[1]) == 0, "a missing label is counted as missing, yet the image is kept, empty"


def test_pseudo_label_files_with_scores_would_be_rejected(tmp_path) -> None:
    from PIL import Image
    from ultralytics.data.utils import verify_image_label

    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.2 0.9\n", encoding="utf-8")
    result = verify_image_label((str(tmp_path / "a.png"), str(tmp_path / "a.txt"), "", False, 3, 0, 0, False))
    assert result[8] == 1 and "5 columns" in result[9]


def test_checkpoints_are_written_to_last_and_best_by_path() -> None:
    save = inspect.getsource(engine.BaseTrainer.save_model)
    assert "self.last.write_bytes" in save and "self.best.write_bytes" in save
    final = inspect.getsource(engine.BaseTrainer.final_eval)
    assert "strip_optimizer(self.last)" in final and "strip_optimizer(self.best" in final


def test_steps_are_counted_from_the_start_of_a_session() -> None:
    """What a resumed training corrects until its first step."""
    loop = inspect.getsource(engine.BaseTrainer._do_train)
    begin = loop.index("last_opt_step = -1")
    assert begin < loop.index("acc0 = self.accumulate") < loop.index('self.run_callbacks("on_train_start")')
    drop = loop.index("self.optimizer.zero_grad()")
    assert loop.index('self.run_callbacks("on_train_start")') < drop < loop.index("on_train_epoch_start")
    step = loop.index("if ni - last_opt_step >= self.accumulate:\n                    self.optimizer_step()")
    assert step < loop.index('self.run_callbacks("on_train_batch_end")')
    saving = loop.index("self.stop |= self.stopper(epoch + 1, self.fitness) or final_epoch")
    assert saving < loop.index("self.save_model()")


def test_loader_reads_the_length_and_the_batches_that_ours_replaces() -> None:
    from torch.utils.data._utils.fetch import _MapDatasetFetcher
    from ultralytics.data.build import InfiniteDataLoader

    assert '"batch_sampler", _RepeatSampler(self.batch_sampler)' in inspect.getsource(InfiniteDataLoader.__init__)
    assert "self.dataset.__getitems__(possibly_batched_index)" in inspect.getsource(_MapDatasetFetcher.fetch)


def test_mosaics_choose_from_a_buffer_or_from_their_data_set() -> None:
    from ultralytics.data.augment import Albumentations, Mosaic

    chosen = inspect.getsource(Mosaic.get_indexes)
    assert "if self.buffer_enabled:" in chosen and "random.randint(0, len(self.dataset) - 1)" in chosen
    assert "self.transform.seed != torch.initial_seed()" in inspect.getsource(Albumentations.__call__)


def test_resume_ignores_a_new_precision() -> None:
    allowed = inspect.getsource(engine.BaseTrainer.check_resume)
    assert '"batch"' in allowed and '"amp"' not in allowed


def test_augmentation_drops_boxes_of_which_less_than_a_tenth_is_visible() -> None:
    from ultralytics.data.augment import RandomPerspective

    before = np.array([[0, 0, 100, 100]] * 2, dtype=np.float32).T
    after = np.array([[0, 0, 9, 100], [0, 0, 11, 100]], dtype=np.float32).T
    assert RandomPerspective.box_candidates(before, after, area_thr=0.1).tolist() == [False, True]
    assert "area_thr=0.01 if" in inspect.getsource(RandomPerspective)


def test_processes_of_several_gpus_get_class_arguments_and_callbacks_by_cloudpickle() -> None:
    import cloudpickle
    from ultralytics.utils.dist import generate_ddp_file

    source = inspect.getsource(generate_ddp_file)
    assert "cloudpickle" in source and cloudpickle.__version__ >= "3.1"
    for part in ('"trainer": type(trainer)', '"args": vars(trainer.args)', '"callbacks": trainer.callbacks'):
        assert part in source


def test_optimizers_are_those_we_let_through() -> None:
    from dfssd.config.arguments import OPTIMIZERS

    source = inspect.getsource(engine.BaseTrainer.build_optimizer)
    assert all(f'"{name}"' in source for name in OPTIMIZERS)
