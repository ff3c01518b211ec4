"""Keep the tables of docs/results.md equal to the record's types: ``python scripts/results_page.py [--write]``.

A table stands between ``<!-- fields of BoxData -->`` and ``<!-- end -->``. ``<!-- fields of MaskData beyond Data -->``
leaves out the fields of another type.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pydantic import BaseModel  # noqa: E402

from dfssd.files import write_text  # noqa: E402
from dfssd.reporting.tables import markdown_table  # noqa: E402
from dfssd.results import record, sections  # noqa: E402

PAGE = ROOT / "docs" / "results.md"
TABLE = re.compile(r"(<!-- fields of (\w+)(?: beyond (\w+))? -->\n).*?(<!-- end -->)", re.DOTALL)


def type_named(name: str) -> type[BaseModel]:
    """The type of a record or of a section."""
    found: type[BaseModel] = getattr(sections, name, None) or getattr(record, name)
    return found


def rows(of: type[BaseModel], beyond: type[BaseModel] | None = None) -> list[tuple[str, str]]:
    """Key, as it is written, and meaning of each field of ``of`` that ``beyond`` does not have."""
    known = beyond.model_fields if beyond else {}
    return [
        (f"`{field.alias or name}`", " ".join((field.description or "").split()))
        for name, field in of.model_fields.items()
        if name not in known
    ]


def with_tables(text: str) -> str:
    """The page with its tables regenerated."""

    def regenerated(found: re.Match[str]) -> str:
        head, of, beyond, end = found.groups()
        table = markdown_table(("key", "meaning"), rows(type_named(of), type_named(beyond) if beyond else None))
        return "\n".join([head.rstrip("\n"), *table, end])

    return TABLE.sub(regenerated, text)


def main(argv: list[str]) -> int:
    """Check the page, or write it; the exit code."""
    text = PAGE.read_text(encoding="utf-8")
    new = with_tables(text)
    if "--write" in argv:
        write_text(PAGE, new)
    elif new != text:
        print(f"error: {PAGE.name} is not up to date; run python scripts/results_page.py --write", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
