"""The report in a real browser: nothing goes wrong in it, and it can be read on a screen and on a telephone.

Chromium is looked for on the path, or where ``DFSSD_CHROMIUM`` says.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from dfssd.detection.report import write_report as write_boxes
from dfssd.segmentation.report import write_report as write_masks
from tests.detection import recorded_run as boxes
from tests.segmentation import recorded_run as masks

BROWSER = os.environ.get("DFSSD_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.train,  # starts a process
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path: apt-get install chromium, or DFSSD_CHROMIUM"),
]
WIDTHS = (1280, 400)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run folders of both tasks, with their reports."""
    top = tmp_path_factory.mktemp("reports")
    write_boxes(boxes.write_run(top / "boxes", boxes.results()))
    write_masks(masks.write_run(top / "masks", masks.results()))
    return {task: top / task / "report.html" for task in ("boxes", "masks")}


def listen(page: Page, said: list[str], asked: list[str]) -> None:
    """Collect what is written to the console, and the addresses of what is loaded."""
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))


def test_report_opens_without_an_error_and_fits_the_screen(reports: dict[str, Path], tmp_path: Path) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        for task, file in reports.items():
            for width in WIDTHS:
                page = browser.new_page(viewport={"width": width, "height": 900})
                said: list[str] = []
                asked: list[str] = []
                listen(page, said, asked)
                page.goto(file.as_uri())
                page.wait_for_load_state()
                assert said == [], f"{task} at {width} px"
                assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{task}: {wide} px on a screen of {width} px"
                broken = "[...document.images].filter(i => i.loading !== 'lazy' && !i.naturalWidth).length"
                assert page.evaluate(broken) == 0
                size = page.evaluate("parseFloat(getComputedStyle(document.querySelector('td')).fontSize)")
                assert size >= 13, "small print"
                verdict = page.locator(".verdict").bounding_box()
                assert verdict is not None and verdict["y"] < 200, "the verdict is what one sees first"
                page.locator("nav a").last.click()
                assert page.url.endswith("#record") and page.locator("#record h2").is_visible()
                picture = tmp_path / f"{task}-{width}.png"
                page.screenshot(path=picture, full_page=True)
                assert picture.stat().st_size > 20_000
                page.close()
        browser.close()
