"""``report.html``: the report as one file that any browser opens, without a network and without anything beside it."""

from __future__ import annotations

import base64
import mimetypes
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup

from dfssd import __version__
from dfssd.files import write_text

PAGE = "page.html.j2"
"""The template, beside this module."""


def write_page(text: str, folder: Path) -> None:
    """Write ``report.html`` into the folder of a run.

    Args:
        text: The report in Markdown: a title, a paragraph with the verdict, and sections with headings of level 2.
        folder: Folder of the run; pictures are read from it and become part of the page.

    Raises:
        UserError: The folder cannot be written to.
    """
    write_text(folder / "report.html", page(text, folder))


def page(text: str, folder: Path) -> str:
    """The page of a report; arguments as :func:`write_page`."""
    # raw HTML in the text, as a class name could hold, is shown as text
    markdown = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")
    tokens = markdown.parse(text)
    starts = [i for i, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h2"]
    top = tokens[: starts[0]] if starts else tokens
    ends = [*starts[1:], len(tokens)][: len(starts)]

    def render(part: Sequence[Token]) -> Markup:
        return Markup(markdown.renderer.render(part, markdown.options, {"folder": folder}))

    sections = []
    for start, end in zip(starts, ends, strict=True):
        title = tokens[start + 1].content
        name = re.sub(r"\W+", "-", title.lower()).strip("-")
        sections.append({"id": name, "title": title, "body": render(tokens[start + 3 : end])})
    environment = Environment(loader=PackageLoader("dfssd.reporting", "."), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(
        PAGE
    ).render(
        title=top[1].content,
        heading=top[1].content,
        verdict=render(top[3:6]),  # opening, text, and end of the first paragraph
        cautions=render(top[6:]),
        sections=sections,
        version=__version__,
    )


class _Renderer(RendererHTML):
    """Makes pictures part of the page, and lets wide tables scroll."""

    def image(self, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
        """A picture of the run folder as data; one that is not in it is left out, with its caption."""
        token = tokens[number]
        file = env["folder"] / str(token.attrs["src"])
        caption = Markup.escape(token.content)
        if not (file.is_file() and file.resolve().is_relative_to(env["folder"].resolve())):
            return f"<em>{caption}</em>"
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        data = base64.b64encode(file.read_bytes()).decode("ascii")
        return f'<img loading="lazy" alt="{caption}" title="{caption}" src="data:{kind};base64,{data}">'

    def table_open(self, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
        """A table in a box that scrolls."""
        return '<div class="table"><table>\n'

    def table_close(self, tokens: Sequence[Token], number: int, options: Any, env: Any) -> str:
        """The end of both."""
        return "</table></div>\n"
