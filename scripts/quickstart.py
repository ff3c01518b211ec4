"""Set up everything and run the main job once, on generated images: ``python scripts/quickstart.py [key=value ...]``.

Arguments are those of ``train.py`` and replace the ones below.
"""

import sys

import environment

ARGUMENTS = (
    "data=demo",
    "teacher=yolov8s.yaml",
    "student=yolov8n.yaml",
    "epochs=24",
    "teacher_min_batches=190",
    "unlabeled_ratio=0.34",
    "imgsz=128",
    "batch=16",
    "optimizer=AdamW",
    "lr0=0.002",
    "nbs=32",
    "mosaic=0.5",
    "close_mosaic=6",
    "plots=false",
    "device=cpu",
    "project=runs",
    "name=quickstart",
)
"""What ``train.py`` gets: sized for two CPU cores and a few minutes, which is 192 batches from random weights. So few
need small steps (``nbs``), a fast optimizer and mostly whole images, and the pseudo-labels of a teacher trained so
briefly get a small share."""

ALIASES = {"teacher_model": "teacher", "student_model": "student", "dataset": "data"}


def command(given):
    """The arguments for ``train.py``: those of the user first, then ours where the user has not set the key."""
    keys = {word.lstrip("-").partition("=")[0].replace("-", "_") for word in given}
    keys |= {ALIASES[key] for key in keys & set(ALIASES)}
    return [*given, *(word for word in ARGUMENTS if word.partition("=")[0] not in keys)]


if __name__ == "__main__":
    sys.exit(environment.run(["train.py", *command(sys.argv[1:])]))
