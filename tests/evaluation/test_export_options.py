"""Options of exports: what they are called, what they become, and which have no effect."""

from __future__ import annotations

import pytest

from dfssd.evaluation.export_formats import arguments_of
from dfssd.evaluation.export_options import FP16, INT8, ExportOptions


def known(*formats: str) -> dict[str, list[str]]:
    return {name: arguments_of(name) for name in formats}


def test_plain_files_are_called_student() -> None:
    assert ExportOptions().stem == "student" and ExportOptions().arguments(arguments_of("onnx")) == {}


def test_files_are_named_after_what_is_different() -> None:
    options = ExportOptions(precision=INT8, opset=17, dynamic=True, nms=True, batch=4, simplify=False)
    assert options.stem == "student_int8_opset17_dynamic_nms_batch4_raw"
    assert ExportOptions(workspace=2.0, imgsz=320).stem == "student_workspace2_320px"


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        (ExportOptions(precision=FP16), "onnx", {"quantize": 16}),
        (ExportOptions(opset=17, simplify=False), "onnx", {"opset": 17, "simplify": False}),
        (ExportOptions(opset=17), "torchscript", {}),
        (ExportOptions(nms=True, batch=2), "onnx", {"nms": True, "batch": 2, "conf": 0.001, "iou": 0.7}),
        (ExportOptions(workspace=2), "engine", {"workspace": 2}),
    ],
)
def test_arguments_of_ultralytics(options: ExportOptions, name: str, expected: dict) -> None:
    assert options.arguments(arguments_of(name)) == expected


@pytest.mark.parametrize(
    ("options", "formats", "expected"),
    [
        (ExportOptions(opset=17), ("onnx", "torchscript"), []),
        (ExportOptions(opset=17), ("torchscript",), ["opset=17 has no effect on format=torchscript"]),
        (ExportOptions(precision=INT8), ("onnx", "paddle"), ["int8=true has no effect on format=paddle"]),
        (ExportOptions(precision=FP16), ("paddle",), ["half=true has no effect on format=paddle"]),
        (ExportOptions(dynamic=True), ("onnx", "openvino"), []),
        (ExportOptions(dynamic=True, batch=2), ("onnx",), ["dynamic=true accepts any number of images"]),
        (
            ExportOptions(nms=True, workspace=1),
            ("ncnn", "litert"),
            ["nms=true has no effect on format=ncnn,litert", "workspace=1 has no effect on format=ncnn,litert"],
        ),
    ],
)
def test_options_without_effect_are_told(options: ExportOptions, formats: tuple[str, ...], expected: list[str]) -> None:
    problems = options.problems(known(*formats))
    assert len(problems) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(problems, expected, strict=True))
