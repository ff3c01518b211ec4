"""dfssd: from labeled and unlabeled images to a small distilled YOLO detector.

From Python: :func:`check`, :func:`train`, :func:`open_run`, :func:`read_run` and :class:`UserError`. The command line,
:mod:`dfssd.cli`, runs the same :mod:`dfssd.data_check` and :mod:`dfssd.pipeline`. Importing this package imports no
large dependency and changes nothing in the process.
"""

from dfssd.api import Run, check, open_run, read_run, train
from dfssd.errors import UserError

__all__ = ["Run", "UserError", "check", "open_run", "read_run", "train"]
__version__ = "0.2.0"
