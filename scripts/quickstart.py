"""Set up everything and run the main job once, on generated images: ``python scripts/quickstart.py [key=value ...]``.

Arguments are those of ``train.py`` and replace the ones below.
"""

import sys

import environment

ARGUMENTS = (
    "data=demo",
    "teacher=yolov8s.yaml",
    "student=yolov8n.yaml",
    "epochs=8",
    "teacher_epochs=8",
    "imgsz=128",
    "batch=16",
    "workers=0",
    "device=cpu",
    "project=runs",
    "name=quickstart",
)
"""What ``train.py`` gets: sized for two CPU cores and a few minutes."""


def command(given):
    """The arguments for ``train.py``: those of the user first, then ours where the user has not set the key."""
    keys = {word.lstrip("-").partition("=")[0] for word in given}
    return [*given, *(word for word in ARGUMENTS if word.partition("=")[0] not in keys)]


if __name__ == "__main__":
    sys.exit(environment.run(["train.py", *command(sys.argv[1:])]))
