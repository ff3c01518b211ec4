"""A grid YAML, read and checked: its runs, their order, and their arguments."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfssd.config import nearest
from dfssd.config.schema import SET_BY_GRID
from dfssd.errors import UserError
from dfssd.files import read_yaml

BASE, TEACHER, ORACLE = "baseline", "teacher", "oracle"
KEYS = ("common", "labeled", "seeds", "split", "cells", ORACLE)


@dataclass(frozen=True)
class Run:
    """One run of the grid.

    Attributes:
        cell: Name in the YAML, or ``oracle``.
        labeled: Share or number of labeled images.
        seed: Seed of split and training.
        values: Arguments for ``train.py``, except those that the grid sets.
        base: The run whose split, teacher and baseline are reused; None for that run itself and for the oracle.
        split: Folder of lists of the labeled images, instead of the share; for a run without ``base``.
    """

    cell: str
    labeled: float
    seed: int
    values: Mapping[str, Any] = field(compare=False)
    base: Run | None = None
    split: str | None = None

    @property
    def name(self) -> str:
        """Name of the run folder and of the log."""
        return f"{self.cell}-labeled{self.labeled}-seed{self.seed}"

    def __str__(self) -> str:
        return f"{self.cell}, labeled {self.labeled}, seed {self.seed}"

    def arguments(self, runs: Path) -> list[str]:
        """The arguments for ``train.py``, with the run folders in ``runs``."""
        values = dict(self.values)
        if self.base is None:
            values |= {"split": self.split} if self.split else {"labeled": self.labeled}
        else:
            base = (runs / self.base.name).as_posix()
            values.pop("limit", None)  # already applied in the split of the base run
            values |= {"teacher": f"{base}/weights/teacher.pt", "baseline": base, "split": f"{base}/splits"}
        values |= {"seed": self.seed, "project": runs.as_posix(), "name": self.name}
        return [f"{key}={text_of(value)}" for key, value in values.items()]


def text_of(value: Any) -> str:
    """A YAML value as it is typed on a command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return "[" + ",".join(text_of(v) for v in value) + "]" if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Grid:
    """A checked grid YAML, with the overrides of the command line: the runs in their order.

    All label shares of the first seed come first, so that an unfinished grid soon has one complete comparison.
    """

    path: Path
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        """Name of the tables and of the folder of the runs."""
        return self.path.stem

    @property
    def cells(self) -> list[str]:
        """Names of the cells in the order of the YAML."""
        return list(dict.fromkeys(run.cell for run in self.runs))

    @classmethod
    def read(cls, path: Path, given: Mapping[str, Any] | None = None) -> Grid:
        """Read a grid; ``given`` are arguments of the command line for all runs.

        Raises:
            UserError: Unknown key, invalid value, or no cell ``baseline``.
        """
        tree = read_yaml(path)
        cells = _read_cells(tree, path)
        common = {**_mapping(tree.get("common") or {}, path, "common"), **(given or {})}
        # the other cells reuse the self-trained teacher, the oracle needs none
        later = {key: value for key, value in common.items() if key != "teacher_rounds"}
        values = {name: {**(common if name == BASE else later), **cell} for name, cell in cells.items()}
        _check_fixed(common, "common or on the command line", path, SET_BY_GRID)
        _check_cells(cells, path)
        points = _points(tree, path)
        split, oracle = _read_split(tree, points, path), _read_oracle(tree, later, path)
        runs: list[Run] = []
        for seed in dict.fromkeys(seed for _, seeds in points for seed in seeds):
            for labeled in (labeled for labeled, seeds in points if seed in seeds):
                base = Run(BASE, labeled, seed, values[BASE], split=split)
                runs += [base, *(Run(n, labeled, seed, v, base) for n, v in values.items() if n != BASE)]
            if oracle:
                runs.append(Run(ORACLE, oracle["labeled"], seed, {k: v for k, v in oracle.items() if k != "labeled"}))
        return cls(path, tuple(runs))

    def select(self, only: str | None) -> list[Run]:
        """The runs of the cells named in ``only``, separated by commas, with the base runs that they need."""
        if only is None:
            return list(self.runs)
        names = [name.strip() for name in str(only).split(",") if name.strip()]
        for name in names:
            if name not in self.cells:
                raise UserError(f"only={name}: no such cell{_near(name, self.cells)}")
        needed = {run.base for run in self.runs if run.cell in names}
        return [run for run in self.runs if run.cell in names or run in needed]


def _near(key: object, known: Sequence[str]) -> str:
    """A suggestion for ``key``: the nearest known one, or all of them."""
    hint = nearest(str(key), known)
    return hint if "mean" in hint else f"; known: {', '.join(known)}"


def _read_cells(tree: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """The cells by name with their own arguments; checks the keys of the file."""
    for key in tree:
        if key not in KEYS:
            raise UserError(f"{path.name}: unknown key '{key}'{_near(key, KEYS)}")
    cells = _mapping(tree.get("cells"), path, "cells")
    if BASE not in cells:
        raise UserError(f"{path.name}: cells must contain '{BASE}', the run that trains teacher and baseline")
    if clash := [name for name in (TEACHER, ORACLE) if name in cells]:
        raise UserError(f"{path.name}: a cell cannot be called '{clash[0]}': that is another row of the table")
    return {name: _mapping(cell or {}, path, f"cells.{name}") for name, cell in cells.items()}


def _check_cells(cells: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Raise :class:`UserError` if a cell sets a key of the grid, or a teacher other than that of the base run."""
    for name, arguments in cells.items():
        _check_fixed(arguments, f"cells.{name}", path, SET_BY_GRID)
    for name, arguments in cells.items():
        if name != BASE and "teacher" in arguments:
            raise UserError(f"{path.name}: teacher cannot be set in cells.{name}: the cell reuses that of {BASE}")


def _check_fixed(arguments: Mapping[str, Any], where: str, path: Path, fixed: Collection[str]) -> None:
    """Raise :class:`UserError` if ``arguments`` contain a key that the grid sets itself."""
    if clash := sorted(set(fixed) & set(arguments)):
        raise UserError(f"{path.name}: {clash[0]} cannot be set in {where}: the grid sets it in each run")


def _read_split(tree: Mapping[str, Any], points: Sequence[tuple[float, list[int]]], path: Path) -> str | None:
    """The folder of lists that replaces the label share, if any."""
    split = tree.get("split")
    if split is None:
        return None
    if not isinstance(split, str) or len(points) != 1 or tree.get(ORACLE):
        raise UserError(f"{path.name}: split is one folder of lists: give one share in labeled, and no oracle")
    return split


def _read_oracle(tree: Mapping[str, Any], common: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """The arguments of the oracle with its label share, if there is an oracle."""
    if not tree.get(ORACLE):
        return None
    oracle = {**common, "labeled": 1.0, **_mapping(tree[ORACLE], path, ORACLE)}
    _check_fixed(oracle, ORACLE, path, SET_BY_GRID - {"labeled"})
    return oracle


def _mapping(value: Any, path: Path, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{path.name}: {where} must hold 'key: value' lines")
    return dict(value)


def _points(tree: Mapping[str, Any], path: Path) -> list[tuple[float, list[int]]]:
    """The label shares with their seeds."""
    labeled, seeds = tree.get("labeled"), tree.get("seeds", [0])
    if isinstance(labeled, dict) and "seeds" not in tree:
        points = labeled
    elif isinstance(labeled, list):
        points = dict.fromkeys(labeled, seeds)
    else:
        points = {}
    if not points or not all(map(_is_share, points)) or not all(map(_are_seeds, points.values())):
        raise UserError(
            f"{path.name}: give labeled: [0.05, 0.1] with seeds: [0, 1], or each share with its own seeds, "
            "labeled: {0.05: [0], 0.1: [0, 1, 2]}"
        )
    return list(points.items())


def _is_share(value: Any) -> bool:
    """Whether it is a share or a number of labeled images."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _are_seeds(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(seed) is int and seed >= 0 for seed in value)
