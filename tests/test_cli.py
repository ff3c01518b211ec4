"""The command line: exit codes and one-line errors of the whole program, without training anything."""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import zipfile
from itertools import pairwise, takewhile
from pathlib import Path
from subprocess import PIPE
from typing import NoReturn

import pytest
import torch
import yaml
from ultralytics import YOLO

import dfssd
from dfssd.cli import main
from dfssd.commands.options import shown as option_text
from dfssd.commands.train import RecipeDefaults, key_groups
from dfssd.config import defaults, find_recipe, parse_value, resolve
from dfssd.config.resolution import RECIPES
from dfssd.detection.run import DetectionRun
from dfssd.distillation.terms import term_options
from dfssd.interrupts import stopped_by_signals
from dfssd.runs.key_names import names_only
from tests.configured import load_dataset
from tests.conftest import write_images
from tests.tiny_detection import TINY

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def other_names(tmp_path_factory) -> Path:
    """A detector of eighty classes that no data set here has."""
    other = YOLO(TINY)
    other.model.names = {k: f"class {k}" for k in range(80)}
    path = tmp_path_factory.mktemp("other") / "other.pt"
    other.save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch, other_names: Path) -> Path:
    """A folder in YOLO layout with six labeled images, and the current directory outside the checkout."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "set", 6, seed=1)
    (tmp_path / "set" / "classes.txt").write_text("dark\nbright\n", encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("backbone: [1, {\n", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.zip").write_bytes(b"no zip at all")
    with zipfile.ZipFile(tmp_path / "escape.zip", "w") as archive:
        archive.writestr("../outside.txt", "x")
    (tmp_path / "other.pt").hardlink_to(other_names)
    return tmp_path / "set"


@pytest.mark.train
def test_plain_python_without_the_packages_reports_where_to_find_them(tmp_path: Path) -> None:
    start = f"runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    code = f"import sys, runpy; sys.modules['psutil'] = None; {start}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: psutil is not installed in this Python") and done.stderr.count("\n") == 1


def test_rejected_run_leaves_no_folder_behind(folder: Path, capsys) -> None:
    assert "nowhere" in fails(capsys, "data=nowhere", "project=runs")
    assert not list((folder.parent / "runs").iterdir())


def fails(capsys, *words: str) -> str:
    """Run the command line, check that it ends as bad input must, and return its message."""
    base = {"teacher": TINY, "student": TINY, "device": "cpu", "data_dir": "data sets"}
    given = [*words, *(f"{k}={v}" for k, v in base.items() if not any(w.startswith(f"{k}=") for w in words))]
    assert main(given) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.startswith("error: ")
    return message


def test_version(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dfssd {dfssd.__version__}\n"


@pytest.mark.parametrize("program", ["dfssd", "python train.py"])
def test_interruption_names_the_line_that_goes_on(folder: Path, capsys, monkeypatch, program: str) -> None:
    """The line alone opens the run again, with the keys that it was started with."""
    seen = []

    def stop(run: DetectionRun) -> NoReturn:
        seen.append((run.folder.path, run.epochs))
        raise KeyboardInterrupt

    monkeypatch.setattr(DetectionRun, "prepare", stop)
    words = ["data=set", f"teacher={TINY}", f"student={TINY}", "device=cpu", "epochs=7", "project=my runs"]
    for given in (words, ["resume=my runs/dfssd"]):
        assert main(given, program) == 130
        *_, empty, line = capsys.readouterr().err.splitlines()
        assert (empty, line) == ("", f"    {program} 'resume=my runs/dfssd'")
        assert shlex.split(line.removeprefix(f"    {program} ")) == ["resume=my runs/dfssd"]
    assert seen == [(folder.parent / "my runs" / "dfssd", 7)] * 2


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_of_schedulers_and_terminals_are_like_an_interruption(
    folder: Path, capsys, monkeypatch, name: str
) -> None:
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"no {name} on this system")
    before = signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored

    def stop(run: DetectionRun) -> NoReturn:
        try:
            signal.raise_signal(number)
        finally:
            signal.raise_signal(number)  # a second one does not disturb the end
        raise AssertionError

    monkeypatch.setattr(DetectionRun, "prepare", stop)
    try:
        assert main(["data=set", f"teacher={TINY}", f"student={TINY}", "device=cpu"]) == 128 + number
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert capsys.readouterr().err.splitlines()[-1] == "    dfssd resume=runs/dfssd"
    assert not (folder.parent / "runs" / "dfssd" / ".owner.json").exists()


def test_ignored_signal_stays_ignored(monkeypatch) -> None:
    """As by ``nohup``."""
    number = getattr(signal, "SIGHUP", signal.SIGTERM)
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stopped_by_signals():
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


def test_interruption_before_there_is_a_run_and_of_a_protocol(folder: Path, capsys, monkeypatch) -> None:
    def stop(config: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("dfssd.runs.configure.configure", stop)
    assert main(["data=my parts", "epochs=2"]) == 130
    assert capsys.readouterr().err.endswith("the same line begins anew:\n\n    dfssd 'data=my parts' epochs=2\n")
    assert main(["data=set", "recipe=sdidd", "steps=1,1"]) == 130
    assert capsys.readouterr().err.endswith("the same line goes on:\n\n    dfssd data=set recipe=sdidd steps=1,1\n")
    assert main(["benchmark", "demo", "data=demo"]) == 130
    assert capsys.readouterr().err.endswith("the same line goes on:\n\n    dfssd benchmark demo data=demo\n")


@pytest.mark.parametrize("program", ["dfssd", "python train.py"])
def test_help_is_short_and_shows_the_command_that_was_used(capsys, program: str) -> None:
    assert main(["--help"], program) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: {program} [command] key=value") and len(shown.splitlines()) <= 42
    assert shown.count(f"\n  {program} ") == 6 and f"\n  {program} train --help\n" in shown
    assert ("train.py" in shown) == ("train.py" in program)
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == shown.replace(program, "dfssd").splitlines()[1:]


def help_of_train(capsys, monkeypatch, columns: int, *words: str) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["train", *words, "--help"]) == 0
    lines: list[str] = capsys.readouterr().out.splitlines()
    return lines


def test_help_of_train_lists_keys_terms_ranges_and_defaults(capsys, monkeypatch) -> None:
    """An entry for each key and each option of a term, with its default, and below it the meaning."""
    lines = help_of_train(capsys, monkeypatch, 100)
    shown = {}
    ours = takewhile(lambda line: not line.startswith("Ultralytics' arguments"), lines[lines.index("the run") :])
    for line, following in pairwise(ours):
        if match := re.match(r"  ([\w.<>]+)=(\S*)(?: +(.*))?$", line):
            shown[match[1]] = (yaml.safe_load(match[2]) if match[2] != "none" else None, match[3], following.strip())
    expected = defaults() | {"student_start": "auto", "pseudo.mode": "online", "balance": "auto"}  # of the recipe
    expected |= {"cwd.weight": 1.0, "cwd.share": 0.5}
    for name, options in term_options().items():
        assert any(line.startswith(f"  {name}: ") for line in lines)
        expected |= {f"{name}.{option}": default for option, default in options.items()}
    assert {key: shown.get(key, ("missing",))[0] for key in expected} == expected
    assert all(meaning for _, _, meaning in shown.values())
    assert shown["pseudo.tau0"][:2] == (0.2, "a number >= 0 and <= 1")
    assert shown["drd_pixel.graphs"][:2] == ("fixed", "fixed, resample")
    assert shown["val_every"][:2] == ("auto", "auto, or a whole number >= 1")
    assert shown["<term>.weight"][:2] == (0.0, "a number >= 0")


@pytest.mark.parametrize("recipe", sorted(file.stem for file in RECIPES.glob("*.yaml")))
def test_help_shows_the_defaults_that_a_run_of_the_recipe_has(capsys, monkeypatch, recipe: str) -> None:
    """Each against the configuration that a line with this recipe alone is resolved to."""
    given = {"recipe": recipe, **({"teacher": "old.pt"} if "teacher: none" in find_recipe(recipe).read_text() else {})}
    config = resolve(given, names_only())
    ours = {key.name: key for _, keys in key_groups(RecipeDefaults.of(recipe)) for key in keys}
    for key, value in config.own.items():
        if key not in given:
            assert parse_value(ours[key].default) == value, key
            changed = value != defaults()[key]
            assert ours[key].origin.startswith(f"recipe {recipe}; otherwise ") is changed, key
    shown = "\n".join(help_of_train(capsys, monkeypatch, 100, f"recipe={recipe}"))
    assert f"those of recipe={recipe};" in shown
    plain = " ".join(shown.split())
    for name, value in config.train.items():
        assert f"{name}={option_text(value)}" in plain
    for term, options in config.terms.items():
        assert f"\n  {term}.weight={options['weight']}\n" in shown or f"\n  {term}.weight={options['weight']} " in shown


def test_help_takes_the_recipe_in_any_place(capsys) -> None:
    pages = []
    for line in ("recipe=tskd --help", "--recipe tskd -h", "--help train recipe=tskd", "help train --recipe=tskd"):
        assert main(line.split()) == 0
        pages.append(capsys.readouterr().out)
    assert pages == pages[:1] * 4 and "recipe tskd; otherwise fixed" in pages[0]
    assert main(["recipe=tsdk", "--help"]) == 2
    assert "recipe=tsdk: no such recipe; known: baseline, " in capsys.readouterr().err


def test_help_of_a_part_of_a_command_shows_that_part(capsys) -> None:
    assert main(["review", "import", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: dfssd review import FILE") and "review export" not in shown


@pytest.mark.train
@pytest.mark.skipif(os.name == "nt", reason="pipes of shells")
def test_help_into_a_pipe_that_is_closed_is_no_error() -> None:
    line = [sys.executable, "-c", "from dfssd.cli import main; print('begun', flush=True); input(); main([])"]
    with subprocess.Popen(line, stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True) as process:
        assert process.stdin and process.stdout and process.stderr
        assert process.stdout.readline() == "begun\n"
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read() == "" and process.wait() == 0


def test_help_of_train_is_in_groups(capsys, monkeypatch) -> None:
    lines = help_of_train(capsys, monkeypatch, 100)
    headings = [line for before, line in pairwise(lines) if not before and line and not line.startswith(" ")]
    assert headings[0].startswith("The defaults below are those of recipe=dfssd;")
    headings = headings[1:]
    assert headings[:3] == ["the run", "data", "before any label"] and "export and run folder" in headings
    assert headings.index("teacher") < headings.index("pseudo-labels") < headings.index("baseline and student")
    assert lines.index("data") < lines.index("  skip_bad=false              true | false") < lines.index("teacher")


@pytest.mark.parametrize("columns", [40, 72, 400])
def test_help_fits_the_terminal(capsys, monkeypatch, columns: int) -> None:
    """Only a word that is longer than a line may be longer."""
    for line in help_of_train(capsys, monkeypatch, columns):
        assert len(line) <= min(columns, 100) or len(line.split()) == 1, line


@pytest.mark.train
def test_program_answers_a_typo_without_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "data=demo", "epoch=3"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "error: unknown key 'epoch'; did you mean 'epochs'?"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "data is missing"),
        (["data=nowhere"], "nowhere"),
        (["data=set", "student=set"], "is not a model"),
        (["data=set", "teacher=gone.pt"], "teacher=gone.pt: no such file"),
        (["data=set", "batch=-1"], "whole number of at least 2"),
        (["data=set", "batch=0.5"], "whole number of at least 2"),
        (["data=set", "format=onnx,engin"], "engin"),
        (["data=set", "amp=fp8"], "amp=fp8: must be"),
        (["data=set", "amp=fp16"], "needs a GPU"),
        (["data=set", "terms=[]"], "section of a recipe"),
        (["data=set", "layers=[99]"], "layers 0 to 21"),
        (["data=set", "layers=[22]"], "layers 0 to 21"),
        (["data=set", "device=gpu"], "device=gpu: must be cpu"),
        (["data=set", "optimizer=foo"], "optimizer=foo: must be one of"),
        (["data=set", "imgsz=0"], "imgsz=0: must be"),
        (["data=set", "epochs=true"], "epochs=True: must be"),
        (["data=set", "student=broken.yaml"], "broken.yaml:2: is not valid YAML"),
        (["data=empty"], "empty"),
        (["data=no.zip"], "no.zip"),
        (["data=escape.zip"], "escape.zip"),
        (["data=set", "teacher=other.pt"], "does not know"),
        (["data=set", "epochs=many"], "epochs"),
        (["data=set", "recipe=dfssd-paper", "hwjs.tau=-1"], "hwjs.tau=-1 must be"),
        (["data=set", "recipe=tskd", "crd_cls.stage=3"], "crd_cls.stage=3 must be one of"),
        (["data=set", "recipe=tskd", "ded.backgroud=1"], "did you mean 'ded.background'"),
        (["data=set", "recipe=distill", "pkd.weight=1", "pkd.share=0.3"], "pkd.share acts with balance=auto only"),
        (
            ["data=set", "recipe=distill", "balance=auto", "pkd.share=0.3"],
            "pkd.share has no effect: pkd is switched off",
        ),
        (["data=set", "recipe=distill"], "there is nothing to distill: no term is switched on"),
        (["data=set", "balance=grad"], "balance=grad must be one of: fixed, auto"),
        (["data=set", "resume=nowhere"], "no run.yaml there"),
        (["data=set", "batch=999999999999"], "batch=999999999999 imgsz=640: the pixels of one batch alone take"),
        (["data=set", "imgsz=1000000"], "batch=16 imgsz=1000000: the pixels of one batch alone take"),
        (["data=set", "freeze=999"], "has layers 0 to 22, and no 23; leave that out"),
        (["data=set", "freeze=[3,22.nothing]"], "has layers 0 to 22, and no 22.nothing; leave that out"),
        (["data=set", "freeze=23"], "freeze=23 leaves nothing to train in student="),
        (["data=set", "recipe=mffmetal", "teacher=none", "student_training=skip", "student=mffmetal-6000000"], "up to"),
        (["data=set", "recipe=mffmetal", "teacher=mffmetal-12", "student=mffmetal-6", "freeze=2"], "nothing to train"),
        (["data=set", "format=onnx,ascend"], "format=ascend: needs the program atc"),
        (["data=nowhere", "split=gone"], "train_labeled.txt does not exist; pass the splits/ folder of an earlier run"),
        (["data=nowhere", "split=gone", "labeled=0.5"], "split=gone already selects the images; leave out labeled"),
        (["data=set", "lr0=true"], "lr0=True: must be a number"),
        (["data=set", "copy_paste=0.5"], "copy_paste is not available here: it pastes outlined objects"),
        (
            ["data=set", "pretrained=x.pt"],
            'for a .yaml with weights: YOLO("my.yaml").load("weights.pt").save("start.pt")',
        ),
    ],
)
def test_bad_arguments(folder: Path, capsys, words: list[str], message: str) -> None:
    assert message in fails(capsys, *words)


def test_recipe_baseline_needs_no_teacher(folder: Path, monkeypatch) -> None:
    """Its default would have to be downloaded."""
    monkeypatch.setattr(DetectionRun, "run", lambda run: run.config["teacher"] is None)
    assert main(["recipe=baseline", "data=set", f"student={TINY}", "device=cpu"]) == 0
    given = ["recipe=baseline", "data=set", f"student={TINY}", f"teacher={TINY}", "device=cpu"]
    assert main(given) == 2  # trains that teacher, too


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_free_gpu(folder: Path, capsys) -> None:
    assert "use device=cpu" in fails(capsys, "data=set", "device=0")
    assert "use device=cpu" in fails(capsys, "data=set", "device=0,1")


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK"])
@pytest.mark.parametrize("words", [["data=set"], ["resume=runs/x"], ["recipe=sdidd", "steps=1,1", "data=set"]])
def test_half_of_what_a_launcher_sets(capsys, monkeypatch, variable: str, words: list[str]) -> None:
    monkeypatch.setenv(variable, "0")
    assert main([*words, "device=cpu"]) == 2
    assert f"{variable} is set, as by torchrun, but not " in capsys.readouterr().err


def test_gpu_that_is_full_or_not_there(monkeypatch) -> None:
    from dfssd import hardware
    from dfssd.errors import UserError

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (1 << 28, 80 << 30))
    assert hardware.check_device(0) == "0"
    with pytest.raises(UserError, match=r"has 1 GPU"):
        hardware.check_device("0,1")
    with pytest.raises(UserError, match=r"only 0\.2 of 80 GiB are free"):
        hardware.check_free_memory("0")


@pytest.mark.parametrize(
    ("amp", "units", "expected"),
    [
        (None, True, (False, True)),
        (None, False, (False, False)),
        ("bf16", False, (False, True)),
        (False, True, (False, False)),
        ("fp32", True, (False, False)),
    ],
)
def test_mixed_precision_on_the_cpu(monkeypatch, amp, units: bool, expected: tuple) -> None:
    from dfssd import hardware

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: units)
    assert hardware.resolve_amp(amp, "cpu") == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 0.5 0.5 0.2 0.2 0.9", "columns"),
        ("7 0.5 0.5 0.2 0.2", "class"),
        ("0 1.5 0.5 0.2 0.2", "1.5"),
        ("0 nan 0.5 0.2 0.2", "nan"),
    ],
)
def test_bad_label_names_file_and_line(folder: Path, capsys, row: str, message: str) -> None:
    label = sorted((folder / "labels").glob("*.txt"))[2]
    label.write_text("0 0.5 0.5 0.2 0.2\n" + row + "\n", encoding="utf-8")
    error = fails(capsys, "data=set")
    assert f"{label.name}:2" in error and message in error.lower()


def test_corrupt_image_is_named_and_skipped_on_demand(folder: Path, capsys) -> None:
    image = sorted((folder / "images").glob("*.png"))[1]
    image.write_bytes(image.read_bytes()[:100])
    assert image.name in fails(capsys, "data=set")
    assert "teacher=gone" in fails(capsys, "data=set", "skip_bad=true", "teacher=gone.pt")
    skipped = load_dataset("set", Path("data sets"), skip_bad=True).skipped
    assert [path.name for path, _ in skipped] == [image.name]


def test_segmentation_student(folder: Path, capsys) -> None:
    assert "is not a detector" in fails(capsys, "data=set", "student=yolov8n-seg.yaml")


def test_pair_of_two_families(folder: Path, capsys) -> None:
    assert "different families" in fails(capsys, "data=set", "teacher=yolo11n.yaml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["recipe=distill", "teacher=yolo26s.yaml", "crd_dfl.weight=1"],
            "crd_dfl needs; switch off with crd_dfl.weight=0",
        ),
        (
            ["recipe=dfssd-paper", "response_dfl.weight=2", "teacher=yolo26s.yaml"],
            "response_dfl needs; switch off with",
        ),
        (["recipe=distill", "teacher=yolo26s.yaml", "ld.weight=1", "crd_dfl.weight=1"], "ld, crd_dfl need; switch"),
    ],
)
def test_head_without_box_distribution(folder: Path, capsys, words: list[str], message: str) -> None:
    assert message in fails(capsys, "data=set", "student=yolo26n.yaml", *words)


def test_foundation_model_that_nobody_knows(folder: Path, capsys) -> None:
    pytest.importorskip("timm")
    assert "is neither a folder nor a model of timm" in fails(capsys, "data=set", "pretrain=dense_features")
    assert "no config.json there" in fails(capsys, "data=set", f"pretrain={folder}")


def test_duplicate_class_names(folder: Path, capsys) -> None:
    tree = {"path": str(folder), "train": "images", "val": "images", "names": ["dark", "dark"]}
    Path("data.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    assert "dark" in fails(capsys, "data=data.yaml")


def test_full_disk_outside_of_a_run_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def run(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dfssd.commands.Command.run", run)
    assert main(["report", "runs/x"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the disk of") and "No space left" in line and line.endswith("same line again")


@pytest.mark.train
def test_the_module_is_a_command_too() -> None:
    done = subprocess.run([sys.executable, "-m", "dfssd.cli", "epoch=3"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "did you mean 'epochs'?" in done.stderr


def test_package_that_is_missing_is_named_in_one_line(monkeypatch, capsys) -> None:
    """Where dfssd was installed without what training needs; a module of dfssd itself that is not there is a bug."""
    lacking = "torch.nn"

    def run(*_: object) -> NoReturn:
        raise ModuleNotFoundError(f"No module named {lacking!r}", name=lacking)

    monkeypatch.setattr("dfssd.commands.Command.run", run)
    assert main(["report", "runs/x"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: this needs torch, which is not installed in this Python: install "
    )
    lacking = "dfssd.reporting.nothing"
    with pytest.raises(ModuleNotFoundError):
        main(["report", "runs/x"])
