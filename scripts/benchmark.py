"""``dfssd benchmark`` in a checkout: ``python scripts/benchmark.py GRID.yaml data=... [key=value ...]``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dfssd.cli import main

    sys.exit(main(["benchmark", *sys.argv[1:]]))
