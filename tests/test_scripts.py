from __future__ import annotations

import ast
import hashlib
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dfssd.config import parse_value
from dfssd.files import read_yaml

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """The module, with a small requirements.txt and an environment folder of its own."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delitem(sys.modules, "environment", raising=False)
    import environment as module

    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# nothing\n")
    monkeypatch.setattr(module, "REQUIREMENTS", requirements)
    monkeypatch.setenv("DFSSD_ENV", str(tmp_path / "env"))
    yield module
    sys.modules.pop("environment", None)


def make_usable(environment, monkeypatch) -> list[list[str]]:
    """Let the set-up believe that environments are made and filled; return the commands that would have run."""
    commands: list[list[str]] = []

    def create(env: Path) -> None:
        commands.append(["create"])
        (env / "bin").mkdir(parents=True, exist_ok=True)
        (env / "pyvenv.cfg").write_text("")
        (env / "works").touch()

    monkeypatch.setattr(environment, "create", create)
    monkeypatch.setattr(environment, "works", lambda env: (env / "works").exists())
    monkeypatch.setattr(environment, "install", lambda env: commands.append(["install"]))
    return commands


def error_of(capsys) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.train
@pytest.mark.parametrize("script", ["quickstart.py", "run_tests.py", "check.py"])
def test_old_python_reports_what_is_needed(script):
    run = f"runpy.run_path({str(SCRIPTS / script)!r}, run_name='__main__')"
    command = [sys.executable, "-c", f"import sys, runpy; sys.version_info = (3, 8, 1); {run}"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SCRIPTS)})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "needs Python 3.10 or newer, this is 3.8" in done.stderr


@pytest.mark.parametrize("script", ["quickstart.py", "run_tests.py", "check.py", "environment.py"])
def test_old_python_can_parse_the_scripts(script):
    """Otherwise it would fail with a syntax error; ast cannot vouch for versions before 3.4."""
    ast.parse((SCRIPTS / script).read_text(encoding="utf-8"), feature_version=(3, 6))


def test_scripts_need_only_the_standard_library():
    for script in SCRIPTS.glob("*.py"):
        if script.stem not in {"quickstart", "run_tests", "check", "environment"}:
            continue
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {n.partition(".")[0] for n in names} <= {*sys.stdlib_module_names, "environment"}, script


def test_first_set_up_makes_installs_and_stamps(environment, monkeypatch, tmp_path):
    commands = make_usable(environment, monkeypatch)
    python = environment.prepare()
    assert python == environment.python_of(tmp_path / "env")
    assert commands == [["create"], ["install"]]
    stamp = (tmp_path / "env" / environment.STAMP).read_text().strip()
    assert stamp == hashlib.sha256(b"# nothing\n").hexdigest()


def test_second_start_reuses_it(environment, monkeypatch):
    commands = make_usable(environment, monkeypatch)
    environment.prepare()
    commands.clear()
    environment.prepare()
    assert commands == []


def test_changed_requirements_are_installed_into_the_same_environment(environment, monkeypatch):
    commands = make_usable(environment, monkeypatch)
    environment.prepare()
    commands.clear()
    environment.REQUIREMENTS.write_text("# something else\n")
    environment.prepare()
    assert commands == [["install"]]


def test_interrupted_installation_is_repeated(environment, monkeypatch, tmp_path):
    commands = make_usable(environment, monkeypatch)

    def killed(env: Path) -> None:
        raise KeyboardInterrupt

    good = environment.install
    monkeypatch.setattr(environment, "install", killed)
    with pytest.raises(KeyboardInterrupt):
        environment.prepare()
    assert not list((tmp_path / "env").glob(f"{environment.STAMP}*"))
    monkeypatch.setattr(environment, "install", good)
    environment.prepare()
    assert commands == [["create"], ["install"]]


def test_environment_whose_python_is_gone_is_made_again(environment, monkeypatch, tmp_path):
    commands = make_usable(environment, monkeypatch)
    environment.prepare()
    (tmp_path / "env" / "works").unlink()
    commands.clear()
    environment.prepare()
    assert commands == [["create"], ["install"]]


def test_a_folder_with_other_things_in_it_is_never_cleared(environment, tmp_path, capsys):
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "thesis.txt").write_text("years of work")
    with pytest.raises(SystemExit) as stopped:
        environment.prepare()
    assert stopped.value.code == 2
    assert "is in the way" in error_of(capsys)
    assert (tmp_path / "env" / "thesis.txt").read_text() == "years of work"


@pytest.mark.train
def test_real_environment_with_pip(environment, tmp_path, capsys):
    """Made for real with this Python's venv; a broken one in the same place is replaced."""
    env = tmp_path / "env"
    env.mkdir()
    (env / "pyvenv.cfg").write_text("broken")
    environment.create(env)
    assert environment.works(env)
    assert (env / "pyvenv.cfg").read_text() != "broken"


def fake_output(answers: dict[str, tuple[int, str]], asked: list[list[str]]):
    """Replace for ``_output``: the first answer whose key is a word of the command."""

    def output(command: list[str], env: dict[str, str] | None = None) -> tuple[int, str]:
        asked.append(command)
        return next((answer for word, answer in answers.items() if word in command), (1, ""))

    return output


def test_without_venv_module_virtualenv_is_used_from_a_temporary_folder(environment, monkeypatch, tmp_path):
    asked: list[list[str]] = []
    answers = {"venv": (1, "ensurepip is not available"), "pip": (0, ""), "virtualenv": (0, "")}
    monkeypatch.setattr(environment, "_output", fake_output(answers, asked))
    monkeypatch.setattr(environment, "works", lambda env: "virtualenv" in asked[-1])
    environment.create(tmp_path / "env")
    assert [command[2] for command in asked] == ["venv", "pip", "virtualenv"]
    assert "--target" in asked[1]  # nothing is installed into the system's Python


def test_without_venv_and_pip_the_package_is_named(environment, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(environment, "_output", fake_output({"venv": (1, "No module named venv")}, []))
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        environment.create(tmp_path / "env")
    assert stopped.value.code == 2
    assert "apt install python3-venv" in capsys.readouterr().err


def test_without_network_one_line_says_what_to_do(environment, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(environment.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(SystemExit) as stopped:
        environment.install(tmp_path / "env")
    assert stopped.value.code == 2
    assert "check the network connection" in error_of(capsys)


def test_libraries_that_do_not_load_are_named_and_cv2_falls_back(environment, monkeypatch, tmp_path, capsys):
    asked: list[list[str]] = []
    installed: list[list[str]] = []

    def output(command: list[str], env: dict[str, str] | None = None) -> tuple[int, str]:
        asked.append(command)
        code = command[-1]
        if "metadata" in code:
            return 0, "5.0.0.93"
        return 1, "Traceback\nImportError: libfoo.so.1: cannot open shared object file"

    monkeypatch.setattr(environment, "_output", output)

    def succeed(command: list[str], **_: object) -> SimpleNamespace:
        installed.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(environment.subprocess, "run", succeed)
    with pytest.raises(SystemExit):
        environment.install(tmp_path / "env")
    assert "opencv-python-headless==5.0.0.93" in installed[-1] and "--no-deps" in installed[-1]
    assert "do not load: ImportError: libfoo.so.1" in capsys.readouterr().err


def test_run_passes_arguments_code_and_folder_on(environment, monkeypatch):
    calls = []
    monkeypatch.setattr(environment, "prepare", lambda: Path("python-of-env"))
    monkeypatch.delenv("YOLO_AUTOINSTALL", raising=False)

    def run(command: list[str], **options: object) -> SimpleNamespace:
        calls.append((command, options))
        return SimpleNamespace(returncode=7)

    monkeypatch.setattr(environment.subprocess, "run", run)
    assert environment.run(["-m", "pytest", "-k", "two words"]) == 7
    [(command, options)] = calls
    assert command == ["python-of-env", "-m", "pytest", "-k", "two words"]
    assert options["cwd"] == ROOT
    assert options["env"]["YOLO_AUTOINSTALL"] == "false"


def test_interrupt_is_no_traceback(environment, monkeypatch, capsys):
    def interrupted() -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(environment, "prepare", interrupted)
    assert environment.run([]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_environment_folder(environment, monkeypatch, tmp_path):
    assert environment.folder() == tmp_path / "env"
    monkeypatch.delenv("DFSSD_ENV")
    assert environment.folder() == ROOT / ".venv"


@pytest.mark.parametrize(("system", "tail"), [("nt", "Scripts/python.exe"), ("posix", "bin/python")])
def test_python_of_each_system(environment, monkeypatch, system, tail):
    monkeypatch.setattr(environment, "os", SimpleNamespace(name=system))
    assert environment.python_of(Path("env")) == Path("env") / tail


def test_quickstart_runs_the_main_job_on_the_demo(environment):
    script = runpy.run_path(str(SCRIPTS / "quickstart.py"))
    words = script["command"]([])
    assert {"data=demo", "project=runs", "name=quickstart"} <= set(words)


def test_quickstart_arguments_of_the_user_win(environment):
    command = runpy.run_path(str(SCRIPTS / "quickstart.py"))["command"]
    words = command(["name=mine", "--epochs", "1"])
    assert words[:3] == ["name=mine", "--epochs", "1"]
    assert not {"name=quickstart"} & set(words)
    assert not any(word.startswith("epochs=") for word in words)


def test_the_grid_of_the_quickstart_has_its_arguments(environment):
    words = runpy.run_path(str(SCRIPTS / "quickstart.py"))["command"]([])
    grid = read_yaml(ROOT / "benchmarks" / "quickstart.yaml")
    named = {
        f"{key}={parse_value(str(value))}" for key, value in {**grid["common"], "labeled": grid["labeled"][0]}.items()
    }
    given = {f"{key}={parse_value(value)}" for key, _, value in (word.partition("=") for word in words)}
    assert given - named == {"data=demo", "device=cpu", "project=runs", "name=quickstart"} and not named - given


def test_long_tests_and_those_that_train_are_left_out_and_asked_for(environment):
    command = runpy.run_path(str(SCRIPTS / "run_tests.py"))["command"]
    assert command(["-x"])[:2] == ["-m", "pytest"] and command(["-x"])[-3:] == ["-m", "not long", "-x"]
    assert command(["--all", "-x"])[-1] == "-x" and "-m" not in command(["--all", "-x"])[2:]
    words = command(["--fast", "-n0", "tests/test_files.py"])
    assert words[-4:] == ["-m", "not train", "-n0", "tests/test_files.py"], "the user's arguments come last and win"


def test_ci_runs_what_the_readme_gives():
    script = (ROOT / ".ci" / "run").read_text()
    assert script.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in script
    command = script.rstrip().splitlines()[-1]
    assert command == "python scripts/run_tests.py"
    assert f"    {command}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    if os.name == "posix":
        assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_ranges_allow_what_is_pinned():
    """Each pinned version lies in its range of pyproject.toml, and every dependency that is pinned has a range."""
    packaging = pytest.importorskip("packaging.requirements")
    tomllib = pytest.importorskip("tomllib", reason="part of Python from 3.11 on")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    ranges = {r.name.lower(): r.specifier for r in map(packaging.Requirement, listed)}
    lines = [x for x in (ROOT / "requirements.txt").read_text().splitlines() if x and not x.startswith("#")]
    pins = list(map(packaging.Requirement, lines))
    assert {pin.name.lower() for pin in pins} <= set(ranges)
    for pin in pins:
        [only] = pin.specifier
        assert only.operator == "=="
        assert only.version in ranges[pin.name.lower()], pin
