"""Set up everything and run the tests: ``python scripts/run_tests.py [--fast] [pytest arguments]``.

``--fast`` leaves out the tests that train or export a network, or start processes. The files are distributed over as
many processes as there are cores, at most four; ``-n0`` keeps everything in one, for example for a debugger.
"""

import sys

import environment

PROCESSES = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"]


def command(words):
    """Arguments of Python for the arguments of the user, which win."""
    fast = ["-m", "not train"] if "--fast" in words else []
    return ["-m", "pytest", *PROCESSES, *fast, *(word for word in words if word != "--fast")]


if __name__ == "__main__":
    sys.exit(environment.run(command(sys.argv[1:])))
