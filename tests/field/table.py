"""The whole table: each of these modules enters its cases when it is imported."""

from __future__ import annotations

from tests.field import coco, descriptions, folders, pixels, tools, voc, yolo
from tests.field.case import CASES as CASES

SOURCES = (coco, descriptions, folders, pixels, tools, voc, yolo)
