"""Train a small YOLO detector from labelled and unlabelled images: see ``python train.py --help`` and README.md."""

import sys

try:
    from dfssd.cli import main
except ModuleNotFoundError as e:
    sys.stderr.write(
        f"error: {e.name} is not installed in this Python: use the one that scripts/quickstart.py sets up "
        "(.venv/bin/python, on Windows .venv\\Scripts\\python.exe), or pip install -r requirements.txt\n"
    )
    raise SystemExit(2) from None

if __name__ == "__main__":
    raise SystemExit(main())
