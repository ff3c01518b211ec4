"""The import rules that keep the house in order."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dfssd"
PURE = [
    "config.py",
    "rules.py",
    "errors.py",
    "files.py",
    "report.py",
    "evaluation/bootstrap.py",
    "self_training.py",
    "distillation/outputs.py",
    "distillation/schedules.py",
    "distillation/terms/*.py",
    "pseudo_labels/thresholds.py",
    "pseudo_labels/quality.py",
    "pseudo_labels/fusion.py",
    "pseudo_labels/meter.py",
    "trainers/guard.py",
    "datasets/duplicates.py",
    "datasets/splits.py",
    "datasets/records.py",
    "segmentation/network.py",
    "segmentation/losses.py",
    "segmentation/boundary.py",
    "datasets/twins.py",
    "segmentation/metrics.py",
    "segmentation/views.py",
    "segmentation/report.py",
    "segmentation/verdict.py",
    "segmentation/pictures.py",
    "segmentation/rows.py",
]


def imports(path: Path) -> set[str]:
    """Top-level modules that a file imports, anywhere in it, with the dotted rest."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("pattern", PURE)
def test_pure_leaves_never_import_ultralytics(pattern: str) -> None:
    files = sorted(PACKAGE.glob(pattern))
    assert files, f"no file matches {pattern}"
    for path in files:
        assert not any(name.split(".")[0] == "ultralytics" for name in imports(path)), path


def test_the_package_never_imports_its_scripts() -> None:
    for path in sources():
        assert not any(name.split(".")[0] in {"scripts", "train", "tests"} for name in imports(path)), path


def test_ultralytics_is_subclassed_only_at_the_seams() -> None:
    allowed = {
        "trainers/stage.py",
        "distillation/pair.py",
        "datasets/semi.py",
        "segmentation/dataset.py",
        "segmentation/model.py",
        "segmentation/trainer.py",
        "segmentation/validator.py",
    }
    for path in sources():
        bases = set()
        modules = {}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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
