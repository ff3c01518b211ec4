"""The command ``dfssd``, which is also ``python -m dfssd`` and, in a checkout, ``python train.py``."""

import sys


def main(program: str = "dfssd") -> int:
    """Run the command line of this process and return its exit code (:mod:`dfssd.cli`).

    Args:
        program: What was typed before the arguments, shown in the usage and recorded.
    """
    try:
        from dfssd.process import prepare_process

        prepare_process()  # before numpy and torch, which read these variables on import
        from dfssd.cli import main as run
    except ModuleNotFoundError as e:
        sys.stderr.write(
            f"error: {e.name} is not installed in this Python: use the one that scripts/quickstart.py sets up "
            "(.venv/bin/python, on Windows .venv\\Scripts\\python.exe), or install what dfssd needs: "
            "pip install -r requirements.txt, or pip install .\n"
        )
        return 2
    return run(program=program)


if __name__ == "__main__":
    sys.exit(main("python -m dfssd"))
