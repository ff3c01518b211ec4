"""dfssd: from labelled and unlabelled images to a small distilled YOLO detector.

The command line (``python train.py``, :mod:`dfssd.cli`) is the main face; :mod:`dfssd.pipeline` is the story it tells.
"""

import os

import psutil

__version__ = "0.1.0"

# Both must be set before Ultralytics is imported. It installs missing packages at run time unless told not to
# (requirements.txt is the only thing that installs here), and it limits torch to one thread unless a number is given,
# which on a CPU halves the speed of a training even on two cores.
os.environ.setdefault("YOLO_AUTOINSTALL", "false")
_allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
os.environ.setdefault("OMP_NUM_THREADS", str(min(psutil.cpu_count(logical=False) or _allowed, _allowed)))
