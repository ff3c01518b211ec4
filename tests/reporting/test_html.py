"""The report as a page: its parts, its pictures, and what it must not do."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from dfssd.reporting.html import page, write_page

TEXT = """# parts: what the run found

**The student is better: 0.412 against 0.380.**

- This is one run.

## On the test images

| network | mAP50-95 |
| --- | --- |
| student | 0.412 |

![A chart](plots/a.png)

## How to use the files

```
yolo predict model=weights/student.pt conf=0.25
```

### A part

> **Caution.**
"""


class Reader(HTMLParser):
    """Collects tags with their attributes, and the text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br", "hr", "link", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plots").mkdir()
    Image.new("RGB", (4, 3), (9, 80, 200)).save(tmp_path / "plots" / "a.png")
    return tmp_path


def test_every_tag_is_closed_and_nothing_is_loaded_from_elsewhere(folder: Path) -> None:
    text = page(TEXT, folder)
    read = Reader(text)
    assert read.open == []
    for tag, attrs in read.tags:
        for name in ("src", "href"):
            value = attrs.get(name) or ""
            assert value.startswith(("data:", "#")) or not value, f"{tag} loads {value}"
    assert not read.all("script") and "url(" not in text and "@import" not in text
    assert [link["href"] for link in read.all("link")] == ["data:,"]  # no icon, for which a browser would ask a server


def test_verdict_comes_first_and_sections_can_be_reached(folder: Path) -> None:
    text = page(TEXT, folder)
    read = Reader(text)
    assert text.index("The student is better") < text.index("This is one run.") < text.index("<nav")
    targets = [attrs["id"] for attrs in read.all("section")]
    assert targets == ["on-the-test-images", "how-to-use-the-files"]
    assert [attrs["href"] for attrs in read.all("a")] == [f"#{target}" for target in targets]
    assert "<h3>A part</h3>" in text and "<blockquote>" in text
    assert len(re.findall(r'<div class="table"><table>', text)) == text.count("</table></div>") == 1


def test_pictures_become_part_of_the_page(folder: Path) -> None:
    [image] = Reader(page(TEXT, folder)).all("img")
    kind, data = (image["src"] or "").split(",", 1)
    assert kind == "data:image/png;base64" and image["alt"] == "A chart"
    assert base64.b64decode(data) == (folder / "plots" / "a.png").read_bytes()


def test_picture_that_is_gone_leaves_its_caption(folder: Path) -> None:
    (folder / "plots" / "a.png").unlink()
    read = Reader(page(TEXT, folder))
    assert not read.all("img") and "A chart" in read.text


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '"><b>x',
        "[a](javascript:alert(1))",
        "![x](http://a/b.png)",
    ],
)
def test_names_cannot_become_part_of_the_page(folder: Path, name: str) -> None:
    text = page(TEXT.replace("student |", f"{name} |").replace("One run", name), folder)
    read = Reader(text)
    assert read.open == [] and not read.all("script")
    for tag, attrs in read.tags:
        assert not any(key.startswith("on") for key in attrs), tag
        assert not any("javascript" in (value or "") for key, value in attrs.items() if key in {"href", "src"})
        assert not (attrs.get("src") or "").startswith("http")


def test_report_without_sections_is_a_page(folder: Path) -> None:
    read = Reader(page("# x: what the run found\n\n**Nothing yet.**\n", folder))
    assert read.open == [] and not read.all("section") and "Nothing yet." in read.text


def test_page_is_written_beside_the_report(folder: Path) -> None:
    write_page(TEXT, folder)
    assert (folder / "report.html").read_text(encoding="utf-8") == page(TEXT, folder)
