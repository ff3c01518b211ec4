"""Time pseudo-labeling against the forward pass: ``python scripts/benchmark_labels.py images=FOLDER [key=value ...]``.

``--help`` names the arguments; what it does is in ``dfssd/benchmark/labeling.py``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dfssd.benchmark.labeling import main

    sys.exit(main(sys.argv[1:]))
