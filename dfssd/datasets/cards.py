"""Data set cards (``data/*.yaml``): what is known about a public data set, without its images."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dfssd import resources
from dfssd.datasets.class_names import yaml_names
from dfssd.datasets.records import check_names
from dfssd.files import read_yaml

CARDS = resources.folder("data")


@dataclass(frozen=True)
class Card:
    """One card.

    Attributes:
        name: Name for ``data=``.
        file: File name of the release.
        names: Class names in id order.
        homepage: Where a person finds the data set.
        license: Short name of the license, or "none stated".
        record: URL of the Zenodo record (JSON) that lists the files of the release, or None.
        url: Address of the file itself, or None.
    """

    name: str
    file: str
    names: tuple[str, ...]
    homepage: str
    license: str
    record: str | None
    url: str | None = None


def is_card(content: Any) -> bool:
    """Whether a parsed YAML file is a card and not a data set description of Ultralytics."""
    return isinstance(content, dict) and "homepage" in content and "train" not in content


def read_card(path: Path) -> Card:
    """The card at ``path``."""
    content = read_yaml(path)
    return Card(
        name=path.stem,
        file=content["file"],
        names=check_names(content["names"], path),
        homepage=content["homepage"],
        license=content["license"],
        record=(content["download"] or {}).get("record"),
    )


def find_card(name: str) -> Card | None:
    """The card called ``name``, or whose release file has that name (letter case and suffix ignored)."""
    for path in sorted(CARDS.glob("*.yaml")):
        card = read_card(path)
        if Path(name).name.casefold() in {card.name.casefold(), card.file.casefold(), f"{card.name}.zip".casefold()}:
            return card
    return None


def ultralytics_card(name: str) -> Card | None:
    """The card of a data set inside Ultralytics (``coco8.yaml``), found without importing it; None if it has none.

    Its ``url`` is None where a script of Ultralytics prepares the data set.

    Args:
        name: Name of the YAML file, or of the zip file that it downloads.
    """
    path = ultralytics_cards() / f"{Path(name).stem}.yaml"
    if not path.is_file():
        return None
    content = read_yaml(path)
    url = str(content.get("download") or "").strip()
    plain = url.startswith("http") and url.endswith(".zip") and len(url.split()) == 1
    return Card(
        name=path.stem,
        file=url.rpartition("/")[2] if plain else f"{path.stem}.zip",
        names=yaml_names(content, path),
        homepage=f"https://docs.ultralytics.com/datasets, data set {path.stem}",
        license="see the page",
        record=None,
        url=url if plain else None,
    )


def ultralytics_cards() -> Path:
    """The folder with Ultralytics' own data set YAML files."""
    found = find_spec("ultralytics")
    return Path(found.origin if found and found.origin else "").parent / "cfg" / "datasets"


def nearest_card(name: str) -> str | None:
    """The card name closest to ``name``, for a suggestion."""
    known = {path.stem.casefold(): path.stem for path in CARDS.glob("*.yaml")}
    close = difflib.get_close_matches(name.casefold(), known, n=1)
    return known[close[0]] if close else None
