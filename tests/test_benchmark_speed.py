"""The steps that are timed are those of real trainings; what is printed about them follows from what was measured."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel

from dfssd.benchmark import memory, speed, synthetic
from dfssd.benchmark.steps import OURS, PEER, STUDENT, TEACHER, Steps, open_steps
from dfssd.detection.trainer import StudentTrainer
from dfssd.loading.loader import DeviceLoader
from dfssd.segmentation.trainer import SemanticStageTrainer
from tests.tiny_detection import TINY

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "benchmark_speed.py"
SMALL = {"imgsz": 64, "batch": 4, "device": "cpu", "amp": "bf16", "student": TINY, "teacher": TINY}


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    """The steps of ``recipe=dfssd unlabeled_ratio=3`` with tiny networks."""
    configured = speed.checked({**SMALL, "unlabeled_ratio": 3})
    with open_steps(configured, tmp_path_factory.mktemp("steps")) as opened:
        yield opened


def weights(network: nn.Module) -> torch.Tensor:
    return next(network.parameters()).detach().clone()


def test_trainers_are_those_of_ultralytics_and_ours(steps: Steps) -> None:
    kinds = {name: type(step.trainer) for name, step in steps.trained.items()}
    assert kinds == {STUDENT: DetectionTrainer, PEER: DetectionTrainer, OURS: StudentTrainer}
    assert type(steps.trained[STUDENT].trainer.model) is DetectionModel
    assert list(steps.todo) == [STUDENT, PEER, OURS, TEACHER]
    batch = steps.trained[OURS].loaded
    assert batch["labeled"].tolist() == [True, False, False, False]
    assert all(len(step.loaded["img"]) == 4 for step in steps.trained.values())


def test_steps_train_the_student_and_leave_the_teacher_alone(steps: Steps) -> None:
    """What is timed is real training: every step changes its student, and no teacher; the forward pass changes none."""
    for name, run in steps.todo.items():
        before = {}
        for other, step in steps.trained.items():
            model = step.trainer.model
            before[other] = weights(getattr(model, "student_model", model))
        teachers = [weights(steps.trained[n].trainer.model.teacher_model) for n in (PEER, OURS)]
        run()
        for other, step in steps.trained.items():
            student = getattr(step.trainer.model, "student_model", step.trainer.model)
            assert torch.equal(before[other], weights(student)) == (other != name), (name, other)
            assert all(torch.isfinite(p).all() for p in student.parameters())
        for n, frozen in zip((PEER, OURS), teachers):
            assert torch.equal(frozen, weights(steps.trained[n].trainer.model.teacher_model))


def test_optimizer_of_a_gpu_has_fewer_operators_and_is_put_back(steps: Steps) -> None:
    """AdamW as a loop: nine operators per tensor; fused: one per group."""
    step = steps.trained[STUDENT]
    optimizer = step.trainer.optimizer
    tensors = sum(len(group["params"]) for group in optimizer.param_groups)
    here, there = step.operators(), step.operators(as_on_gpu=True)
    assert here.launched - there.launched > 8 * tensors
    assert there.by_name["aten._fused_adamw_.default"] == 3
    assert "aten._fused_adamw_.default" not in here.by_name
    assert not any(group["fused"] for group in optimizer.param_groups)
    assert there.waits < here.waits


def test_memory_grows_with_the_pixels(steps: Steps) -> None:
    """A step holds at least weights, average and two moments; and more for a second image of the same size."""
    step = steps.trained[STUDENT]
    student = sum(p.numel() for p in step.trainer.model.parameters()) * 4
    found = step.memory()
    assert found > 4 * student
    whole = step.loaded
    one = whole["batch_idx"] < 1
    step.loaded = {**whole, "img": whole["img"][:1], **{k: whole[k][one] for k in ("cls", "bboxes", "batch_idx")}}
    try:
        assert step.memory() < found
    finally:
        step.loaded = whole


def test_peak_by_hand() -> None:
    assert memory.peak([(0, 10), (1, 20), (2, -10), (3, 5), (4, -25)]) == 30
    mib = 1 << 20

    def one_after_the_other() -> None:
        for size in (2, 3):
            torch.zeros(size * mib // 4)

    def together() -> list[torch.Tensor]:
        return [torch.zeros(size * mib // 4) for size in (2, 3)]

    cpu = torch.device("cpu")
    assert memory.step_bytes(one_after_the_other, cpu) == pytest.approx(3 * mib, rel=0.01)
    assert memory.step_bytes(together, cpu) == pytest.approx(5 * mib, rel=0.01)


def test_held_memory_counts_a_shared_tensor_once() -> None:
    a, b = nn.Linear(10, 10), nn.Linear(10, 10)
    optimizer = torch.optim.SGD(a.parameters(), momentum=0.9)
    assert memory.held_bytes([a], optimizer) == 440
    assert memory.held_bytes([a, a], optimizer) == 440
    assert memory.held_bytes([a, b], optimizer) == 880
    a(torch.ones(1, 10)).sum().backward()
    optimizer.step()
    assert memory.held_bytes([a], optimizer) == 880


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_peak_on_cuda() -> None:
    device, mib = torch.device("cuda", 0), 1 << 20
    assert memory.step_bytes(lambda: torch.zeros(8 * mib // 4, device=device), device) == pytest.approx(8 * mib)


def test_loader_is_timed_behind_what_it_has_ready() -> None:
    """Ten batches wait in a queue; the others take 10 ms each."""

    def batches() -> Iterator[int]:
        for number in count():
            time.sleep(0.0 if number < 10 else 0.01)
            yield number

    waited: list[bool] = []
    assert speed.loading_time(batches(), 10, 5, lambda: waited.append(True)) >= 10
    assert speed.loading_time(batches(), 0, 5, lambda: waited.append(True)) < 5
    assert len(waited) == 4


def test_loading_costs_what_no_step_hides() -> None:
    assert speed.loading_share(10, 40, beside=True) == 0
    assert speed.loading_share(50, 40, beside=True) == pytest.approx(0.2)
    assert speed.loading_share(10, 40, beside=False) == pytest.approx(0.2)


def test_loader_of_the_configuration_is_timed(tmp_path: Path) -> None:
    given = {**SMALL, "unlabeled_ratio": 1, "loader": "device"}
    with open_steps(speed.checked(given), tmp_path) as opened:
        loaders = {name: step.trainer.train_loader for name, step in opened.trained.items()}
        assert isinstance(loaders[OURS], DeviceLoader)
        assert not any(isinstance(loaders[name], DeviceLoader) for name in (STUDENT, PEER))
        batches = opened.trained[OURS].batches()
        assert speed.loading_time(batches, opened.trained[OURS].ahead, 3, lambda: None) > 0
        opened.trained[OURS]()


def test_masks_have_steps_without_peer(tmp_path: Path) -> None:
    given = {"recipe": "mffmetal", "imgsz": 40, "batch": 4, "device": "cpu", "student": "mffmetal-6"}
    with open_steps(speed.checked({**given, "teacher": "mffmetal-12"}), tmp_path) as opened:
        assert list(opened.todo) == [STUDENT, OURS, TEACHER]
        assert {type(step.trainer) for step in opened.trained.values()} == {SemanticStageTrainer}
        assert opened.trained[STUDENT].trainer.teacher is None
        assert opened.trained[OURS].trainer.teacher is not None
        for step in opened.trained.values():
            before = [p.detach().clone() for p in step.trainer.model.parameters()]
            step()
            assert not all(torch.equal(a, b) for a, b in zip(before, step.trainer.model.parameters()))
        opened.forward()


@pytest.mark.train
def test_it_measures_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "speed.json"
    words = [f"{key}={value}" for key, value in SMALL.items()]
    assert speed.main([*words, "recipe=dfssd", "cwd.weight=0", "rounds=1", f"out={out}"]) == 0
    result = json.loads(out.read_text())
    assert set(result["ms"]) == {"student", "ultralytics", "ours", "teacher forward"}
    assert all(len(values) == 1 and values[0] > 0 for values in result["ms"].values())
    ours, both = result["ms"]["ours"][0], result["ms"]["student"][0] + result["ms"]["teacher forward"][0]
    ratio = result["quantities"]["ours / (student + teacher forward)"]
    assert ratio["value"] == pytest.approx(ours / both)
    assert ratio["met"] == (ours / both <= 1.05)
    output = capsys.readouterr().out
    assert "teacher forward" in output
    assert "<= 1.05" in output
    assert "met" in output or "missed" in output
    assert str(Path.home()) not in out.read_text()
    assert str(tmp_path) not in output


def test_recipe_reaches_the_pair(tmp_path: Path, steps: Steps) -> None:
    assert steps.trained[OURS].trainer.pair.labeler is not None
    assert set(steps.trained[OURS].trainer.pair.projector) == {"cwd", "response_cls", "response_dfl"}
    given = {**SMALL, "cwd.weight": 0, "pseudo": "offline", "unlabeled_ratio": 1}
    with open_steps(speed.checked(given), tmp_path) as opened:
        pair = opened.trained[OURS].trainer.pair
        assert set(pair.projector) == {"response_cls", "response_dfl"}
        assert pair.labeler is None
        assert opened.trained[OURS].loaded["labeled"].tolist() == [True, True, False, False]


def test_our_trainer_runs_the_distillation_of_ultralytics(tmp_path: Path) -> None:
    with open_steps(speed.checked({**SMALL, "recipe": "ultralytics"}), tmp_path) as opened:
        ours = opened.trained[OURS]
        assert type(ours.trainer.model) is type(opened.trained[PEER].trainer.model)
        before = weights(ours.trainer.model.student_model)
        ours()
        assert not torch.equal(before, weights(ours.trainer.model.student_model))


def test_random_teacher_marks_boxes() -> None:
    """A fifth of the 252 places; its logits differ, and so do its features."""
    torch.manual_seed(0)
    teacher = DetectionModel("yolov8n.yaml", nc=7, verbose=False)
    image = torch.rand(3, 3, 64, 64)
    synthetic.mark_boxes(teacher, image, 0.1)
    with torch.no_grad():
        logits = teacher.eval()(image)[1]["scores"]
    assert (logits.amax(1).sigmoid() >= 0.1 - 1e-6).sum() == 3 * synthetic.MARKED
    assert logits.std() == pytest.approx(synthetic.SPREAD, rel=0.01)
    assert not any(module.momentum is None for module in teacher.modules() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize("recipe", ["dfssd", "tskd", "tskd-paper"])
def test_every_term_has_a_gradient(tmp_path: Path, recipe: str) -> None:
    """Past the batches of the self-test, which stops a training whose teacher has nothing to say."""
    with open_steps(speed.checked({**SMALL, "recipe": recipe}), tmp_path) as opened:
        ours = opened.trained[OURS]
        for _ in range(speed.WARM_UP + 1):  # one that starts as its teacher is judged when gradients are measured again
            ours()
        assert ours.trainer.selftest.result["terms_alive"]


def test_photos_show_every_class_and_are_the_same_each_time(tmp_path: Path) -> None:
    names = [f"class{i}" for i in range(7)]
    for folder in ("a", "b"):
        synthetic.write_photos(tmp_path / folder, side=64, labeled=2, unlabeled=4, names=names, masks=False)
    labels = sorted((tmp_path / "a" / "labels").rglob("*.txt"))
    for part in ("train", "val", "test"):
        rows = [row for file in labels if file.parent.name == part for row in file.read_text().splitlines()]
        assert {row.split()[0] for row in rows} == set("0123456")
    assert {file.parent.name for file in labels} == {"train", "val", "test"}
    for file in sorted((tmp_path / "a").rglob("*.*")):
        if file.suffix != ".yaml":
            assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


def test_order_turns_and_warm_up_is_not_counted() -> None:
    called: list[str] = []
    durations = speed.measure({name: partial(called.append, name) for name in "abc"}, 3, lambda: None, warm_up=2)
    assert [len(values) for values in durations.values()] == [3, 3, 3]
    counted = ["".join(called[i : i + 3]) for i in range(0, len(called), 3)][2:]
    assert counted == ["abc", "bca", "cab"]


DURATIONS = {"student": [10, 20], "teacher forward": [10, 20], "ultralytics": [20, 40], "ours": [21, 44]}
COUNTS = {
    "student": {"operators_on_gpu": 1000, "waits_on_gpu": 3, "memory": 100},
    "ours": {"operators_on_gpu": 1460, "waits_on_gpu": 8, "memory": 115},
}


def test_quantities_by_hand() -> None:
    values = speed.quantities(DURATIONS, COUNTS)
    assert values == {
        "ours / (student + teacher forward)": pytest.approx(1.075),
        "ours / ultralytics": pytest.approx(1.075),
        "ours / student": pytest.approx(2.15),
        "memory of ours / student": pytest.approx(1.15),
        "operators of ours - student": 460,
        "waits of ours - student": 5,
    }
    found = speed.judged(values, speed.targets("dfssd", gpu=True))
    assert [name for name, value in found.items() if value["met"] is False] == [
        "ours / ultralytics",
        "ours / student",
        "waits of ours - student",
    ]
    assert speed.judged(values, speed.targets("dfssd", gpu=False))["ours / student"]["met"] is None
    alone = {name: own for name, own in DURATIONS.items() if name != "ultralytics"}
    assert "ours / ultralytics" not in speed.judged(speed.quantities(alone, COUNTS), {})


@pytest.mark.parametrize(
    ("recipe", "gpu", "floor", "peer", "operators"),
    [
        ("dfssd", True, 1.10, 1.00, 460),
        ("dfssd", False, 1.05, 1.00, 460),
        ("tskd", True, 1.5, None, 460),
        ("tskd", False, 1.4, None, 460),
        ("tskd-paper", True, 1.5, None, 900),
        ("tskd-paper", False, 1.4, None, 900),
    ],
)
def test_targets_by_device(recipe: str, gpu: bool, floor: float, peer: float | None, operators: int) -> None:
    found = speed.targets(recipe, gpu=gpu)
    assert found["ours / (student + teacher forward)"] == floor
    assert found.get("ours / ultralytics") == peer
    assert found["operators of ours - student"] == operators
    assert found["memory of ours / student"] == 1.15


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rounds=0"], "rounds=0"),
        (["rounds=true"], "rounds=True"),
        (["epoch=2"], "epoch"),
        (["cwd.weigt=1"], "cwd"),
        (["data=demo"], "generated images"),
        ([f"{k}={v}" for k, v in SMALL.items()] + ["recipe=baseline", "rounds=1"], "no distilled student"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert speed.main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.train
def test_script_runs_from_any_folder(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "rounds=0"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: rounds=0: must be a whole number >= 1\n"
