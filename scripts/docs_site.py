"""Build the documentation as a site: ``python scripts/docs_site.py [FOLDER]``.

The pages are the Markdown files of the checkout, which are read on a code host as well: the site has the same folders,
and so the links between them hold in both. What only a code host needs is left out: the line of links above a page and
the list of its headings, both of which the site has in its margins. The recorded report of ``docs/example`` becomes the
HTML file that a run writes.

The site is written to ``FOLDER/site`` (``build/docs/site``). A link that leads nowhere, be it to a page, a heading, a
picture, or any other file, fails the build (exit code 1), and so does anything that a reader's browser would load from
elsewhere.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CONFIG = "zensical.toml"
PAGES = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/**/*.md")
EXAMPLE = "docs/example/report.md"
"""A recorded report, which the site shows as the page that a run writes."""

LINK = re.compile(r"\]\(([^)\s]+)\)")
LINE_OF_LINKS = re.compile(r"\A\[README\]\(.*?(?=^# )", re.M | re.S)
LIST_OF_HEADINGS = re.compile(r"(^# .+\n\n)(?:- \[.+\]\(#.+\n(?: +.+\n)*)+\n", re.M)
LOADED = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src")}
"""What a browser loads without being asked."""

COLOR = re.compile(r"\x1b\[[0-9;]*m")
FROM_ELSEWHERE = re.compile(r"""(?:@import\s+|url\(\s*)["']?((?:https?:)?//[^"')\s]+)""")


def main(argv: list[str]) -> int:
    """Build the site, print what is wrong with it, and return the exit code."""
    if len(argv) > 1 or argv[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 2 if len(argv) > 1 else 0
    if sys.version_info < (3, 11) and importlib.util.find_spec("zensical") is None:
        print("the site is not built: Zensical needs Python 3.11 or newer")
        return 0
    folder = Path(argv[0]) if argv else ROOT / "build" / "docs"
    try:
        collect(ROOT, folder)
    except FileExistsError as e:
        print(e)
        return 2
    problems = build(folder)
    for problem in problems:
        print(problem)
    print(
        f"{folder / 'site' / 'index.html'}: {f'{len(problems)} problems' if problems else 'all links lead somewhere'}"
    )
    return 1 if problems else 0


def collect(checkout: Path, folder: Path) -> None:
    """Put the pages of ``checkout``, the files that they link to, and the configuration into a new ``folder``.

    Raises:
        FileExistsError: The folder holds something else.
    """
    from dfssd.reporting.html import page

    ours = (folder / CONFIG).is_file() and (folder / "pages").is_dir()
    if folder.exists() and not ours and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder} holds something else: give a folder of its own")
    shutil.rmtree(folder, ignore_errors=True)
    for file in sorted({file for pattern in PAGES for file in checkout.glob(pattern)}):
        text = file.read_text(encoding="utf-8")
        place = folder / "pages" / file.relative_to(checkout)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file == checkout / EXAMPLE:  # a file of its own, with its pictures in it
            place.with_suffix(".html").write_text(page(text, file.parent), encoding="utf-8")
            continue
        place.write_text(page_of_the_site(text), encoding="utf-8")
        for linked in linked_files(text, file.parent):
            place = folder / "pages" / linked.relative_to(checkout)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(linked, place)
    shutil.copyfile(checkout / CONFIG, folder / CONFIG)


def linked_files(text: str, folder: Path) -> Iterator[Path]:
    """The files beside pages that a text in ``folder`` links to or shows."""
    for link in LINK.findall(text):
        file = (folder / link.partition("#")[0]).resolve()
        if file.suffix != ".md" and not urlsplit(link).scheme and file.is_file():
            yield file


def page_of_the_site(text: str) -> str:
    """A page without what the site has in its margins, and with the report in the form of the site."""
    text = LIST_OF_HEADINGS.sub(r"\1", LINE_OF_LINKS.sub("", text), count=1)
    return text.replace("example/report.md)", "example/report.html)")


def build(folder: Path) -> list[str]:
    """Build the site of a folder that :func:`collect` has filled; what is wrong with it."""
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        warnings, _, fault = COLOR.sub("", f"{done.stdout}{done.stderr}").partition("Traceback (most recent call last)")
        return [warnings.strip() or fault.strip()]
    return list(faults(folder / "site"))


@dataclass
class Page(HTMLParser):
    """What a page of the site links to, and where it can be linked to.

    Attributes:
        anchors: Its anchors.
        links: Addresses, each with whether a browser loads it by itself.
    """

    anchors: set[str] = field(default_factory=set)
    links: list[tuple[str, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take up the anchors and the addresses of a tag."""
        for name, value in attrs:
            if name == "id" or (tag, name) == ("a", "name"):
                self.anchors.add(value or "")
            elif name in ("href", "src") and value:
                self.links.append((value, (tag, name) in LOADED))


def faults(site: Path) -> Iterator[str]:
    """Links of a built site that lead nowhere, and what would be loaded from elsewhere; a line for each."""
    site = site.resolve()
    pages = {}
    for file in sorted(site.rglob("*.html")):
        pages[file] = Page()
        pages[file].feed(file.read_text(encoding="utf-8"))
    for file, page in pages.items():
        name = file.relative_to(site)
        for link, loaded in page.links:
            parts = urlsplit(link)
            if parts.scheme == "data" or (parts.scheme and not loaded):
                continue
            if parts.scheme or parts.netloc:
                yield f"{name}: loads {link}"
                continue
            base = site if parts.path.startswith("/") else file.parent
            target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else file
            if target.is_dir():
                target /= "index.html"
            if not target.is_relative_to(site) or not target.is_file():
                yield f"{name}: {link} leads nowhere"
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                yield f"{name}: {link} has no such heading"
    for file in sorted(site.rglob("*.css")):
        for address in FROM_ELSEWHERE.findall(file.read_text(encoding="utf-8")):
            yield f"{file.relative_to(site)}: loads {address}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
