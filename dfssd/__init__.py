"""dfssd: from labelled and unlabelled images to a small distilled YOLO detector.

The command line (``python train.py``, :mod:`dfssd.cli`) is the main face; :mod:`dfssd.pipeline` is the story it tells.
"""

__version__ = "0.1.0"
