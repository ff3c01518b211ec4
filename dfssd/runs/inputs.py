"""The images and labels that the stages of a run read, held against what ``prepare`` recorded.

A file that broke, changed, or vanished since then would be dropped by Ultralytics' reader, or be read as another one:
scores would stand beside numbers of images that they do not belong to. So each stage checks the files of its lists
before it reads them and when it has ended. Sizes and times come first; only where they differ, the content is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dfssd.datasets.data_state import Named
from dfssd.datasets.file_records import Stamp
from dfssd.datasets.listed_files import Lost, leave_out, lost_files, read_list
from dfssd.errors import UserError
from dfssd.files import from_here
from dfssd.log import LOGGER
from dfssd.results.sections import Status
from dfssd.runs.folder import RunFolder

_LABELED, _UNLABELED, _VAL, _TEST = "train_labeled", "train_unlabeled", "val", "test"

READS: Mapping[str, Sequence[str]] = {
    "pretrain": (_LABELED, _UNLABELED),
    "teacher": (_LABELED, _VAL),
    "self-train": (_LABELED, _UNLABELED, _VAL),
    "pseudo-label": (_UNLABELED, _VAL),
    "baseline": (_LABELED, _VAL),
    "student": (_LABELED, _UNLABELED, _VAL),
    "test": (_VAL, _TEST),
    "export": (_TEST,),
}
"""Stage -> the lists of the split that it reads, in any task."""


class Inputs:
    """The files in the lists of a run."""

    def __init__(self, folder: RunFolder, *, skip_bad: bool):
        """Bind them.

        Args:
            folder: The run; its record gets the right numbers of images.
            skip_bad: Leave out images that are lost before any stage has read their list, instead of stopping.
        """
        self.folder, self.skip_bad = folder, skip_bad
        self._splits = folder.path / "splits"
        self._seen: dict[str, Stamp] = {}

    def listed(self, part: str) -> list[Path]:
        """Images in one list of the split, such as ``val``."""
        return read_list(self._splits, part)

    def watch(self, stage: str, work: Callable[[], Status]) -> Status:
        """Do the work of a stage, between two checks of the files that it reads.

        Raises:
            UserError: Files broke, changed, or vanished; the message names the first ones.
        """
        data, parts = self.folder.record.data, READS.get(stage, ())
        if data is None or not parts:
            return work()
        self.check(*parts)
        data = self.folder.record.data or data
        before = data.lists_read
        self._note_read(tuple(dict.fromkeys((*before, *parts))))
        trained = self._checkpoints()
        try:
            status = work()
        except UserError:
            raise
        except Exception as e:  # whatever a reader says of a file that it does not find, or cannot decode
            self._refuse(self._lost(parts), while_read=stage, cause=e)
            raise
        if status == "skipped":
            self._note_read(before)
        else:
            anew = sorted(name for name, stamp in self._checkpoints().items() if trained.get(name) != stamp)
            self._refuse(self._lost(parts), while_read=stage, remedy="".join(f", remove train/{name}" for name in anew))
        return status

    def check(self, *parts: str) -> None:
        """Check the files in lists of the split.

        Raises:
            UserError: Files changed or vanished, and are not left out; the message names the first ones.
        """
        lost = self._lost(parts)
        data = self.folder.record.data
        if lost and self.skip_bad and data and not {one.part for one in lost} & set(data.lists_read):
            self._leave_out(lost)
        else:
            self._refuse(lost)

    def _lost(self, parts: Sequence[str]) -> list[Lost]:
        return lost_files(self._splits, parts, self._seen)

    def _checkpoints(self) -> dict[str, Stamp]:
        """Name of each network that is trained here, with the stamp of its last checkpoint."""
        return {file.parts[-3]: Stamp.of(file) for file in self.folder.path.glob("train/*/weights/last.pt")}

    def _refuse(
        self, lost: Sequence[Lost], *, while_read: str = "", remedy: str = "", cause: Exception | None = None
    ) -> None:
        """Raise :class:`UserError` if any file is lost; ``remedy`` is what to do besides restoring it."""
        again = f"restore the data{remedy}, and go on with resume={from_here(self.folder.path)}, or start a new run"
        when = f"while the stage {while_read} read them" if while_read else "since the run was started"
        problems = []
        for state in ("changed", "vanished"):
            named = Named()
            for one in lost:
                if one.state == state:
                    named.add(one.file)
            if named.count:
                problems.append(f"{named.amount('file')} of the data {state} {when}: {named}; {again}")
        if problems:
            raise UserError(*problems) from cause

    def _leave_out(self, lost: Sequence[Lost]) -> None:
        record = self.folder.record
        assert record.data is not None
        counts = leave_out(self._splits, lost)
        images = {one.image: one for one in lost}
        for image, one in images.items():
            LOGGER.warning(f"skip_bad: {image} is left out of {one.part}: {one.reason}")
        skipped = (*record.data.skipped, *((image, one.reason) for image, one in images.items()))
        record.data = record.data.model_copy(update={**counts, "skipped": skipped})
        self.folder.save()

    def _note_read(self, lists: tuple[str, ...]) -> None:
        record = self.folder.record
        if record.data is not None and record.data.lists_read != lists:
            record.data = record.data.model_copy(update={"lists_read": lists})
            self.folder.save()
