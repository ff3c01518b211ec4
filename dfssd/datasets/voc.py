"""Pascal VOC: an .xml file per image, read by ``supervision`` file by file, so that a message can name the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import ParseError

import numpy as np
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse as parse_xml
from supervision.dataset.formats.pascal_voc import detections_from_xml_obj

from dfssd.datasets.records import Item
from dfssd.datasets.sources import Source, pixel_boxes, split_of, usable_sizes


def read_voc(
    root: Path, images: list[Path], xml: dict[Path, Path], names: Sequence[str] | None, missing: np.ndarray | None
) -> Source:
    """Read Pascal VOC labels.

    Args:
        root: Folder of the data set; folders below it may name splits.
        images: All images.
        xml: Label file of each image that has one.
        names: Class names in id order; None: those found, sorted.
        missing: Boxes of an image without label.
    """
    source = Source([], ())
    sizes = usable_sizes(images, source)
    order: list[str] = list(names or ())
    read: list[tuple[Path, np.ndarray | None]] = []
    for image, size in sizes.items():
        path = xml.get(image)
        if path is None:
            read.append((image, None if split_of(image, root) == "unlabeled" else missing))
            continue
        try:
            detections, extended = detections_from_xml_obj(parse_xml(path).getroot(), order, size)
            if names is not None and len(extended) > len(names):
                unknown = extended[len(names)]
                raise ValueError(f"class '{unknown}' is not among the names ({', '.join(names)}); add it to names=")
            read.append((image, pixel_boxes(detections.xyxy, np.asarray(detections.class_id).tolist(), size)))
            order = extended
        except (ValueError, ParseError, DefusedXmlException) as e:
            source.problems.append((image, f"{path}: {str(e).rstrip('.')}"))
    # Without a given order the names are sorted, so that ids do not depend on which file happens to come first.
    source.names = tuple(names or sorted(order))
    new_id = np.array([source.names.index(name) for name in order], dtype=np.float32)
    for image, boxes in read:
        if boxes is not None and len(boxes):
            boxes = np.column_stack([new_id[boxes[:, 0].astype(int)], boxes[:, 1:]]).astype(np.float32)
        source.items.append(Item(image, boxes, split_of(image, root)))
    return source
