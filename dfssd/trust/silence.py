"""What Ultralytics would fetch or send unasked, where no variable stops it (:data:`dfssd.process.SILENT`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib
from ultralytics.data import utils as data_utils
from ultralytics.utils import USER_CONFIG_DIR, checks, events, plotting


def _font(font: str = "Arial.ttf") -> Path | str:
    """In place of Ultralytics' ``check_font``, which would fetch it from GitHub: that of this machine, else DejaVu.

    The latter comes with matplotlib.
    """
    from matplotlib import font_manager  # late, since it looks through the fonts of the machine

    own = USER_CONFIG_DIR / Path(font).name
    if own.exists():
        return own
    known = (entry.fname for entry in font_manager.fontManager.ttflist)
    found = next((path for path in known if font in path and os.path.exists(path)), None)
    return found or os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def install() -> None:
    """Let Ultralytics take fonts from here; and be silent where it was imported before the variables were set."""
    for module in (data_utils, plotting):
        drawing: Any = module
        drawing.check_font = _font
    if os.environ.get("YOLO_OFFLINE", "").strip().lower() in {"1", "true", "yes", "on", "y", "t"}:
        about: Any = checks
        about.ONLINE = False
        events.events.enabled = False
