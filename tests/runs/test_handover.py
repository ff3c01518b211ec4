"""What the record of a run says of files that were exported later."""

from __future__ import annotations

from typing import Any

from dfssd.results.sections import LaterExport, OtherFormat
from dfssd.runs.handover import with_later
from tests.detection.recorded_run import results


def one(name: str, file: str | None, score: float = 0.4, **more: Any) -> OtherFormat:
    return OtherFormat(format=name, file=file, error=None if file else "no package", score=score, **more)


def later(*formats: OtherFormat) -> LaterExport:
    return LaterExport(imgsz=64, machine="a machine", formats=(one("torch", None), *formats))


def test_a_file_that_is_written_again_is_listed_once() -> None:
    """Whether the run itself wrote it or an earlier export; what could not be written stays on record."""
    export = results(student=0.4).export
    assert export is not None
    failed, old = one("engine", None), one("openvino", "deploy/student_openvino_model", score=0.5)
    export = export.model_copy(update={"other": (failed, old)})
    script = one("torchscript", "deploy/student.torchscript")
    found = with_later(export, later(script))
    assert found.other == (failed, old) and found.later == (later(script),)
    new = one("openvino", "deploy/student_openvino_model", score=0.3)
    found = with_later(found, later(new, script))
    assert found.other == (failed,) and found.later == (later(new, script),)
