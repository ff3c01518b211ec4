"""Export formats: what is known against one before anything is trained."""

from __future__ import annotations

import sys

import pytest
import ultralytics.utils
import ultralytics.utils.checks
from ultralytics.engine.exporter import export_formats

from dfssd.errors import UserError
from dfssd.evaluation.export_formats import NEEDS, ONNX, check_formats, missing_packages, other_formats
from dfssd.evaluation.export_options import INT8, ExportOptions


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux on x86-64, Python 3.12, no installation by Ultralytics; only what ONNX needs is installed."""
    monkeypatch.setattr("dfssd.evaluation.export_formats.platform.system", lambda: "Linux")
    monkeypatch.setattr("dfssd.evaluation.export_formats.platform.machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "version_info", VERSION)
    monkeypatch.setattr(ultralytics.utils.checks, "AUTOINSTALL", False)
    monkeypatch.setattr(ultralytics.utils, "AUTOINSTALL", False)
    monkeypatch.setattr(ultralytics.utils.checks, "check_requirements", lambda packages, install: packages[0] in ONNX)
    monkeypatch.setattr("dfssd.evaluation.export_formats.importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("dfssd.evaluation.export_formats.shutil.which", lambda name: None)


class Version(tuple):
    minor = 12


VERSION = Version((3, 12, 0))


def test_formats_are_listed_once_and_without_onnx() -> None:
    assert other_formats(["onnx", "TorchScript", " torchscript", "engine"]) == ["torchscript", "engine"]


def test_other_names_of_formats() -> None:
    assert other_formats(["tensorrt", "TRT", "tflite"]) == ["engine", "litert"]
    with pytest.raises(UserError, match="did you mean 'tensorrt'"):
        other_formats(["tensort"])


def test_options_are_checked_with_the_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="opset=17 has no effect on format=torchscript"):
        check_formats(["torchscript"], task="detect", device="cpu", options=ExportOptions(opset=17))
    monkeypatch.setattr(
        ultralytics.utils.checks, "check_requirements", lambda packages, install: "nncf" not in packages[0]
    )
    check_formats(["openvino"], task="detect", device="cpu", options=ExportOptions())
    with pytest.raises(UserError, match=r"int8=true: needs nncf for format=openvino: pip install 'nncf>=2\.14\.0'"):
        check_formats(["openvino"], task="detect", device="cpu", options=ExportOptions(precision=INT8))


def test_each_format_of_ultralytics_has_its_needs() -> None:
    assert set(NEEDS) == set(export_formats()["Argument"]) - {"-"}


def test_packages_of_this_environment_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(ultralytics.utils.checks, "AUTOINSTALL", False)
    assert missing_packages(ONNX) == []
    assert missing_packages(["numpy>=99", ("no-such-package", "numpy"), ("no-such-package", "nor-this")]) == [
        "numpy>=99",
        "no-such-package",
    ]
    monkeypatch.setattr(ultralytics.utils.checks, "AUTOINSTALL", True)
    assert missing_packages(["numpy>=99"]) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openvino", "needs packages that are not installed: pip install 'openvino>=2024.0.0', or leave it out"),
        ("ncnn", "pip install 'ncnn' 'pnnx==20260526'"),
        ("rknn", "pip install 'rknn-toolkit2>=2.3.2,<2.5' 'setuptools<82' 'onnx>=1.16.1,<1.19.0',"),
        ("paddle", "pip install 'paddlepaddle>=3.0.0,<3.3.0' 'x2paddle',"),
        ("hailo", "needs hailo_sdk_client, which is not installed: install the Dataflow Compiler of Hailo,"),
        ("ascend", "needs the program atc of its vendor on the search path"),
        ("engine", "is written on a GPU only; leave it out, or pass device=0"),
        ("opnvino", "Ultralytics has no such export format; did you mean 'openvino'?"),
    ],
)
def test_what_a_format_lacks_is_said(name: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check_formats(["onnx", name], task="detect", device="cpu")
    [problem] = caught.value.problems
    assert problem.startswith(f"format={name}: ") and message in problem


def test_all_formats_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        check_formats(["openvino", "torchscript", "mnn"], task="detect", device="cpu")
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["format=openvino", "format=mnn"]


@pytest.mark.parametrize(
    ("system", "machine", "refused"),
    [
        ("Linux", "x86_64", set()),
        ("Linux", "aarch64", {"coreai", "edgetpu", "litert", "deepx", "hailo"}),
        ("Darwin", "arm64", {"edgetpu", "deepx", "hailo", "imx", "axelera", "xilinx"}),
        (
            "Windows",
            "AMD64",
            {"coreml", "coreai", "edgetpu", "litert", "deepx", "hailo", "imx", "axelera", "xilinx"},
        ),
    ],
)
def test_systems(monkeypatch: pytest.MonkeyPatch, system: str, machine: str, refused: set[str]) -> None:
    monkeypatch.setattr("dfssd.evaluation.export_formats.platform.system", lambda: system)
    monkeypatch.setattr("dfssd.evaluation.export_formats.platform.machine", lambda: machine)
    monkeypatch.setattr(ultralytics.utils.checks, "check_requirements", lambda packages, install: True)
    monkeypatch.setattr("dfssd.evaluation.export_formats.importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("dfssd.evaluation.export_formats.shutil.which", lambda name: name)
    problems: dict[str, str] = {}
    for name in NEEDS:
        try:
            check_formats([name], task="detect", device="0")
        except UserError as e:
            problems[name] = str(e)
    assert set(problems) == refused
    assert all("is written on" in problem for problem in problems.values())


def test_versions_of_python_and_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ultralytics.utils.checks, "check_requirements", lambda packages, install: True)
    check_formats(["imx"], task="detect", device="cpu")
    with pytest.raises(UserError, match="format=imx: does not exist for networks of masks"):
        check_formats(["imx"], task="semantic", device="cpu")
    monkeypatch.setattr(Version, "minor", 13)
    with pytest.raises(UserError, match=r"format=imx: needs Python 3\.10 to 3\.12, this is 3\.13"):
        check_formats(["imx"], task="detect", device="cpu")


def test_lacking_onnx_is_told_whatever_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ultralytics.utils.checks, "check_requirements", lambda packages, install: False)
    with pytest.raises(UserError, match=r"format=onnx: needs .* pip install 'onnx>=1\.12\.0,<2\.0\.0' 'onnxslim"):
        check_formats(["onnx"], task="detect", device="cpu")
