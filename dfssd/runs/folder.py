"""A run folder: its paths, its record (``results.json``) and what may change when it is resumed."""

from __future__ import annotations

import logging
import platform
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dfssd import __version__, resources
from dfssd.config import KEYS, RESUMABLE, Config, defaults, differences, flat_settings
from dfssd.config.arguments import ARGUMENTS
from dfssd.datasets.data_state import check_state
from dfssd.errors import UserError
from dfssd.files import from_here, read_yaml, write_yaml
from dfssd.log import LOGGER
from dfssd.log_file import NAME as LOG
from dfssd.results.record import FILE, RECORDS, RunRecord
from dfssd.results.sections import RunFacts, Session, Stage, Status
from dfssd.runs.ownership import LOCK, OWNER, Ownership
from dfssd.trust.checkpoints import vet

_CHECKPOINTS = (*(f"train/*/weights/{name}.pt" for name in ("last", "best", "state")), "weights/[!.]*.pt")
"""Where a run has files that may have been cut."""


_SECTIONS = ("config", "terms", "train", "given")
"""What a ``run.yaml`` is read for."""


class RunFolder:
    """The folder of one run.

    ``results.json`` is both record and state: a stage is finished when it is listed there with a status, and its
    section is written in the same atomic write.

    Attributes:
        path: The folder, absolute.
        record: The content of ``results.json``, which the stages fill (docs/results.md).
        owned: The right to work in it; None for one that is only read.
    """

    owned: Ownership | None = None

    def __init__(self, path: Path, record: RunRecord):
        """Bind the folder and its record; nothing is written yet."""
        self.path, self.record = path.resolve(), record

    @staticmethod
    def existing(config: Config) -> Path | None:
        """The folder that a line goes on with, or overwrites; None if it makes one of its own, or there is none."""
        if config["resume"] in {False, None} and not config["exist_ok"]:
            return None
        path = _named(config) if config["resume"] in {False, None, True} else Path(config["resume"])
        return path if (path / "run.yaml").is_file() else None

    @classmethod
    def create(cls, config: Config, command: str) -> RunFolder:
        """Make a new folder ``project/name``, numbered as Ultralytics does unless ``exist_ok``."""
        base = _named(config)
        path, number = base, 1
        try:
            base.parent.mkdir(parents=True, exist_ok=True)
            if config["exist_ok"]:
                base.mkdir(exist_ok=True)
                for file in (
                    FILE,
                    "report.html",
                    "report.md",
                    "segmentation.csv",
                    LOG,
                    "tracking.json",
                ):  # the record first: it vouches for all others
                    (base / file).unlink(missing_ok=True)
                for part in (
                    "train",
                    "pseudo",
                    "pseudo_round*",
                    ".pseudo*",
                    "splits",
                    "weights",
                    "plots",
                    "val",
                    "test",
                    "deploy",
                    "review/student-*",
                    "tensorboard",
                    "wandb",
                ):
                    for old in base.glob(part):
                        shutil.rmtree(old, ignore_errors=True)
            else:
                while not _make_new(path):
                    number += 1
                    path = base.with_name(f"{base.name}{number}")
                if path != base:
                    LOGGER.info(f"{from_here(base)} exists: this run is {from_here(path)} (exist_ok=true overwrites)")
        except OSError as e:
            raise UserError(
                f"cannot make the run folder {path}: {e.strerror}; choose another place with project="
            ) from e
        facts = run_facts(command, config)
        run = cls(path, RECORDS[config["task"]](run=facts))
        write_yaml(
            run.path / "run.yaml",
            {
                "command": command,
                "config": dict(config.own),
                "terms": {k: dict(v) for k, v in config.terms.items()},
                "train": dict(config.train),
                "given": dict(config.given),
                "versions": facts.model_dump(include={"dfssd", "ultralytics", "torch", "python"}),
                "git": facts.git,
            },
        )
        run.save()
        return run

    @classmethod
    def resume(cls, config: Config) -> tuple[RunFolder, Config]:
        """Open the folder named by ``resume=``; return it with the configuration that it was started with.

        Raises:
            UserError: There is no run, an argument differs from the one that the run was started with, or files of the
                data changed or vanished since then, or a checkpoint is damaged.
        """
        where = config["resume"]
        if where is True:
            where = _named(config)
        path = Path(where)
        if not (path / "run.yaml").is_file():
            raise UserError(f"resume={where}: no run.yaml there; give the folder of a run (project/name)")
        tree = _read_settings(path / "run.yaml")
        before = {**defaults(), **tree["config"]}  # a run from before there was a key had its default
        changed = differences(
            flat_settings(before, tree["terms"], tree["train"]),
            flat_settings(config.own, config.terms, config.train),
            keys=config.given,
            ignoring=RESUMABLE,
        )
        if changed:
            raise UserError(
                *(
                    f"resume={where}: {key}={requested}, but the run was started with {key}={started}; "
                    "repeat the same line, or start a new run"
                    for key, started, requested in changed
                )
            )
        own = {**before, **{k: v for k, v in config.own.items() if k in RESUMABLE and k in config.given}}
        train = {**tree["train"], **{k: v for k, v in config.train.items() if k in RESUMABLE}}
        continued = Config(own=own, terms=tree["terms"], train=train, given=tree["given"])
        _check_data_yaml(path)
        facts = run_facts(tree.get("command", "resume"), continued)
        kind = RECORDS[before["task"]]
        # without a record all stages are run again
        record = kind.read(path / FILE) if (path / FILE).exists() else kind(run=facts)
        if not record.complete:
            _check_checkpoints(path)
            if record.stage("prepare"):
                check_state(path / "splits", f"resume={where}")
            session = Session(**facts.model_dump(include=set(Session.model_fields)))
            record.run = record.run.model_copy(update={"resumed": (*record.run.resumed, session)})
        run = cls(path, record)
        run.save()  # a session that is killed before a stage ends counts, too
        return run, continued

    @classmethod
    def open(cls, path: Path) -> tuple[RunFolder, Config]:
        """Open the folder of a run as it is, and return it with the configuration that it was started with.

        Raises:
            UserError: There is no run, or its record is damaged.
        """
        if not (path / "run.yaml").is_file():
            raise UserError(f"{path} is no run: it has no run.yaml; give the folder of a run (project/name)")
        tree = _read_settings(path / "run.yaml")
        own = {**defaults(), **tree["config"]}
        _check_data_yaml(path)
        record = RECORDS[own["task"]].read(path / FILE)
        return cls(path, record), Config(own=own, terms=tree["terms"], train=tree["train"], given=tree["given"])

    def discard_if_empty(self) -> None:
        """Remove the folder if no stage has finished and it holds only its record, so that the name stays free."""
        if not self.record.stages and {p.name for p in self.path.iterdir()} <= {"run.yaml", FILE, LOG, LOCK, OWNER}:
            for _ in range(3):
                shutil.rmtree(self.path, ignore_errors=True)
                if not self.path.exists():
                    return
                time.sleep(0.2)  # another process of the run was just about to open its log

    def save(self) -> None:
        """Write ``results.json``, whole."""
        self.record.write(self.path / FILE)

    def stage(self, name: str) -> Stage | None:
        """The record of a finished stage, or None."""
        return self.record.stage(name)

    def run_stage(self, name: str, work: Callable[[], Status], *, earlier: Collection[str]) -> None:
        """Run a stage unless it is finished.

        Args:
            name: Its name.
            work: Fills :attr:`record` and returns the status.
            earlier: Names of the stages before it. The later ones depend on its output and are run again.
        """
        if done := self.stage(name):
            LOGGER.info(f"{name}: {done.status} earlier, kept")
            return
        self.record.stages = tuple(s for s in self.record.stages if s.name in earlier)
        start = time.monotonic()
        status = work()
        seconds = round(time.monotonic() - start, 1)
        self.record.stages = (*self.record.stages, Stage(name=name, seconds=seconds, status=status))
        self.save()
        LOGGER.log(logging.DEBUG if status == "skipped" else logging.INFO, f"{name}: {status} in {seconds:.0f} s")


def _named(config: Config) -> Path:
    """The folder ``project/name``."""
    return Path(config["project"]) / (config["name"] or Path(config["recipe"]).stem)


def _read_settings(file: Path) -> dict[str, Any]:
    """Content of the ``run.yaml`` of a run.

    Raises:
        UserError: It cannot be read, lacks a section, or holds a value that no run can have.
    """
    tree = read_yaml(file)
    problems = [f"it has no section '{name}'" for name in _SECTIONS if not isinstance(tree.get(name), dict)]
    if not problems:
        checks = {name: key.check for name, key in KEYS.items()}
        checks |= {name: given.check for name, given in ARGUMENTS.items() if given.check}
        recorded = [*tree["config"].items(), *tree["train"].items()]
        problems += [
            f"{name}={value} {problem}"
            for name, value in recorded
            if name in checks and (problem := checks[name].problem(value))
        ]
        problems += [
            f"the term {name} has no options" for name, own in tree["terms"].items() if not isinstance(own, dict)
        ]
    if not isinstance(tree.get("command", ""), str):
        problems.append("'command' is no text")
    if problems:
        raise UserError(f"{file} is damaged: {problems[0]}; restore it, or start a new run")
    return tree


def _check_data_yaml(path: Path) -> None:
    """Raise :class:`UserError` if the ``data.yaml`` of a run has what Ultralytics would run as a program."""
    file = path / "splits" / "data.yaml"
    if file.is_file() and "download" in read_yaml(file):
        raise UserError(f"{file}: download: would be run as a program, and no run writes such an entry; remove it")


def _check_checkpoints(path: Path) -> None:
    """Raise :class:`UserError` for checkpoints of a run that may run code, or were cut by a full disk or a broken copy.

    A process that is killed leaves halves under other names only, which are written anew.
    """
    problems: list[str] = []
    for file in sorted(file for pattern in _CHECKPOINTS for file in path.glob(pattern)):
        with open(file, "rb") as opened:
            start = opened.read(2)
        if start == b"\x80\x02" or (start == b"PK" and zipfile.is_zipfile(file)):  # a pickle, or the archive of torch
            vet(file)
            continue
        if file.parent.parent == path:
            remedy = f"restore it, or remove {path / FILE} to run all stages again"
        else:
            remedy = f"remove {file.parent.parent} to repeat that training"
        problems.append(f"{file} is damaged, {file.stat().st_size:,} bytes are left of it; {remedy}")
    if problems:
        raise UserError(*problems)


def run_facts(command: str, config: Config) -> RunFacts:
    """What is needed to repeat the run: command, versions, machine, seed, commit."""
    return RunFacts(
        command=command,
        dfssd=__version__,
        ultralytics=version("ultralytics"),
        torch=version("torch"),
        python=sys.version.split()[0],
        machine=f"{platform.system()} {platform.machine()}",
        device=str(config.train.get("device", "auto")),
        seed=config.seed,
        recipe=config["recipe"],
        git=git_commit(),
    )


def _make_new(path: Path) -> bool:
    """Make the folder; False if it exists. Two runs started at the same time never get the same one."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def git_commit() -> str | None:
    """Commit of the running code, with ``+changes`` if files differ from it; None outside a checkout.

    An installed package has none, even inside another repository, and neither has an unpacked archive. Tables in
    ``benchmarks/`` do not count as changes: a grid writes them while it runs.
    """
    root = resources.source_tree()
    if root is None:
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", "pyproject.toml")  # fails inside another repository
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", ".", ":!benchmarks")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changes else "")
