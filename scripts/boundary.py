"""Write and draw the distance maps of the boundary loss: ``python scripts/boundary.py data=NEU-Seg.zip out=boundary``.

``--help`` names the arguments; what it does is in ``dfssd/segmentation/boundary_command.py``.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from dfssd.segmentation.boundary_command import main

    sys.exit(main(sys.argv[1:]))
