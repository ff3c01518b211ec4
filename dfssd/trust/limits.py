"""What a file may ask for: pixels, disk, and memory, beyond which it is refused before it gets them.

The limits hold for the process: readers of files are deep inside, and work in threads. Runs, and commands that read the
files of others, set them (:func:`set_limits`); whoever does not has those of ``cfg/default.yaml``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import yaml

from dfssd.resources import folder


@dataclass(frozen=True)
class Limits:
    """Section ``limits``: what a file may ask for.

    Attributes:
        megapixels: Pixels of an image [million].
        archive_gb: Size of all files in an archive, unpacked [GB].
        archive_ratio: That size as a multiple of the size of the archive, from a size of 100 MB on.
        yaml_nodes: Values in a YAML file, with each of its aliases written out.
        json_mb: Size of a JSON file [MB].
        json_depth: Lists and objects in one another in a JSON file.
    """

    megapixels: int
    archive_gb: float
    archive_ratio: float
    yaml_nodes: int
    json_mb: float
    json_depth: int


SMALL_ARCHIVE = 100_000_000
"""Unpacked size from which the ratio counts [bytes]: small texts are compressed by any factor."""

_set: Limits | None = None


def limits() -> Limits:
    """The limits of this process."""
    return _set or _usual()


def set_limits(given: Limits | None) -> None:
    """Set the limits of this process; None: the usual ones."""
    global _set
    _set = given


@cache
def _usual() -> Limits:
    tree = yaml.safe_load((folder("cfg") / "default.yaml").read_text(encoding="utf-8"))
    return Limits(**tree["limits"])


def pixels_problem(pixels: int, most: int | None = None) -> str | None:
    """Why an image with so many pixels is not read, where the caller may read at most ``most``; None if it is."""
    own = limits().megapixels * 1_000_000
    most = own if most is None else min(own, most)
    if pixels <= most:
        return None
    return f"{-(-pixels // 1_000_000)} million px are too many, at most {most // 1_000_000} are read"


def archive_problem(packed: int, unpacked: int) -> str | None:
    """Why an archive is not unpacked; None if it is.

    Args:
        packed: Size of the archive [bytes].
        unpacked: Size of all files in it [bytes].
    """
    most = limits()
    if unpacked > most.archive_gb * 1e9:
        return (
            f"would unpack to {unpacked / 1e9:.1f} GB, more than limits.archive_gb={most.archive_gb:g}; raise that, or "
            "unpack it and pass the folder"
        )
    if unpacked > SMALL_ARCHIVE and unpacked > most.archive_ratio * packed:
        return (
            f"would unpack to {unpacked / max(packed, 1):.0f} times its size, more than "
            f"limits.archive_ratio={most.archive_ratio:g}, which images never do; raise that if you know the file"
        )
    return None


def yaml_problem(root: yaml.Node | None) -> str | None:
    """Why a YAML file is not read, from its nodes, of which several places may share one; None if it is."""
    most, sizes = limits().yaml_nodes, dict[int, int]()
    waiting: list[tuple[yaml.Node, bool]] = [] if root is None else [(root, False)]
    while waiting:
        node, ready = waiting.pop()
        if id(node) in sizes and not ready:
            continue
        parts = _parts(node)
        if not ready:
            sizes[id(node)] = most + 1  # of a node that holds itself there is no end
            waiting.append((node, True))
            waiting += [(part, False) for part in parts]
        else:
            sizes[id(node)] = min(1 + sum(sizes[id(part)] for part in parts), most + 1)
    if root is None or sizes[id(root)] <= most:
        return None
    return f"its aliases make more than limits.yaml_nodes={most} values of it; write them out, or raise that"


def _parts(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')


def json_problem(data: bytes) -> str | None:
    """Why a JSON text is not read; None if it is."""
    most = limits()
    if len(data) > most.json_mb * 1e6:
        return f"has {len(data) / 1e6:.0f} MB, more than limits.json_mb={most.json_mb:g}"
    if data.count(b"[") + data.count(b"{") <= most.json_depth:
        return None
    import numpy as np  # late, for the commands that read no such file

    marks = np.frombuffer(_STRING.sub(b"", data), np.uint8)
    steps = np.isin(marks, (ord("["), ord("{"))).astype(np.int32) - np.isin(marks, (ord("]"), ord("}")))
    deepest = int(np.cumsum(steps, dtype=np.int32).max(initial=0))
    return None if deepest <= most.json_depth else f"is nested more than limits.json_depth={most.json_depth} deep"
