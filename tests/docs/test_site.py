"""The documentation as a site: it is built, all its links lead somewhere, and a reader's browser asks no other host."""

from __future__ import annotations

import functools
import os
import re
import runpy
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.docs.test_links import PAGES, ROOT

BROWSER = os.environ.get("DFSSD_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "docs_site.py"))
WITH_ZENSICAL = pytest.mark.skipif(sys.version_info < (3, 11), reason="Zensical needs Python 3.11 or newer")

PNG = bytes.fromhex("89504e470d0a1a0a")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of this checkout, which has no problems."""
    folder = tmp_path_factory.mktemp("docs")
    SCRIPT["collect"](ROOT, folder)
    assert SCRIPT["build"](folder) == []
    return folder / "site"


@WITH_ZENSICAL
@pytest.mark.train
def test_every_page_is_on_the_site_and_can_be_reached_from_the_margin(site: Path) -> None:
    first = (site / "index.html").read_text(encoding="utf-8")
    for page in PAGES:
        place = page.relative_to(ROOT).with_suffix(".html")
        place = place.with_name("index.html") if place.stem == "README" else place
        assert (site / place).is_file(), place
        if place.parts[0] == "docs":
            assert f'href="./{place.as_posix()}"' in first, f"{place} is not in nav of zensical.toml"


@WITH_ZENSICAL
@pytest.mark.train
def test_example_is_the_page_that_a_run_writes(site: Path) -> None:
    page = (site / "docs" / "example" / "report.html").read_text(encoding="utf-8")
    assert "<footer>Written by dfssd" in page and page.count('src="data:image/') > 10
    assert 'href="./docs/example/report.html"' in (site / "index.html").read_text(encoding="utf-8")


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where a server on this machine shows the site."""
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@WITH_ZENSICAL
@pytest.mark.train
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path: apt-get install chromium, or DFSSD_CHROMIUM")
def test_pages_open_in_a_browser_and_the_search_finds_a_key(address: str) -> None:
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    asked: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        for width in (1280, 400):
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.on("console", lambda message: said.append(message.text))
            page.on("pageerror", lambda error: said.append(str(error)))
            page.on("request", lambda request: asked.append(request.url))
            for name in ("index.html", "docs/commands/predict.html", "docs/data.html", "docs/example/report.html"):
                page.goto(address + name)
                page.wait_for_load_state("networkidle")
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{name}: {wide} px on a screen of {width} px"
            page.goto(f"{address}index.html")
        page = browser.new_page()
        page.goto(f"{address}index.html")
        page.wait_for_load_state("networkidle")
        page.keyboard.press("/")
        page.keyboard.type("false_alarms")
        page.get_by_text("How many bad parts get through").first.wait_for(timeout=10_000)
        browser.close()
    assert said == []
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small checkout with a page beside the README."""
    top = tmp_path / "checkout"
    (top / "docs").mkdir(parents=True)
    (top / "docs" / "more.md").write_text("[README](../README.md) · **More**\n\n# More\n\n- [Part](#part)\n\n## Part\n")
    (top / "docs" / "table.csv").write_text("a\n1\n")
    (top / "docs" / "dot.png").write_bytes(PNG)
    nav = '[{ "Start" = "README.md" }, { "More" = "docs/more.md" }]'
    theme = "[project.theme]\nfont = false\n"
    (top / "zensical.toml").write_text(
        f'[project]\nsite_name = "x"\ndocs_dir = "pages"\nuse_directory_urls = false\nnav = {nav}\n{theme}'
    )
    return top


def problems(checkout: Path, text: str) -> list[str]:
    (checkout / "README.md").write_text(f"# Start\n\n{text}\n", encoding="utf-8")
    folder = checkout.parent / "built"
    SCRIPT["collect"](checkout, folder)
    return SCRIPT["build"](folder)


@WITH_ZENSICAL
@pytest.mark.train
def test_good_links_pass_and_files_travel_with_the_pages_that_link_to_them(checkout: Path) -> None:
    good = "[a](docs/more.md#part) [b](docs/table.csv) ![c](docs/dot.png) [d](https://example.com) [e](#start)"
    assert problems(checkout, good) == []
    assert (checkout.parent / "built" / "site" / "docs" / "table.csv").read_text() == "a\n1\n"
    more = (checkout.parent / "built" / "site" / "docs" / "more.html").read_text(encoding="utf-8")
    assert "README" not in more and more.count("#part") == more.count('href="#part"') > 0


@WITH_ZENSICAL
@pytest.mark.train
def test_pages_and_headings_that_are_not_there_are_named(checkout: Path) -> None:
    [said] = problems(checkout, "[a](docs/none.md)\n\n[b](docs/more.md#none)")
    assert re.search(r"page does not exist\n.*README\.md:3", said)
    assert re.search(r"anchor does not exist\n.*README\.md:5", said)


@WITH_ZENSICAL
@pytest.mark.train
def test_files_that_are_not_there_and_loads_from_elsewhere_are_named(checkout: Path) -> None:
    config = checkout / "zensical.toml"
    config.write_text(config.read_text().replace('"docs/more.md"', '"docs/gone.md"'))
    text = """[a](docs/none.csv) ![b](docs/none.png) ![c](https://example.com/c.png) <a href="docs/more.html#none">d</a>

<script src="//example.com/e.js"></script>"""
    said = problems(checkout, text)
    assert {line.removeprefix("index.html: ") for line in said if line.startswith("index.html")} == {
        "docs/none.csv leads nowhere",
        "docs/none.png leads nowhere",
        "loads https://example.com/c.png",
        "docs/more.html#none has no such heading",
        "loads //example.com/e.js",
        "./docs/gone.md leads nowhere",
    }


def test_styles_that_load_from_elsewhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text('@import "https://example.com/a.css"; b { src: url(//example.com/b) url(c.png) }')
    assert list(SCRIPT["faults"](tmp_path)) == [
        "a.css: loads https://example.com/a.css",
        "a.css: loads //example.com/b",
    ]


def test_a_folder_with_other_things_in_it_is_left_alone(checkout: Path) -> None:
    mine = checkout.parent / "site" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else"):
        SCRIPT["collect"](checkout, mine.parent)
    assert mine.read_text() == "mine"
