"""The protocol on a small, real set of two classes: order of the modes, records, resume, single step, bad input."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ultralytics import YOLO

from dfssd.cli import main
from dfssd.config import find_recipe
from dfssd.datasets.splits import Split
from dfssd.distillation import pair
from dfssd.distillation.semi_loss import Coverage, SemiDetectionLoss
from dfssd.incremental.steps import Step, write_step
from dfssd.trainers.stage import StageTrainer
from tests.configured import load_dataset
from tests.conftest import NAMES, write_squares
from tests.key_reads import dead_keys, recorded_reads
from tests.processes import run_without_dfssd
from tests.tiny_detection import TINY, save_detector

FAST = ["imgsz=64", "batch=8", "nbs=8", "device=cpu", "workers=0", "plots=false", "amp=false", "mosaic=0"]
FAST += ["warmup_epochs=1"]
STUDENT = f"student={TINY}"


@pytest.fixture(scope="module")
def plates(tmp_path_factory) -> Path:
    """Dataset YAML with 24 labeled, 8 unlabeled, 12 val and 12 test images, each with one square of both classes."""
    return write_squares(tmp_path_factory.mktemp("plates"), train=24, val=12, test=12, plain=8)


def unsure_detector(path: Path, names: Sequence[str]) -> Path:
    """A detector that is sure of little, as a trained one: else no anchor stands out."""
    unsure = YOLO(save_detector(path, names=names))
    for level in unsure.model.model[-1].cv3:
        level[-1].bias.data -= 4
    unsure.save(path)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A network that knows the first class by name, for what does not depend on how well it does."""
    return unsure_detector(tmp_path_factory.mktemp("base") / "base.pt", NAMES[:1])


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """As ``plates``, with enough images for networks to learn from in a few epochs."""
    return write_squares(tmp_path_factory.mktemp("many"), train=72, val=12, test=12, plain=1)


@pytest.fixture(scope="module")
def learned(many: Path) -> Path:
    """A network that has learned the first class."""
    folder = many.parent
    tree = yaml.safe_load(many.read_text(encoding="utf-8"))
    for part in ("train", "val", "test"):
        for label in (folder / part / "labels").glob("*.txt"):
            target = folder / "first" / part / "labels" / label.name
            target.parent.mkdir(parents=True, exist_ok=True)
            rows = [row for row in label.read_text(encoding="utf-8").splitlines() if row.startswith("0 ")]
            target.write_text("\n".join(rows) + "\n", encoding="utf-8")
        images = folder / "first" / part / "images"
        images.mkdir()
        for image in (folder / part / "images").iterdir():
            (images / image.name).hardlink_to(image)
    tree |= {"path": str(folder / "first"), "names": {0: NAMES[0]}}
    tree.pop("unlabeled")
    (folder / "first.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    words = [f"data={folder / 'first.yaml'}", f"project={folder / 'runs'}", "name=base", "optimizer=AdamW", "lr0=0.01"]
    words += [STUDENT]
    words = ["recipe=baseline", "teacher=none", "epochs=16", "seed=2", *words, *FAST, f"data_dir={folder / 'd'}"]
    with recorded_reads() as reads:
        assert main(words) == 0
    assert dead_keys(words, reads) == []
    record = json.loads((folder / "runs" / "base" / "results.json").read_text(encoding="utf-8"))
    assert record["test"]["baseline"]["map50"] > 0.9
    return folder / "runs" / "base" / "weights" / "baseline.pt"


def steps(plates: Path, base: Path, *words: str) -> int:
    folder = plates.parent
    where = [f"data={plates}", f"teacher={base}", f"project={folder / 'runs'}", f"data_dir={folder / 'd'}"]
    return main(["recipe=sdidd", "steps=1,1", "name=steps", *where, *FAST, *words])


@pytest.mark.train
def test_finetune_forgets_and_sdidd_does_not(many, learned, capsys) -> None:
    words = ["modes=[sdidd,finetune]", "epochs=14", "lr0=0.002"]
    with recorded_reads() as reads:
        assert steps(many, learned, *words) == 0
    assert dead_keys(["recipe=sdidd", f"teacher={learned}", "optimizer=AdamW", *words[1:]], reads) == []
    root = many.parent / "runs" / "steps"
    record = json.loads((root / "incremental.json").read_text(encoding="utf-8"))
    rows = {row["mode"]: row for row in record["rows"]}
    assert rows["finetune"]["map_old"] < 0.3 and rows["finetune"]["map_new"] > 0.6, "the lower bound"
    assert rows["sdidd"]["map_old"] > 0.6 and rows["sdidd"]["map_new"] > 0.35, rows
    assert rows["sdidd"]["map_all"] > rows["finetune"]["map_all"]
    for row in rows.values():
        assert row["map_all"] == pytest.approx((row["map_old"] + row["map_new"]) / 2)
        assert row["forgetting"] == pytest.approx(row["map_old_before"] - row["map_old"])
    text = (root / "incremental.md").read_text(encoding="utf-8")
    assert "| sdidd | 2 |" in text and "step 1: dark; step 2: bright" in text
    assert "boxes of other classes left out there: 72 dark" in capsys.readouterr().out

    folder = root / "sdidd-step2"
    result = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert result["distill"]["selftest"]["teacher_unchanged"]
    added = result["distill"]["labels_added"]
    assert len(added) == 14 and 0.5 < added[-1] < 1.5, "each image shows one old square that its labels leave out"
    assert result["incremental"]["classes_new"] == ["bright"]
    assert "The model knows 1 more class: AP50" in (folder / "report.md").read_text(encoding="utf-8")
    code = (
        "from ultralytics import YOLO\n"
        f"m = YOLO({str(folder / 'weights' / 'student.pt')!r})\n"
        "print('kind', type(m.model).__name__, list(m.names.values()))\n"
    )
    done = run_without_dfssd(code, root)
    assert "kind DetectionModel ['dark', 'bright']" in done.output, done.output[-2000:]

    before = (folder / "results.json").read_bytes()
    assert steps(many, learned, *words) == 0, "the same line again"
    assert (folder / "results.json").read_bytes() == before and "finished earlier, kept" in capsys.readouterr().out


@pytest.mark.train
def test_protocol_goes_on_after_a_kill(plates, base, monkeypatch, capsys) -> None:
    """Base trained by itself, killed in the second mode, three runs in the end; unlabeled images take part."""
    folder = plates.parent
    words = ["recipe=erd", "steps=1,1", f"data={plates}", f"project={folder / 'runs'}", f"data_dir={folder / 'd'}"]
    fast = [word for word in FAST if word != "imgsz=64"]
    words += [
        *fast,
        "student=yolov8n.yaml",  # a tiny one has learned nothing in two epochs that could be taught
        "name=kill",
        "modes=joint",
        "epochs=2",
        "teacher_epochs=2",
        "sdidd_cls.weight=0.5",
        "pseudo.tau_low=0.0001",
    ]
    save, saved = StageTrainer.save_model, []

    def die(trainer):
        done = save(trainer)
        saved.append(trainer.save_dir.parents[1].name)
        if saved[-1] == "joint-step2":
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(StageTrainer, "save_model", die)
    assert main([*words, "imgsz=64"]) == 130
    assert "interrupted; the same line goes on:" in capsys.readouterr().err
    assert list(dict.fromkeys(saved)) == ["base", "erd-step2", "joint-step2"]
    monkeypatch.setattr(StageTrainer, "save_model", save)
    assert main([*words, "imgsz=64"]) == 0
    out = capsys.readouterr().out
    assert "base: finished earlier, kept" in out and "erd-step2: finished earlier, kept" in out
    assert "student: continuing after epoch 1" in out
    record = json.loads((folder / "runs" / "kill" / "incremental.json").read_text(encoding="utf-8"))
    assert [row["mode"] for row in record["rows"]] == ["erd", "joint"] and len(record["steps"]) == 2
    # 24 labeled images, six in a batch of 8 with two of the 8 unlabeled ones; the upper bound has twice as many boxes
    assert [row["optimizer_steps"] for row in record["rows"]] == [8, 8], "all modes make the same steps"
    erd = json.loads((folder / "runs" / "kill" / "erd-step2" / "results.json").read_text(encoding="utf-8"))
    assert erd["data"]["train_unlabeled"] == 8 and list(erd["distill"]["terms"]) == ["sdidd_cls", "erd_box"]
    assert erd["distill"]["terms"]["sdidd_cls"]["weight"] == 0.5
    joint = json.loads((folder / "runs" / "kill" / "joint-step2" / "results.json").read_text(encoding="utf-8"))
    assert not joint["distill"]["terms"], "options of one recipe's terms are not another's"
    for changed in (["imgsz=96"], ["imgsz=64", "seed=1"], ["imgsz=64", "mosaic=1"], []):
        assert main([*[w for w in words if not changed or w.partition("=")[0] != changed[-1][:6]], *changed]) == 2
        assert "repeat the same line, or use another name=" in capsys.readouterr().err
    other = [word.replace("recipe=erd", "recipe=finetune").replace("modes=joint", "modes=freeze") for word in words]
    assert main([*[word for word in other if "sdidd_cls" not in word], "imgsz=96"]) == 2, "other modes, same base"
    assert "was started with train.imgsz 64, not 96" in capsys.readouterr().err
    less = [word.replace("sdidd_cls.weight=0.5", "sdidd_cls.weight=0") for word in words]
    assert main([*less, "imgsz=64"]) == 2
    assert "was started with terms.sdidd_cls" in capsys.readouterr().err
    assert main([word.replace("modes=joint", "modes=erd") for word in [*words, "imgsz=64"]]) == 0
    record = json.loads((folder / "runs" / "kill" / "incremental.json").read_text(encoding="utf-8"))
    assert [row["mode"] for row in record["rows"]] == ["erd", "joint"], "what is finished stays in the table"
    names = YOLO(folder / "runs" / "kill" / "joint-step2" / "weights" / "student.pt").names
    assert list(names.values()) == NAMES


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
@pytest.mark.parametrize("counts", [(4, 2), (5, 1), (3, 1, 1, 1)])
def test_any_split_of_the_classes_and_chains(plates, tmp_path, counts) -> None:
    """Every step ends in an ordinary file that knows all classes so far and is the teacher of the next."""
    names = [f"kind{k}" for k in range(sum(counts))]
    for part in ("train", "val", "test"):
        images = sorted((plates.parent / part / "images").iterdir())
        for number, image in enumerate(images):
            (tmp_path / part / "images").mkdir(parents=True, exist_ok=True)
            (tmp_path / part / "labels").mkdir(parents=True, exist_ok=True)
            (tmp_path / part / "images" / image.name).hardlink_to(image)
            rows = (plates.parent / part / "labels" / f"{image.stem}.txt").read_text(encoding="utf-8").splitlines()
            text = "".join(f"{(number + k) % len(names)} {row.split(maxsplit=1)[1]}\n" for k, row in enumerate(rows))
            (tmp_path / part / "labels" / f"{image.stem}.txt").write_text(text, encoding="utf-8")
    tree = {"path": str(tmp_path), "train": "train/images", "val": "val/images", "test": "test/images", "names": names}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    base = unsure_detector(tmp_path / "base.pt", names[: counts[0]])
    words = [f"data={tmp_path / 'data.yaml'}", f"teacher={base}", f"project={tmp_path}", f"data_dir={tmp_path / 'd'}"]
    asked = ",".join(map(str, counts))
    assert main(["recipe=sdidd", f"steps={asked}", "name=p", "modes=sdidd", "epochs=1", *words, *FAST]) == 0
    rows = json.loads((tmp_path / "p" / "incremental.json").read_text(encoding="utf-8"))["rows"]
    ends = [sum(counts[: k + 1]) for k in range(1, len(counts))]
    assert [row["classes"] for row in rows] == ends and [row["step"] for row in rows] == [*range(2, len(counts) + 1)]
    teacher = base
    for row, end in zip(rows, ends, strict=True):
        folder = tmp_path / "p" / f"sdidd-step{row['step']}"
        assert list(YOLO(folder / "weights" / "student.pt").names.values()) == names[:end]
        assert (folder / "weights" / "teacher.pt").read_bytes() == teacher.read_bytes()
        assert row["steps"] == "+".join(map(str, counts)) and len(row["map_by_step"]) == row["step"]
        teacher = folder / "weights" / "student.pt"


@pytest.mark.train
@pytest.mark.usefixtures("unexported")
def test_single_step_of_a_user(plates, base, monkeypatch) -> None:
    seen = set()

    class Noted(SemiDetectionLoss):
        def __init__(self, *args: Any, **given: Any):
            seen.add(given["coverage"])
            super().__init__(*args, **given)

    monkeypatch.setattr(pair, "SemiDetectionLoss", Noted)
    folder = plates.parent
    whole = load_dataset(str(plates), folder / "d")
    parts = {name: tuple(i.image for i in whole.items if i.split == name) for name in ("train", "val", "test")}
    split = Split(parts["train"], (), parts["val"], parts["test"])
    data = write_step(whole, split, Step(2, 1, 2), folder / "second")["yaml"]
    words = [f"data={data}", f"teacher={base}", f"project={folder / 'runs'}", "name=single", f"data_dir={folder / 'd'}"]
    words += [f"unlabeled={folder / 'plain' / 'images'}", "unlabeled_old=true"]
    assert main(["recipe=sdidd", "epochs=1", *words, *FAST]) == 0
    assert YOLO(folder / "runs" / "single" / "weights" / "student.pt").names == dict(enumerate(NAMES))
    assert seen == {Coverage(new_only=True, old_boxes=True, unlabeled_old=True)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["steps=2,1", STUDENT], "steps=2,1 are 3 classes, the data set has 2"),
        (["steps=1,1", "teacher=TEACHER"], "knows dark, bright, the first step has dark"),
        (["steps=1,1", "teacher=BASE", "modes=FOLDER/sdidd.yaml"], "have the same name; rename one of the files"),
        (["steps=1,1", "teacher=BASE", "modes=tskd"], "tskd does not add new classes; choose among sdidd"),
        (["steps=1,1", "teacher=BASE", "split=FOLDER", "labeled=0.5"], "already selects the images; leave out labeled"),
        (["steps=1,1", "teacher=BASE", "exist_ok=true"], "a protocol keeps its finished runs; use another name="),
        (["teacher=BASE", "modes=finetune"], "modes has no effect with steps=none"),
        (["teacher=BASE", "step_labels=all"], "step_labels has no effect with steps=none"),
        (["teacher=BASE", "old_boxes=true", "pseudo=offline"], "old_boxes=true needs pseudo=online"),
        (["teacher=BASE", "old_boxes=true", "new_only=false"], "old_boxes=true needs new_only=true, not false"),
        (["recipe=dfssd", "old_boxes=true"], "old_boxes acts only with student_training=grown"),
        (["steps=1,1", "unlabeled_old=true"], "unlabeled_old=true does not hold with steps="),
        (["teacher=BASE", "unlabeled_old=true", "labeled=0.5"], "images whose labels are left out show new classes"),
        (["teacher=BASE", "unlabeled_old=true", "unsup_weight=0"], "unlabeled_old has no effect with unsup_weight=0"),
        (["recipe=dfssd", "unlabeled_old=true"], "unlabeled_old acts only with student_training=grown"),
        (["steps=1,1", "step_labels=all"], "step_labels=all keeps boxes of old classes, which new_only=true rejects"),
        (["steps=1,1", "teacher=BASE", "format=onxx"], "onxx"),
        (["steps=1,1", "teacher=BASE", "layers=[99]", "pkd.weight=1"], "these models have layers 0 to 21"),
        (["teacher=BASE", "student=yolov8n.yaml"], "the student is the teacher with rows for the new classes"),
        (["teacher=BASE", "freeze_features=true", "sdidd_feature.weight=1"], "switch off with sdidd_feature.weight=0"),
        (["recipe=dfssd", "freeze_bn=true"], "freeze_bn acts only with student_training=grown"),
        (
            ["steps=1,1", "teacher=yolov8n.yaml"],
            "with steps= this must be a model trained on the classes of the first step",
        ),
        (["teacher=yolov8n.yaml"], "has no trained weights: give the model trained so far"),
        (["teacher=nowhere.pt"], "teacher=nowhere.pt: no such file"),
        (["teacher=none"], "teacher is missing"),
        (["teacher=BASE"], "its labels contain the old class 'dark' (id 0)"),
        (["teacher=TEACHER"], "knows all of the data's 2 classes already"),
        (["teacher=BASE", "baseline=true"], "student_training=grown needs baseline=false"),
        (["recipe=dfssd", "new_only=true"], "new_only acts only with student_training=grown"),
    ],
)
def test_bad_input_is_one_line(plates, base, teacher_file, tmp_path, words, message, capsys) -> None:
    for name, value in (("BASE", base), ("TEACHER", teacher_file), ("FOLDER", tmp_path)):
        words = [word.replace(name, str(value)) for word in words]
    (tmp_path / "sdidd.yaml").write_bytes(find_recipe("sdidd").read_bytes())
    recipe = [] if any(word.startswith("recipe=") for word in words) else ["recipe=sdidd"]
    code = main(
        [f"data={plates}", f"project={tmp_path}", f"data_dir={tmp_path / 'd'}", "epochs=1", *FAST, *recipe, *words]
    )
    err = capsys.readouterr().err.strip()
    assert code == 2 and message in err and len([x for x in err.splitlines() if x.startswith("error")]) == 1
    assert not list(tmp_path.glob("*/train")) and not list(tmp_path.glob("*/protocol.yaml"))


def test_head_without_box_distribution(plates, base, tmp_path, capsys) -> None:
    other = YOLO("yolo26n.yaml")
    other.model.names = {0: "dark"}
    other.save(tmp_path / "flat.pt")
    assert (
        main(
            [
                "recipe=sdidd",
                "response_dfl.weight=1",
                f"data={plates}",
                f"teacher={tmp_path / 'flat.pt'}",
                f"project={tmp_path}",
                *FAST,
            ]
        )
        == 2
    )
    err = capsys.readouterr().err
    assert err.startswith("error: teacher=") and "response_dfl needs; switch off with response_dfl.weight=0" in err


def test_head_whose_answers_no_term_protects(plates, tmp_path, capsys) -> None:
    other = YOLO("yolo26n.yaml")
    other.model.names = {0: "dark"}
    other.model.model[-1].end2end = True
    other.save(tmp_path / "two.pt")
    words = ["recipe=sdidd", "response_dfl.weight=0", f"data={plates}", f"teacher={tmp_path / 'two.pt'}"]
    assert main([*words, f"project={tmp_path}", *FAST]) == 2
    assert "one-to-one branch (end2end), which would forget" in capsys.readouterr().err


@pytest.mark.train
def test_export_outside_its_tolerance_is_reported(plates, base, tmp_path, capsys) -> None:
    words = [f"data={plates}", f"teacher={base}", f"project={tmp_path}", f"data_dir={tmp_path / 'd'}", "name=p"]
    words += ["recipe=finetune", "modes=finetune", "steps=1,1", "epochs=1", "parity.box_px=0"]
    assert main([*words, *FAST]) == 2
    assert "outside its tolerance in finetune-step2: see" in capsys.readouterr().out
