"""The sections of the configuration as typed values.

No field has a default: defaults are in ``cfg/default.yaml`` only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PseudoSection:
    """Section ``pseudo``: how the teacher's boxes on unlabeled images become labels.

    Attributes:
        mode: ``offline``, ``online`` or ``both``.
        weigh: Weigh each pseudo box by its score in the YOLO loss.
        precision: Precision in (0, 1] on validation that sets the thresholds; None: tau0 ... tau_max.
        tta: Label flipped and resized copies, too (offline labels).
        teachers: More trained checkpoints whose boxes are fused with the teacher's (offline labels).
        tau_low: Score in [0, 1] below which a box is background.
        tau0: Lowest class threshold, in [tau_low, tau_max].
        tau_max: Highest class threshold, in [tau0, 1].
        ema_decay: Decay per batch of the class confidence average, in [0, 1).
        iou: IoU in [0, 1] of the non-maximum suppression of the teacher.
    """

    mode: str
    weigh: bool
    precision: float | None
    tta: bool
    teachers: tuple[str, ...]
    tau_low: float
    tau0: float
    tau_max: float
    ema_decay: float
    iou: float


@dataclass(frozen=True)
class SegSection:
    """Section ``seg``: losses, views and learning rate of mask networks.

    Attributes:
        ce: Weight of the cross entropy, >= 0.
        dice: Weight of the Dice loss, >= 0.
        boundary: Weight of the boundary loss, >= 0; 0 computes no distance maps.
        kd: Weight of the distillation from the teacher's soft masks, >= 0.
        tau: Temperature of the distillation, > 0.
        cutmix: Probability in [0, 1] that an unlabeled image gets a rectangle of another one.
        symmetries: Show images in all eight poses of the square.
        jitter: Probability in [0, 1] of other colors.
        lr_steps: Shares of all epochs in (0, 1) after which the learning rate falls; empty: Ultralytics' schedule.
        lr_factor: What it is multiplied by each time, in (0, 1].
    """

    ce: float
    dice: float
    boundary: float
    kd: float
    tau: float
    cutmix: float
    symmetries: bool
    jitter: float
    lr_steps: tuple[float, ...]
    lr_factor: float


@dataclass(frozen=True)
class ParitySection:
    """Section ``parity``: largest allowed differences between the exported model and PyTorch.

    Attributes:
        box_px: Of a box edge [px], >= 0.
        score: Of a score, >= 0.
        map: Of the mean score on the test images (mAP50-95, or mIoU), >= 0.
    """

    box_px: float
    score: float
    map: float
