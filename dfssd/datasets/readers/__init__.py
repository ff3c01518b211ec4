"""Readers of the files beside images: each turns one file into what it is (:mod:`dfssd.datasets.annotations`)."""

from __future__ import annotations

from pathlib import Path

from dfssd.datasets.annotations import Found, OtherFile
from dfssd.datasets.readers.csv_files import read_csv
from dfssd.datasets.readers.json_files import read_json
from dfssd.datasets.readers.text_files import read_text
from dfssd.datasets.readers.xml_files import read_xml

TEXT_SUFFIXES = frozenset({".txt", ".names", ".labels", ".data", ".lst"})

READERS = {".json": read_json, ".xml": read_xml, ".csv": read_csv, ".tsv": read_csv}
"""Reader of other suffixes, in lower case."""


def is_read(suffix: str) -> bool:
    """Whether files with a suffix (in lower case) may hold labels, class names or splits."""
    return suffix in TEXT_SUFFIXES or suffix in READERS


def read_file(file: Path, keypoints: tuple[int, int] | None = None) -> Found:
    """What a file is; any content is answered, and nothing is raised.

    Args:
        file: The file.
        keypoints: ``kpt_shape`` of the data set, if its YOLO labels are those of a pose set.
    """
    suffix = file.suffix.lower()
    if suffix in TEXT_SUFFIXES:
        return read_text(file, keypoints)
    if reader := READERS.get(suffix):
        return reader(file)
    return OtherFile(file, f"a file of another kind ({file.suffix or 'without suffix'})")
