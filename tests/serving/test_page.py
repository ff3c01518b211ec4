"""The page in a real browser: a person drops a photo and sees the verdict and the boxes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect, sync_playwright

from dfssd.deployment.drawing import colors_of_classes
from tests.reporting.test_browser import BROWSER
from tests.reporting.test_browser import listen as listen_to
from tests.serving.networks import Bright, plate, served

pytestmark = [
    pytest.mark.train,  # starts a process
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on the path: apt-get install chromium, or DFSSD_CHROMIUM"),
]

DROP = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type: "image/png"}));
  const event = {dataTransfer: transfer, bubbles: true, cancelable: true};
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", event));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield running
        running.close()


def drop(page: Page, data: bytes, name: str) -> None:
    page.evaluate(DROP, [base64.b64encode(data).decode(), name])


def tiff() -> bytes:
    target = io.BytesIO()
    Image.open(io.BytesIO(plate((10, 5, 30, 20)))).save(target, "TIFF")
    return target.getvalue()


@pytest.mark.parametrize("width", [1280, 400])
def test_photo_is_dropped_and_its_boxes_are_seen(browser: Any, tmp_path: Path, width: int) -> None:
    with served(Bright(tmp_path)) as address:
        page = browser.new_page(viewport={"width": width, "height": 900})
        said: list[str] = []
        asked: list[str] = []
        listen_to(page, said, asked)
        page.goto(address)
        expect(page.locator("#model")).to_have_text("Network: bright.onnx. It finds: pit, stain.")

        drop(page, plate((15, 10, 45, 30)), "<b>part 7</b>.png")
        expect(page.locator("#word")).to_have_text("NG")
        expect(page.locator("#why")).to_have_text("1 defect found.")
        expect(page.locator("#photo")).to_have_attribute("alt", "<b>part 7</b>.png: 1 defect")
        box, photo = page.locator(".box").bounding_box(), page.locator("#photo").bounding_box()
        assert box is not None and photo is not None and photo["width"] > 0.5 * width
        scale = photo["width"] / 60
        places = [(box[side] - photo[side]) / scale for side in ("x", "y")]
        assert [*places, box["width"] / scale, box["height"] / scale] == pytest.approx([15, 10, 30, 20], abs=0.2)
        assert page.locator("#rows tr").all_inner_texts() == ["stain\t0.90\t15, 10\t30 \u00d7 20"]
        assert page.evaluate("parseFloat(getComputedStyle(document.getElementById('word')).fontSize)") > 40
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=tmp_path / f"page-{width}.png", full_page=True)

        (tmp_path / "good.png").write_bytes(plate())
        page.get_by_label("Choose a photo").set_input_files(tmp_path / "good.png")
        expect(page.locator("#word")).to_have_text("OK")
        assert page.locator(".box").count() == 0

        drop(page, b"no image", "a.png")
        expect(page.locator("#why")).to_have_text("cannot be decoded (it is not an image)")
        expect(page.locator("#found")).to_be_hidden()
        drop(page, bytes(200_000), "large.png")
        expect(page.locator("#why")).to_have_text("At most 0.1 MB are read.")
        assert all("422" in line for line in said), said
        assert {url.removeprefix(address) for url in asked if not url.startswith(("data:", "blob:"))} == {
            "/",
            "/health",
            "/predict",
        }
        page.close()


def test_image_that_no_browser_shows_is_drawn_by_the_server(browser: Any, tmp_path: Path) -> None:
    with served(Bright(tmp_path)) as address:
        page = browser.new_page()
        page.goto(address)
        drop(page, tiff(), "scan.tif")
        expect(page.locator("#word")).to_have_text("NG")
        assert page.evaluate("document.getElementById('photo').naturalWidth") == 60
        page.close()


def test_drawing_that_comes_late_does_not_replace_the_next_photo(browser: Any, tmp_path: Path) -> None:
    with served(Bright(tmp_path)) as address:
        page = browser.new_page()
        held: list[Route] = []

        def hold(route: Route) -> None:
            held.append(route)

        page.route("**/predict?annotated=true", hold)
        page.goto(address)
        with page.expect_request("**/predict?annotated=true"):
            drop(page, tiff(), "scan.tif")
        drop(page, plate(size=(80, 50)), "next.png")
        expect(page.locator("#word")).to_have_text("OK")
        with page.expect_response("**/predict?annotated=true") as drawn:
            held[0].continue_()
        drawn.value.finished()
        page.wait_for_timeout(300)
        assert page.evaluate("document.getElementById('photo').naturalWidth") == 80
        assert page.locator("#photo").get_attribute("alt") == "next.png: no defects"
        expect(page.locator("#word")).to_have_text("OK")
        page.close()


def test_verdict_stays_where_the_drawing_is_refused(browser: Any, tmp_path: Path) -> None:
    """The rate allows the verdict, and not the drawing after it."""
    with served(Bright(tmp_path), rate=1) as address:
        page = browser.new_page()
        page.goto(address)
        drop(page, tiff(), "scan.tif")
        expect(page.locator("#word")).to_have_text("NG")
        expect(page.locator("#why")).to_have_text("1 defect found. The photo cannot be shown here.")
        expect(page.locator("#stage")).to_be_hidden()
        assert page.locator("#rows tr").count() == 1
        page.close()


def test_page_works_by_keyboard_and_asks_for_the_token(browser: Any, tmp_path: Path) -> None:
    token = "a-token-of-20-letters"
    with served(Bright(tmp_path), token=token) as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#model")).to_have_text("Enter the token of this server first.")
        drop(page, plate(), "part.png")
        expect(page.locator("#why")).to_contain_text("this server wants its token")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "token"
        page.keyboard.type(token)
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_contain_text("It finds: pit, stain.")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "file"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        drop(page, plate(), "part.png")
        expect(page.locator("#word")).to_have_text("OK")
        assert page.locator("#verdict").get_attribute("role") == "status"
        page.close()


def luminance(color: tuple[int, ...]) -> float:
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (one / 255 for one in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_can_be_read_on_its_ground(browser: Any, tmp_path: Path) -> None:
    """By the contrast that WCAG asks for, AA: 4.5."""
    with served(Bright(tmp_path)) as address:
        page = browser.new_page()
        page.goto(address)
        for kind, data in (("NG", plate((10, 5, 30, 20))), ("OK", plate()), ("No verdict", b"nothing")):
            drop(page, data, "part.png")
            expect(page.locator("#word")).to_have_text(kind)
            for place in ("#why", "#model", "#limits", ".box span", "td"):
                for one in page.locator(place).all():
                    if one.is_visible():
                        pair = one.evaluate(COLORS)
                        light, dark = sorted((luminance(tuple(map(int, color))) for color in pair), reverse=True)
                        assert (light + 0.05) / (dark + 0.05) >= 4.5, (kind, place, pair)
        for color in {*colors_of_classes(7), *colors_of_classes(40)}:
            own = luminance(tuple(bytes.fromhex(color[1:])))
            dark = page.evaluate(f"darkOn('{color}')")
            assert (own + 0.05) / 0.05 >= 4.5 if dark else 1.05 / (own + 0.05) >= 4.5, color
        page.close()


COLORS = """(one) => {
  const numbers = (color) => color.match(/[0-9.]+/g).map(Number);
  const text = numbers(getComputedStyle(one).color).slice(0, 3);
  for (let at = one; at; at = at.parentElement) {
    const ground = numbers(getComputedStyle(at).backgroundColor);
    if (ground.length === 3) return [text, ground];
  }
  return [text, [255, 255, 255]];
}"""
