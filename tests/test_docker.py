"""The recipes of the container images: what they copy is there, what they install is what is tested."""

from __future__ import annotations

import ast
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dfssd.commands import COMMANDS, split_words
from dfssd.commands.serve import USAGE

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docker"
FILES = sorted(FOLDER.glob("Dockerfile.*"))
IGNORED = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
"""What is not ignored: everything else is."""


def instructions(file: Path) -> list[tuple[str, str]]:
    """The instructions of a file with their arguments, lines that go on put together."""
    text = re.sub(r"^\s*#.*\n", "", file.read_text(encoding="utf-8"), flags=re.M).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def pins(file: Path) -> dict[str, Requirement]:
    """Package -> how it is pinned for the Python of the images."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    found = [Requirement(line) for line in lines]
    here = {"python_version": "3.11"}
    return {one.name.lower(): one for one in found if one.marker is None or one.marker.evaluate(here)}


def arguments(file: Path, word: str) -> list[str]:
    return [rest for found, rest in instructions(file) if found == word]


def test_there_is_one_for_each_purpose() -> None:
    assert [file.suffix for file in FILES] == [".cpu", ".cuda", ".serve"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_copied_is_there_and_sent_to_the_builder(file: Path) -> None:
    sources = [source for rest in arguments(file, "COPY") if "--from" not in rest for source in rest.split()[:-1]]
    assert {"pyproject.toml", "dfssd", "cfg", "data"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        inside = [source] if (ROOT / source).is_file() else [f"{source}/a.yaml"]
        assert any(fnmatch(path, rule) or fnmatch(path, f"{rule}/*") for path in inside for rule in IGNORED), source
    packed = (ROOT / "pyproject.toml").read_text().partition("[tool.hatch.build.targets.wheel.sources]\n")[2]
    assert set(re.findall(r"^(\w+) = ", packed.partition("\n\n")[0], re.M)) <= set(sources), "they travel in the wheel"
    needed = {name for name in ("README.md", "LICENSE") if name in (ROOT / "pyproject.toml").read_text()}
    assert needed <= set(sources), "the build of the package reads them"


def test_no_data_and_no_weights_are_sent_to_the_builder() -> None:
    for path in ("data/NEU-DET/a.jpg", "runs/dfssd/weights/student.pt", "datasets/a/b.png", ".git/config", "a.onnx"):
        assert not any(fnmatch(path, rule) or fnmatch(path, f"{rule}/*") for rule in IGNORED), path


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_nothing_runs_as_root(file: Path) -> None:
    words = [word for word, _ in instructions(file)]
    [user] = arguments(file, "USER")
    assert int(user) > 0 and "RUN" not in words[words.index("USER") :]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_started_is_a_command(file: Path) -> None:
    [program], [words] = arguments(file, "ENTRYPOINT"), arguments(file, "CMD")[-1:]
    assert ast.literal_eval(program) == ["dfssd"]
    if file.suffix == ".serve":
        command, own = split_words(ast.literal_eval(words))
        assert command is COMMANDS["serve"] and USAGE.read(own)["host"] == "0.0.0.0"
    else:
        assert ast.literal_eval(words) == ["--help"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_versions_are_those_that_are_tested(file: Path) -> None:
    tested = pins(ROOT / "requirements.txt") | pins(FOLDER / "requirements-serve.txt")
    named = re.findall(r"[\w-]+==[\w.]+", " ".join(arguments(file, "RUN")))
    assert len(named) == (0 if file.suffix == ".serve" else 3)
    for one in map(Requirement, named):
        assert one.specifier == tested[one.name.lower()].specifier, one


def test_packages_of_the_server_are_pinned_as_everywhere() -> None:
    own, tested = pins(FOLDER / "requirements-serve.txt"), pins(ROOT / "requirements.txt")
    assert all(own[name].specifier == tested[name].specifier for name in own.keys() & tested.keys())
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = text.partition("\nserve = ")[2]
    extra = ast.literal_eval(re.sub("#.*", "", listed[: listed.index("]") + 1]))
    assert {Requirement(one).name for one in extra} <= set(own)
    assert not {"torch", "torchvision", "ultralytics"} & set(own)


def test_pages_name_the_same_packages_for_a_machine_without_torch() -> None:
    [line] = re.findall(r"^ +pip install (numpy onnxruntime opencv.*)$", (ROOT / "docs/deploy.md").read_text(), re.M)
    own = pins(FOLDER / "requirements-serve.txt")
    assert {name.lower() for name in shlex.split(line)} <= set(own)
