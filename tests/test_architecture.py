"""The import rules of the package."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.source_tree import (
    PACKAGE,
    ROOT,
    circles,
    complexity,
    functions,
    import_graph,
    imported,
    module_name,
    sources,
    tree,
)

LAYERS = {
    "base": (
        "errors", "checks", "files", "hardware", "resources", "process", "interrupts", "log", "log_file", "batches",
        "wording", "remedies", "distributed", "trust",
    ),
    "records of runs": ("results",),
    "data sets": ("datasets",),
    "configuration": ("config",),
    "reports": ("reporting",),
    "deployment": ("deployment",),
    "serving": ("serving",),
    "pseudo-labels": ("pseudo_labels",),
    "distillation": ("distillation",),
    "training and evaluation": (
        "trainers", "loading", "evaluation", "pretraining",
    ),
    "runs": ("runs", "tracking"),
    "inspection of data": ("inspection",),
    "tasks": ("detection", "segmentation"),
    "pipeline": ("pipeline", "tasks", "data_check", "comparison", "beside"),
    "protocols": ("incremental",),
    "reviews and labels of folders": ("review", "labeling"),
    "commands": ("commands", "cli", "api", "__main__"),
    "benchmarks": ("benchmark",),
    "package": ("",),
}  # fmt: skip
"""From bottom to top: a module imports from its own layer and from those below. A subpackage stands for all its
modules, unless a module is listed itself. A new module or subpackage has to be added here."""

UPWARD: set[tuple[str, str]] = set()
"""Imports from a layer above that are still allowed. Nothing may be added."""

BRANCHY: set[str] = set()
"""Functions whose cyclomatic complexity is above 20. Nothing may be added."""

PURE = [
    "config/*.py",
    "errors.py",
    "wording.py",
    "files.py",
    "checks.py",
    "batches.py",
    "detection/report.py",
    "detection/verdict.py",
    "detection/figures.py",
    "detection/run_files.py",
    "reporting/*.py",
    "inspection/*.py",
    "data_check.py",
    "deployment/infer.py",
    "deployment/sources.py",
    "deployment/answers.py",
    "deployment/predict.py",
    "deployment/drawing.py",
    "serving/*.py",
    "runs/key_names.py",
    "evaluation/bootstrap.py",
    "evaluation/detections.py",
    "evaluation/differences.py",
    "evaluation/significance.py",
    "distillation/outputs.py",
    "distillation/schedules.py",
    "distillation/terms/*.py",
    "pretraining/corruption.py",
    "pretraining/objectives.py",
    "pseudo_labels/records.py",
    "pseudo_labels/files.py",
    "pseudo_labels/thresholds.py",
    "pseudo_labels/quality.py",
    "pseudo_labels/fusion.py",
    "pseudo_labels/meter.py",
    "trainers/guard.py",
    "trainers/views.py",
    "loading/*.py",
    "datasets/copies/grain.py",
    "datasets/copies/fingerprints.py",
    "datasets/copies/index.py",
    "datasets/copies/duplicates.py",
    "datasets/copies/family_swaps.py",
    "datasets/splits.py",
    "datasets/split_files.py",
    "datasets/samples.py",
    "datasets/overlap.py",
    "datasets/records.py",
    "segmentation/network.py",
    "segmentation/losses.py",
    "segmentation/boundary.py",
    "datasets/copies/twins.py",
    "segmentation/metrics.py",
    "segmentation/views.py",
    "segmentation/report.py",
    "segmentation/verdict.py",
    "segmentation/figures.py",
    "segmentation/rows.py",
    "results/record.py",
    "results/sections/*.py",
    "runs/self_training.py",
    "review/*.py",
]


def layer(module: str) -> str:
    """The layer of a module, by the longest name in the table that it lies in."""
    path = module.removeprefix("dfssd").removeprefix(".")
    places = {name: level for level, names in LAYERS.items() for name in names if name or not path}
    while path and path not in places:
        path = path.rpartition(".")[0]
    assert path in places, f"{module} has no place in LAYERS: give it one"
    return places[path]


def subpackage(module: str) -> str:
    return ".".join(module.split(".")[:2])


def climbs(graph: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Imports from a layer above."""
    height = {module: list(LAYERS).index(layer(module)) for module in graph}
    return {(a, b) for a, arrows in graph.items() for b in arrows if height[b] > height[a]}


def test_imports_go_down() -> None:
    graph = import_graph(sources())
    found = climbs(graph)
    assert not found - UPWARD, "a module imports from a layer above it"
    assert not {(a, b) for a, b in UPWARD - found if a in graph}, "these no longer climb: take them out of UPWARD"


def test_a_climbing_import_and_a_module_without_place_are_found(tmp_path: Path) -> None:
    package = tmp_path / "dfssd"
    package.mkdir()
    (package / "files.py").write_text("def f():\n    from dfssd.config import resolve\n", encoding="utf-8")
    (package / "config.py").write_text("import os\n", encoding="utf-8")
    assert climbs(import_graph(sorted(package.glob("*.py")), tmp_path)) == {("dfssd.files", "dfssd.config")}
    with pytest.raises(AssertionError, match=r"dfssd\.attic has no place"):
        layer("dfssd.attic")
    assert layer("dfssd.evaluation.export") != layer("dfssd.incremental.protocol") == "protocols"


def test_data_sets_import_nothing_above_the_base() -> None:
    graph = import_graph(sources())
    for module, arrows in graph.items():
        if module.startswith("dfssd.datasets."):
            above = {b for b in arrows if layer(b) not in {"base", "data sets"} and (module, b) not in UPWARD}
            assert not above, f"{module} imports {', '.join(sorted(above))}"


def test_the_wings_do_not_import_each_other() -> None:
    graph = import_graph(sources())
    for task, other in (("dfssd.detection", "dfssd.segmentation"), ("dfssd.segmentation", "dfssd.detection")):
        for module, arrows in graph.items():
            if subpackage(module) == task:
                assert not {b for b in arrows if subpackage(b) == other}, f"{module} imports from {other}"


def test_no_circles_between_modules_or_rooms() -> None:
    """Two modules of one subpackage may import each other's types; two subpackages may not."""
    assert circles(import_graph(sources(), types=False)) == []
    graph = import_graph(sources())
    subpackages: dict[str, set[str]] = {subpackage(module): set() for module in graph}
    for a, arrows in graph.items():
        subpackages[subpackage(a)] |= {subpackage(b) for b in arrows if (a, b) not in UPWARD} - {subpackage(a)}
    assert circles(subpackages) == []


def test_circles_are_found(tmp_path: Path) -> None:
    texts = {
        "a": "from p import b",
        "b": "def f():\n    import p.c",
        "c": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import A",
        "d": "from p.c import C",
    }
    (tmp_path / "p").mkdir()
    for name, text in texts.items():
        (tmp_path / "p" / f"{name}.py").write_text(text + "\n", encoding="utf-8")
    graph = import_graph(sorted(tmp_path.glob("p/*.py")), tmp_path)
    assert graph["p.d"] == {"p.c"}
    assert circles(graph) == [("p.a", "p.b", "p.c")]
    assert circles(import_graph(sorted(tmp_path.glob("p/*.py")), tmp_path, types=False)) == []


def test_modules_are_short() -> None:
    lengths = {module_name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in sources()}
    assert {module: n for module, n in lengths.items() if n > 400} == {}


def test_functions_are_simple() -> None:
    found = {
        f"{module_name(path)}.{name}".removeprefix("dfssd.")
        for path in [*sources(), *(ROOT / "scripts").glob("*.py")]
        for name, function in functions(tree(path))
        if complexity(function) > 20
    }
    assert found - BRANCHY == set(), "above 20"
    assert BRANCHY - found == set(), "no longer above 20: take them out of BRANCHY"


def test_complexity_by_hand() -> None:
    code = """
def plain(x):
    return x

def branchy(x):
    assert x
    for a in x:
        if a and (a > 1 or a < 0):
            pass
        elif a:
            pass
    try:
        return [y if y else 0 for y in x if y]
    except ValueError:
        return lambda z: z or 1

class Box:
    def method(self):
        def inner():
            while True:
                pass
"""
    found = {name: complexity(function) for name, function in functions(ast.parse(code))}
    assert found == {"plain": 1, "branchy": 1 + 1 + 1 + 1 + 2 + 1 + 1 + 2 + 1 + 1, "Box.method": 2}


@pytest.mark.parametrize("pattern", PURE)
def test_pure_leaves_never_import_ultralytics(pattern: str) -> None:
    files = sorted(PACKAGE.glob(pattern))
    assert files, f"no file matches {pattern}"
    for path in files:
        assert not any(name.split(".")[0] == "ultralytics" for name in imported(path)), path


def test_the_package_never_imports_its_scripts() -> None:
    for path in sources():
        assert not any(name.split(".")[0] in {"scripts", "train", "tests"} for name in imported(path)), path


def test_ultralytics_is_subclassed_only_at_the_seams() -> None:
    allowed = {
        "trainers/shared.py",
        "trainers/stage.py",
        "trainers/validator.py",
        "distillation/pair.py",
        "pretraining/images.py",
        "pretraining/model.py",
        "trainers/mixed_data.py",
        "segmentation/dataset.py",
        "segmentation/model.py",
        "segmentation/trainer.py",
        "segmentation/validator.py",
        "detection/recording.py",
    }
    for path in sources():
        bases = set()
        modules = {}
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ultralytics"):
                modules.update({alias.asname or alias.name: node.module for alias in node.names})
            if isinstance(node, ast.ClassDef):
                bases |= {b.id for b in node.bases if isinstance(b, ast.Name)}
        if bases & set(modules):
            assert path.relative_to(PACKAGE).as_posix() in allowed, path


def test_only_the_command_line_reads_argv() -> None:
    for path in sources():
        if path.name != "cli.py":
            assert "sys.argv" not in path.read_text(encoding="utf-8"), path


def test_no_private_paths_or_version_suffixes() -> None:
    for path in [*sources(), *ROOT.glob("*.md"), *(ROOT / "cfg").rglob("*.yaml"), *(ROOT / "scripts").glob("*.py")]:
        assert not re.search(r"(/home/|/root/|/work/|[A-Z]:\\\\)", path.read_text(encoding="utf-8")), path
        assert not re.search(r"_v\d+$", path.stem), path
