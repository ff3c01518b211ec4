"""What a review by value is worth: ``python scripts/benchmark_review.py RUN out=FOLDER [n=100] [key=value ...]``.

RUN is a finished run that hides labels of its training images (``labeled=0.1``). From it two data sets are made: with
the ``n`` most valuable unlabeled images, and with ``n`` random ones, drawn with the seed of the run. The annotator is
simulated: he gives each image the labels that the run hides. Everything takes the way of ``dfssd review export`` and
``import``, and both data sets have the same val and test images and equally many labeled ones.

``FOLDER/plan.json`` then lists the two trainings, for ``python scripts/run_plan.py FOLDER/plan.json``: those of RUN
with the new data, changed by each further ``key=value``. They have equally many labeled images, and so equally many
steps, as far as these are not chosen by early stopping: give ``teacher_epochs=`` a number. A teacher that RUN was given
as trained would not learn from the new labels: name one to train with ``teacher=``.

The same line again keeps what there is. Trainings that were interrupted are resumed by the new plan, finished ones are
left out of it; once both are, the test scores and their differences are printed, and written to ``FOLDER/result.csv``.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfssd.benchmark.script import run_script
from dfssd.commands.options import Option, Usage, command_line
from dfssd.config.values import TEXT, Number
from dfssd.errors import UserError
from dfssd.evaluation.bootstrap import intervals
from dfssd.evaluation.detections import DETECTIONS, Detections
from dfssd.files import write_json, write_text
from dfssd.reporting.tables import csv_text
from dfssd.results.record import BoxRecord, read_run
from dfssd.review import BY_VALUE, COCO, ORDERS, RANDOM
from dfssd.review.export import export_review
from dfssd.review.loop import import_review, kept_keys
from dfssd.review.names import ReviewNames
from dfssd.review.run import ReviewedRun
from dfssd.runs.key_names import keys_of_runs

USAGE = Usage(
    (
        Option("run", TEXT, "folder of a run that hides labels", required=True),
        Option("out", TEXT, "folder for data sets, plan, and runs", required=True),
        Option("n", Number(1, integer=True), "number of images that are reviewed", default=100),
    ),
    positional=("run",),
    others="keys of a run, which both trainings get",
)
SETTINGS = "settings.json"
NETWORKS = ("teacher", "baseline", "student")
SCORES = ("map50_95", "map50")


def make_data(run: ReviewedRun, out: Path, order: str, n: int) -> Path:
    """The data set with ``n`` images in this order, reviewed by the simulated annotator; kept if it is there.

    Raises:
        UserError: The run hides no labels, or not those of all images.
    """
    folder = out / order
    if not (folder / "data" / "data.yaml").is_file():
        if not (folder / "review").is_dir():
            export_review(
                run,
                folder / "review",
                to=COCO,
                n=n,
                order=order,
                seed=run.config.seed,
                conf=None,
                student=True,
                device=None,
            )
        write_json(folder / "reviewed.json", annotated(run, folder / "review" / "annotations.json"))
        import_review([str(folder / "reviewed.json")], str(run.folder), folder / "data", skip_bad=False)
    return folder / "data" / "data.yaml"


def annotated(run: ReviewedRun, exported: Path) -> dict[str, Any]:
    """A COCO file that was exported, with the true boxes of its images instead of the proposed ones."""
    tree: dict[str, Any] = json.loads(exported.read_text(encoding="utf-8"))
    names = ReviewNames(run.images)
    boxes: list[dict[str, Any]] = []
    for image in tree["images"]:
        [path] = names.find(image["file_name"]).images
        try:
            rows = run.labels(path)
        except UserError as e:
            raise UserError(
                f"{path} has no labels that the run hides: give a run with labeled= below 1 on data with all labels"
            ) from e
        size = np.array([image["width"], image["height"]] * 2, dtype=np.float64)
        for class_id, x, y, w, h in rows.astype(np.float64).tolist():
            bbox = (np.array([x - w / 2, y - h / 2, w, h]) * size).tolist()
            own = {"id": len(boxes) + 1, "image_id": image["id"], "category_id": int(class_id) + 1}
            boxes.append({**own, "bbox": bbox, "iscrowd": 0})
    return {**tree, "annotations": boxes}


def job(out: Path, order: str, keys: Mapping[str, Any]) -> dict[str, str] | None:
    """The training of a data set as a job of a plan: begun, resumed, or None if it is finished."""
    folder = out / "runs" / order
    if (folder / "run.yaml").is_file():
        if read_run(folder).stage("report") is not None:
            return None
        return {"name": order, "cmd": f"python3 train.py {shlex.quote(f'resume={folder}')}"}
    own = {**keys, "data": out / order / "data" / "data.yaml", "project": out / "runs", "name": order}
    return {"name": order, "cmd": command_line("python3 train.py", own)}


def compare(out: Path) -> list[dict[str, Any]]:
    """Test scores of the networks of both runs, and differences with 95 % intervals over the test images.

    Raises:
        UserError: The runs were not tested on the same images.
    """
    runs = {order: read_run(out / "runs" / order) for order in ORDERS}
    rows = []
    for network in NETWORKS:
        scores, found = {}, {}
        for order, record in runs.items():
            file = out / "runs" / order / "test" / network / DETECTIONS
            if isinstance(record, BoxRecord) and network in record.test and file.is_file():
                scores[order], found[order] = record.test[network], Detections.read(file)
        if len(found) < len(runs):
            continue
        try:
            within = intervals(found, [(BY_VALUE, RANDOM)])[BY_VALUE, RANDOM]
        except ValueError as e:
            raise UserError(f"{out}: {e}; start again in another folder") from e
        for score in SCORES:
            by_value, drawn = (getattr(scores[order], score) for order in (BY_VALUE, RANDOM))
            low, high = within[score]
            values = (by_value, drawn, by_value - drawn, low, high)
            numbers = dict(zip((*ORDERS, "difference", "low", "high"), (round(v, 4) for v in values), strict=True))
            rows.append({"network": network, "score": score, **numbers})
    return rows


def check_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Raise :class:`UserError` if the folder was begun with another run or number of images."""
    file = out / SETTINGS
    if not file.is_file():
        write_json(file, dict(settings))
    elif (before := json.loads(file.read_text(encoding="utf-8"))) != settings:
        changed = ", ".join(f"{key}={before.get(key)}" for key in settings if before.get(key) != settings[key])
        raise UserError(f"{out} was begun with {changed}; repeat that line, or choose another out=")


def run_benchmark(words: Sequence[str]) -> None:
    """Make what is missing and say what comes next."""
    values, changes = USAGE.read_and_pass_on(words, keys_of_runs())
    run, out = ReviewedRun.open(Path(values["run"])), Path(values["out"]).expanduser().resolve()
    if run.config["labeled"] == 1.0 and run.config["split"] is None:
        raise UserError(f"{run.folder} hides no labels: give a run with labeled= below 1")
    check_settings(out, {"run": str(run.folder), "n": values["n"], **changes})
    for order in ORDERS:
        print(f"{order}: {make_data(run, out, order, values['n'])}")
    keys = {"data": None, **kept_keys(run), "data_dir": run.data_dir, **changes}
    jobs = [found for order in ORDERS if (found := job(out, order, keys)) is not None]
    write_json(out / "plan.json", {"slots": 1, "jobs": jobs})
    if jobs:
        print("\n".join(["", *(found["cmd"] for found in jobs)]))
        print(f"\nboth one after the other: python scripts/run_plan.py {shlex.quote(str(out / 'plan.json'))}")
        return
    rows = compare(out)
    write_text(out / "result.csv", csv_text(rows, show=str))
    for row in rows:
        print(
            f"{row['network']:>9} {row['score']:<8}  by value {row[BY_VALUE]:.3f}, random {row[RANDOM]:.3f}, "
            f"difference {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        )


def main(argv: Sequence[str]) -> int:
    """The command ``scripts/benchmark_review.py``; returns its exit code."""
    return run_script(argv, run_benchmark, __doc__)
