"""A grid YAML, read and checked: its runs, their order, and their arguments."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfssd.config import nearest, parse_value, without_idle
from dfssd.config.schema import SET_BY_GRID
from dfssd.errors import UserError
from dfssd.files import read_yaml
from dfssd.results.sections import SCRATCH
from dfssd.runs.key_names import names_only

BASE, TEACHER, ORACLE = "baseline", "teacher", "oracle"
KEYS = ("common", "labeled", "seeds", "split", "cells", ORACLE)
NETWORK_FILES = {".pt", ".pth", ".yaml", ".yml"}
"""Suffixes of the value of ``teacher`` that is a file and no cell."""

Point = tuple[float, int]
"""Share or number of labeled images, and seed."""


@dataclass(frozen=True)
class Run:
    """One run of the grid.

    Attributes:
        cell: Name in the YAML, or ``oracle``.
        labeled: Share or number of labeled images.
        seed: Seed of split and training.
        values: Arguments for ``train.py``, except those that the grid sets.
        base: The run whose split, teacher and baseline are reused; None for that run itself and for the oracle.
        teacher: The run whose network is the teacher, instead of the teacher of ``base``.
        split: Folder of lists of the labeled images, instead of the share; for a run without ``base``.
    """

    cell: str
    labeled: float
    seed: int
    values: Mapping[str, Any] = field(compare=False)
    base: Run | None = None
    teacher: Run | None = None
    split: str | None = None

    @property
    def name(self) -> str:
        """Name of the run folder and of the log."""
        return f"{self.cell}-labeled{self.labeled}-seed{self.seed}"

    @property
    def needs(self) -> tuple[Run, ...]:
        """The runs that must have finished before this one."""
        return tuple(run for run in (self.base, self.teacher) if run)

    def __str__(self) -> str:
        return f"{self.cell}, labeled {self.labeled}, seed {self.seed}"

    def arguments(self, runs: Path) -> list[str]:
        """The arguments for ``train.py``, with the run folders in ``runs``."""
        values = dict(self.values)
        if self.base is None:
            values |= {"split": self.split} if self.split else {"labeled": self.labeled}
        else:
            base = runs / self.base.name
            taught_by = self.teacher.network(runs) if self.teacher else base / "weights" / "teacher.pt"
            for key in ("limit", "split_ratio"):  # already applied in the split of the base run
                values.pop(key, None)
            values = {"teacher": taught_by.as_posix(), "baseline": base.as_posix(), **values}
            values = without_idle(values, names_only(), keep=self.values)  # teacher_kind=ema takes no teacher
            values["split"] = f"{base.as_posix()}/splits"
        values |= {"seed": self.seed, "project": runs.as_posix(), "name": self.name}
        return [f"{key}={text_of(value)}" for key, value in values.items()]

    def network(self, runs: Path) -> Path:
        """The checkpoint of what the run trained: its student, or its baseline if it is about that one alone."""
        weights = runs / self.name / "weights"
        trained = [weights / f"{role}.pt" for role in ("student", BASE)]
        return next((file for file in trained if file.is_file()), trained[0])


def text_of(value: Any) -> str:
    """A YAML value as it is typed on a command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return "[" + ",".join(text_of(v) for v in value) + "]" if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Cell:
    """A cell of the YAML.

    Attributes:
        values: Its arguments for ``train.py``, with those of ``common``.
        teacher: The cell whose network teaches it; None: the teacher of the cell ``baseline``, or one of its own.
    """

    values: Mapping[str, Any]
    teacher: str | None = None


@dataclass(frozen=True)
class Grid:
    """A checked grid YAML, with the overrides of the command line.

    Attributes:
        path: The YAML.
        definitions: Its cells by name, in the order of the YAML, without the oracle.
        points: What is to be run: label shares and seeds of the command line, else those of the YAML.
        listed: Label shares and seeds of the YAML.
        split: Folder of lists that replaces the label share.
        oracle: Arguments of the oracle, with its label share; None without one.
    """

    path: Path
    definitions: Mapping[str, Cell]
    points: tuple[Point, ...]
    listed: tuple[Point, ...]
    split: str | None = None
    oracle: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of the tables and of the folder of the runs."""
        return self.path.stem

    @property
    def cells(self) -> list[str]:
        """Names of the cells in the order of the YAML."""
        return [*self.definitions, *([ORACLE] if self.oracle else [])]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs of :attr:`points` in their order."""
        return tuple(self.runs_of(self.points))

    @classmethod
    def read(
        cls, path: Path, given: Mapping[str, Any] | None = None, *, seeds: Any = None, labeled: Any = None
    ) -> Grid:
        """Read a grid.

        Args:
            path: The YAML.
            given: Arguments of the command line for all runs.
            seeds: Seeds of the command line instead of those of the YAML: a number, a list, or ``0,1,2``; None: none.
            labeled: Label shares of the command line, likewise.

        Raises:
            UserError: Unknown key or teacher, invalid value, no cell ``baseline``, or cells that teach each other.
        """
        tree = read_yaml(path)
        cells = _read_cells(tree, path)
        common = {**_mapping(tree.get("common") or {}, path, "common"), **(given or {})}
        _check_fixed(common, "common or on the command line", path)
        for name, arguments in cells.items():
            # a cell may do without the baseline that it would take over, or train one of its own
            own_baseline = name != BASE and isinstance(arguments.get(BASE), bool)
            _check_fixed(arguments, f"cells.{name}", path, SET_BY_GRID - ({BASE} if own_baseline else set()))
        # the other cells reuse the self-trained teacher, the oracle needs none
        later = {key: value for key, value in common.items() if key != "teacher_rounds"}
        in_file = _points(tree, path)
        points = _given_points(in_file, seeds, labeled, path)
        return cls(
            path,
            _definitions(cells, common, later, path),
            points=tuple((share, seed) for share, of_share in points.items() for seed in of_share),
            listed=tuple((share, seed) for share, of_share in in_file.items() for seed in of_share),
            split=_read_split(tree, points, path),
            oracle=_read_oracle(tree, later, cells, path),
        )

    def runs_of(self, points: Iterable[Point]) -> Iterator[Run]:
        """The runs of these label shares and seeds, each after those that it needs.

        All label shares of the first seed come first, so that an unfinished grid soon has one complete comparison.
        """
        points = list(dict.fromkeys(points))
        for seed in dict.fromkeys(seed for _, seed in points):
            for labeled in (labeled for labeled, other in points if other == seed):
                done: dict[str, Run] = {}
                for name in _by_need(self.definitions, self.path):
                    cell, base = self.definitions[name], done.get(BASE)
                    teacher = done[cell.teacher] if cell.teacher else None
                    split = None if base else self.split
                    done[name] = Run(name, labeled, seed, cell.values, base=base, teacher=teacher, split=split)
                yield from done.values()
            if self.oracle:
                values = {key: value for key, value in self.oracle.items() if key != "labeled"}
                yield Run(ORACLE, self.oracle["labeled"], seed, values)

    def present(self, runs: Path) -> list[Run]:
        """All runs of the grid that may lie in the folder ``runs``, those of other label shares and seeds included."""
        found: list[Point] = []
        for folder in runs.iterdir() if runs.is_dir() else ():
            parts = re.fullmatch(r"(.+)-labeled([\d.e+-]+)-seed(\d+)", folder.name)
            if not parts or parts[1] not in self.cells:
                continue
            share, seed = parse_value(parts[2]), int(parts[3])
            if parts[1] == ORACLE or self.split:  # the former is of all shares, the latter of one, whatever its name
                found += [(labeled, seed) for labeled, _ in self.listed]
            elif _is_share(share):
                found.append((share, seed))
        found.sort(key=lambda point: (point[1], point[0]))
        return list(self.runs_of([*self.listed, *self.points, *found]))

    def select(self, only: str | None) -> list[Run]:
        """The runs of the cells named in ``only``, separated by commas, with the runs that they need."""
        if only is None:
            return list(self.runs)
        names = [name.strip() for name in str(only).split(",") if name.strip()]
        for name in names:
            if name not in self.cells:
                raise UserError(f"only={name}: no such cell{_near(name, self.cells)}")
        needed = {run for run in self.runs if run.cell in names}
        while more := {other for run in needed for other in run.needs} - needed:
            needed |= more
        return [run for run in self.runs if run in needed]


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
    if clash := [name for name in (TEACHER, SCRATCH, ORACLE) if name in cells]:
        raise UserError(f"{path.name}: a cell cannot be called '{clash[0]}': that is another row of the table")
    return {name: _mapping(cell or {}, path, f"cells.{name}") for name, cell in cells.items()}


def _definitions(
    cells: Mapping[str, Mapping[str, Any]], common: Mapping[str, Any], later: Mapping[str, Any], path: Path
) -> dict[str, Cell]:
    """The cells with what acts in them of ``common`` or, all but ``baseline``, of ``later``; checks their teachers."""
    shared = {key: value for key, value in later.items() if key not in {TEACHER, BASE}}
    found = {}
    for name, own in cells.items():
        values = without_idle({**(common if name == BASE else shared), **own}, names_only(), keep=own)
        teacher = _teaching_cell(values.get(TEACHER), f"cells.{name}", cells, path)
        if teacher:
            del values[TEACHER]
        found[name] = Cell(values, teacher)
    _by_need(found, path)
    return found


def _teaching_cell(value: Any, where: str, cells: Collection[str], path: Path) -> str | None:
    """The cell that the value of ``teacher`` names; None for a file, and for none."""
    text = "none" if value is None else str(value)
    if text in cells:
        return text
    if text == "none" or Path(text).suffix.lower() in NETWORK_FILES:
        return None
    raise UserError(f"{path.name}: {where} has teacher: {text}, which is no file and no cell{_near(text, list(cells))}")


def _by_need(cells: Mapping[str, Cell], path: Path) -> list[str]:
    """Names of the cells, ``baseline`` first and each after its teacher, otherwise in their order.

    Raises:
        UserError: Cells teach each other, or one of them ``baseline``, which all of them need.
    """
    done: list[str] = []

    def visit(name: str, waiting: tuple[str, ...]) -> None:
        if name in waiting:
            circle = " <- ".join([*waiting[waiting.index(name) :], name])
            raise UserError(
                f"{path.name}: the teachers of the cells form a circle, {circle} (every cell needs {BASE}): "
                "give one of them a file, or leave out its teacher"
            )
        if name in done:
            return
        needed = [*([] if name == BASE else [BASE]), *filter(None, [cells[name].teacher])]
        for other in needed:
            visit(other, (*waiting, name))
        done.append(name)

    for name in [BASE, *cells]:
        visit(name, ())
    return done


def _check_fixed(arguments: Mapping[str, Any], where: str, path: Path, fixed: Collection[str] = SET_BY_GRID) -> None:
    """Raise :class:`UserError` if ``arguments`` contain a key that the grid sets itself."""
    if clash := sorted(set(fixed) & set(arguments)):
        raise UserError(
            f"{path.name}: {clash[0]} cannot be set in {where}: the grid sets it in each run (seeds= and labeled= of "
            "the command line choose the runs)"
        )


def _read_split(tree: Mapping[str, Any], points: Mapping[float, Any], path: Path) -> str | None:
    """The folder of lists that replaces the label share, if any; it is looked for beside the YAML first."""
    split = tree.get("split")
    if split is None:
        return None
    if not isinstance(split, str) or len(points) != 1 or tree.get(ORACLE):
        raise UserError(f"{path.name}: split is one folder of lists: give one share in labeled, and no oracle")
    beside = path.parent / split
    return beside.as_posix() if beside.is_dir() else split


def _read_oracle(
    tree: Mapping[str, Any], common: Mapping[str, Any], cells: Collection[str], path: Path
) -> dict[str, Any] | None:
    """The arguments of the oracle with its label share, if there is an oracle."""
    if not tree.get(ORACLE):
        return None
    own = {"labeled": 1.0, **_mapping(tree[ORACLE], path, ORACLE)}
    oracle = without_idle({**common, **own}, names_only(), keep=own)
    _check_fixed(oracle, ORACLE, path, SET_BY_GRID - {"labeled"})
    if cell := _teaching_cell(oracle.get(TEACHER), ORACLE, cells, path):
        raise UserError(f"{path.name}: {ORACLE} has teacher: {cell}, a cell with fewer labels; give none, or a file")
    return oracle


def _mapping(value: Any, path: Path, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{path.name}: {where} must hold 'key: value' lines")
    return dict(value)


def _points(tree: Mapping[str, Any], path: Path) -> dict[float, list[int]]:
    """The label shares of the file with their seeds."""
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
    return points


def _given_points(points: Mapping[float, list[int]], seeds: Any, labeled: Any, path: Path) -> dict[float, list[int]]:
    """``points`` with the seeds and the label shares of the command line, as far as there are any."""
    chosen = None if seeds is None else _listed(seeds)
    if chosen is not None and not _are_seeds(chosen):
        raise UserError(f"seeds={text_of(seeds)}: give whole numbers of 0 or more, such as seeds=0,1,2")
    shares = list(points) if labeled is None else _listed(labeled)
    if not shares or not all(map(_is_share, shares)):
        raise UserError(f"labeled={text_of(labeled)}: give shares or numbers above 0, such as labeled=0.05,0.1")
    of_all = next(iter(points.values())) if len({tuple(own) for own in points.values()}) == 1 else None
    found = {share: chosen or points.get(share) or of_all for share in shares}
    for share, own in found.items():
        if own is None:
            raise UserError(f"labeled={share}: {path.name} has no seeds for it; give them, such as seeds=0,1,2")
    return {share: own for share, own in found.items() if own}


def _listed(value: Any) -> list[Any]:
    """A list of the command line: ``0,1,2``, ``[0,1,2]``, or a single value."""
    if isinstance(value, str):
        return [parse_value(part) for part in value.split(",") if part.strip()]
    return value if isinstance(value, list) else [value]


def _is_share(value: Any) -> bool:
    """Whether it is a share or a number of labeled images."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _are_seeds(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(seed) is int and seed >= 0 for seed in value)
