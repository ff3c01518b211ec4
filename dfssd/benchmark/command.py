"""``dfssd benchmark``: a grid of trainings, and one table of their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dfssd import resources
from dfssd.benchmark.engines import ENGINES, SERIAL, Resources, Train, opened, run_train
from dfssd.commands.options import Option, Usage
from dfssd.config import nearest
from dfssd.config.values import TEXT, Number, OneOf, Special, optional
from dfssd.errors import UserError

_LIST = Special(
    "number | list",
    lambda v: isinstance(v, (int, float, str, list)) and not isinstance(v, bool),
    "must be a number, or several separated by commas",
    (True, None),
)

USAGE = Usage(
    (
        Option("grid", TEXT, "a YAML file, or the name of a grid that comes with dfssd", required=True),
        Option("only", optional(TEXT), "run these cells only, and those that they need: only=dfssd,oracle"),
        Option("seeds", optional(_LIST), "run these seeds: seeds=0,1,2; none: those of the grid"),
        Option("labeled", optional(_LIST), "run these shares or numbers of labeled images; none: those of the grid"),
        Option("table", optional(OneOf(("only",))), "only: write the tables of the finished runs, run nothing"),
        Option(
            "rows", optional(TEXT), "a .csv of this grid, as of another machine: its rows stand where no run is here"
        ),
        Option("out", optional(TEXT), "folder of the tables; none: beside the YAML, or with the runs if it is dfssd's"),
        Option("project", TEXT, "runs and logs go to PROJECT/GRID", default="runs"),
        Option("engine", OneOf(ENGINES), "where runs are made: here in turn, as Ray tasks, as jobs", default=SERIAL),
        Option("jobs", optional(Number(1, integer=True)), "runs made at once; none: as many as the engine bears"),
        Option("cpus", Number(1, integer=True), "cores of a run, with any engine but serial", default=1),
        Option("gpus", Number(0), "GPUs of a run, with ray (0.5: two share one) and slurm", default=0),
        Option(
            "minutes", Number(1, integer=True), "time limit of a job of Slurm; a run goes on in the next", default=720
        ),
    ),
    positional=("grid",),
    examples=(
        ("cr7-det data=CR7-DET.zip seeds=0,1,2", "all cells, with three seeds"),
        ("my_grid.yaml data=parts only=dfssd device=0", "one cell of a grid of your own"),
        ("cr7-det table=only", "the tables once more"),
        (
            "cr7-det data=CR7-DET.zip seeds=0,1,2 engine=ray cpus=4 gpus=1 device=0",
            "on a Ray cluster, a GPU each",
        ),
    ),
    others="keys of a run, for all runs of the grid; those of a cell win",
)


def run(words: Sequence[str], program: str) -> int:
    """Make the runs that are missing, and write the tables; 2 if a run failed.

    Args:
        words: The grid, options, and keys of a run.
        program: What was typed before the name of the command.
    """
    return benchmark(words)


def benchmark(
    words: Sequence[str], *, train: Train | None = None, check: Callable[[dict[str, Any]], Any] | None = None
) -> int:
    """The same.

    Args:
        words: As above.
        train: Makes a run instead of the command line.
        check: Raises :class:`UserError` for arguments that a run would reject; None: its own check.

    Raises:
        UserError: Bad input, or an engine that is not there.
    """
    from dfssd.benchmark.running import run_benchmark
    from dfssd.process import prepare_process
    from dfssd.runs.key_names import keys_of_runs

    words = ["table=only" if word == "--table-only" else word for word in words]
    values, given = USAGE.read_and_pass_on(words, keys_of_runs())
    prepare_process()  # the runs inherit it
    path, out = find_grid(values["grid"]), values["out"]
    runs = Path(values["project"]).expanduser() / path.stem
    if out is None:
        out = runs if values["grid"] in own_grids() else path.parent
    needed = Resources(values["cpus"], values["gpus"], values["minutes"])
    with opened(values["engine"], needed, values["jobs"], runs, train or run_train) as engine:
        return run_benchmark(
            path,
            given,
            name=values["grid"],
            only=values["only"],
            seeds=values["seeds"],
            labeled=values["labeled"],
            only_tables=values["table"] is not None,
            elsewhere=None if values["rows"] is None else Path(values["rows"]).expanduser(),
            out=Path(out).expanduser(),
            runs=runs,
            engine=engine,
            check=check,
        )


def find_grid(given: str) -> Path:
    """The YAML of a grid: a file, or one of those that come with dfssd, by its name.

    Raises:
        UserError: There is none of that name.
    """
    if Path(given).suffix.lower() in {".yaml", ".yml"}:
        return Path(given).expanduser()
    known = own_grids()
    if given in known:
        return known[given]
    raise UserError(f"grid={given}: no YAML file, and no grid of that name{nearest(given, known)}")


def own_grids() -> dict[str, Path]:
    """The grids that come with dfssd, by name."""
    return {file.stem: file for file in sorted(resources.folder("benchmarks").glob("*.yaml"))}


def show_help(words: Sequence[str], program: str) -> None:
    """Print how it is used."""
    USAGE.show(
        f"{program} benchmark",
        "Run a grid of trainings (cells x shares of labels x seeds) and compare them in one table, with intervals of\n"
        "their differences. The same line goes on with a grid that was stopped; lines with other cells or seeds may\n"
        f"run side by side. Grids that come with dfssd: {', '.join(own_grids())}.",
    )
