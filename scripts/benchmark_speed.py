"""How long a training step takes: ``python scripts/benchmark_speed.py [imgsz=224 batch=16 device=cpu amp=bf16 ...]``.

``--help`` names the arguments; what it does is in ``dfssd/benchmark/speed.py``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dfssd.benchmark.speed import main

    sys.exit(main(sys.argv[1:]))
