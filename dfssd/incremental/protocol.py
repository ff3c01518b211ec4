"""The class-incremental protocol on one data set: base, then steps, for each mode a chain of its own; and their table.

The data set is split once. The base is trained on the classes of the first step. From there every mode (a recipe such
as ``sdidd``, ``erd``, ``finetune``, ``freeze``, ``joint``) goes its own way: each step grows the model of the step
before and trains it on the data of :mod:`dfssd.incremental.steps`. Every training is a normal run in a folder of its
own, so the protocol is continued like any run: finished ones are kept, an unfinished one is resumed.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dfssd.config import Config, flatten, read_yaml
from dfssd.datasets.duplicates import duplicate_groups
from dfssd.datasets.formats import load_dataset
from dfssd.datasets.splits import make_split, read_split, write_split
from dfssd.distillation.compatibility import check_bins, describe, resolve_weights
from dfssd.distillation.terms import TERMS
from dfssd.errors import UserError
from dfssd.files import write_json, write_text, write_yaml
from dfssd.incremental.measures import mean_over
from dfssd.incremental.steps import Step, parse_steps, write_step
from dfssd.preflight import check_training
from dfssd.runfolder import CHANGEABLE
from dfssd.tables import markdown_table, number, read_json
from dfssd.trainers.budget import teacher_schedule

BASE = "base"
JOINT = "joint"
RESULT = "incremental.json"
OWN = {"recipe", "data", "teacher", "student", "split", "split_ratio", "labeled", "limit", "steps", "modes"}
OWN |= {"names", "unlabeled", "missing_label", "name", "project", "exist_ok", "resume"}
"""Arguments of the protocol itself; its runs get their own."""

SHOWN = ["map_old_before", "map_old", "map_new", "map_all", "forgetting"]
SHOWN += ["map50_95_old_before", "map50_95_old", "map50_95_new", "map50_95_all"]
"""Values of a row in the table for readers."""

OF_A_RECIPE = {"student_training", "new_only", "freeze_bn", "freeze_features", "unsup_weight", "baseline", "guard"}
"""Arguments that make a recipe what it is: on the line they are meant for the recipe that is named there."""

Run = Callable[[dict[str, Any]], None]
"""Makes or resumes one run from the arguments of ``train.py``; raises :class:`UserError` if it does not finish."""


Check = Callable[[dict[str, Any]], Config]
"""Resolves arguments of ``train.py``; raises :class:`UserError` for wrong ones."""


def run_protocol(config: Config, command: str, run: Run, check: Check) -> list[dict[str, Any]]:
    """Run or go on with the whole protocol.

    Args:
        config: Resolved configuration with ``steps``.
        command: The command line, for the record.
        run: Makes one run.
        check: Checks the arguments of one.

    Returns:
        The rows of the table (docs/results.md), also written to ``incremental.json``, ``.csv`` and ``.md``.

    Raises:
        UserError: Bad input, or a run that did not finish; what was finished before stays.
    """
    if config["data"] is None:
        raise UserError("data is missing: steps= needs a data set with the labels of all classes")
    check_training(config)
    root = Path(config["project"]) / (config["name"] or "incremental")
    modes = _modes(config, check)
    _check_same(config, root)
    dataset, split, steps = _prepare(config, root)
    for_mode = {k: v for k, v in config.given.items() if k not in OWN}
    common = {k: v for k, v in for_mode.items() if k not in OF_A_RECIPE and k.partition(".")[0] not in TERMS}
    where = {"project": str(root), "data_dir": config["data_dir"]}
    data = {}
    for step in steps:
        for joint in (False, True) if step.number > 1 and JOINT in modes else (False,):
            folder = root / "data" / (f"{step.name}-{JOINT}" if joint else step.name)
            data[step.number, joint] = write_step(dataset, split, step, folder, joint=joint)
    _tell_steps(steps, data)

    base = _base_weights(config)
    if base is None:
        per_epoch = math.ceil(data[1, False]["images"] / config.train.get("batch", 16))
        passes, patience = teacher_schedule(config, per_epoch)
        values = {**common, **where, "recipe": "baseline", "teacher": None, "student": config["student"]}
        values |= {"data": data[1, False]["yaml"], "epochs": passes, "patience": patience}
        _make(run, root / BASE, values)
        base = root / BASE / "weights" / "baseline.pt"
    rows: list[dict[str, Any]] = []
    for mode in modes:
        teacher = base
        for step in steps[1:]:
            part = data[step.number, Path(mode).stem == JOINT]
            folder = root / f"{Path(mode).stem}-{step.name}"
            values = {**(for_mode if mode == config["recipe"] else common), **where}
            _make(run, folder, {**values, "recipe": mode, "teacher": str(teacher), "data": part["yaml"]})
            rows.append(_row(Path(mode).stem, step, folder, part, steps))
            teacher = folder / "weights" / "student.pt"
            counts = [data[s.number, False] for s in steps]
            write_json(root / RESULT, {"command": command, "steps": counts, "rows": rows})
            write_text(root / "incremental.csv", csv_text(rows))
            write_text(root / "incremental.md", markdown(rows, dataset.names, steps, command))
    return rows


def _modes(config: Config, check: Check) -> list[str]:
    """The recipes to compare, that of the line first, each checked before anything is computed."""
    asked = config["modes"]
    modes = [word.strip() for word in asked.split(",")] if isinstance(asked, str) else list(asked)
    modes = list(dict.fromkeys([str(config["recipe"]), *modes]))
    student = None if _base_weights(config) else resolve_weights(config["student"], "student")
    facts = describe(student, "student") if student else describe(str(_base_weights(config)), "teacher")
    for mode in modes:
        resolved = check({"recipe": mode, "teacher": "given.pt"})
        if resolved["student_training"] != "grown":
            raise UserError(
                f"modes: {mode} does not teach new classes; choose among sdidd, erd, finetune, freeze, joint"
            )
        terms = config.terms if mode == config["recipe"] else resolved.terms
        check_bins(facts, [name for name in terms if TERMS[name].needs_bins])
    return modes


def _check_same(config: Config, root: Path) -> None:
    """Refuse a folder that was begun with other arguments: finished runs are kept, and would stand for these."""
    record = root / "protocol.yaml"
    now = {
        "config": {k: v for k, v in config.own.items() if k not in CHANGEABLE | {"modes"}},
        "terms": {k: dict(v) for k, v in config.terms.items()},
        "train": {k: v for k, v in config.train.items() if k not in CHANGEABLE},
    }
    now = json.loads(json.dumps(now))
    if not record.exists():
        write_yaml(record, now)
        return
    then = {**flatten(read_yaml(record))}
    for key, value in sorted(flatten(now).items()):
        if then.get(key, value) != value:
            raise UserError(
                f"{root} was begun with {key.partition('.')[2]}={then[key]}, not {value}: repeat the same line, or use "
                "another name="
            )


def _prepare(config: Config, root: Path) -> tuple[Any, Any, list[Step]]:
    """Data set, split and steps; the split is written once and read again when the protocol goes on."""
    unlabeled, names = config["unlabeled"], config["names"]
    dataset = load_dataset(
        config["data"],
        Path(config["data_dir"]),
        unlabeled=[unlabeled] if isinstance(unlabeled, str) else unlabeled,
        names=[names] if isinstance(names, str) else names,
        skip_bad=config["skip_bad"],
        missing_label=config["missing_label"],
    )
    steps = parse_steps(config["steps"], dataset.names)
    if (root / "splits" / "split.json").exists():
        return dataset, read_split(root / "splits", dataset), steps
    if config["split"]:
        split = read_split(Path(config["split"]), dataset)
    else:
        split = make_split(
            dataset,
            labeled=config["labeled"],
            limit=config["limit"],
            ratios=tuple(config["split_ratio"]),
            seed=config.train.get("seed", 0),
            groups=duplicate_groups([item.image for item in dataset.items]),
        )
    write_split(split, dataset, root / "splits")
    return dataset, split, steps


def _base_weights(config: Config) -> Path | None:
    """The base that the user gives instead of training it: ``teacher=`` with a .pt file."""
    given = config.given.get("teacher")
    if given is None:
        return None
    if not str(given).endswith(".pt") or not Path(str(given)).is_file():
        raise UserError(
            f"teacher={given}: with steps= this is a model trained on the classes of the first step (.pt); leave it "
            "out to have it trained, from student="
        )
    return Path(str(given))


def _make(run: Run, folder: Path, values: Mapping[str, Any]) -> None:
    """Make one run, go on with it, or keep it."""
    if _finished(folder):
        print(f"[dfssd] {folder.name}: finished before, kept")
        return
    print(f"[dfssd] {folder.name}")
    again = {"resume": str(folder)} if (folder / "run.yaml").is_file() else {"exist_ok": True}
    run({**values, "name": folder.name, **again})
    if not _finished(folder):
        raise UserError(f"{folder} did not finish; the same line goes on from there")


def _finished(folder: Path) -> bool:
    return any(stage.get("name") == "report" for stage in read_json(folder / "results.json").get("stages", ()))


def _row(mode: str, step: Step, folder: Path, data: Mapping[str, Any], steps: Sequence[Step]) -> dict[str, Any]:
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    part, run = results["incremental"], results["run"]
    test, names = results["test"]["student"], results["data"]["classes"]
    return {
        "mode": mode,
        "steps": "+".join(str(s.last - s.first) for s in steps),
        "step": step.number,
        "classes": step.last,
        "seed": run["seed"],
        **{k: v for k, v in part.items() if not k.startswith("classes")},
        "map_by_step": [mean_over(test, names[s.first : s.last]) for s in steps[: step.number]],
        "images": data["images"],
        "epochs": results["training"]["student"]["epochs_done"],
        "optimizer_steps": results["training"]["student"]["optimizer_steps"],
        **{k: run[k] for k in ("device", "dfssd", "ultralytics", "torch", "git")},
    }


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as CSV; average precisions with four digits."""
    text = io.StringIO()
    names = [name for name in rows[0] if name != "map_by_step"]
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})
    return text.getvalue()


def _tell_steps(steps: Sequence[Step], data: Mapping[tuple[int, bool], Mapping[str, Any]]) -> None:
    for step in steps:
        part = data[step.number, False]
        removed = ", ".join(f"{n} {name}" for name, n in part["removed"].items()) or "none"
        print(
            f"[dfssd] {step.name}: {', '.join(part['classes'])}: {part['images']} images, {part['boxes']} boxes; boxes "
            f"of other classes left out there: {removed}"
        )


def markdown(rows: Sequence[Mapping[str, Any]], names: Sequence[str], steps: Sequence[Step], command: str) -> str:
    """The table of the protocol in words."""
    parts = "; ".join(f"step {s.number}: {', '.join(names[s.first : s.last])}" for s in steps)
    table = markdown_table(
        ["mode", "step", "old before", "old", "new", "all", "forgetting", "old before", "old", "new", "all"],
        [[row["mode"], str(row["step"]), *(number(row[k]) for k in SHOWN)] for row in rows],
    )
    lines = [
        "# New classes step by step",
        "",
        f"Classes: {parts}.",
        "",
        *table,
        "",
        "Means over classes on all test images, first AP50 with forgetting, then mAP50-95: of the classes learnt "
        "before the step (`old before`: by the model that it began with), of those of the step, of all seen so far. "
        "`finetune` and `freeze` are lower bounds, `joint` (labels of all classes) is the upper one.",
        "",
        f"    {command}",
        "",
    ]
    return "\n".join(lines)
