"""A grid of runs: cells x label shares x seeds, each a normal run, and one table of the results.

For each share and seed the cell ``baseline`` runs first and trains teacher and baseline; every other cell reuses its
split, teacher and baseline, so that they differ only in the student and nothing is trained twice, or has the network of
another cell as its teacher. The same command line continues an interrupted grid: finished runs are kept, an unfinished
one is resumed.

The table (:mod:`dfssd.benchmark.table`) is rewritten after every run and contains all finished runs of the grid in its
folder, whatever the command line has selected. So several processes may run parts of one grid side by side: a run is
made by one of them, and whoever writes the tables, under a lock, finds the runs of all.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from dfssd.benchmark.children import lives
from dfssd.benchmark.engines import Engine
from dfssd.benchmark.grid import BASE, ORACLE, TEACHER, Grid, Run, text_of
from dfssd.benchmark.rows import Row, read_rows, rows_of_run, shown_command
from dfssd.benchmark.table import write_tables
from dfssd.config import KEYS, RESUMABLE, defaults, differences, flat_settings, parse_arguments, without_idle
from dfssd.errors import UserError
from dfssd.files import locked, read_json, read_yaml, write_json
from dfssd.reporting.tables import format_duration
from dfssd.results.record import is_finished
from dfssd.results.sections import SCRATCH
from dfssd.runs.key_names import names_only
from dfssd.runs.model_selection import OF_EARLIER_VERSIONS, unfit_settings


def check_same_settings(run: Run, runs: Path) -> None:
    """Reject a run folder from another grid of that name, or from before the YAML or a default was changed.

    Raises:
        UserError: A setting of the run differs from the one planned now, and the run reads it.
    """
    from dfssd.runs.configure import configure

    record = runs / run.name / "run.yaml"
    if not record.is_file():
        return
    tree = read_yaml(record)
    given = parse_arguments(run.arguments(runs))
    config = configure(given)
    # a run from before there was a key had its default
    own = {**defaults(), **OF_EARLIER_VERSIONS, **(tree.get("config") or {})}
    then = _read_settings(own, tree.get("terms") or {}, tree.get("train") or {})
    now = _read_settings(config.own, config.terms, config.train)
    for settings in (then, now):  # the same file in another folder is the same data, or the same run
        settings["data"] = Path(str(settings.get("data"))).name
        settings |= {key: _in_grid(settings.get(key), run) for key in ("teacher", "baseline", "split")}
        if run.base is None and run.split:
            settings["split"] = Path(str(settings["split"])).name
    # the settings of a recipe are compared, so its name need not be
    changed = differences(then, now, ignoring=RESUMABLE | {"recipe"})
    # a run of an earlier version may hold keys that have no effect in it, and are left out now
    acting = without_idle({**given, **{key: old for key, old, _ in changed}}, names_only())
    changed = [difference for difference in changed if difference[0] in acting]
    if changed:
        raise UserError(
            *(
                f"{run.name} was run with {key}={old}, the grid now sets {key}={value}: use another project= or name "
                f"of the grid, or remove {runs / run.name}"
                for key, old, value in changed
            )
        )


def _in_grid(value: Any, run: Run) -> Any:
    """What a path in one of the runs that ``run`` needs is below the folder of all runs; other values as they are."""
    parts = PurePath(value.replace("\\", "/")).parts if isinstance(value, str) else ()
    start = next((i for i, part in enumerate(parts) if part in {other.name for other in run.needs}), None)
    return value if start is None else "/".join(parts[start:])


def check_baseline_fits(run: Run, runs: Path) -> None:
    """Reject a cell that could not be compared with the baseline it takes over, before anything is trained.

    Raises:
        UserError: A setting of the baseline differs from that of the cell, such as another student; or it trains no
            teacher for it.
    """
    from dfssd.runs.configure import configure

    if not run.base:
        return
    own, base = (configure(parse_arguments(one.arguments(runs))) for one in (run, run.base))
    if run.teacher is None and base["teacher"] is None and own["teacher"] is not None:
        raise UserError(f"cell {BASE} trains no teacher for cell {run.cell}: add teacher: to common:")
    if not isinstance(own["baseline"], str):
        return
    changed = unfit_settings(base.own, base.train, own)
    if changed:
        raise UserError(
            f"cell {run.cell} cannot be compared with the baseline of cell {BASE}: it differs in "
            f"{', '.join(key for key, _, _ in changed)}; add baseline: false (no baseline) or baseline: true (its own)"
        )


def _read_settings(own: Mapping[str, Any], terms: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a run depends on; those of distillation only if a student or a teacher learns from it."""
    if own.get("student_training") in {"distilled", "labels"} or own.get("teacher_rounds"):
        return flat_settings(own, terms, train)
    return {k: v for k, v in {**own, **train}.items() if not (k in KEYS and KEYS[k].distills)}


def run_grid(
    grid: Grid, selected: Sequence[Run], runs: Path, *, engine: Engine, after: Callable[[], object]
) -> list[str]:
    """Run all unfinished runs, each after those that it needs, as many at once as the engine makes.

    Args:
        grid: The grid.
        selected: The runs to make, in their order.
        runs: Folder of the run folders and logs.
        engine: Makes a run.
        after: Called after each finished run.

    Returns:
        One line for each run that did not finish.
    """
    for run in selected:
        check_same_settings(run, runs)
        check_baseline_fits(run, runs)
    runs.mkdir(parents=True, exist_ok=True)
    start, failures, missing = time.monotonic(), [], set()
    waiting, making = list(selected), dict[Future[int], tuple[Run, float]]()

    def said(run: Run, what: str) -> None:
        print(f"[benchmark] {selected.index(run) + 1} of {len(selected)}: {run}: {what}", flush=True)

    def lost(run: Run, why: str, after: str = "") -> None:
        missing.add(run)
        failures.append(f"{run}: {why}")
        said(run, f"{after}{why}")

    with _submitting(engine) as submit:
        while waiting or making:
            for run in list(waiting):
                folder, log = runs / run.name, runs / f"{run.name}.log"
                if lacking := [other.cell for other in run.needs if other in missing]:
                    lost(run, f"not run, since {lacking[0]} did not finish")
                elif is_finished(folder):
                    said(run, "finished earlier, kept")
                elif len(making) == engine.at_once or any(
                    other in waiting or other in [one for one, _ in making.values()] for other in run.needs
                ):
                    continue
                else:
                    said(run, f"{'resumed' if folder.exists() else 'started'}, output in {log}")
                    making[submit(_make, run, runs, log, engine)] = (run, time.monotonic())
                waiting.remove(run)
            for future in wait(making, return_when=FIRST_COMPLETED).done:
                run, started = making.pop(future)
                log = runs / f"{run.name}.log"
                if isinstance(problem := future.exception(), UserError) and engine.at_once > 1:
                    lost(run, str(problem))  # another line makes it; the others go on
                    continue
                code = future.result()
                took, elapsed = format_duration(time.monotonic() - started), format_duration(time.monotonic() - start)
                if is_finished(runs / run.name):
                    said(run, f"done in {took}; {elapsed} since the start")
                    after()
                else:
                    lost(run, f"exit code {code}: {last_error(log)}", f"FAILED after {took} with ")
    return failures


@contextmanager
def _submitting(engine: Engine) -> Iterator[Callable[..., Future[int]]]:
    """How runs are given to an engine: called at once if it makes one at a time, else in a thread each.

    Where the block is left by an exception, as of Ctrl-C, the engine stops what it makes.
    """
    with ThreadPoolExecutor(engine.at_once) as pool:
        try:
            yield pool.submit if engine.at_once > 1 else _called
        except BaseException:
            engine.stop()
            raise


def _called(function: Callable[..., int], *args: Any) -> Future[int]:
    """A future that is done: it holds what the call has returned."""
    future: Future[int] = Future()
    future.set_result(function(*args))
    return future


def _make(run: Run, runs: Path, log: Path, engine: Engine) -> int:
    """Start or resume a run, unless it is being made already; return the exit code.

    Raises:
        UserError: Another grid makes it, or what an earlier one has started is still running.
    """
    with locked(log.with_suffix(".lock"), wait=False) as mine:
        state = read_json(log.with_suffix(".json"))
        if lives(state) or not mine:
            where = f"in process {state['pid']}" if lives(state) else "in another process"
            raise UserError(f"{run} is still running {where}: wait for it, or stop it")
        return engine.train(run.arguments(runs), log)


def last_error(log: Path) -> str:
    """The last error, or else the last line, of a log."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "no output")


def finished_rows(present: Sequence[Run], runs: Path) -> list[Row]:
    """The rows of the runs of :meth:`Grid.present` that have finished, in their order."""
    rows: list[Row] = []
    for run in present:
        if is_finished(runs / run.name):
            check_same_settings(run, runs)
            machine = read_json(runs / f"{run.name}.json").get("machine")
            roles = {ORACLE: {ORACLE: BASE}, BASE: {name: name for name in (TEACHER, SCRATCH, BASE)}}
            named = roles.get(run.cell, {run.cell: None})
            rows += rows_of_run(runs / run.name, named, labeled=run.labeled, seed=run.seed, machine=machine)
    return rows


def commands(grid: Grid, name: str, given: Mapping[str, Any], rows: Sequence[Row]) -> list[str]:
    """The command lines that make the runs of a table, for publication; what the YAML does not list has its own.

    Args:
        grid: The grid.
        name: As it was named on the command line.
        given: Keys of a run, for all runs.
        rows: The rows of the table.
    """
    shown = grid.path.name if grid.path.is_absolute() and name != grid.name else name
    words = ["dfssd", "benchmark", shown, *(f"{key}={text_of(value)}" for key, value in given.items())]
    made = {(row.labeled, row.seed) for row in rows if row.recipe != ORACLE}
    beyond: dict[float, list[int]] = {}
    for share, seed in sorted(made - set(grid.listed)):
        beyond.setdefault(share, []).append(seed)
    lines = [] if made and made.isdisjoint(grid.listed) else [words]
    lines += [[*words, f"labeled={share}", f"seeds={','.join(map(str, seeds))}"] for share, seeds in beyond.items()]
    return [shown_command(line) for line in lines]


def run_benchmark(
    path: Path,
    given: Mapping[str, Any],
    *,
    name: str,
    only: str | None,
    seeds: Any,
    labeled: Any,
    only_tables: bool,
    elsewhere: Path | None,
    out: Path,
    runs: Path,
    engine: Engine,
    check: Callable[[dict[str, Any]], Any] | None = None,
) -> int:
    """Make the runs of a grid that are missing, and write its tables; returns the exit code.

    Args:
        path: The YAML.
        given: Keys of a run, for all runs.
        name: How the grid was named, for the tables.
        only: The cells to run, separated by commas; None: all.
        seeds: Seeds instead of those of the YAML: a number, a list, or ``0,1,2``; None: those of the YAML.
        labeled: Label shares, likewise.
        only_tables: Write the tables of the finished runs, and run nothing.
        elsewhere: A table whose rows stand where there is no run here; None: there is none.
        out: Folder of the tables.
        runs: Folder of the runs.
        engine: Makes the runs.
        check: Raises :class:`UserError` for arguments that a run would reject; None: its own check.
    """
    note = runs / "benchmark.json"
    if only_tables:
        given = {**read_json(note).get("given", {}), **given}
    grid = Grid.read(path, given, seeds=seeds, labeled=labeled)
    selected = grid.select(only)
    known = read_rows(elsewhere) if elsewhere else []
    if strange := {row.recipe for row in known} - {*grid.cells, TEACHER, SCRATCH}:
        raise UserError(f"rows={elsewhere}: has {sorted(strange)[0]}, which is no cell of {grid.name}")

    def made_here() -> list[Row]:
        return finished_rows(grid.present(runs), runs)

    def write() -> list[Path]:
        with locked(runs / "tables.lock"):  # the last to write has seen the runs of all processes
            rows = made_here()
            here = {(row.recipe, row.labeled, row.seed) for row in rows}
            rows += [row for row in known if (row.recipe, row.labeled, row.seed) not in here]
            lines = commands(grid, name, given, rows)
            return write_tables(rows, grid.name, out, cells=grid.cells, commands=lines)

    if only_tables:
        if not made_here() and not known:
            raise UserError(
                f"table=only: no finished run of {grid.name} in {runs}, and nothing was written: give the project= of "
                "its runs, or leave table=only out"
            )
        print(f"written: {', '.join(map(str, write()))}")
        return 0
    made_here()  # refuses runs with other settings before anything is trained
    _check_runs(selected, runs, check)
    write_json(note, {"given": given})
    failures = run_grid(grid, selected, runs, engine=engine, after=write)
    write()
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 2 if failures else 0


def _check_runs(selected: Sequence[Run], runs: Path, check: Callable[[dict[str, Any]], Any] | None) -> None:
    """Reject before the first training what ``train.py`` would reject hours later."""
    from dfssd.datasets.importing import find_source

    if check is None:
        from dfssd.runs.configure import configure

        check = configure
    for run in {run.cell: run for run in selected}.values():
        arguments = parse_arguments(run.arguments(runs))
        if "," in str(arguments.get("device", "")):
            raise UserError(
                f"device={arguments['device']}: each run of a grid takes one device: name one, or engine=ray"
            )
        data = arguments.get("data")
        if data is None:
            raise UserError("data is missing: data=CR7-DET.zip, a dataset YAML, a folder, a card of data/, or demo")
        find_source(str(data))
        try:
            check(arguments)
        except UserError as e:
            raise UserError(*(f"cell {run.cell}: {problem}" for problem in e.problems)) from e
