"""Segmentation models as Ultralytics sees them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn.tasks import guess_model_task

from dfssd.errors import UserError
from dfssd.segmentation.model import MFFMetalModel, _scale_of, build_model, full_resolution, load_semantic, parameters
from tests.segmentation.material import NEU_NAMES, defects


def lively(model: nn.Module) -> nn.Module:
    """Random statistics and scales in all normalizations, and logits worth comparing."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -0.2), (module.running_var, 0.5), (module.weight.data, 0.5)):
                tensor.copy_(low + torch.rand(tensor.shape, generator=generator) * (1 if low > 0 else 0.4))
    return model.eval()


def checkpoint(path: Path, model: nn.Module) -> Path:
    torch.save({"model": model, "train_args": {"task": "semantic", "imgsz": 64}}, path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return checkpoint(tmp_path / "small.pt", lively(build_model("mffmetal-12", 4, NEU_NAMES)))


def test_published_sizes() -> None:
    for width, number in ((30, 981_580), (60, 3_862_990)):
        model = build_model(f"mffmetal-{width}", 4)
        assert sum(p.numel() for p in model.parameters()) == number
    assert model.names == {0: "0", 1: "1", 2: "2", 3: "3"} and model.stride.tolist() == [8.0]


def test_heads_of_the_training_do_not_count() -> None:
    model = build_model("yolo26n-sem.yaml", 4)
    auxiliary = sum(p.numel() for p in model.model[-1].aux_head.parameters())
    assert auxiliary > 0 and parameters(model) == sum(p.numel() for p in model.parameters()) - auxiliary
    assert parameters(build_model("mffmetal-30", 4)) == 981_580


def test_task_is_guessed_from_the_module() -> None:
    assert guess_model_task(MFFMetalModel(12)) == "semantic"


def test_images_are_normalized() -> None:
    model = build_model("mffmetal-12", 4).eval()
    image = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    expected = model.model[1]((image - mean[:, None, None]) / std[:, None, None])
    assert torch.allclose(model(image), expected)


def test_yaml_makes_the_same_network_again(file: Path) -> None:
    model = load_semantic(file)
    again = build_model(model.yaml, 4, NEU_NAMES)
    again.load(model, verbose=False)
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(again.eval()(image), model(image))
    assert torch.equal(build_model(file, 4, NEU_NAMES).eval()(image), model(image))


def test_checkpoint_is_one_of_ultralytics_and_predicts(file: Path) -> None:
    image, _ = defects(0)
    model = YOLO(file)
    assert model.task == "semantic" and list(model.names.values()) == list(NEU_NAMES)
    result = model.predict(image, imgsz=64, verbose=False)[0]
    ids = result.semantic_mask.data
    expected = load_semantic(file)(torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy())[None] / 255)
    assert ids.shape == (64, 64) and (np.asarray(ids) == expected[0].argmax(0).numpy()).mean() > 0.999


def test_folding_keeps_the_function(file: Path) -> None:
    model, image = load_semantic(file), torch.rand(1, 3, 64, 64)
    before = model(image)
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert not model.is_fused() and model.fuse(verbose=False).is_fused()
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) < norms / 3
    assert before.std() > 0.02 and torch.allclose(model(image), before, atol=1e-5)


@pytest.mark.train
def test_exported_logits_equal_those_of_torch(file: Path) -> None:
    """At 72 px, which is 9 at 1/8: halves of an odd side."""
    exported = YOLO(file).export(format="onnx", imgsz=72, simplify=False, verbose=False)
    image = torch.rand(1, 3, 72, 72)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    assert found.shape == (1, 4, 72, 72)
    assert np.abs(found - load_semantic(file)(image).detach().numpy()).max() < 1e-4
    picture, _ = defects(1, side=72)
    result = YOLO(exported, task="semantic").predict(picture, imgsz=72, verbose=False)[0]
    pixels = torch.from_numpy(picture[..., ::-1].transpose(2, 0, 1).copy())[None] / 255
    expected = load_semantic(file)(pixels)[0].argmax(0).numpy()
    assert (np.asarray(result.semantic_mask.data) == expected).mean() > 0.999


def test_ultralytics_own_model_gives_full_resolution() -> None:
    model = build_model("yolo26n-sem.yaml", 4, NEU_NAMES)
    output = model(torch.rand(2, 3, 64, 64))
    assert isinstance(output, tuple) and full_resolution(output, (64, 64)).shape == (2, 4, 64, 64)


def test_rows_of_other_classes_are_left_out(file: Path) -> None:
    model = build_model(file, 3, ("background", "hole", "crack"))
    assert full_resolution(model.eval()(torch.rand(1, 3, 64, 64)), (64, 64)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("mffmetal-31", "multiple of 6"),
        ("unet", "unknown"),
        ("yolo26n.yaml", "ends in -sem.yaml"),
        ("nothing-sem.yaml", "does not exist"),
        ("nothing.pt", "does not exist"),
    ],
)
def test_wrong_names_are_reported_in_one_line(source: str, message: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as e:
        build_model(source, 4)
    assert "\n" not in str(e.value)


def test_damaged_file_and_file_of_another_task(tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no network")
    with pytest.raises(UserError, match="cannot be loaded") as e:
        load_semantic(tmp_path / "broken.pt")
    assert "\n" not in str(e.value)
    with pytest.raises(UserError, match="model for detect"):
        load_semantic(checkpoint(tmp_path / "boxes.pt", YOLO("yolo26n.yaml").model))


def test_number_of_names_must_fit() -> None:
    with pytest.raises(UserError, match="2 class names for 4 classes"):
        build_model("mffmetal-12", 4, ("a", "b"))


def test_library_that_is_not_installed(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match=r"dfssd\[baselines\]"):
        build_model("smp:unet", 4)


def test_library_network_with_weights_of_its_encoder(tmp_path: Path, monkeypatch) -> None:
    """The library fetches them; here its download finds a folder, with weights of its own making."""
    smp = pytest.importorskip("segmentation_models_pytorch")
    from safetensors.torch import save_file

    torch.manual_seed(3)
    known = smp.encoders.get_encoder("mobilenet_v2", weights=None).state_dict()
    config = {"input_space": "RGB", "input_range": [0, 255], "mean": [51.0, 102.0, 153.0], "std": [25.5, 51.0, 76.5]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(known, tmp_path / "model.safetensors")
    fetched = []

    def fetch(repo: str, *, filename: str, revision: str) -> str:
        fetched.append(repo)
        return str(tmp_path / filename)

    monkeypatch.setattr(smp.encoders, "hf_hub_download", fetch)
    model = build_model("smp:unet/mobilenet_v2/imagenet", 4, NEU_NAMES)
    scale, unet, _ = model.model
    assert all(torch.equal(value, known[name]) for name, value in unet.encoder.state_dict().items())
    assert scale.mean.flatten().tolist() == pytest.approx([0.2, 0.4, 0.6])
    assert scale.std.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert set(fetched) == {"smp-hub/mobilenet_v2.imagenet"}
    again = load_semantic(checkpoint(tmp_path / "unet.pt", model))
    assert torch.equal(again.model[0].mean, scale.mean) and again.yaml == model.yaml

    def offline(repo: str, **_) -> str:
        raise OSError("no connection\nat all")

    monkeypatch.setattr(smp.encoders, "hf_hub_download", offline)
    resumed = build_model(model.yaml, 4)
    resumed.load(again, verbose=False)
    assert torch.equal(resumed.model[0].mean, scale.mean)
    with pytest.raises(
        UserError, match=r"imagenet: its weights cannot be used \(no connection at all\); for random ones"
    ):
        build_model("smp:unet/mobilenet_v2/imagenet", 4)
    with pytest.raises(UserError, match=r"Wrong pretrained weights `nothing`.*imagenet"):
        build_model("smp:unet/mobilenet_v2/nothing", 4)


def test_weights_that_want_blue_first_are_refused() -> None:
    wanted = {"input_space": "BGR", "input_range": [0, 1], "mean": [0.5] * 3, "std": [0.5] * 3}
    with pytest.raises(ValueError, match="images in BGR, not RGB"):
        _scale_of(wanted)


def test_library_network(tmp_path: Path) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    model = build_model("smp:unet/resnet18", 4, NEU_NAMES)
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 4, 64, 64) and model.stride.tolist() == [32.0]
    assert load_semantic(checkpoint(tmp_path / "unet.pt", model)).yaml == model.yaml
    assert build_model(model.yaml, 4).state_dict().keys() == model.state_dict().keys()
    for wrong in ("smp:nothing", "smp:unet/nothing"):
        with pytest.raises(UserError, match="nothing"):
            build_model(wrong, 4)
