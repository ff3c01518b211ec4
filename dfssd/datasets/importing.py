"""What every import shares, whatever the labels are: find the source, unpack it, convert it whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from dfssd.datasets.archives import unpack, zip_fingerprint
from dfssd.datasets.cards import find_card, is_card, nearest_card, read_card
from dfssd.datasets.demo import make_demo
from dfssd.datasets.download import fetch_card
from dfssd.datasets.image_files import safe_names
from dfssd.errors import UserError


def resolve_source(source: str, data_dir: Path) -> Path:
    """The file or folder behind ``data=source``; demo and downloads are made on the way.

    Raises:
        UserError: It does not exist, or is of a kind that is not read.
    """
    if source == "demo":
        return make_demo(data_dir)
    path = Path(source).expanduser()
    if path.exists():
        path = path.resolve()
        if path.suffix.lower() in {".yaml", ".yml"} and is_card(load_yaml(path)):
            return fetch_card(read_card(path), data_dir)
        if path.is_file() and path.suffix.lower() not in {".zip", ".yaml", ".yml"}:
            raise UserError(f"data={source} is neither a folder nor a .zip nor a .yaml file; pass one of these")
        return path
    if path.parent == Path() and not path.suffix and (card := find_card(source)):
        return fetch_card(card, data_dir)
    hint = f"; did you mean data={near}?" if (near := nearest_card(path.stem)) and not path.suffix else ""
    raise UserError(f"data={source} does not exist{hint or '; pass demo, a .yaml, a folder, a .zip or a card name'}")


def load_yaml(path: Path) -> object:
    """The content of a YAML file; UserError with the line if it is none."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        where = getattr(e, "problem_mark", None)
        raise UserError(f"{path}{f':{where.line + 1}' if where else ''}: is not valid YAML; correct it") from e


def own_yaml(root: Path) -> Path | None:
    """The data set YAML that a folder brings along, if any."""
    for file in sorted([*root.glob("*.y*ml"), *root.glob("*/*.y*ml")], key=lambda p: len(p.parts)):
        content = load_yaml(file)
        if isinstance(content, dict) and "train" in content and ("names" in content or "nc" in content):
            return file
    return None


def usual_names(path: Path) -> tuple[str, ...] | None:
    """Class names of the release that the folder or zip file ``path`` is called after, if there is a card of it."""
    card = find_card(path.name)
    return card.names if card else None


def digest(*parts: object) -> str:
    """Ten hexadecimal digits that change when one of ``parts`` does."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def content_fingerprint(path: Path) -> str:
    """Hash of the content of a zip file or folder.

    Of a folder names, sizes and times of change of all files: a changed file is seen without reading all of them.
    """
    if path.is_file():
        return zip_fingerprint(path)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix != ".cache")
    return digest([(f.relative_to(path).as_posix(), f.stat().st_size, f.stat().st_mtime_ns) for f in files])


def target_folder(data_dir: Path, name: str, *parts: object) -> Path:
    """Folder of a conversion: what it holds depends on ``parts``."""
    return data_dir / f"{safe_names([Path(name)])[0]}-{digest(*parts)}"


def is_converted(target: Path) -> bool:
    """Whether a conversion is there and complete."""
    return (target / "dataset.json").exists()


@contextlib.contextmanager
def opened_source(path: Path, target: Path) -> Iterator[Path]:
    """The folder to read ``path`` from: itself, or beside ``target`` a zip file unpacked as long as the block runs."""
    if not path.is_file():
        yield path
        return
    unpacked = target.with_name(f".{target.name}.{os.getpid()}.unpacked")
    try:
        unpack(path, unpacked)
        yield unpacked
    except OSError as e:
        raise UserError(cannot_write(target, e)) from e
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


@contextlib.contextmanager
def conversion(target: Path) -> Iterator[Path]:
    """A folder to fill, ``dataset.json`` last; it becomes ``target`` if the block succeeds, and vanishes if not.

    Raises:
        UserError: The disk is full or the folder cannot be written to.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        partial.mkdir(parents=True)
        yield partial
        if is_converted(target):  # another run was faster; it may train from there already
            return
        shutil.rmtree(target, ignore_errors=True)  # left by something else than a finished conversion
        os.replace(partial, target)
    except OSError as e:
        raise UserError(cannot_write(target, e)) from e
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def cannot_write(target: Path, error: OSError) -> str:
    """The message about a folder of data that cannot be written."""
    return f"cannot write {target}: {error.strerror or error}; free some space or choose another data_dir="


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for the same file where the file system can, a copy where it cannot."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def check_problems(
    problems: Sequence[tuple[Path, str]], usable: int, where: Path | str, skip_bad: bool, root: Path | None = None
) -> list[tuple[Path, str]]:
    """The problems of an import, or one message about all of them.

    Args:
        problems: (file, reason naming the file) of each unusable image.
        usable: Number of the usable ones.
        where: What the user passed.
        skip_bad: Unusable images are left out.
        root: Where ``where`` was unpacked: files in it are named as members of ``where``.

    Raises:
        UserError: There are problems and ``skip_bad`` is not set, or no image is usable.
    """
    if root is not None and root != where:  # a zip file: name the file inside it, not its temporary copy
        problems = [(Path(where) / f.relative_to(root), r.replace(str(root), str(where))) for f, r in problems]
    if problems and not skip_bad:
        shown = "; ".join(reason for _, reason in problems[:3])
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{len(problems)} unusable of {usable + len(problems)} images: {shown}{more}; "
            "repair or remove them, or pass skip_bad=true to leave them out"
        )
    if not usable:
        raise UserError(f"no usable image in {where}: {problems[0][1] if problems else 'it is empty'}")
    return list(problems)
