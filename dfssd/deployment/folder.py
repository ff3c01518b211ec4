"""``RUN/deploy/``: what is handed over, apart from ``weights/``, and ``manifest.json``, which describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfssd.deployment import infer
from dfssd.deployment.facts import LICENSE, Facts, sign_checkpoint
from dfssd.files import copy_atomically, file_digest, read_json, write_json, write_text

FOLDER, MANIFEST, INFER, README, ONNX = "deploy", "manifest.json", "infer.py", "README.md", "student.onnx"

CHECKPOINT = "pytorch/student.pt"
"""In a folder of its own: ``yolo export`` writes beside the checkpoint that it is given, over what is there."""

TENSORS = "pytorch/student.safetensors"
"""The weights alone, with ``student.yaml`` beside them: the same detector without a pickle. Both are in ``weights/``,
too, where people look for what was trained."""


def write_deploy(
    run: Path, about: Facts, formats: Sequence[Mapping[str, Any]], *, machine: str | None, detects: bool
) -> Path:
    """Complete the folder of a run that is handed over.

    The formats themselves are there already. What an earlier export has left, and this one does not write, stays.

    Args:
        run: Folder of the run.
        about: As of :func:`~dfssd.deployment.facts.facts`.
        formats: What is known of each file of a format: ``format``, ``file`` (a path below the folder), its size, how
            closely it agrees with PyTorch, and how fast it is. They replace what was known of the same files.
        machine: What computed their times, with the number of threads.
        detects: Whether the network finds boxes, so that ``infer.py`` runs it.

    Returns:
        The folder.
    """
    folder = run / FOLDER
    sign_checkpoint(run / "weights" / "student.pt", folder / CHECKPOINT, about)
    if detects:
        from dfssd.deployment.tensors import write_tensors  # late, since dfssd predict needs no torch

        copy_atomically(infer.__file__, folder / INFER)
        tensors = run / "weights" / Path(TENSORS).name
        write_tensors(folder / CHECKPOINT, tensors)  # of the checkpoint that names no path of this machine
        for file in (tensors, tensors.with_suffix(".yaml")):
            copy_atomically(file, (folder / TENSORS).with_name(file.name))
    if not (folder / ONNX).exists() and (run / "weights" / ONNX).exists():  # of a run before there was this folder
        copy_atomically(run / "weights" / ONNX, folder / ONNX)
    earlier = read_json(folder / MANIFEST).get("formats") or []
    new = {entry["file"] for entry in formats}
    known = [entry for entry in earlier if entry["file"] not in new and (folder / entry["file"]).exists()]
    listed = [*known, *({**entry, "machine": machine} for entry in formats)]
    write_text(folder / README, _readme(about, detects))
    write_json(
        folder / MANIFEST,
        {
            "schema": 1,
            **about,
            "formats": sorted(map(dict, listed), key=lambda entry: entry["file"] != ONNX),
            "files": [
                {"file": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": file_digest(path)}
                for path in handed_over(folder)
                if path.name != MANIFEST
            ],
        },
    )
    return folder


def handed_over(folder: Path) -> list[Path]:
    """The files of the folder; not what begins with a dot, such as the files of an export that was killed."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _readme(about: Facts, detects: bool) -> str:
    """Five lines for the person who gets the folder."""
    run_it = (
        "`python infer.py IMAGE_OR_FOLDER` (numpy, onnxruntime, pillow) or `dfssd predict SOURCE model=student.onnx`"
        if detects
        else '`YOLO("student.onnx")`, or any ONNX runtime: RGB in 0-1 in, a class for each pixel out'
    )
    return (
        f"# {about['run']}\n"
        f"Run it: {run_it}.\n"
        f"Classes: {', '.join(about['names'])}. Other formats: `yolo export model=pytorch/student.pt`.\n"
        f"`manifest.json` has the SHA-256 of every file, and how closely each format agrees with PyTorch.\n"
        f"Trained by dfssd {about['dfssd']} with Ultralytics {about['ultralytics']}. License: {LICENSE}.\n"
    )


def is_unchanged(file: Path) -> bool | None:
    """Whether a file is the one that was checked: None for a folder, and if no ``manifest.json`` beside it lists it."""
    listed = read_json(file.with_name(MANIFEST)).get("files") or []
    known = {entry["file"]: entry["sha256"] for entry in listed}
    return known[file.name] == file_digest(file) if file.is_file() and file.name in known else None
