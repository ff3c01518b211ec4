"""Where the package finds its data files, and which commit it reports."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dfssd import resources
from dfssd.config import resolution
from dfssd.datasets import cards
from dfssd.runs.folder import git_commit

ROOT = Path(__file__).resolve().parents[1]


def repository(folder: Path, *files: str) -> str:
    """Make a repository in ``folder`` with a commit of these files; return the commit."""

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
        ).stdout

    git("init", "-q")
    git("add", "--", *files)
    git("commit", "-q", "-m", "first")
    return git("rev-parse", "HEAD").strip()


@pytest.fixture
def package(tmp_path: Path, monkeypatch) -> Path:
    """The folder of a package that is taken for ours; what lies around it is up to the test."""
    package = tmp_path / "tree" / "dfssd"
    package.mkdir(parents=True)
    monkeypatch.setattr(resources, "PACKAGE", package)
    monkeypatch.setattr(resources, "INSTALLED", package / "_resources")
    return package


def test_checkout_has_them_beside_the_package() -> None:
    assert resources.source_tree() == ROOT
    assert resolution.DEFAULT_PATH == ROOT / "cfg" / "default.yaml"
    assert resolution.RECIPES == ROOT / "cfg" / "recipes"
    assert cards.CARDS == ROOT / "data"


def test_installed_package_has_them_inside_and_looks_nowhere_else(package: Path) -> None:
    (package.parent / "pyproject.toml").touch()  # installed into the folder of a project
    (package.parent / "cfg").mkdir()
    assert resources.folder("cfg") == package.parent / "cfg"
    (package / "_resources").mkdir()
    assert resources.source_tree() is None
    assert resources.folder("cfg") == package / "_resources" / "cfg"


def test_commit_is_that_of_the_checkout_with_its_changes(package: Path) -> None:
    root = package.parent
    (root / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    (root / "benchmarks").mkdir()
    commit = repository(root, "pyproject.toml")
    (root / "benchmarks" / "table.csv").touch()
    assert git_commit() == commit
    (root / "pyproject.toml").write_text("[project]\nname = 'x'\n", encoding="utf-8")
    assert git_commit() == f"{commit}+changes"


def test_package_installed_inside_a_repository_has_no_commit(package: Path) -> None:
    """An environment inside another project: the commit of that project is not that of this package."""
    root = package.parent
    (root / "pyproject.toml").touch()
    commit = repository(root, "pyproject.toml")
    assert git_commit() == commit
    (package / "_resources").mkdir()
    assert git_commit() is None


def test_archive_unpacked_inside_a_repository_has_no_commit(package: Path) -> None:
    (package.parent / "pyproject.toml").touch()
    (package.parent.parent / "notes.txt").touch()
    repository(package.parent.parent, "notes.txt")
    assert git_commit() is None
