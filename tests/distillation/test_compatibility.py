"""What is checked of a teacher and student before anything is trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ultralytics import RTDETR, YOLO
from ultralytics.nn.tasks import DetectionModel, RTDETRDetectionModel

from dfssd.distillation import compatibility as c
from dfssd.errors import UserError
from tests.tiny_detection import RTDETR_TINY, TINY


def save(path: Path, architecture: str, names: list[str]) -> Path:
    torch.manual_seed(1)
    model = YOLO(architecture)
    model.model = DetectionModel(architecture, nc=len(names), verbose=False)
    model.model.names = dict(enumerate(names))
    model.save(path)
    return path


def facts(**changes) -> c.ModelFacts:
    values = {
        "source": "a.pt",
        "family": "yolov8",
        "strides": (8, 16, 32),
        "head": 22,
        "reg_max": 16,
        "names": ("a",),
        "end2end": False,
        "trained": True,
    }
    return c.ModelFacts(**{**values, **changes})


def test_facts_of_architecture_and_checkpoint(tmp_path: Path) -> None:
    plain = c.describe("yolov8n.yaml", "student")
    assert (plain.family, plain.strides, plain.reg_max, plain.trained) == ("yolov8", (8, 16, 32), 16, False)
    saved = c.describe(str(save(tmp_path / "mine.pt", "yolov8n.yaml", ["x", "y"])), "teacher")
    assert (saved.family, saved.names, saved.trained) == ("yolov8", ("x", "y"), True)


def test_network_is_built_once_unless_its_file_changes(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "mine.yaml"
    architecture = Path(TINY).read_text(encoding="utf-8")
    file.write_text(architecture, encoding="utf-8")
    built = []

    class Counted(DetectionModel):
        def __init__(self, *args, **kwargs):
            built.append(args)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(c, "DetectionModel", Counted)
    first = c.describe(str(file), "student")
    assert c.describe(str(file), "student") is first and len(built) == 1
    file.write_text(architecture.replace("nc: 80", "nc: 7"), encoding="utf-8")
    assert len(c.describe(str(file), "student").names) == 7 and len(built) == 2
    file.write_text("no architecture", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(UserError, match=r"student=.*mine.yaml cannot be read"):
            c.describe(str(file), "student")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "yolo11"}, "different families"),
        ({"strides": (4, 8, 16, 32)}, "different detection levels"),
        ({"reg_max": 1}, "describe boxes differently"),
    ],
)
def test_mismatches_are_refused_with_advice(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        c.check_pair(facts(**change), facts(source="b.pt"))
    assert "use " in str(caught.value) and "\n" not in str(caught.value)


def test_pair_without_distribution_needs_the_dfl_term_off() -> None:
    flat = facts(reg_max=1)
    with pytest.raises(UserError, match=r"response_dfl\.weight=0"):
        c.check_bins(flat, ["response_dfl"])
    with pytest.raises(UserError, match=r"crd_dfl, ld need; switch off with crd_dfl\.weight=0 ld\.weight=0"):
        c.check_bins(flat, ["crd_dfl", "ld"])
    c.check_bins(flat, [])
    c.check_bins(facts(), ["ld"])
    c.check_pair(flat, flat)


def test_segmentation_model_is_not_a_detector(tmp_path: Path) -> None:
    YOLO("yolov8n-seg.yaml").save(tmp_path / "seg.pt")
    with pytest.raises(UserError, match=r"student=.*seg\.pt is not a detector \(its head is Segment\)"):
        c.describe(str(tmp_path / "seg.pt"), "student")


def test_labelers_may_be_of_any_family_of_detectors_with_weights(tmp_path: Path) -> None:
    labeler = RTDETR(RTDETR_TINY)
    labeler.model = RTDETRDetectionModel(RTDETR_TINY, nc=2, verbose=False)
    labeler.model.names = {0: "Oil_Spots", 1: "pits"}
    labeler.save(tmp_path / "mine.pt")
    mine = str(tmp_path / "mine.pt")
    c.check_labeler(mine)
    c.check_labeler(mine, ["pits", "oil spots"])
    with pytest.raises(
        UserError, match=r"mine\.pt does not know dents \(its classes: Oil_Spots, pits\); train it on"
    ) as e:
        c.check_labeler(mine, ["pits", "dents"])
    assert f"yolo detect train model={mine} data=<run>/splits/data.yaml" in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(
        UserError, match=r"pseudo\.teachers=rtdetr-l\.yaml has no trained weights; train it first: yolo "
    ):
        c.check_labeler("rtdetr-l.yaml")
    YOLO("yolov8n-seg.yaml").save(tmp_path / "seg.pt")
    with pytest.raises(UserError, match=r"seg\.pt finds no boxes that can be used \(its head is Segment\)"):
        c.check_labeler(str(tmp_path / "seg.pt"))
    with pytest.raises(UserError, match=r"its head is RTDETRDecoder\); it can help to label images: pseudo\.teachers="):
        c.describe(mine, "teacher")
    with pytest.raises(UserError, match=r"pseudo\.teachers=none\.pt: no such file; give the path of a \.pt$"):
        c.resolve_weights("none.pt", c.LABELERS)


def test_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="cannot be read as an Ultralytics model") as caught:
        c.describe(str(tmp_path / "x.pt"), "teacher")
    assert "\n" not in str(caught.value)


def test_missing_weights_name_the_alternative(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    def offline(name: str) -> str:
        raise ConnectionError("no network")

    monkeypatch.setattr(c, "attempt_download_asset", offline)
    with pytest.raises(UserError, match=r"could not be downloaded \(no network\).*teacher=yolov8s\.yaml"):
        c.resolve_weights("yolov8s.pt", "teacher")
    with pytest.raises(UserError, match=r"no such file.*student=yolov8n\.yaml"):
        c.resolve_weights("folder/mine.pt", "student")
    with pytest.raises(UserError, match="is not a model"):
        c.resolve_weights("yolov8n", "student")
    with pytest.raises(UserError, match="no such architecture"):
        c.resolve_weights("yolov99.yaml", "student")
    assert c.resolve_weights("yolov8s.yaml", "teacher") == "yolov8s.yaml"


def test_download_is_real_when_there_is_a_network(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(c, "attempt_download_asset", lambda name: str(save(tmp_path / name, "yolov8n.yaml", ["a"])))
    assert c.resolve_weights("yolov8n.pt", "student") == str(tmp_path / "yolov8n.pt")


def test_classes_map_by_name_whatever_the_spelling() -> None:
    assert c.map_classes(["Oil_Spots", "pits", "extra"], ["pits", "oil spots"]) == [1, 0]
    assert c.map_classes(["pits"], ["pits", "dents"]) is None


def test_when_a_teacher_is_trained_first() -> None:
    coco = tuple(c.YAML.load(c.check_yaml("coco.yaml"))["names"].values())
    assert not c.teacher_needs_training(facts(names=("b", "a")), ["a", "b"], "auto")
    assert c.teacher_needs_training(facts(names=("b", "a")), ["a", "b"], True)
    assert c.teacher_needs_training(facts(names=coco), ["a", "b"], "auto")
    assert c.teacher_needs_training(facts(trained=False), ["a", "b"], "auto")
    with pytest.raises(UserError, match=r"does not know b .*teacher_train=true"):
        c.teacher_needs_training(facts(names=("a", "c")), ["a", "b"], "auto")
    with pytest.raises(UserError, match="has no trained weights"):
        c.teacher_needs_training(facts(trained=False), ["a"], False)


def test_aligned_teacher_predicts_the_same_scores_under_the_new_order(tmp_path: Path) -> None:
    source = save(tmp_path / "t.pt", "yolov8n.yaml", ["A-1", "b", "c"])
    for row, level in enumerate(YOLO(source).model.model[-1].cv3):
        assert level[-1].bias.shape == (3,), row
    c.align_teacher(str(source), ["c", "a 1"], tmp_path / "aligned.pt")
    before, after = YOLO(source).model.eval(), YOLO(tmp_path / "aligned.pt").model.eval()
    assert after.names == {0: "c", 1: "a 1"} and after.yaml["nc"] == 2
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        old, new = before(image)[0], after(image)[0]
    assert torch.allclose(new[:, :4], old[:, :4], atol=1e-3)
    assert torch.allclose(new[:, 4:], old[:, [6, 4]], atol=1e-5)


def test_aligned_teacher_of_the_same_order_is_the_same_network(tmp_path: Path) -> None:
    source = save(tmp_path / "t.pt", "yolov8n.yaml", ["a", "b"])
    c.align_teacher(str(source), ["a", "b"], tmp_path / "aligned.pt")
    one, two = YOLO(source).model.state_dict(), YOLO(tmp_path / "aligned.pt").model.state_dict()
    assert all(torch.equal(v, two[k]) for k, v in one.items())
