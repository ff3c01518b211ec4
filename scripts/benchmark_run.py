"""Time the whole job against Ultralytics' own trainings: ``python scripts/benchmark_run.py data=... [key=value ...]``.

``--help`` names the arguments; what it does is in ``dfssd/benchmark/whole.py``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dfssd.benchmark.whole import main

    sys.exit(main(sys.argv[1:]))
