"""The class-incremental protocol on one data set: the base, a chain of steps for each mode, and a table of results.

The data set is split once. The base is trained on the classes of the first step. From there every mode (a recipe such
as ``sdidd``, ``erd``, ``finetune``, ``freeze``, ``joint``) continues separately: each step extends the model of the
previous step and trains it on the data of :mod:`dfssd.incremental.steps`. Every training is a normal run in its own
folder, so an interrupted protocol can be continued: finished runs are kept, an unfinished one is resumed.

All modes make the same number of batches in a step: an epoch is a pass over the images of the step, also for the upper
bound, which draws its batches from more images, and for modes that leave the unlabeled images out.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfssd.config import GROWN, KEYS, RESUMABLE, UNSET, Config, Protocol, differences, flatten, without_idle
from dfssd.datasets.data_state import write_state
from dfssd.datasets.records import DetectionSet
from dfssd.datasets.split_files import read_split, write_split
from dfssd.datasets.splits import Split
from dfssd.detection.checks import check_can_grow, check_layers
from dfssd.detection.data import choose_split, copies_among, read_data
from dfssd.detection.forgetting import mean_over
from dfssd.distillation.compatibility import check_bins, describe, normalized, resolve_weights
from dfssd.distillation.terms import find_term, is_term
from dfssd.errors import UserError
from dfssd.files import read_yaml, write_json, write_text, write_yaml
from dfssd.incremental.steps import Step, parse_steps, write_step
from dfssd.log import LOGGER
from dfssd.reporting.tables import csv_text, format_number, markdown_table
from dfssd.results.record import FILE, BoxRecord, is_finished
from dfssd.runs.budget import epoch_length, share_of_unlabeled, teacher_schedule
from dfssd.runs.checks import check_machine
from dfssd.runs.data import import_settings
from dfssd.runs.key_names import names_only
from dfssd.wording import counted

BASE = "base"
RESULT = "incremental.json"
RECORD = "protocol.yaml"
SHOWN = ["map_old_before", "map_old", "map_new", "map_all", "forgetting"]
SHOWN += ["map50_95_old_before", "map50_95_old", "map50_95_new", "map50_95_all"]
"""Values of a row in the Markdown table."""

Run = Callable[[dict[str, Any]], None]
"""Makes or resumes one run from the arguments of ``train.py``; raises :class:`UserError` if it does not finish."""


Check = Callable[[dict[str, Any]], Config]
"""Resolves arguments of ``train.py``; raises :class:`UserError` for wrong ones."""


@dataclass(frozen=True)
class Mode:
    """One recipe of the comparison.

    Attributes:
        recipe: Its name, or the path of its file.
        given: The arguments of the command line that apply to it.
        config: The same, resolved.
    """

    recipe: str
    given: Mapping[str, Any]
    config: Config

    @property
    def name(self) -> str:
        """Its name in folders and tables."""
        return Path(self.recipe).stem

    @property
    def joint(self) -> bool:
        """Whether it is trained on the boxes of all classes so far."""
        return bool(self.config["step_labels"] == "all")


def run_protocol(config: Config, command: str, run: Run, check: Check) -> bool:
    """Run or continue the whole protocol.

    The rows of the table (docs/results.md) are written to ``incremental.json``, ``.csv`` and ``.md`` after each run;
    rows of other modes from earlier command lines with the same arguments are kept.

    Args:
        config: Resolved configuration with ``steps``.
        command: The command line, for the record.
        run: Makes or resumes one run.
        check: Checks the arguments of a run.

    Returns:
        Whether every exported model has passed its check.

    Raises:
        UserError: Bad input, or a run that did not finish; finished runs are kept.
    """
    if config["data"] is None:
        raise UserError("data is missing: steps= needs a data set with the labels of all classes")
    if config["exist_ok"]:
        raise UserError("exist_ok=true: a protocol keeps its finished runs; use another name=, or remove its folder")
    root = Path(config["project"]) / (config["name"] or "incremental")
    modes = _modes(config, check)
    dataset, split, steps = _prepare(config, root)
    base = _base_weights(config)
    if base is not None:
        _check_base(base, dataset.names[: steps[0].last])
    known = _record(config, modes, root, check)
    if not (root / RECORD).exists():  # left by a run that failed early, perhaps with another split
        shutil.rmtree(root / "data", ignore_errors=True)
    data = _write_steps(dataset, split, steps, modes, root / "data")
    _log_steps(steps, data)
    if not (root / "splits" / "split.json").exists():
        write_state(root / "splits", split, dataset, imported=import_settings(config))
        write_split(split, dataset, root / "splits")
    write_yaml(root / RECORD, known)

    where = {"project": str(root), "data_dir": config["data_dir"]}
    if base is None:
        per_epoch = math.ceil(data[1, False]["images"] / config.batch)
        passes, patience = teacher_schedule(config, per_epoch)
        values = {**_of_the_base(config), **where, "student": config["student"]}
        values |= {"data": data[1, False]["yaml"], "epochs": passes, "patience": patience}
        _run_or_resume(run, root / BASE, values)
        base = root / BASE / "weights" / "baseline.pt"
    counts = [data[step.number, False] for step in steps]
    lengths = {step.number: _epoch_length(config, data[step.number, False], split) for step in steps[1:]}
    for mode in modes:
        teacher = base
        for step in steps[1:]:
            folder = root / f"{mode.name}-{step.name}"
            values = {**mode.given, **where, "recipe": mode.recipe, "teacher": str(teacher)}
            values |= {"data": data[step.number, mode.joint]["yaml"], "batches_per_epoch": lengths[step.number]}
            _run_or_resume(run, folder, values)
            teacher = folder / "weights" / "student.pt"
            rows = _rows(root, list(known["modes"]), steps)
            write_json(root / RESULT, {"command": command, "steps": counts, "rows": rows})
            write_text(root / "incremental.csv", table_text(rows))
            write_text(root / "incremental.md", markdown(rows, dataset.names, steps, command))
    failed = [row["run"] for row in rows if row["export_passed"] is False]
    if failed:
        LOGGER.info(f"the exported model is outside its tolerance in {', '.join(failed)}: see their report.html")
    return not failed


def _write_steps(
    dataset: DetectionSet, split: Split, steps: Sequence[Step], modes: Sequence[Mode], folder: Path
) -> dict[tuple[int, bool], dict[str, Any]]:
    """Write the data of all steps that some mode needs: (number of the step, joint) -> facts."""
    return {
        (step.number, joint): write_step(
            dataset, split, step, folder / (f"{step.name}-all" if joint else step.name), joint=joint
        )
        for step in steps
        for joint in sorted({False, *(mode.joint for mode in modes if step.number > 1)})
    }


def _epoch_length(config: Config, facts: Mapping[str, Any], split: Split) -> int:
    """Batches in an epoch of a step, for all modes: :func:`~dfssd.runs.budget.epoch_length` on the images of the step.

    Args:
        config: Configuration of the protocol.
        facts: What :func:`write_step` returned for the step.
        split: The split, whose unlabeled images all steps but the first use.
    """
    share = share_of_unlabeled(config, facts["images"], len(split.train_unlabeled))
    return epoch_length(config, facts["images"], share)


def _common(config: Config) -> dict[str, Any]:
    """The arguments of the command line that apply to all recipes."""
    return {
        key: value
        for key, value in _for_runs(config).items()
        if _protocol_use(key) is not Protocol.OF_RECIPE and not is_term(key.rpartition(".")[0])
    }


def _of_the_base(config: Config) -> dict[str, Any]:
    """The arguments of the run that trains the base on the classes of the first step: those that act in it."""
    return without_idle({**_common(config), "recipe": "baseline", "teacher": None}, names_only())


def _for_runs(config: Config) -> dict[str, Any]:
    """The arguments of the command line that apply to the runs, not to the protocol."""
    return {k: v for k, v in config.given.items() if _protocol_use(k) not in {Protocol.OWN, Protocol.PLACE}}


def _protocol_use(key: str) -> Protocol:
    """What the protocol does with a key; arguments of Ultralytics and options of terms go to its runs."""
    return KEYS[key].protocol if key in KEYS else Protocol.EACH_RUN


def _modes(config: Config, check: Check) -> list[Mode]:
    """The recipes to compare, that of the command line first; checked before anything is computed or written."""
    names = config["modes"]
    recipes = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    base = _base_weights(config)
    if base is None:
        facts, role = describe(resolve_weights(config["student"], "student"), "student"), "student"
    else:
        facts, role = describe(str(base), "teacher"), "teacher"
        check_can_grow(facts)
    modes: dict[str, Mode] = {}
    for recipe in dict.fromkeys([str(config["recipe"]), *recipes]):
        taken = _common(config) if modes else _for_runs(config)
        given = without_idle({**taken, "recipe": recipe, "teacher": "given.pt"}, names_only())
        mode = Mode(recipe, {key: given[key] for key in taken if key in given}, check(given))
        if mode.config["student_training"] != GROWN:
            raise UserError(
                f"modes: {recipe} does not add new classes; choose among sdidd, sdidd-paper, erd, finetune, freeze, "
                "joint"
            )
        if mode.name in modes:
            raise UserError(
                f"modes: {recipe} and {modes[mode.name].recipe} have the same name; rename one of the files"
            )
        check_machine(mode.config)
        check_layers(mode.config, facts.head)
        check_bins(facts, [name for name in mode.config.terms if find_term(name).needs_bins], role)
        modes[mode.name] = mode
    return list(modes.values())


def _record(config: Config, modes: Sequence[Mode], root: Path, check: Check) -> dict[str, Any]:
    """The settings of the protocol in the folder, with the modes of this command line added.

    Raises:
        UserError: The protocol was started with other settings, so its finished runs do not match.
    """

    def settings(c: Config) -> dict[str, Any]:
        own = {
            k: v
            for k, v in c.own.items()
            if _protocol_use(k) not in {Protocol.OWN, Protocol.PLACE} and k not in RESUMABLE
        }
        train = {k: v for k, v in c.train.items() if k not in RESUMABLE}
        return {"config": own, "terms": {k: dict(v) for k, v in c.terms.items()}, "train": train}

    now: dict[str, Any] = {
        "protocol": {k: v for k, v in config.own.items() if _protocol_use(k) is Protocol.OWN},
        "base": settings(check(_of_the_base(config))),
        "modes": {mode.name: settings(mode.config) for mode in modes},
    }
    now = json.loads(json.dumps(now))
    if not (root / RECORD).exists():
        return now
    then = read_yaml(root / RECORD)
    for part in ("protocol", "base", *(f"modes.{mode.name}" for mode in modes)):
        trees = flatten(then), flatten(now)
        old, new = ({k: v for k, v in tree.items() if k.startswith(f"{part}.")} for tree in trees)
        changed = differences(old, new, missing=UNSET) if old else []
        if changed:
            raise UserError(
                *(
                    f"{root} was started with {key.removeprefix(f'{part}.')} {before}, not {requested}: repeat the "
                    "same line, or use another name="
                    for key, before, requested in changed
                )
            )
    return {**now, "modes": {**then.get("modes", {}), **now["modes"]}}


def _prepare(config: Config, root: Path) -> tuple[DetectionSet, Split, list[Step]]:
    """Data set, split and steps; the split is written once and read again when the protocol is continued."""
    dataset = read_data(config)
    steps = parse_steps(config["steps"], dataset.names)
    if (root / "splits" / "split.json").exists():
        return dataset, read_split(root / "splits", dataset, imported=import_settings(config)), steps
    return dataset, choose_split(config, dataset, copies_among(config, dataset)), steps


def _base_weights(config: Config) -> Path | None:
    """The base given by the user (``teacher=`` with a .pt file); None: train it."""
    given = config.given.get("teacher")
    if given is None:
        return None
    if not str(given).endswith(".pt") or not Path(str(given)).is_file():
        raise UserError(
            f"teacher={given}: with steps= this must be a model trained on the classes of the first step (.pt); "
            "leave it out to train one from student="
        )
    return Path(str(given))


def _check_base(base: Path, names: Sequence[str]) -> None:
    """Raise :class:`UserError` unless ``base`` knows exactly the classes of the first step, in their order."""
    known = describe(str(base), "teacher").names
    if [normalized(name) for name in known] != [normalized(name) for name in names]:
        raise UserError(
            f"teacher={base} knows {', '.join(known)}, the first step has {', '.join(names)}: give a model trained on "
            "exactly these, in this order, or other steps"
        )


def _run_or_resume(run: Run, folder: Path, values: Mapping[str, Any]) -> None:
    """Start a run, resume it, or keep it if it has finished."""
    if is_finished(folder):
        LOGGER.info(f"{folder.name}: finished earlier, kept")
        return
    LOGGER.info(folder.name)
    again = {"resume": str(folder)} if (folder / "run.yaml").is_file() else {"exist_ok": True}
    run({**values, "name": folder.name, **again})
    if not is_finished(folder):
        raise UserError(f"{folder} did not finish; repeat the same line to continue")


def _rows(root: Path, modes: Sequence[str], steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The rows of all finished runs of these modes."""
    folders = [(mode, step, root / f"{mode}-{step.name}") for mode in modes for step in steps[1:]]
    return [_row(mode, step, folder, steps) for mode, step, folder in folders if is_finished(folder)]


def _row(mode: str, step: Step, folder: Path, steps: Sequence[Step]) -> dict[str, Any]:
    record = BoxRecord.read(folder / FILE)
    training, test, data = record.training["student"], record.test["student"], record.data
    if data is None or record.incremental is None:
        raise UserError(f"{folder} is not a run with new classes: remove it and repeat the same line")
    return {
        "mode": mode,
        "steps": "+".join(str(s.last - s.first) for s in steps),
        "step": step.number,
        "classes": step.last,
        "seed": record.run.seed,
        **record.incremental.model_dump(exclude={"classes_old", "classes_new"}),
        "map_by_step": [mean_over(test, data.classes[s.first : s.last]) for s in steps[: step.number]],
        "images": data.train_labeled,
        "epochs": training.epochs_done,
        "optimizer_steps": training.optimizer_steps,
        "export_passed": record.export.passed if record.export else None,
        "run": folder.name,
        **{key: getattr(record.run, key) for key in ("device", "dfssd", "ultralytics", "torch", "git")},
    }


def table_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV; average precisions with four digits."""
    return csv_text(rows, [name for name in rows[0] if name != "map_by_step"], show="{:.4f}".format)


def _log_steps(steps: Sequence[Step], data: Mapping[tuple[int, bool], Mapping[str, Any]]) -> None:
    for step in steps:
        part = data[step.number, False]
        removed = ", ".join(f"{n} {name}" for name, n in part["removed"].items()) or "none"
        LOGGER.info(
            f"{step.name}: {', '.join(part['classes'])}: {counted(part['images'], 'image')}, "
            f"{counted(part['boxes'], 'box')}; boxes of other classes left out there: {removed}"
        )


def markdown(rows: Sequence[Mapping[str, Any]], names: Sequence[str], steps: Sequence[Step], command: str) -> str:
    """The table of the protocol as Markdown."""
    parts = "; ".join(f"step {s.number}: {', '.join(names[s.first : s.last])}" for s in steps)
    head = ["mode", "step", "AP50 old before", "old", "new", "all", "forgetting"]
    table = markdown_table(
        [*head, "mAP50-95 old before", "old", "new", "all"],
        [[row["mode"], str(row["step"]), *(format_number(row[k]) for k in SHOWN)] for row in rows],
    )
    lines = [
        "# New classes step by step",
        "",
        f"Classes: {parts}.",
        "",
        *table,
        "",
        "Means over classes on all test images, first AP50 with forgetting, then mAP50-95: of the classes learned "
        "before the step (`old before`: by the model that it started from), of those of the step, of all so far. "
        "`finetune` and `freeze` are lower bounds, `joint` (labels of all classes) is the upper one.",
        "",
        f"    {command}",
        "",
    ]
    return "\n".join(lines)
