"""Train a small YOLO detector from labelled and unlabelled images: see ``python train.py --help`` and README.md."""

from dfssd.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
