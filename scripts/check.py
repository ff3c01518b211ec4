"""Set up everything and check the code: ``python scripts/check.py [--fast]``.

Format and lint (ruff), types of package, scripts and tests (mypy), spelling (typos, American English), and the
documentation as a site, with all its links (Zensical); ``--fast`` adds the fast tests. All checks run even if one has
failed, and the output of a failed one is printed below its line. Exit code 0: all passed, 1: at least one failed, 2:
wrong arguments or no environment.
"""

import os
import subprocess
import sys
import time

import environment

CHECKS = {
    "format": (["-m", "ruff", "format", "--check", "--quiet", "."], "python -m ruff format ."),
    "lint": (["-m", "ruff", "check", "--quiet", "."], "python -m ruff check --fix ."),
    "types": (["-m", "mypy", "--no-error-summary"], None),
    "spelling": (["typos", "--format", "brief"], "typos --write-changes"),
    "site": (["scripts/docs_site.py"], None),
}
"""Name -> (arguments of the environment's Python, or a program of the environment), and what fixes most of it."""

FAST_TESTS = {"tests": (["scripts/run_tests.py", "--fast", "--quiet"], None)}


def command(python, arguments):
    """The words that run a check: a program beside the environment's Python, or that Python itself."""
    if arguments[0].startswith("-") or arguments[0].endswith(".py"):
        return [str(python), *arguments]
    suffix = ".exe" if os.name == "nt" else ""
    return [str(python.with_name(arguments[0] + suffix)), *arguments[1:]]


def run(python, name, arguments, fix):
    """Run one check, print its line and, if it has failed, its output; return whether it passed."""
    print(f"{name:9}", end="", flush=True)
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command(python, arguments),
            cwd=environment.ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        code, output = done.returncode, done.stdout.strip()
    except OSError as e:
        code, output = 127, f"{e}: install the tools with pip install --requirement requirements.txt"
    seconds = time.perf_counter() - start
    print(f"{'passed' if code == 0 else 'FAILED'} {seconds:6.1f} s", flush=True)
    if code:
        print("\n".join(f"    {line}" for line in output.splitlines()))
        if fix:
            print(f"    to fix what can be fixed automatically: {fix}")
    return code == 0


def main(argv):
    """Run all checks; return the exit code."""
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    unknown = [word for word in argv if word != "--fast"]
    if unknown:
        sys.stderr.write(f"error: unknown argument '{unknown[0]}': python scripts/check.py [--fast]\n")
        return 2
    checks = {**CHECKS, **(FAST_TESTS if argv else {})}
    try:
        python = environment.prepare()
        passed = [run(python, name, *check) for name, check in checks.items()]
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return 130
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
