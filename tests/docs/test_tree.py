"""The files that the Markdown files name exist, and the source tree in CONTRIBUTING.md is that of the checkout."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.test_links import PAGES, ROOT

PACKAGE = ROOT / "dfssd"
EXAMPLES = {"dfssd/distillation/terms/at.py"}
"""Files that a page describes how to write."""


def named_files(text: str) -> list[str]:
    """Paths in the source tree that a page names; those with a placeholder or a choice are none."""
    return re.findall(r"`((?:dfssd|tests|scripts|cfg|docs|benchmarks)/[\w./+-]*)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_files_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # files of the past
        return
    named = set(named_files(page.read_text(encoding="utf-8"))) - EXAMPLES
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_a_file_that_is_gone_is_noticed() -> None:
    assert named_files("`dfssd/gone.py` `docs/` `tests/<x>.py` `dfssd/{a,b}.py`") == ["dfssd/gone.py", "docs/"]


def test_the_tree_of_contributing_is_that_of_the_checkout() -> None:
    block = re.search(r"^    dfssd/\n(?: {6,}.*\n)+", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M)
    assert block
    folder, named = "", set()
    for indent, name in re.findall(r"^( {6,8})(\S+)  ", block.group(), re.M):
        if len(indent) == 6:
            folder = name if name.endswith("/") else ""
        named.add(f"{folder if len(indent) == 8 else ''}{name}")
    assert [name for name in sorted(named) if not (PACKAGE / name).exists()] == []
    modules = {path.name for path in PACKAGE.glob("*.py")}
    rooms = {f"{path.parent.name}/" for path in PACKAGE.glob("*/*.py")}
    config = {f"config/{path.name}" for path in (PACKAGE / "config").glob("*.py")} - {"config/__init__.py"}
    assert sorted((modules | rooms | config) - named) == []
