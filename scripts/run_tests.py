"""Set up everything and run the tests: ``python scripts/run_tests.py [--fast | --all] [pytest arguments]``.

Tests marked ``long`` are slow cases of tests whose other cases always run: ``--all`` runs them, too. ``--fast`` leaves
out all tests that train or export a network, or start processes. The files are distributed over as many processes as
there are cores, at most four; ``-n0`` keeps everything in one, for example for a debugger.
"""

import sys

import environment

PROCESSES = ["-n", "auto", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder"]


def command(words):
    """Arguments of Python for the arguments of the user, which win."""
    left_out = "train" if "--fast" in words else "long"
    chosen = [] if "--all" in words else ["-m", f"not {left_out}"]
    return ["-m", "pytest", *PROCESSES, *chosen, *(word for word in words if word not in {"--fast", "--all"})]


if __name__ == "__main__":
    sys.exit(environment.run(command(sys.argv[1:])))
