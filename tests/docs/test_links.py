"""Every relative link, picture, anchor, recipe and file that the Markdown files name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dfssd.distillation.terms import TERMS

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "benchmarks", "examples")
PAGES = sorted([*ROOT.glob("*.md"), *(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))])
PURPOSES = {
    "guide",
    "data",
    "method",
    "terms",
    "new-classes",
    "masks",
    "review",
    "report",
    "tracking",
    "trust",
    "scale",
    "speed",
    "deploy",
    "serve",
    "benchmarks",
    "results",
}


def prose(text: str) -> str:
    """``text`` without fenced and indented code blocks."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return re.sub(r"(?<=\n\n)(?: {4}.*\n+)+", "", text)


def anchors(text: str) -> set[str]:
    """The anchors of all headings, as GitHub makes them; a repeated heading gets a number."""
    found: dict[str, int] = {}
    out = set()
    for title in re.findall(r"^#{1,6} (.+?)\s*$", prose(text), re.M):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        out.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return out


def broken(text: str, page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    bad = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        readable = target.suffix == ".md" and target.is_file()
        known = anchors(text if target == page else target.read_text(encoding="utf-8")) if readable else set()
        if ROOT not in target.parents or not target.exists() or (anchor and anchor not in known):
            bad.append(link)
    return bad


def test_finds_the_pages() -> None:
    assert {path.stem for path in PAGES if path.parent == ROOT / "docs"} == PURPOSES
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "EXPERIMENTS.md"} <= {path.name for path in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page.read_text(encoding="utf-8"), page) == []


def test_a_dead_link_is_noticed() -> None:
    page = ROOT / "README.md"
    text = "# A b: `c`\n[x](#a-b-c) [x](docs/terms.md#weights) [x](https://nowhere.invalid/x)\n\n    [x](code.md)\n\n"
    assert broken(text, page) == []
    dead = ["docs/nothing.md", "#a-b", "docs/terms.md#nothing", "../README.md"]
    assert broken(text + " ".join(f"[x]({link})" for link in dead), page) == dead


@pytest.mark.parametrize("page", sorted(PURPOSES))
def test_pages_link_to_each_other(page: str) -> None:
    others = PURPOSES - {page}
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert {link for link in others if f"]({link}.md" in text.partition("\n# ")[0]} == others
    assert "](commands/README.md)" in text.partition("\n# ")[0]
    assert f"](docs/{page}.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_fits_on_a_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_counts_of_terms_are_right(page: Path) -> None:
    counts = re.findall(r"\b(\d+) (?:distillation )?terms\b", page.read_text(encoding="utf-8"))
    assert all(int(count) == len(TERMS) for count in counts), (page, counts, len(TERMS))


def test_named_recipes_are_those_there_are() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    table = guide.partition("| recipe | what it trains |\n")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[1:] for name in re.findall(r"`([\w-]+)`", row.split("|")[1])}
    assert named == {path.stem for path in (ROOT / "cfg" / "recipes").glob("*.yaml")}
    for page in PAGES:
        for name in re.findall(r"\brecipe=([a-z][\w-]*)", page.read_text(encoding="utf-8")):
            assert (ROOT / "cfg" / "recipes" / f"{name}.yaml").is_file(), (page, name)
