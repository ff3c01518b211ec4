"""Keep the tables of docs/commands equal to what the commands take: ``python scripts/command_pages.py [--write]``.

A table stands between a mark and ``<!-- end -->``: ``<!-- options of predict -->``,
``<!-- options of review export -->``, ``<!-- keys of a run -->`` (a table for each group), or ``<!-- commands -->``
(all of them, each with a link to its page).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dfssd.commands import COMMANDS  # noqa: E402
from dfssd.commands import check as check_command  # noqa: E402
from dfssd.commands.options import Option, Usage, shown  # noqa: E402
from dfssd.commands.review import PARTS  # noqa: E402
from dfssd.commands.train import DescribedKey, RecipeDefaults, key_groups  # noqa: E402
from dfssd.config.values import allowed  # noqa: E402
from dfssd.files import write_text  # noqa: E402
from dfssd.reporting.tables import markdown_table  # noqa: E402

FOLDER = ROOT / "docs" / "commands"
TABLE = re.compile(r"(<!-- (commands|keys of a run|options of ([\w ]+)) -->\n).*?(<!-- end -->)", re.DOTALL)
HEADER = ("key", "default", "values", "meaning")


def usages() -> Mapping[str, Usage]:
    """The options of each command that has some of its own, or of each of its parts."""
    found = {name: import_module(command.module) for name, command in COMMANDS.items()}
    own = {name: module.USAGE for name, module in found.items() if hasattr(module, "USAGE")}
    own |= {f"review {name}": part.usage for name, part in PARTS.items()}
    return own | {"check": Usage((check_command.OUT,))}


def prose(text: str) -> str:
    """A text of the help as Markdown shows it: without marks that would become something else."""
    return re.sub(r"([*_`])", r"\\\1", text.replace(" | ", ", ").replace("<", "&lt;"))


def option_rows(usage: Usage) -> Iterable[Sequence[str]]:
    """A row for each option."""

    def meaning(option: Option) -> str:
        bare = "; may be written without its name" if option.name in usage.positional else ""
        return prose(option.meaning) + bare

    for option in usage.options:
        default = "" if option.required else f"`{shown(option.default)}`"
        yield f"`{option.name}`", default, prose(allowed(option.check)), meaning(option)


def options_table(name: str) -> list[str]:
    """What a command takes."""
    return markdown_table(HEADER, list(option_rows(usages()[name])))


def keys_tables() -> list[str]:
    """The keys of a run, a heading and a table for each group."""
    lines: list[str] = []

    def default(key: DescribedKey) -> str:
        return f"`{key.default}`" + (f" ({prose(key.origin)})" if key.origin else "")

    for group, keys in key_groups(RecipeDefaults.of()):
        rows = [(f"`{key.name}`", default(key), prose(key.allowed), prose(key.meaning)) for key in keys]
        lines += ["", f"### {prose(group[0].upper() + group[1:])}", "", *markdown_table(HEADER, rows)]
    return [*lines, ""]


def commands_table() -> list[str]:
    """All commands, each with a link to its page."""
    rows = [(f"[`dfssd {name}`]({name}.md)", prose(command.summary)) for name, command in COMMANDS.items()]
    return markdown_table(("command", "what it does"), rows)


def with_tables(text: str) -> str:
    """A page with its tables regenerated."""

    def regenerated(found: re.Match[str]) -> str:
        mark, kind, name, end = found.groups()
        tables: Mapping[str, Callable[[], list[str]]] = {"commands": commands_table, "keys of a run": keys_tables}
        return "\n".join([mark.rstrip("\n"), *(options_table(name) if name else tables[kind]()), end])

    return TABLE.sub(regenerated, text)


def problem(page: Path, write: bool) -> str | None:
    """Write a page, or compare it with what it would be; what is wrong with it."""
    if not page.is_file():
        return "is missing: every command has a page, with what it has printed"
    text = page.read_text(encoding="utf-8")
    new = with_tables(text)
    if write:
        write_text(page, new)
    return None if write or new == text else "is not up to date; run python scripts/command_pages.py --write"


def main(argv: list[str]) -> int:
    """Check the pages, or write them; the exit code."""
    pages = [FOLDER / "README.md", *(FOLDER / f"{name}.md" for name in COMMANDS)]
    problems = [(page, found) for page in pages if (found := problem(page, "--write" in argv))]
    for page, found in problems:
        print(f"error: {page.relative_to(ROOT).as_posix()} {found}", file=sys.stderr)
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
