"""Set up everything and run the main job once, on generated images: ``python scripts/quickstart.py [key=value ...]``.

Arguments are those of ``train.py`` and replace the ones below.
"""

import sys

import environment

ARGUMENTS = (
    "data=demo",
    "labeled=12",
    "teacher=yolov8s.yaml",
    "student=yolov8n.yaml",
    "epochs=200",
    "teacher_min_batches=600",
    "imgsz=64",
    "batch=16",
    "nbs=16",
    "optimizer=AdamW",
    "lr0=0.002",
    "mosaic=0.5",
    "unlabeled_mosaic=0",
    "close_mosaic=30",
    "plots=false",
    "device=cpu",
    "project=runs",
    "name=quickstart",
)
"""What ``train.py`` gets: sized for two CPU cores and a few minutes, and such that the labels are what is missing, as in a
plant. 12 of 480 drawings keep theirs; 600 batches of small images, from random weights, with a fast optimizer and half of
the usual mosaics (``unlabeled_mosaic``: none, the teacher finds more in whole images), are enough to learn what they say."""

ALIASES = {"teacher_model": "teacher", "student_model": "student", "dataset": "data"}


def command(given):
    """The arguments for ``train.py``: those of the user first, then ours where the user has not set the key."""
    keys = {word.lstrip("-").partition("=")[0].replace("-", "_") for word in given}
    keys |= {ALIASES[key] for key in keys & set(ALIASES)}
    return [*given, *(word for word in ARGUMENTS if word.partition("=")[0] not in keys)]


if __name__ == "__main__":
    sys.exit(environment.run(["train.py", *command(sys.argv[1:])]))
