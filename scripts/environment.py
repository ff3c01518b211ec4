"""The Python environment of the two set-up commands: made once, reused while requirements.txt stays the same.

Only the standard library is used, and the file must still *parse* under Python 3.6, so that an old interpreter
prints a sentence instead of a syntax error (hence no ``from __future__ import annotations``).
"""

import sys

if sys.version_info < (3, 10):
    sys.stderr.write(
        "error: dfssd needs Python 3.10 or newer, this is {}.{}: install a newer Python and start the command with it, "
        "for example python3.12 scripts/quickstart.py\n".format(*sys.version_info[:2])
    )
    sys.exit(2)

import hashlib
import importlib.util
import os
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements.txt"
STAMP = "dfssd-requirements.sha256"
"""File in the environment that names the requirements installed there; written last, so a broken set-up has none."""


def fail(message: str) -> NoReturn:
    """Print one line and leave with exit code 2."""
    sys.stderr.write(f"error: {message}\n")
    sys.exit(2)


def folder() -> Path:
    """The environment folder: ``DFSSD_ENV`` if set, else ``.venv`` in the checkout."""
    return Path(os.environ.get("DFSSD_ENV") or ROOT / ".venv").expanduser().absolute()


def python_of(env: Path) -> Path:
    """The interpreter inside an environment folder, on this system."""
    return env / "Scripts" / "python.exe" if os.name == "nt" else env / "bin" / "python"


def _output(command: list[str], env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run ``command`` quietly; return its exit code and its output, stripped."""
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace", env=env
        )
    except OSError as e:
        return 127, str(e)
    return done.returncode, done.stdout.strip()


def _last_line(text: str) -> str:
    return text.splitlines()[-1].strip() if text else "no message"


def works(env: Path) -> bool:
    """Whether the folder holds a Python >= 3.10 that starts and has pip (a moved or half-made one does not)."""
    check = "import sys, importlib.util as u; sys.exit(sys.version_info < (3, 10) or u.find_spec('pip') is None)"
    return _output([str(python_of(env)), "-c", check])[0] == 0


def create(env: Path) -> None:
    """Make an empty environment with pip; a broken one at the same place is replaced, other folders never."""
    if env.exists() and not (env.is_dir() and (not any(env.iterdir()) or (env / "pyvenv.cfg").is_file())):
        fail(f"{env} is in the way: it is not a Python environment; move it or set DFSSD_ENV to another folder")
    print(f"Making a Python environment in {env}", flush=True)
    code, output = _output([sys.executable, "-m", "venv", "--clear", str(env)])
    if code == 0 and works(env):
        return
    # Debian and Ubuntu split venv off; virtualenv brings its own pip. It goes into a temporary folder, because the
    # system's Python belongs to the system.
    if importlib.util.find_spec("pip") is not None:
        with tempfile.TemporaryDirectory() as tools:
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", tools, "virtualenv"]
            code, pip_output = _output(install)
            if code == 0:
                variables = {**os.environ, "PYTHONPATH": tools}
                code, output = _output([sys.executable, "-m", "virtualenv", "--clear", str(env)], env=variables)
                if code == 0 and works(env):
                    return
            else:
                output = pip_output
    fail(
        f"cannot make a Python environment in {env} ({_last_line(output)}): install Python's venv module "
        "(Debian, Ubuntu: apt install python3-venv) and start again"
    )


def install(env: Path) -> None:
    """Install requirements.txt into the environment and check that the large libraries can be loaded."""
    python = str(python_of(env))
    print(f"Installing {REQUIREMENTS.name} (once; PyTorch is large: a few minutes, up to 8 GB of disk)", flush=True)
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    if subprocess.run([*pip, "--requirement", str(REQUIREMENTS)]).returncode:
        fail(
            "pip could not install the requirements (its own message is above): check the network connection, a proxy "
            "(HTTPS_PROXY) and the free disk space, then start the same command again"
        )
    if _output([python, "-c", "import cv2"])[0]:
        # Ultralytics requires opencv-python, albumentations its headless twin; both fill the folder cv2/ and the
        # first one needs libGL and X11, which servers and containers lack. Let the twin win there.
        query = "import importlib.metadata as m; print(m.version('opencv-python-headless'))"
        _, version = _output([python, "-c", query])
        subprocess.run([*pip, "--quiet", "--force-reinstall", "--no-deps", f"opencv-python-headless=={version}"])
    code, output = _output([python, "-c", "import cv2, torch, torchvision, onnxruntime, ultralytics"])
    if code:
        fail(f"the libraries are installed but do not load: {_last_line(output)}; remove {env} and start again")


def prepare() -> Path:
    """Make or reuse the environment; return its interpreter. Ends the process with one line if that is impossible."""
    env = folder()
    try:
        wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
        stamp = env / STAMP
        usable = works(env)
        if usable and stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == wanted:
            return python_of(env)
        stamp.unlink(missing_ok=True)
        if not usable:
            create(env)
        install(env)
        temporary = stamp.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(wanted + "\n", encoding="utf-8")
        os.replace(temporary, stamp)
    except OSError as e:
        fail(f"cannot set up {env}: {e}; set DFSSD_ENV to a folder that can be written to")
    return python_of(env)


def run(arguments: list[str]) -> int:
    """Prepare the environment, run its Python with ``arguments`` in the checkout and return the exit code."""
    try:
        python = prepare()
        # Ultralytics installs missing packages at run time by default; the set-up is done here, once.
        variables = {**os.environ, "YOLO_AUTOINSTALL": os.environ.get("YOLO_AUTOINSTALL", "false")}
        return subprocess.run([str(python), *arguments], cwd=ROOT, env=variables).returncode
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130
