"""Keep the example report of the documentation: ``python scripts/example_report.py [RUN_FOLDER | --write]``.

With the folder of a finished detection run of ``data=demo``, its report becomes ``docs/example``: ``report.md`` with
its pictures, ``results.json``, and in ``files.json`` what else its words come from. Where there is Chromium, the two
pictures of its page in ``docs/images`` are taken anew. Other data is rejected: only
generated images may be published. Without arguments it checks that today's words around the recorded numbers are those
of ``report.md`` (exit code 2 if not); ``--write`` writes them. The HTML file is made with the site
(``scripts/docs_site.py``), so it always has today's template.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from PIL import Image  # noqa: E402

from dfssd.detection.examples import Example  # noqa: E402
from dfssd.detection.figures import draw  # noqa: E402
from dfssd.detection.report import words  # noqa: E402
from dfssd.detection.run_files import DetectionFiles  # noqa: E402
from dfssd.files import read_json, write_json, write_text  # noqa: E402
from dfssd.reporting.html import page  # noqa: E402
from dfssd.reporting.sections import Drawn  # noqa: E402
from dfssd.results.record import FILE, BoxRecord  # noqa: E402

FOLDER = ROOT / "docs" / "example"
IMAGES = ROOT / "docs" / "images"
FILES, REPORT = "files.json", "report.md"
NARROW, WIDE, COLORS = 360, 900, 64
"""Largest width of a photo and of a sheet of photos [px], and the colors of a chart: committed pictures are small."""

SCREENS = {"report-top.png": ("header", 700), "report.png": ("#what-the-student-finds-and-misses", 760)}
"""Picture in ``docs/images`` -> the part of the page where it begins, and how high it is [px]."""

WIDTH = 1280
"""Of a screenshot [px]."""

PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")


def main(argv: list[str]) -> int:
    """Run the command and return its exit code."""
    if len(argv) > 1 or argv[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 2 if len(argv) > 1 else 0
    if argv and argv != ["--write"]:
        run = Path(argv[0])
        data = BoxRecord.read(run / FILE).data
        if data is None or data.name != "demo":
            print(f"error: {run} is no run of data=demo", file=sys.stderr)
            return 2
        take(run)
    text = reworded()
    if argv:
        write_text(FOLDER / REPORT, text)
        if argv != ["--write"]:
            photograph(page(text, FOLDER))
        print(f"{FOLDER}: {sum(file.stat().st_size for file in FOLDER.rglob('*.*')) / 1e6:.2f} MB")
    elif text != (FOLDER / REPORT).read_text(encoding="utf-8"):
        print("error: docs/example is not up to date; run python scripts/example_report.py --write", file=sys.stderr)
        return 2
    return 0


def take(run: Path) -> None:
    """Make :data:`FOLDER` anew from the files of a run."""
    files = DetectionFiles.read(run)
    drawn = draw(files)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    shutil.copyfile(run / FILE, FOLDER / FILE)
    write_json(FOLDER / FILES, noted(run.resolve().name, files, drawn))
    for picture in PICTURE.findall(words(files, drawn)):
        place = FOLDER / picture
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = Image.open(run / picture).convert("RGB")
        if place.suffix == ".jpg":
            pixels.thumbnail((NARROW, NARROW))
            pixels.save(place, quality=75, optimize=True)
        elif place.stem == "gallery":
            pixels.thumbnail((WIDE, WIDE))
            pixels.save(place, optimize=True)
        else:
            pixels.quantize(COLORS).save(place, optimize=True)


def photograph(html: str) -> None:
    """Take the pictures of the page, in headless Chromium: on the path, or where ``DFSSD_CHROMIUM`` says."""
    chromium = os.environ.get("DFSSD_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("no Chromium on the path: docs/images keeps the pictures of the page")
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": WIDTH, "height": 900})
        view.set_content(html)
        view.evaluate("[...document.images].forEach(image => image.loading = 'eager')")
        view.wait_for_load_state("networkidle")
        for name, (start, height) in SCREENS.items():
            box = view.locator(start).bounding_box()
            top = box["y"] if box else 0
            shot = view.screenshot(full_page=True, clip={"x": 0, "y": top, "width": WIDTH, "height": height})
            Image.open(BytesIO(shot)).convert("RGB").quantize(256).save(IMAGES / name, optimize=True)
        browser.close()


def noted(name: str, files: DetectionFiles, drawn: Drawn) -> dict[str, Any]:
    """What the words of a report come from besides ``results.json``."""
    return {
        "name": name,
        "weights_mb": files.weights_mb,
        "imgsz": files.imgsz,
        "rule": files.predictions.get("rule"),
        "drawn": drawn,
        "examples": [
            {"kind": one.kind, "image": one.image.name, "said": one.said, "columns": list(one.marks)}
            for one in files.examples
        ],
    }


def reworded() -> str:
    """The report in today's words."""
    known = read_json(FOLDER / FILES)
    examples = (
        Example(one["kind"], Path(one["image"]), one["said"], dict.fromkeys(one["columns"], ()))
        for one in known["examples"]
    )
    files = DetectionFiles(
        Path(known["name"]),
        known["weights_mb"],
        BoxRecord.read(FOLDER / FILE),
        predictions={"rule": known["rule"]},
        imgsz=known["imgsz"],
        examples=tuple(examples),
    )
    return words(files, known["drawn"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
