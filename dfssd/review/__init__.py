"""The review loop: predictions of a run go to an annotation tool, and come back as labels of a data set.

:mod:`dfssd.review.export` chooses images and writes them for a tool, :mod:`dfssd.review.incoming` reads what people
have made of them, and :mod:`dfssd.review.merging` makes a data set of it.
"""

from __future__ import annotations

LABEL_STUDIO, CVAT, COCO, YOLO, FIFTYONE = "label-studio", "cvat", "coco", "yolo", "fiftyone"
TOOLS = (LABEL_STUDIO, CVAT, COCO, YOLO, FIFTYONE)
"""Annotation tools and formats that a review is written for; how, is in :mod:`dfssd.review.formats`."""

BY_VALUE, RANDOM = "value", "random"
ORDERS = (BY_VALUE, RANDOM)
"""Orders of the images: the most valuable first (:mod:`dfssd.review.ranking`), or drawn."""

REASONS, ACCOUNT = "review.csv", "reviewed.csv"
"""Files that say why each image was chosen, and what became of each annotation."""
