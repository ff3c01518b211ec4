"""dfssd: from labeled and unlabeled images to a small distilled YOLO detector.

From Python: :func:`train`, :func:`read_run` and :class:`UserError`. The command line is :mod:`dfssd.cli`;
both run :mod:`dfssd.pipeline`. Importing this package imports no large dependency and changes nothing in the process.
"""

from dfssd.api import Run, read_run, train
from dfssd.errors import UserError

__all__ = ["Run", "UserError", "read_run", "train"]
__version__ = "0.1.0"
