"""How much a server of ``dfssd serve`` bears: ``python scripts/load_test.py photos [clients=[1,4,16] ...]``.

``--help`` names the arguments; what it does is in ``dfssd/benchmark/load.py``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dfssd.benchmark.load import main

    sys.exit(main(sys.argv[1:]))
