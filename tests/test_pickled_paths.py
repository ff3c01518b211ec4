"""Names of ours that stand in users' checkpoints, where a pickle looks classes up by module and name.

A moved or renamed class passes all other tests, since they write new files, but makes the files of users unreadable.
"""

from __future__ import annotations

import importlib
import io

import pytest
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import ModelEMA

from dfssd.distillation.pair import DistillationPair, for_inference
from dfssd.distillation.terms import TERMS
from dfssd.pretraining.model import PretrainingModel
from dfssd.pretraining.objectives import Features, ForeignParts
from dfssd.pseudo_labels.online import OnlineLabeler
from dfssd.pseudo_labels.thresholds import ClassThresholds
from dfssd.segmentation.model import build_model
from tests import configured

SEGMENTATION = {
    "dfssd.segmentation.model.FullResolutionHead",
    "dfssd.segmentation.model.MFFMetalModel",
    "dfssd.segmentation.model.Normalisation",
    "dfssd.segmentation.network.Bottleneck",
    "dfssd.segmentation.network.ChannelAttention",
    "dfssd.segmentation.network.DecoderUnit",
    "dfssd.segmentation.network.Down",
    "dfssd.segmentation.network.Fusion",
    "dfssd.segmentation.network.MFFMetal",
    "dfssd.segmentation.network.Stage",
}
"""In every ``student.pt`` of masks."""

BASELINE = {
    "dfssd.segmentation.model.FullResolutionHead",
    "dfssd.segmentation.model.FullResolutionModel",
    "dfssd.segmentation.model.Normalisation",
}
"""In the ``student.pt`` of a network of segmentation-models-pytorch."""

PAIR = {
    "dfssd.distillation.balance.GradientBalance",
    "dfssd.distillation.pair.DistillationPair",
    "dfssd.distillation.semi_loss.Coverage",
    "dfssd.distillation.terms.base.PairShape",
    "dfssd.distillation.terms.crd.CrossResponseCls",
    "dfssd.distillation.terms.crd.CrossResponseDfl",
    "dfssd.distillation.terms.crd.CrossResponseGiou",
    "dfssd.distillation.terms.giou.GiouResponse",
    "dfssd.distillation.terms.cwd.ChannelWise",
    "dfssd.distillation.terms.ded.Decoupled",
    "dfssd.distillation.terms.ded.Structure",
    "dfssd.distillation.terms.drd.InstanceRelation",
    "dfssd.distillation.terms.drd.PixelGraph",
    "dfssd.distillation.terms.drd.PixelRelation",
    "dfssd.distillation.terms.fgd.Context",
    "dfssd.distillation.terms.fgd.FocalGlobal",
    "dfssd.distillation.terms.hwjs.HierarchicalJS",
    "dfssd.distillation.terms.ld.Localisation",
    "dfssd.distillation.terms.mgd.MaskedGenerative",
    "dfssd.distillation.terms.mimic.Mimic",
    "dfssd.distillation.terms.pkd.Pearson",
    "dfssd.distillation.terms.response.ClsResponse",
    "dfssd.distillation.terms.response.DflResponse",
    "dfssd.distillation.terms.response.LogitMSE",
    "dfssd.distillation.terms.sdidd.ElasticBox",
    "dfssd.distillation.terms.sdidd.IncrementalBox",
    "dfssd.distillation.terms.sdidd.IncrementalCls",
    "dfssd.distillation.terms.sdidd.IncrementalFeature",
    "dfssd.pseudo_labels.online.OnlineLabeler",
    "dfssd.pseudo_labels.thresholds.ClassThresholds",
}
"""In the ``last.pt`` of a detector's training that goes on with ``resume=``."""


def globals_of(saved: object) -> set[str]:
    """``module.qualname`` of everything of ours that ``torch.save`` writes down by name for ``saved``."""
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return {name for name in get_unsafe_globals_in_checkpoint(file) if name.startswith("dfssd.")}


def pair(**changes) -> DistillationPair:
    """A pair with all terms, balance and online boxes: everything that a checkpoint of a training can hold."""

    def detector(name: str) -> DetectionModel:
        made = DetectionModel(name, nc=2, verbose=False)
        made.args = get_cfg()
        return made

    options = {name: {"weight": 1.0, "schedule": "constant", "share": 0.2} for name in TERMS}
    thresholds = ClassThresholds(2, tau_low=0.1, tau0=0.2, tau_max=0.3, decay=0.99)
    labeler = OnlineLabeler(thresholds, iou=0.6)
    teacher = for_inference(detector("yolov8s.yaml"))
    return configured.pair(teacher, detector("yolov8n.yaml"), terms=options, labeler=labeler, balance=True)


PRETRAINING = {
    "dfssd.pretraining.model.PretrainingModel",
    "dfssd.pretraining.objectives.Features",
    "dfssd.pretraining.objectives.ForeignParts",
}
"""In the checkpoint of a stage ``pretrain`` that was interrupted."""


def explain(found: set[str], frozen: set[str]) -> str:
    return (
        f"gone: {sorted(frozen - found)}, new: {sorted(found - frozen)}. Checkpoints of users hold these names, and a "
        "class that is renamed or moved makes them unreadable: move it back, and add what is really new to the list"
    )


def test_mask_network() -> None:
    found = globals_of({"model": build_model("mffmetal-6", 4)})
    assert found == SEGMENTATION, explain(found, SEGMENTATION)


def test_baseline_of_masks() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    found = globals_of({"model": build_model("smp:unet/resnet18", 4)})
    assert found == BASELINE, explain(found, BASELINE)


def test_checkpoint_in_mid_training() -> None:
    """What Ultralytics saves is its moving average of the model: the pair without its teacher."""
    found = globals_of({"ema": ModelEMA(pair()).ema})
    assert found == PAIR, explain(found, PAIR)


def test_checkpoint_in_mid_pretraining() -> None:
    objectives = ForeignParts((32, 64, 128), (8, 16, 32)), Features((32, 64, 128), (8, 16, 32), lambda x: x, 4)
    found: set[str] = set()
    for objective in objectives:
        network = DetectionModel("yolov8n.yaml", nc=1, verbose=False)
        found |= globals_of({"ema": ModelEMA(PretrainingModel(network, objective)).ema})
    assert found == PRETRAINING, explain(found, PRETRAINING)


@pytest.mark.parametrize("path", sorted(SEGMENTATION | BASELINE | PAIR | PRETRAINING))
def test_each_path_leads_to_a_class(path: str) -> None:
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    assert (cls.__module__, cls.__qualname__) == (module, name), "the path is only an alias: new files would differ"
