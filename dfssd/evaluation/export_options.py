"""How a format is written, beyond its name: what the user may choose, and which formats know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

FP32, FP16, INT8 = "fp32", "fp16", "int8"

_QUANTIZE = {FP32: None, FP16: 16, INT8: 8}
"""Precision -> Ultralytics' ``quantize``."""

NMS_SCORE = 0.001
"""Lowest score of a box that a file with ``nms=true`` gives: thresholds are applied by who runs it."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export; the defaults are those of a run.

    Attributes:
        precision: Of weights and arithmetic: ``fp32``, ``fp16``, or ``int8``, calibrated on images.
        opset: Version of ONNX' operators; None: the newest that Ultralytics exports.
        dynamic: Accept inputs of any size and number, not of one size and ``batch`` images.
        nms: Suppress overlapping boxes inside the file.
        batch: Images at once.
        simplify: Simplify the ONNX graph.
        workspace: Memory of TensorRT [GiB]; None: its own choice.
        imgsz: Side of the input [px], where it is not that of the run; None: it is.
    """

    precision: str = FP32
    opset: int | None = None
    dynamic: bool = False
    nms: bool = False
    batch: int = 1
    simplify: bool = True
    workspace: float | None = None
    imgsz: int | None = None

    @property
    def stem(self) -> str:
        """The name of the files without suffix: that of plain ones is ``student``, others name what is different."""
        parts = ["student"]
        parts += [] if self.precision == FP32 else [self.precision]
        parts += [] if self.opset is None else [f"opset{self.opset}"]
        parts += [name for name in ("dynamic", "nms") if getattr(self, name)]
        parts += [] if self.batch == 1 else [f"batch{self.batch}"]
        parts += [] if self.simplify else ["raw"]
        parts += [] if self.workspace is None else [f"workspace{self.workspace:g}"]
        parts += [] if self.imgsz is None else [f"{self.imgsz}px"]
        return "_".join(parts)

    def arguments(self, known: Sequence[str]) -> dict[str, Any]:
        """Ultralytics' arguments.

        Args:
            known: Names of the arguments that the format has.
        """
        wanted = {
            "quantize": _QUANTIZE[self.precision],
            "opset": self.opset,
            "dynamic": self.dynamic,
            "nms": self.nms,
            "batch": self.batch,
            "simplify": self.simplify,
            "workspace": self.workspace,
        }
        usual = {"quantize": None, **{f.name: f.default for f in fields(self)}}
        found = {name: value for name, value in wanted.items() if name in known and value != usual[name]}
        if found.get("nms"):
            from dfssd.deployment.infer import OVERLAP

            found |= {"conf": NMS_SCORE, "iou": OVERLAP}
        return found

    def problems(self, known: Mapping[str, Sequence[str]]) -> list[str]:
        """Options that have no effect: a line each; empty if all of them act.

        What shapes the inputs, the outputs, and the numbers must be known to all formats, what concerns one kind of
        file to one of them.

        Args:
            known: Name of each wanted format -> names of the arguments that it has.
        """
        every = {
            f"{'int8' if self.precision == INT8 else 'half'}=true": ("quantize", self.precision != FP32),
            "dynamic=true": ("dynamic", self.dynamic),
            "nms=true": ("nms", self.nms),
            f"batch={self.batch}": ("batch", self.batch != 1),
        }
        one = {
            f"opset={self.opset}": ("opset", self.opset is not None),
            "simplify=false": ("simplify", not self.simplify),
            f"workspace={self.workspace}": ("workspace", self.workspace is not None),
        }
        found = []
        for shown, (key, given) in {**every, **one}.items():
            lacking = [name for name, arguments in known.items() if given and key not in arguments]
            if lacking and (shown in every or len(lacking) == len(known)):
                found.append(f"{shown} has no effect on format={','.join(lacking)}; leave one of them out")
        if self.dynamic and self.batch != 1:
            found.append(f"dynamic=true accepts any number of images: leave batch={self.batch} out")
        return found
