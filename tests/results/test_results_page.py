"""docs/results.md agrees with the types of the record: a table for each, or its keys where it is used."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from dfssd.results.record import RECORDS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
TABLES = set(re.findall(r"<!-- fields of (\w+)(?: beyond \w+)? -->", PAGE))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def reachable() -> dict[str, type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {}
    todo: list[type[BaseModel]] = list(RECORDS.values())
    while todo:
        model = todo.pop()
        if model.__name__ not in found:
            found[model.__name__] = model
            todo += [other for field in model.model_fields.values() for other in models_in(field.annotation)]
    return found


def check() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/results_page.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.train
def test_tables_are_those_of_the_types() -> None:
    done = check()
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(reachable()))
def test_every_field_has_a_description(name: str) -> None:
    for key, field in reachable()[name].model_fields.items():
        assert field.description and field.description.strip().endswith((".", "below.")), key


def test_every_type_has_a_table_or_is_described_where_it_is_used() -> None:
    models = reachable()
    assert set(models) >= TABLES - {"RunRecord"}
    for model in models.values():
        for key, field in model.model_fields.items():
            for part in models_in(field.annotation):
                keys = {name for name in part.model_fields if f"`{name}`" not in (field.description or "")}
                assert part.__name__ in TABLES or not keys, f"{model.__name__}.{key} does not name {keys}"


@pytest.mark.train
def test_page_out_of_date_is_found(tmp_path: Path) -> None:
    """Counterpart of the first test: with a row changed, the same command complains."""
    for folder in ("scripts", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "dfssd").symlink_to(ROOT / "dfssd")
    (tmp_path / "scripts" / "results_page.py").write_bytes((ROOT / "scripts" / "results_page.py").read_bytes())
    page = tmp_path / "docs" / "results.md"
    page.write_text(PAGE.replace("| `lr0` |", "| `lr1` |"), encoding="utf-8")
    command = [sys.executable, "scripts/results_page.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "results.md is not up to date" in done.stderr
    assert subprocess.run([*command, "--write"], cwd=tmp_path, check=False).returncode == 0
    assert page.read_text(encoding="utf-8") == PAGE
