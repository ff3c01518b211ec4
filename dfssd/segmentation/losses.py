"""The loss of MFF-Metal: cross entropy, Dice, boundary and distillation of a wider network's probabilities.

Notation: z logits (N, nc, H, W), p = softmax(z), y the one-hot mask. Class 0 is the background and is left out of
Dice and boundary. A pixel of mask id 255 is left out of all losses: means are over all other pixels of the batch, and
where there are none, a loss is 0 with a gradient of 0.

The published code sums over pixels. Divided by their number H W, its loss for batches of B images is

    CE + 0.5 / B * Dice + 1e-4 * boundary + B * KD

in terms of the functions below. With its B = 15 these are the weights 1 : 0.0333 : 1e-4 : 15, which are used here for
any batch size. Adam does not see the common factor H W.

One more difference: the published cross entropy clamps probabilities at 1e-8, below which a pixel gets no gradient;
here it is exact.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dfssd.checks import check_positive, check_share
from dfssd.datasets.records import IGNORE
from dfssd.distillation.terms.base import check_same_shape, exact, no_autocast
from dfssd.segmentation.combined import CombinedLosses, Weights


def cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over the pixels of -log p of the true class, >= 0.

    Args:
        logits: z, (N, nc, H, W).
        mask: Class ids, (N, H, W), integer: 0 to nc - 1, or 255 for ignored pixels.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs).

    Raises:
        ValueError: Shapes do not fit, or the mask is not of integers.
        IndexError: The mask holds another id (on the CPU; CUDA stops with an assertion).
    """
    _check_mask(logits, mask)
    with no_autocast(logits):
        (z,) = exact(logits)
        # PyTorch's own mean is NaN where every pixel is ignored
        return F.cross_entropy(z, mask.long(), ignore_index=IGNORE, reduction="sum") / _count(mask)


def dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Dice loss of each class but the background over the whole batch, summed over the classes, in [0, nc - 1).

        sum_{c > 0} 1 - (2 sum p_c y_c + 1) / (sum p_c + sum y_c + 1)      (sums over images and pixels)

    Args:
        logits: z, (N, nc, H, W).
        mask: As in :func:`cross_entropy`.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs).

    Raises:
        ValueError: Shapes do not fit, or the mask is not of integers.
    """
    _check_mask(logits, mask)
    with no_autocast(logits):
        (z,) = exact(logits)
        classes = torch.arange(1, z.shape[1], device=z.device)[:, None, None]
        y = mask[:, None] == classes
        p = z.softmax(1)[:, 1:] * (mask != IGNORE)[:, None]
        overlap, size = (p * y).sum((0, 2, 3)), p.sum((0, 2, 3)) + y.sum((0, 2, 3))
        return (1 - (2 * overlap + 1) / (size + 1)).sum()


def boundary(logits: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    """Mean over the pixels of sum_{c > 0} p_c phi_c [px]: penalizes probability off the class, rewards it inside.

    Args:
        logits: z, (N, nc, H, W).
        maps: phi, (N, nc - 1, H, W), of :func:`~dfssd.segmentation.boundary.distance_maps`.
        mask: As in :func:`cross_entropy`; marks the ignored pixels.

    Returns:
        Scalar of any sign, fp32 (fp64 for fp64 inputs).

    Raises:
        ValueError: Shapes do not fit, or the mask is not of integers.
    """
    _check_mask(logits, mask)
    _check_maps(logits, maps)
    with no_autocast(logits):
        (z,) = exact(logits)
        return _mean((z.softmax(1)[:, 1:] * maps.to(z)).sum(1), mask)


def kd(student: Tensor, teacher: Tensor, mask: Tensor, tau: float) -> Tensor:
    """Mean over the pixels of KL(softmax(z_t / tau) || softmax(z_s / tau)), >= 0.

    Without the usual factor tau^2, as published: the weight was chosen for this tau.

    Args:
        student: z_s, (N, nc, H, W).
        teacher: z_t, same shape; no gradient is sent back into it.
        mask: As in :func:`cross_entropy`; marks the ignored pixels.
        tau: Temperature, above 0.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs).

    Raises:
        ValueError: Shapes do not fit, or the mask is not of integers.
    """
    _check_mask(student, mask)
    check_same_shape("logits", student, teacher, "N, nc, H, W")
    with no_autocast(student):
        log_s, log_t = ((z / tau).log_softmax(1) for z in exact(student, teacher.detach()))
        return _mean((log_t.exp() * (log_t - log_s)).sum(1), mask)


class SegmentationLoss:
    """Weighted sum of the four losses, with the weights that the published sums come to (see the module).

    A loss of weight 0 is not computed, and the inputs that it alone needs may be left out.
    """

    def __init__(self, *, ce: float, dice: float, boundary: float, kd: float, tau: float):
        """Set the weights.

        Args:
            ce: Weight of :func:`cross_entropy`.
            dice: Weight of :func:`dice`, for each class.
            boundary: Weight of :func:`boundary`.
            kd: Weight of :func:`kd`; 0 to train without a teacher.
            tau: Temperature of :func:`kd`.

        Raises:
            ValueError: A weight is negative, all are 0, or ``tau`` is not above 0.
        """
        given = {"ce": ce, "dice": dice, "boundary": boundary, "kd": kd}
        self.weights = {name: check_share(name, w, below=float("inf")) for name, w in given.items()}
        if not any(self.weights.values()):
            raise ValueError(f"at least one of {', '.join(given)} must be > 0")
        self.tau = check_positive("tau", tau)
        self._factors: Tensor | None = None

    def __call__(
        self,
        logits: Tensor,
        mask: Tensor,
        *,
        maps: Tensor | None = None,
        teacher: Tensor | None = None,
        kd_pixels: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one batch.

        Args:
            logits: Of the network in training, (N, nc, H, W).
            mask: Class ids, (N, H, W), integer: 0 to nc - 1, or 255 for ignored pixels.
            maps: Distance maps, (N, nc - 1, H, W).
            teacher: Logits of the teacher, (N, nc, H, W).
            kd_pixels: Pixels for :func:`kd`, (N, H, W) bool; None: those that are not ignored.

        Returns:
            The weighted sum, scalar in at least fp32, and its detached parts ``ce``, ``dice``, ``boundary`` and ``kd``:
            always these, weighted, 0 where the weight is.

        Raises:
            ValueError: Shapes do not fit, the mask is not of integers, or ``maps`` or ``teacher`` is needed.
        """
        _check_mask(logits, mask)
        maps, teacher = self._needed(logits, maps, teacher)
        with no_autocast(logits):
            (z,) = exact(logits)
            maps, teacher = (None if given is None else given.to(z) for given in (maps, teacher))
            if self._factors is None or self._factors.dtype != z.dtype or self._factors.device != z.device:
                self._factors = torch.tensor(list(self.weights.values()), dtype=z.dtype, device=z.device)
            total, losses = CombinedLosses.apply(
                z, mask, maps, teacher, kd_pixels, Weights(**self.weights), self._factors, self.tau
            )
        return total, dict(zip(self.weights, losses.unbind(), strict=True))

    def parts(
        self,
        logits: Tensor,
        mask: Tensor,
        *,
        maps: Tensor | None = None,
        teacher: Tensor | None = None,
        kd_pixels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The weighted losses of weight above 0, each with its own gradient; arguments and errors as for a call."""
        maps, teacher = self._needed(logits, maps, teacher)
        parts: dict[str, Tensor] = {}
        if self.weights["ce"]:
            parts["ce"] = cross_entropy(logits, mask)
        if self.weights["dice"]:
            parts["dice"] = dice(logits, mask)
        if maps is not None:
            parts["boundary"] = boundary(logits, maps, mask)
        if teacher is not None:
            where = mask if kd_pixels is None else torch.where(kd_pixels, 0, IGNORE)
            parts["kd"] = kd(logits, teacher, where, self.tau)
        return {name: self.weights[name] * value for name, value in parts.items()}

    def _needed(
        self, logits: Tensor, maps: Tensor | None, teacher: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Distance maps and logits of the teacher, each None if its loss has no weight."""
        if not self.weights["boundary"]:
            maps = None
        elif maps is None:
            raise ValueError("the boundary loss needs distance maps; without them, set boundary=0")
        else:
            _check_maps(logits, maps)
        if not self.weights["kd"]:
            return maps, None
        if teacher is None:
            raise ValueError("distillation needs the logits of a teacher; without one, set kd=0")
        check_same_shape("logits", logits, teacher, "N, nc, H, W")
        return maps, teacher.detach()


def _check_mask(logits: Tensor, mask: Tensor) -> None:
    if logits.dim() != 4 or mask.shape != (logits.shape[0], *logits.shape[2:]):
        raise ValueError(
            f"logits (N, nc, H, W) and mask (N, H, W) must fit, but they are {tuple(logits.shape)} and "
            f"{tuple(mask.shape)}"
        )
    if mask.is_floating_point() or mask.dtype == torch.bool:
        raise ValueError(f"the mask must hold integer class ids, not {mask.dtype}")


def _check_maps(logits: Tensor, maps: Tensor) -> None:
    if maps.shape != logits[:, 1:].shape:
        raise ValueError(
            f"distance maps must be {tuple(logits[:, 1:].shape)} (N, nc - 1, H, W), not {tuple(maps.shape)}"
        )


def _count(mask: Tensor) -> Tensor:
    """Number of pixels that are not ignored, at least 1."""
    return (mask != IGNORE).sum().clamp(min=1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of (N, H, W) values over the pixels that are not ignored."""
    return (values * (mask != IGNORE)).sum() / _count(mask)
