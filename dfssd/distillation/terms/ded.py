"""DED: decoupled expert distillation of features, defects and background apart, and their structure (TKD, TSKD).

The decoupled part is the focal distillation of FGD (arXiv:2111.11837) without its attention loss, the structural prior
is SSIM (Wang et al. 2004). Left out: the published sums over channels and boxes, which let wide networks and crowded
images dominate; means replace them. SSIM gets standardized maps, since its constants assume values of one known
range.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from dfssd.batches import Batch
from dfssd.checks import check_positive, check_share
from dfssd.distillation.terms.base import (
    FeatureTerm,
    PairShape,
    check_same_maps,
    exact,
    no_autocast,
    standardized,
)
from dfssd.distillation.terms.closed import closed_form
from dfssd.distillation.terms.levels import Maps, total
from dfssd.distillation.terms.regions import attention, box_masks


def decoupled(
    students: Sequence[Tensor],
    teachers: Sequence[Tensor],
    batch: Batch,
    *,
    background: float = 0.5,
    temperature: float = 0.5,
) -> Tensor:
    """Squared distance where the defects are plus that of the background, by the teacher's attention.

    With the masks M of :func:`~dfssd.distillation.terms.regions.box_masks`, the teacher's attentions S (places) and A
    (channels), K boxes and N images, the mean over the levels of::

        1/(C K) sum M_fg S A (F_s - F_t)^2 + background/(C N) sum M_bg S A (F_s - F_t)^2      >= 0

    Without any box the first part is 0.

    Args:
        students: Aligned maps of the student, one per level, (N, C, H, W).
        teachers: Maps of the teacher, same shapes.
        batch: Boxes, as :func:`~dfssd.distillation.terms.regions.box_masks` reads them.
        background: Weight of the second part.
        temperature: Of the attention.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_maps(students, teachers)
    with no_autocast(students[0]):
        theirs = exact(*teachers)
        return closed_form(
            lambda *own: decoupled_and_gradient(own, theirs, batch, background, temperature), exact(*students)
        )


def decoupled_and_gradient(
    own: Sequence[Tensor], theirs: Sequence[Tensor], batch: Batch, background: float, temperature: float
) -> tuple[Tensor, Maps]:
    """:func:`decoupled` of maps in fp32 or fp64, and its gradient for the student's: 2 weight S A (F_s - F_t)."""
    n, levels = len(own[0]), [(x.shape[2], x.shape[3]) for x in own]
    gap = Maps(own) - theirs
    spatial, channel = attention(theirs, temperature)
    channel *= [1 / x.shape[1] for x in own]
    foreground, defectless = box_masks(batch, n, levels)
    weight = foreground.to(gap[0].dtype) * (2 / max(1, len(batch["batch_idx"])) / len(own))
    weight = weight.add_(defectless, alpha=2 * background / n / len(own)).mul_(torch.cat(spatial, 1))
    parts = weight.split([h * w for h, w in levels], 1)
    gradient = gap * [a[:, :, None, None] for a in channel]
    gradient *= [part.view(n, 1, *level) for part, level in zip(parts, levels, strict=True)]
    gap *= gradient
    return total(gap) / 2, gradient


@lru_cache(maxsize=64)
def gaussian_matrix(
    length: int, dtype: torch.dtype, device: torch.device, window: int = 11, sigma: float = 1.5
) -> Tensor:
    """The Gaussian window as a matrix (length, length), to blur a row of cells by a product; zeros beyond its ends."""
    place = torch.arange(length, dtype=dtype)
    reach = torch.arange(window, dtype=dtype) - window // 2
    apart = place[:, None] - place[None, :]
    weights = (-apart.square() / (2 * sigma**2)).exp() / (-reach.square() / (2 * sigma**2)).exp().sum()
    return weights.masked_fill(apart.abs() > window // 2, 0).to(device)


def blur(*lists: Maps) -> list[Maps]:
    """Lists of maps (N, C, H, W) under the Gaussian window, with zeros around them; the operation is symmetric.

    Matrix products are many times faster than convolutions of single channels, and most of all with the channels
    innermost, where each of them takes all channels.
    """
    levels = []
    for maps in zip(*lists, strict=True):
        x = torch.cat([x.permute(0, 2, 3, 1) for x in maps])  # (lists * N, H, W, C)
        n, h, w, c = x.shape
        rows, columns = (gaussian_matrix(length, x.dtype, x.device) for length in (h, w))
        x = torch.bmm(columns.expand(n * h, w, w), x.view(n * h, w, c))
        x = torch.bmm(rows.expand(n, h, h), x.view(n, h, w * c)).view(len(maps), -1, h, w, c)
        levels.append(x.permute(0, 1, 4, 2, 3).unbind())
    return [Maps(maps) for maps in zip(*levels, strict=True)]


def ssim(first: Maps, second: Maps) -> tuple[Maps, Maps]:
    """Structural similarity of maps, channel by channel, with zeros around them (Wang et al. 2004).

        s = l k,     l = (2 m_x m_y + C1) / U,     k = (2 s_xy + C2) / V,
        U = m_x^2 + m_y^2 + C1,     V = s_x^2 + s_y^2 + C2,     C1 = 0.01^2,     C2 = 0.03^2

    with means m and (co)variances s under a Gaussian window G. The gradient is::

        ds/dx = 2 G[m_y (k / U - l / V) + m_x (s / V - s / U)] + 2 y G[l / V] - 2 x G[s / V]

    Args:
        first: Maps x of each level, (N, C, H, W), of values around 1.
        second: Maps y of the same shapes.

    Returns:
        The similarities in [-1, 1], 1 where the maps are equal, and half the gradient of their sum for x.
    """
    c1, c2 = 0.01**2, 0.03**2
    mx, my, k, v = blur(first, second, first * second, (first * first).add_product(second, second))
    light = mx * my
    u = (mx * mx).add_product(my, my)
    k -= light
    v -= u
    for maps, constant in ((light, c1 / 2), (k, c2 / 2), (u, c1), (v, c2)):
        maps += constant
    light /= u
    k /= v
    light *= 2
    k *= 2
    similarity = light * k
    k /= u
    light /= v  # l / V
    k -= light
    my *= k
    per_v = similarity / v
    my.add_product(mx, per_v - similarity / u)
    gradient, of_second, of_first = blur(my, light, per_v)
    gradient.add_product(second, of_second)
    gradient.add_product(first, of_first, -1.0)
    return similarity, gradient


def structure(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """Structural dissimilarity mean((1 - SSIM) / 2) of the standardized maps, mean over the levels, in [0, 1].

    Args:
        students: Aligned maps of the student, one per level, (N, C, H, W).
        teachers: Maps of the teacher, same shapes.

    Returns:
        Scalar, fp32 (fp64 for fp64 inputs); 0 for an empty batch.

    Raises:
        ValueError: Shapes differ or are not (N, C, H, W).
    """
    check_same_maps(students, teachers)

    def compute(*own: Tensor) -> tuple[Tensor, list[Tensor]]:
        layout = torch.channels_last
        maps, backward = zip(*(standardized(x, layout=layout) for x in own))
        similarity, gradient = ssim(Maps(maps), Maps(standardized(x, layout=layout)[0] for x in theirs))
        gradient *= [-1 / (x.numel() * len(own)) for x in own]
        value = 0.5 - torch.stack([s.mean() for s in similarity]).mean() / 2
        return value, [back(g) for back, g in zip(backward, gradient)]

    with no_autocast(students[0]):
        theirs = exact(*teachers)
        return closed_form(compute, exact(*students))


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

    def compare_all(self, students: Sequence[Tensor], teachers: Sequence[Tensor], batch: Batch) -> Tensor:
        """:func:`decoupled` of all levels."""
        return decoupled(students, teachers, batch, background=self.background, temperature=self.temperature)


class Structure(FeatureTerm):
    """Structural prior of DED: the maps must have the same local structure (SSIM)."""

    def compare_all(self, students: Sequence[Tensor], teachers: Sequence[Tensor], batch: Batch) -> Tensor:
        """:func:`structure` of all levels."""
        return structure(students, teachers)
