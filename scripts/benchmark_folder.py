"""Time and memory of the labels of a large folder: ``python scripts/benchmark_folder.py out=FOLDER``.

``--help`` names the arguments; what it does is in ``dfssd/benchmark/folder.py``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dfssd.benchmark.folder import main

    sys.exit(main(sys.argv[1:]))
