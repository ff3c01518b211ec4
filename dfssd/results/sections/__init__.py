"""The sections of a run's record: what each stage reports, as frozen types.

The docstring of a field is its documentation; the tables of docs/results.md consist of them. "Not known" and "does not
apply" are None (``null`` in the file); no number is ever NaN or infinite. Scores and shares lie in [0, 1].
"""

from dfssd.results.sections.boxes import (
    BoxData,
    BoxExport,
    BoxScores,
    BoxTolerance,
    ClassBoxes,
    ClassQuality,
    ClassScores,
    Curve,
    Incremental,
    LabelSettings,
    Pretraining,
    PseudoLabels,
    Quality,
)
from dfssd.results.sections.distillation import (
    BalanceState,
    Distill,
    GuardState,
    Health,
    SelfTest,
    Start,
    Term,
    ThresholdRule,
    ThresholdState,
)
from dfssd.results.sections.masks import (
    ClassIou,
    Latency,
    Leaks,
    Loss,
    MaskData,
    MaskExport,
    MaskScores,
    MaskSelfTest,
    MaskTolerance,
    MaskTraining,
    Picture,
    SplitKind,
)
from dfssd.results.sections.shared import (
    PRETRAINED,
    SCRATCH,
    Count,
    Data,
    Difference,
    Differences,
    Export,
    Gain,
    GuardEvent,
    ModelSelection,
    Number,
    OtherFormat,
    Role,
    RunFacts,
    Seconds,
    Section,
    SelfTraining,
    Session,
    Stage,
    Status,
    Training,
    to_json,
)

__all__ = [
    "PRETRAINED", "SCRATCH",
    "BalanceState", "BoxData", "BoxExport", "BoxScores", "BoxTolerance", "ClassBoxes", "ClassIou", "ClassQuality",
    "ClassScores", "Count", "Curve", "Data", "Difference", "Differences", "Distill", "Export", "Gain", "GuardEvent",
    "GuardState", "Health", "Incremental", "LabelSettings", "Latency", "Leaks", "Loss", "MaskData", "MaskExport",
    "MaskScores", "MaskSelfTest", "MaskTolerance", "MaskTraining", "ModelSelection", "Number", "OtherFormat",
    "Picture", "Pretraining", "PseudoLabels", "Quality", "Role", "RunFacts", "Seconds", "Section", "SelfTest",
    "SelfTraining", "Session", "SplitKind", "Stage", "Start", "Status", "Term",
    "ThresholdRule", "ThresholdState", "Training", "to_json",
]  # fmt: skip
