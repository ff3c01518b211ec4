"""Set up everything and run the tests: ``python scripts/run_tests.py [pytest arguments]``."""

import sys

import environment

if __name__ == "__main__":
    sys.exit(environment.run(["-m", "pytest", *sys.argv[1:]]))
