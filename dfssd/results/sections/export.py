"""Sections of the record on exported files: how closely each computes what PyTorch does, how large, and how fast."""

from __future__ import annotations

from typing import Literal

from pydantic import StrictBool

from dfssd.results.sections.operating import SizeRecall
from dfssd.results.sections.shared import Count, Number, Section


class Times(Section):
    """How long one image takes from pixels to raw output, without reading and scaling."""

    median_ms: Number
    """Median of 30 runs [ms]."""
    p95_ms: Number
    """95 % of the runs took no longer [ms]."""


class OtherFormat(Section):
    """A format, compared with PyTorch as the ONNX file of a run is."""

    format: str
    """Name of the format."""
    file: str | None
    """The file; null if it could not be written."""
    error: str | None
    """null, or why it could not be written, or run."""
    precision: str | None = None
    """`fp32`, `fp16` or `int8`; absent in records of earlier versions."""
    size_mb: Number | None = None
    """Its size in 10^6 bytes."""
    score: Number | None = None
    """Its mAP50-95 (masks: mean IoU of the defects), as that of ONNX; null if there is nothing to measure."""
    max_box_diff_px: Number | None = None
    """As of the ONNX file."""
    max_score_diff: Number | None = None
    """As of the ONNX file."""
    differing_pixels: Number | None = None
    """As of the ONNX file, of masks."""
    passed: StrictBool = True
    """Whether it was written and all differences are within tolerance; no limit holds for `fp16` and `int8`."""
    failures: tuple[str, ...] = ()
    """A sentence for each difference above its tolerance."""
    median_ms: Number | None = None
    """As of `onnx_ms`."""
    p95_ms: Number | None = None
    """As of `onnx_ms`."""
    sizes: tuple[SizeRecall, ...] = ()
    """As `onnx_sizes`."""


class TensorFile(Section):
    """The detector without a pickle."""

    file: str
    """The file; ``student.yaml`` beside it belongs to it."""
    size_mb: Number
    """Its size in 10^6 bytes."""
    sha256: str
    """Its SHA-256."""


class LaterExport(Section):
    """Formats that were written after the run, all at once, and PyTorch beside them."""

    imgsz: Count
    """Side of the input that they were compared and timed at [px]."""
    machine: str
    """What computed their times: the processor and the number of threads."""
    formats: tuple[OtherFormat, ...]
    """PyTorch first (`torch`, without a file), which they are compared with and were timed beside, then each format."""

    @property
    def passed(self) -> bool:
        """Whether every format was written and is within tolerance."""
        return all(one.passed and not one.error for one in self.formats)


class Export(Section):
    """The ONNX file and the check that it computes the same; only `failures` for a file that could not be written."""

    format: Literal["onnx"]
    """`onnx`."""
    file: str | None
    """The file; null if it could not be written."""
    size_mb: Number | None = None
    """Its size in 10^6 bytes."""
    input: tuple[Count, ...] | None = None
    """Shape of its input: 1, 3, height, width [px], RGB in 0-1."""
    images: Count | None = None
    """Test images whose raw outputs were compared (at most 100, evenly from the split)."""
    passed: StrictBool
    """Whether all differences of the ONNX file are within tolerance."""
    failures: tuple[str, ...] = ()
    """A sentence for each reason not to pass."""
    torch_ms: Times | None = None
    """`median_ms` and `p95_ms`: how long PyTorch takes for one image, from pixels to raw output [ms]."""
    onnx_ms: Times | None = None
    """The same of the ONNX file, `median_ms` and `p95_ms`; both, and the other formats, are timed in turn."""
    machine: str | None = None
    """What computed that: the processor and the number of threads."""
    torch_sizes: tuple[SizeRecall, ...] = ()
    """Recall by size of the defects by PyTorch, on the images of its score, at the balanced thresholds of the student
    (those of `operating`, chosen on validation images); absent for masks, and in records of earlier versions."""
    onnx_sizes: tuple[SizeRecall, ...] = ()
    """The same by ONNX: what is found less often than by PyTorch is lost in the file."""
    other: tuple[OtherFormat, ...] = ()
    """Further formats of `format=`, see below."""
    later: tuple[LaterExport, ...] = ()
    """What `dfssd export` has written since, see below; it does not decide whether the stage has passed."""

    @property
    def score(self) -> float | None:
        """The score of the ONNX file, in the measure of the task; None if there is none."""
        return None

    @property
    def torch_score(self) -> float | None:
        """The score of PyTorch beside it."""
        return None

    @property
    def complete(self) -> bool:
        """Whether every wanted format was written and is within tolerance."""
        return self.passed and all(other.passed and not other.error for other in self.other)
