"""Weak and strong views of one unlabeled image.

The weak view is the image after Ultralytics' own augmentation (mosaic, scale, shift, flip, color jitter); the teacher
sees it. The strong view, for the student, is the *same* pixels made harder by photometric changes and cut-outs only:
nothing moves, so boxes, scores and feature maps of the teacher hold for the student's view cell by cell, and nothing
has to be mapped back. The idea is that of FixMatch (arXiv:2001.07685) and Unbiased Teacher (arXiv:2102.09480); the
operations are chosen for surfaces of one color: exposure, focus, motion, sensor noise, contrast, occlusion.
"""

from __future__ import annotations

import random

import albumentations as A
import numpy as np
import torch


class StrongView:
    """Random photometric changes and cut-outs of one image.

    The random numbers come from Python's ``random``, which Ultralytics seeds in every loader worker.
    """

    def __init__(self, strength: float):
        """Set how strong.

        Args:
            strength: In (0, 1]: factor on the probability of every operation and on the range of the exposure. At 1
                an image gets between two and three operations; one in eight gets none but the exposure.

        Raises:
            ValueError: ``strength`` is outside its range.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"strength={strength} must be in (0, 1]")
        s = strength
        self.transform = A.Compose(
            [
                A.RandomBrightnessContrast(brightness_limit=0.3 * s, contrast_limit=0.4 * s, p=0.8 * s),
                A.OneOf([A.GaussianBlur(blur_limit=(3, 5)), A.MotionBlur(blur_limit=(3, 7))], p=0.4 * s),
                A.GaussNoise(std_range=(0.01, 0.06), per_channel=False, p=0.4 * s),
                A.CLAHE(clip_limit=(1.0, 4.0), p=0.3 * s),
                A.CoarseDropout(
                    num_holes_range=(1, 5),
                    hole_height_range=(0.04, 0.15),
                    hole_width_range=(0.04, 0.15),
                    fill=114,
                    p=0.5 * s,
                ),
            ]
        )

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """The strong view of ``image``: (3, H, W) uint8 in, a new tensor of the same shape and type out."""
        seed = random.getrandbits(32)
        # One source for all operations: with a seed, each would get its own, and all would draw the same numbers.
        self.transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
        pixels = self.transform(image=np.ascontiguousarray(image.numpy().transpose(1, 2, 0)))["image"]
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
