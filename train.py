"""Train a small YOLO detector from labeled and unlabeled images: see ``python train.py --help`` and README.md."""

import sys

from dfssd.__main__ import main

if __name__ == "__main__":
    sys.exit(main("python train.py"))
