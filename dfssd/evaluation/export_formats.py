"""Export formats: whether Ultralytics has them, and whether this machine can write them, known before any training.

What each format needs is stated in Ultralytics' exporter, which finds out in the middle of an export; the table
:data:`NEEDS` repeats it for the pinned version, and a test holds that version and the list of formats against it.
Versions are compared by Ultralytics' own check.
"""

from __future__ import annotations

import difflib
import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dfssd.config import SEMANTIC
from dfssd.errors import UserError
from dfssd.evaluation.export_options import INT8, ExportOptions

Requirement = str | tuple[str, ...]
"""A package with its version, as pip takes it, or several that replace each other, the usual one first."""

ONNX: tuple[Requirement, ...] = (
    "onnx>=1.12.0,<2.0.0",
    "onnxslim>=0.1.82",
    ("onnxruntime", "onnxruntime-gpu", "onnxruntime-qnn", "onnxruntime-vitisai", "onnxruntime-windowsml"),
)
"""What the ONNX file needs, which is always written."""

LINUX, LINUX_X86, MACOS_OR_LINUX_X86 = "Linux", "Linux on x86-64", "macOS or Linux on x86-64"


@dataclass(frozen=True)
class Needs:
    """What a format needs besides :data:`ONNX`.

    Attributes:
        packages: Packages.
        module: A module that may come from elsewhere than a package index.
        source: How to get that module.
        program: A program on the search path, or downloaded by Ultralytics earlier.
        where: The systems on which it can be written; empty: all.
        python: The first minor version of Python 3 that works, and the first one that does not.
        masks: Whether networks for masks can be exported.
    """

    packages: tuple[Requirement, ...] = ()
    module: str = ""
    source: str = ""
    program: str = ""
    where: str = ""
    python: tuple[int, int] | None = None
    masks: bool = True


_TENSORFLOW = Needs(
    (
        "tensorflow>2.19.0" if sys.version_info >= (3, 13) else "tensorflow>=2.0.0,<=2.19.0",
        "onnx2tf>=1.26.3,<1.29.0",
        f"tf_keras{'>2.19.0' if sys.version_info >= (3, 13) else '<=2.19.0'}",
        "sng4onnx>=1.0.1",
        "onnx_graphsurgeon>=0.3.26",
        "ai-edge-litert>=1.2.0",
    )
)

NEEDS: Mapping[str, Needs] = {
    "torchscript": Needs(),
    "onnx": Needs(),
    "openvino": Needs(("openvino>=2024.0.0",)),
    "engine": Needs(module="tensorrt", source="pip install tensorrt"),
    "coreml": Needs(("coremltools>=9.0", "numpy>=1.14.5,<=2.3.5"), where="macOS or Linux"),
    "coreai": Needs(("coreai-torch>=0.4.3", "torch>=2.8"), where=MACOS_OR_LINUX_X86),
    "saved_model": _TENSORFLOW,
    "pb": _TENSORFLOW,
    "edgetpu": Needs(_TENSORFLOW.packages, program="edgetpu_compiler", where=LINUX_X86),
    "litert": Needs(("litert-torch>=0.10.0", "ai-edge-litert>=2.3.0"), where=MACOS_OR_LINUX_X86),
    "paddle": Needs((("paddlepaddle>=3.0.0,<3.3.0", "paddlepaddle-gpu>=3.0.0,<3.3.0"), "x2paddle")),
    "mnn": Needs(("MNN>=2.9.6",)),
    "ncnn": Needs(("ncnn", "pnnx==20260526")),
    "imx": Needs(
        (
            "model-compression-toolkit>=2.4.1",
            "edge-mdt-cl>=1.1.0",
            "edge-mdt-tpc>=1.2.0",
            "pydantic<2.12",
            "imx500-converter[pt]>=3.18.2",
        ),
        where=LINUX,
        python=(10, 13),
        masks=False,
    ),
    "rknn": Needs(("rknn-toolkit2>=2.3.2,<2.5", "setuptools<82", "onnx>=1.16.1,<1.19.0")),
    "executorch": Needs(("executorch", "torch>=2.9")),
    "axelera": Needs(("axelera-devkit==1.9.0", "torch>=2.8"), where=LINUX),
    "deepx": Needs(("dx_com>=2.4.1",), where=LINUX_X86),
    "qnn": Needs(("onnxruntime-qnn",)),
    "hailo": Needs(module="hailo_sdk_client", source="install the Dataflow Compiler of Hailo", where=LINUX_X86),
    "ascend": Needs(program="atc"),
    "xilinx": Needs(("amd-quark>=0.13.0,<0.14.0",), where=LINUX, python=(11, 14)),
}
"""What Ultralytics 8.4.190 needs for each of its formats."""


ALIASES = {"tensorrt": "engine", "trt": "engine", "tflite": "litert", "savedmodel": "saved_model"}
"""Other names of formats -> Ultralytics'."""


def arguments_of(name: str) -> list[str]:
    """Names of the arguments of Ultralytics' exporter that a format has."""
    from ultralytics.engine.exporter import export_formats

    table = export_formats()
    arguments: list[str] = table["Arguments"][table["Argument"].index(name)]
    return arguments


def other_formats(formats: Iterable[str]) -> list[str]:
    """The formats besides ONNX, in Ultralytics' spelling, each once.

    Raises:
        UserError: Ultralytics has no such format.
    """
    from ultralytics.engine.exporter import export_formats

    known = [name for name in export_formats()["Argument"] if name != "-"]
    wanted = []
    for given in (f.strip().lower() for f in formats):
        name = ALIASES.get(given, given)
        if name not in known:
            close = difflib.get_close_matches(name, [*known, *ALIASES], n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise UserError(f"format={name}: Ultralytics has no such export format{hint} (known: {', '.join(known)})")
        if name != "onnx" and name not in wanted:
            wanted.append(name)
    return wanted


def check_formats(formats: Iterable[str], *, task: str, device: str, options: ExportOptions | None = None) -> None:
    """Check that this machine can write the formats, and ONNX.

    Args:
        formats: As requested.
        task: Ultralytics' name of the task of the network.
        device: As :func:`dfssd.hardware.check_device` returns it.
        options: How they are to be written; None: as in a run.

    Raises:
        UserError: Ultralytics has no such format; or a package, program or GPU is missing; or the format cannot be
            written on this system, or not for the task. All problems at once.
    """
    formats = list(formats)
    others = other_formats(formats)
    problems = [
        f"format={name}: {problem}"
        for name in ("onnx", *others)
        if (problem := _problem(name, task=task, device=device))
    ]
    if options is not None:
        wanted = [*(["onnx"] if "onnx" in formats else []), *others]
        problems += options.problems({name: arguments_of(name) for name in wanted})
        if options.precision == INT8 and "openvino" in wanted and missing_packages(("nncf>=2.14.0",)):
            problems.append("int8=true: needs nncf for format=openvino: pip install 'nncf>=2.14.0'")
    if problems:
        raise UserError(*problems)


def _problem(name: str, *, task: str, device: str) -> str | None:
    """Why a format cannot be written here; None if nothing is known against it."""
    needs = NEEDS.get(name, Needs())
    if needs.where and not _is_here(needs.where):
        return f"is written on {needs.where} only; leave it out, and export weights/student.pt there"
    if needs.python and not needs.python[0] <= sys.version_info.minor < needs.python[1]:
        first, end = needs.python
        return f"needs Python 3.{first} to 3.{end - 1}, this is 3.{sys.version_info.minor}; leave it out"
    if task == SEMANTIC and not needs.masks:
        return "does not exist for networks of masks; leave it out"
    if needs_gpu(name) and device in {"cpu", "mps"}:
        return "is written on a GPU only; leave it out, or pass device=0 on a machine with one"
    if missing := missing_packages((*needs.packages, *(() if name == "rknn" else ONNX))):
        return f"needs packages that are not installed: pip install {' '.join(map(repr, missing))}, or leave it out"
    if needs.module and importlib.util.find_spec(needs.module) is None:
        return f"needs {needs.module}, which is not installed: {needs.source}, or leave it out"
    if needs.program and not _has_program(needs.program):
        return f"needs the program {needs.program} of its vendor on the search path; install it, or leave it out"
    return None


def missing_packages(packages: Iterable[Requirement]) -> list[str]:
    """The packages that are not installed, or in another version; none if Ultralytics may install them itself."""
    from ultralytics.utils.checks import AUTOINSTALL, check_requirements

    if AUTOINSTALL:
        return []
    return [
        package if isinstance(package, str) else package[0]
        for package in packages
        if not check_requirements([package], install=False)
    ]


def _has_program(name: str) -> bool:
    from ultralytics.utils import AUTOINSTALL, USER_CONFIG_DIR

    downloaded = USER_CONFIG_DIR / name.replace("_", "-") / "usr" / "bin" / f"{name}_bin" / name
    return AUTOINSTALL or shutil.which(name) is not None or downloaded.is_file()


def needs_gpu(name: str) -> bool:
    """Whether a format can be written, and run, on a GPU only."""
    from ultralytics.engine.exporter import export_formats

    table = export_formats()
    row = table["Argument"].index(name)
    return bool(table["GPU"][row] and not table["CPU"][row])


def _is_here(where: str) -> bool:
    """Whether this system is one of those that are written as in :data:`LINUX_X86`."""
    system = {"Darwin": "macOS"}.get(platform.system(), platform.system())
    arm = platform.machine().lower() in {"arm64", "aarch64"}
    return any(
        place.removesuffix(" on x86-64") == system and not (place.endswith("x86-64") and arm)
        for place in where.split(" or ")
    )
