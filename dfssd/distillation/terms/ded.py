"""DED: decoupled expert distillation of features, defects and background apart, and their structure (TKD, TSKD).

The decoupled part is the focal distillation of FGD (arXiv:2111.11837) without its attention loss, the structural prior
is SSIM (Wang et al. 2004). Left out: the published sums over channels and boxes, which let wide networks and crowded
images dominate; means replace them. SSIM gets standardized maps, since its constants assume values of one known
range.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dfssd.batches import Batch
from dfssd.checks import check_positive, check_share
from dfssd.distillation.terms.base import (
    FeatureTerm,
    PairShape,
    check_same_shape,
    exact,
    mean,
    no_autocast,
    standardize,
)
from dfssd.distillation.terms.regions import attention, box_masks


def decoupled(
    student: Tensor, teacher: Tensor, batch: Batch, *, background: float = 0.5, temperature: float = 0.5
) -> Tensor:
    """Squared distance where the defects are plus that of the background, by the teacher's attention.

    With the masks M of :func:`~dfssd.distillation.terms.regions.box_masks`, the teacher's attentions S (places) and A
    (channels), K boxes and N images::

        1/(C K) sum M_fg S A (F_s - F_t)^2 + background/(C N) sum M_bg S A (F_s - F_t)^2      >= 0

    Without any box the first part is 0.

    Args:
        student: Aligned map of the student, (N, C, H, W).
        teacher: Map of the teacher, same shape.
        batch: Boxes, as :func:`~dfssd.distillation.terms.regions.box_masks` reads them.
        background: Weight of the second part.
        temperature: Of the attention.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_shape("feature maps", student, teacher, "N, C, H, W")
    with no_autocast(student):
        fs, ft = exact(student, teacher)
        n, c, h, w = fs.shape
        spatial, channel = attention(ft, temperature)
        error = torch.einsum("nchw,nc->nhw", (fs - ft).square(), channel) / c * spatial
        foreground, defectless = box_masks(batch, n, h, w)
        boxes = max(1, len(batch["batch_idx"]))
        return (foreground * error).sum() / boxes + background * (defectless * error).sum() / max(1, n)


def gaussian_matrix(length: int, like: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """The Gaussian window as a matrix (length, length), to blur a row of cells by a product; zeros beyond its ends."""
    place = torch.arange(length, dtype=like.dtype, device=like.device)
    reach = torch.arange(window, dtype=like.dtype, device=like.device) - window // 2
    apart = place[:, None] - place[None, :]
    weights = (-apart.square() / (2 * sigma**2)).exp() / (-reach.square() / (2 * sigma**2)).exp().sum()
    return weights.masked_fill(apart.abs() > window // 2, 0)


def ssim(first: Tensor, second: Tensor, *, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Structural similarity of maps, channel by channel, with zeros around them (Wang et al. 2004).

        (2 m_x m_y + C1) (2 s_xy + C2) / ((m_x^2 + m_y^2 + C1) (s_x^2 + s_y^2 + C2)),   C1 = 0.01^2, C2 = 0.03^2

    with means m and (co)variances s under a Gaussian window.

    Args:
        first: Maps, (N, C, H, W), of values around 1.
        second: Maps of the same shape.
        window: Side of the window [cells], odd.
        sigma: Standard deviation of the Gaussian [cells].

    Returns:
        (N, C, H, W) in [-1, 1]; 1 where the maps are equal.
    """
    rows, columns = (gaussian_matrix(length, first, window, sigma) for length in first.shape[2:])

    def blur(x: Tensor) -> Tensor:  # matrix products: many times faster than convolutions of single channels
        return rows @ x @ columns

    x, y = first, second
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))


def structure(student: Tensor, teacher: Tensor) -> Tensor:
    """Structural dissimilarity mean((1 - SSIM) / 2) of the standardized maps, in [0, 1].

    Args:
        student: Aligned map of the student, (N, C, H, W).
        teacher: Map of the teacher, same shape.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_shape("feature maps", student, teacher, "N, C, H, W")
    with no_autocast(student):
        return mean((1 - ssim(standardize(student), standardize(teacher))) / 2)


class Decoupled(FeatureTerm):
    """DED: features of defects and of background compared apart, by the teacher's attention."""

    bias = True

    def __init__(self, shape: PairShape, *, background: float = 0.5, temperature: float = 0.5):
        """Build the adapters.

        Args:
            shape: Channels of the compared layers.
            background: Weight of the background against the defects.
            temperature: Of the attention.

        Raises:
            ValueError: An option has a wrong value.
        """
        super().__init__(shape)
        self.background = check_share("background", background, below=float("inf"))
        self.temperature = check_positive("temperature", temperature)
        self.needs_boxes = self.background == 0

    def compare(self, level: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`decoupled` of one level."""
        return decoupled(student, teacher, batch, background=self.background, temperature=self.temperature)


class Structure(FeatureTerm):
    """Structural prior of DED: the maps must have the same local structure (SSIM)."""

    def compare(self, level: int, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """:func:`structure` of one level."""
        return structure(student, teacher)
