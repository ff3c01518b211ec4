"""Run the jobs of a plan one after the other: ``python scripts/run_plan.py PLAN.json [only=a,b] [key=value ...]``.

A plan lists commands with names (benchmarks/gpu/README.md). ``key=value`` replaces the value of that key in every
command that gives it, so that the same plan runs on another machine, or in small: ``device=cpu imgsz=64 epochs=1``.
``JOB.key=value`` replaces it in the command of that job alone. The output of a job goes to ``runs/plan/JOB.log``. A job
is not run if one that it waits for (``after``) failed; the exit code is then 1.
"""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def replaced(command: str, name: str, changes: dict[str, str]) -> list[str]:
    """The words of a command with changed values; ``python3`` is this Python."""
    words = []
    for word in shlex.split(command):
        key, equals, value = word.partition("=")
        if equals:
            value = changes.get(f"{name}.{key}", changes.get(key, value))
        words.append(f"{key}={value}" if equals else word)
    return [sys.executable if word == "python3" else word for word in words]


def unknown(plan: dict, only: list[str], changes: dict[str, str]) -> list[str]:
    """What names no job and no key of a command."""
    keys = {job["name"]: {w.partition("=")[0] for w in shlex.split(job["cmd"]) if "=" in w} for job in plan["jobs"]}
    every = {key for own in keys.values() for key in own}
    bad = [f"only={name}: the plan has {', '.join(keys)}" for name in only if name not in keys]
    for change in changes:
        job, dot, key = change.partition(".")
        if change not in every and not (dot and key in keys.get(job, ())):
            bad.append(f"{change}=: no command of the plan gives it")
    return bad


def run_plan(plan: dict, only: list[str], changes: dict[str, str]) -> int:
    """Run the jobs in order; return the exit code."""
    failed: set[str] = set()
    logs = ROOT / "runs" / "plan"
    logs.mkdir(parents=True, exist_ok=True)
    for job in plan["jobs"]:
        name = job["name"]
        if only and name not in only:
            continue
        if waits := failed & set(job.get("after", ())):
            failed.add(name)
            print(f"{name}: not run, since {', '.join(sorted(waits))} failed", flush=True)
            continue
        start, log = time.monotonic(), logs / f"{name}.log"
        with log.open("wb") as output:
            words = replaced(job["cmd"], name, changes)
            code = subprocess.run(words, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT).returncode
        if code:
            failed.add(name)
        print(f"{name}: exit code {code} after {time.monotonic() - start:.0f} s, output in {log}", flush=True)
    return 1 if failed else 0


def main(argv: list[str]) -> int:
    """The command; returns its exit code."""
    if not argv or {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    file, *words = argv
    pairs = [word.partition("=") for word in words]
    changes = {key: value for key, _, value in pairs}
    only = [name for name in changes.pop("only", "").split(",") if name]
    try:
        plan = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        print(f"error: {file}: no plan can be read there ({e})", file=sys.stderr)
        return 2
    bad = [f"{word}: give key=value" for word in words if "=" not in word] or unknown(plan, only, changes)
    for problem in bad:
        print(f"error: {problem}", file=sys.stderr)
    return 2 if bad else run_plan(plan, only, changes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
