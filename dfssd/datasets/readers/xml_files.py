"""XML files: what kind they are, in whatever encoding they declare."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException, EntitiesForbidden
from defusedxml.ElementTree import fromstring

from dfssd.datasets.annotations import BrokenFile, Found, OtherFile
from dfssd.datasets.readers.cvat import read_cvat
from dfssd.datasets.readers.texts import unreadable
from dfssd.datasets.readers.voc import broken_voc, read_voc

_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_NO_ENCODINGS = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "utf-7"}
"""Codecs of Python that no file is written in; some take quadratic time."""

_NOT_READ = {"HRSC_Image": "HRSC2016", "sequence": "UA-DETRAC"}
"""Formats of labels by root element."""

_ROOT = re.compile(r"<([A-Za-z_][^\s/<>]*)")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def read_xml(file: Path) -> Found:
    """Read an .xml file: Pascal VOC, CVAT for images, or another one.

    Args:
        file: The file.

    Returns:
        A label file of format "voc" or "cvat"; a broken file if the tracks of a video, labels of a format that is not
        read, or damaged ones of CVAT are in it; any other XML is another file. A damaged file of Pascal VOC concerns
        one image and is a label file with a problem.
    """
    try:
        content = file.read_bytes()
    except OSError as e:
        return BrokenFile(file, unreadable(e))
    try:
        text = _decoded(content)
    except ValueError as e:
        return _damaged(file, content.decode("latin-1"), str(e))
    try:
        root: Element = fromstring(text)
    except EntitiesForbidden as e:
        return _damaged(file, text, f"declares the entity '{e.name}', which labels do not need; remove the declaration")
    except DefusedXmlException:
        return _damaged(file, text, "refers to other files, which labels do not need; remove the reference")
    except (ParseError, ValueError, RecursionError) as e:
        return _damaged(file, text, f"is not valid XML ({str(e).rstrip('.')}); restore it, or export it again")
    if root.tag == "annotation":
        return read_voc(file, root)
    if root.tag == "annotations":
        return read_cvat(file, root)
    if root.find("images/image/box") is not None:
        return BrokenFile(file, "holds labels of dlib's imglab, which are not read; convert them to COCO, VOC or YOLO")
    return _of_root(file, root.tag)


def _decoded(content: bytes) -> str:
    """The text of an XML file by its byte-order mark, else by the encoding it declares, else as UTF-8.

    The parser would do so as well, but not for encodings with several bytes per character, such as GBK.

    Raises:
        ValueError: It is not in that encoding.
    """
    marked = next((name for mark, name in _MARKS.items() if content.startswith(mark)), None)
    declared = _DECLARED.match(content[:1000])
    encoding = marked or (declared[1].decode().lower() if declared else "utf-8")
    try:
        name = codecs.lookup(encoding).name
        if name in _NO_ENCODINGS:
            raise LookupError(name)
        if marked is None and name.startswith(("utf-16", "utf-32")):
            name = "utf-8"  # the declaration itself could not be read byte by byte if it were true
        # Files that say GB2312 or GBK often hold characters of its successor.
        return content.decode("gb18030" if name in {"gb2312", "gbk"} else name)
    except (UnicodeError, LookupError) as e:
        if marked is None and declared:
            raise ValueError(f"is not in the encoding that it declares ({encoding}); save it as UTF-8") from e
        raise ValueError("is not UTF-8 and declares no other encoding; save it as UTF-8") from e


def _damaged(file: Path, text: str, problem: str) -> Found:
    """What a file is that cannot be parsed, by the first element in it."""
    root = _ROOT.search(_COMMENT.sub("", text[:10_000]))
    empty = not text.strip("\ufeff\0 \t\r\n")
    if root is None or root[1] == "annotation":
        return broken_voc(file, "is empty; restore it, or export it again" if empty else problem)
    if root[1] == "annotations":
        return BrokenFile(file, problem)
    return _of_root(file, root[1])


def _of_root(file: Path, tag: str) -> BrokenFile | OtherFile:
    """What a file with another root element than those of VOC and CVAT is."""
    if name := _NOT_READ.get(tag):
        return BrokenFile(file, f"holds labels of {name}, which are not read; convert them to COCO, VOC or YOLO")
    return OtherFile(file, f"XML of another kind (<{tag.rpartition('}')[2][:40]}>)")
