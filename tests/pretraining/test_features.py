"""Features of a foundation model: a vision transformer of timm with random weights, saved to a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dfssd.errors import UserError
from dfssd.pretraining import features
from dfssd.pretraining.features import TimmFeatures, check_features

timm = pytest.importorskip("timm")


def save(folder: Path, name: str = "vit_tiny_patch16_224", **options: Any) -> str:
    """Save a model of timm as its hub has it; returns the folder."""
    from timm.models import save_for_hf

    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=0, **options)
    save_for_hf(network, str(folder), model_args=options, safe_serialization=True)
    return str(folder)


SMALL = {"depth": 2, "embed_dim": 24, "num_heads": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("models") / "vit", img_size=64, **SMALL)


def test_one_feature_for_each_cell_as_the_model_itself_has_it(folder: str) -> None:
    check_features(folder)
    source = TimmFeatures(folder)
    images = torch.rand(2, 3, 64, 64)
    found = source(images)
    assert found.shape == (2, source.width, 4, 4) and source.width == 24
    mean, deviation = (torch.tensor(source.network.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    tokens = source.network.forward_features((images - mean) / deviation)[:, source.network.num_prefix_tokens :]
    assert torch.allclose(found.flatten(2).transpose(1, 2), tokens, atol=1e-5)


def test_grid_follows_the_images_whatever_the_patch(tmp_path: Path) -> None:
    source = TimmFeatures(save(tmp_path / "vit", "vit_small_patch14_dinov2", img_size=70, **SMALL))
    assert source.patch == (14, 14)
    assert source(torch.rand(1, 3, 96, 160)).shape == (1, 24, 6, 10)


def test_model_with_rotary_positions(tmp_path: Path) -> None:
    source = TimmFeatures(save(tmp_path / "vit", "vit_small_patch16_dinov3", **SMALL))
    assert source(torch.rand(1, 3, 64, 96)).shape == (1, 24, 4, 6)


def test_it_is_frozen(folder: str) -> None:
    source = TimmFeatures(folder).train()
    assert not source.training and not source.network.training
    assert not any(p.requires_grad for p in source.parameters())


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pretrain=vit needs timm: install it with pip install 'dfssd\[foundation\]'"):
        check_features("vit")


def test_unknown_model_and_folder_without_description(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither a folder nor a model of timm .*did you mean 'vit_small_patch14_dino"):
        check_features("vit_small_patch14_dinov2.lvd142")
    with pytest.raises(UserError, match=r"no config\.json there"):
        check_features(str(tmp_path))


def test_damaged_weights_and_other_networks_are_one_line(folder: str, tmp_path: Path) -> None:
    description = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(description), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"could not be loaded \(.+\): without network, put") as raised:
        TimmFeatures(str(tmp_path))
    assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match="is not a vision transformer"):
        TimmFeatures(save(tmp_path / "cnn", "resnet10t"))
