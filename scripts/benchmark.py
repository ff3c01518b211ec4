"""Run a grid of trainings and write one table of the results: ``python scripts/benchmark.py GRID.yaml data=...``.

``--help`` names the arguments, ``benchmarks/README.md`` explains grid and table.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dfssd.benchmark.running import main

    sys.exit(main(sys.argv[1:]))
