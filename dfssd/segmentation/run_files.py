"""The files that the report of a segmentation run is written from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dfssd.reporting.run_files import RunFiles, weight_sizes
from dfssd.results.record import FILE, MaskRecord


@dataclass(frozen=True)
class SegmentationFiles(RunFiles):
    """Files of the folder of a segmentation run, read once.

    Attributes:
        record: Its ``results.json``.
        lists_leaks: Whether ``splits/test_leaks.txt`` names all copies of test images in training.
    """

    record: MaskRecord
    lists_leaks: bool = False

    @classmethod
    def read(cls, folder: Path) -> SegmentationFiles:
        """Read a run folder.

        Raises:
            UserError: ``results.json`` is missing or broken.
        """
        lists_leaks = (folder / "splits" / "test_leaks.txt").is_file()
        return cls(folder, weight_sizes(folder), MaskRecord.read(folder / FILE), lists_leaks)
