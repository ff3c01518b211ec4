"""Readers of the files beside images: each turns one file into what it is (:mod:`dfssd.datasets.annotations`)."""

from __future__ import annotations

from pathlib import Path

from dfssd.datasets.annotations import Found, OtherFile
from dfssd.datasets.readers.csv_files import read_csv
from dfssd.datasets.readers.json_files import read_json
from dfssd.datasets.readers.text_files import read_text
from dfssd.datasets.readers.xml_files import read_xml

READERS = {
    ".json": read_json,
    ".xml": read_xml,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".txt": read_text,
    ".names": read_text,
    ".data": read_text,
}
"""Reader by suffix, in lower case."""


def read_file(file: Path) -> Found:
    """What a file is; any content is answered, and nothing is raised."""
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        return OtherFile(file, f"a file of another kind ({file.suffix or 'without suffix'})")
    return reader(file)
