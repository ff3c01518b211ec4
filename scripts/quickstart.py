"""Set up everything and run the main job once, on generated images: ``python scripts/quickstart.py [key=value ...]``.

Arguments are those of ``train.py`` and replace the ones below.
"""

import sys

import environment

ARGUMENTS = (
    "data=demo",
    "labeled=20",
    "teacher=yolov8s.yaml",
    "student=yolov8n.yaml",
    "epochs=50",
    "teacher_min_batches=800",
    "imgsz=64",
    "batch=8",
    "nbs=8",
    "optimizer=AdamW",
    "lr0=0.002",
    "mosaic=0.5",
    "unlabeled_mosaic=0",
    "close_mosaic=8",
    "val_every=10",
    "plots=false",
    "device=cpu",
    "project=runs",
    "name=quickstart",
)
"""What ``train.py`` gets: sized for two CPU cores and five minutes. 20 of 480 drawings keep their labels. Baseline and
student train for 500 batches of small images, with a fast optimizer and mosaics in half of the images (none in
unlabeled ones, where the teacher finds more); the teacher, which is larger, for 800. At this size the weights cost more
than the images, so small batches are the better use of the time; with more of them, labels would be more of a limit,
as in a plant. Ten batches are an epoch, and one epoch in ten is validated."""

ALIASES = {"teacher_model": "teacher", "student_model": "student", "dataset": "data"}


def command(given):
    """The arguments for ``train.py``: those of the user first, then ours where the user has not set the key."""
    keys = {word.lstrip("-").partition("=")[0].replace("-", "_") for word in given}
    keys |= {ALIASES[key] for key in keys & set(ALIASES)}
    return [*given, *(word for word in ARGUMENTS if word.partition("=")[0] not in keys)]


if __name__ == "__main__":
    sys.exit(environment.run(["train.py", *command(sys.argv[1:])]))
