"""Runs of all recipes, killed in every training, against whole ones: ``python scripts/benchmark_kills.py out=FOLDER``.

``--help`` names the arguments; what it does is in ``dfssd/benchmark/kills.py``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dfssd.benchmark.kills import main

    sys.exit(main(sys.argv[1:]))
