"""Images reviewed by value against random ones: ``python scripts/benchmark_review.py RUN out=FOLDER [key=value ...]``.

``--help`` names the arguments; what it does is in ``dfssd/benchmark/review.py``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dfssd.benchmark.review import main

    sys.exit(main(sys.argv[1:]))
