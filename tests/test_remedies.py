"""What is said when memory or disk do not suffice."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from dfssd.errors import UserError
from dfssd.remedies import explain_resource_errors, explain_storage, storage_problem

STORAGE = {
    "full": (OSError(errno.ENOSPC, "No space left on device"), "the disk of .* is full .* MiB free.: make room"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk of .* is full .Disk quota exceeded"),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "a.txt"), "a.txt cannot be read or written .Read-only"),
    "denied": (PermissionError(errno.EACCES, "Permission denied", b"b.txt"), "b.txt cannot be read or written"),
    "unplugged": (OSError(errno.EIO, "Input/output error", "c.txt"), "c.txt cannot be reached .Input/output error"),
    "checkpoint": (
        RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 704 vs 598"),
        "a checkpoint in .* full disk",
    ),
}


@pytest.mark.parametrize("case", STORAGE)
def test_what_a_machine_lacks_is_one_line_with_the_command_to_go_on(tmp_path: Path, case: str) -> None:
    error, message = STORAGE[case]
    told = f"^{message}.*then go on with: dfssd resume={tmp_path}$"
    with pytest.raises(UserError, match=told), explain_resource_errors(tmp_path):
        raise error
    with pytest.raises(UserError, match=told), explain_resource_errors(tmp_path):
        try:
            raise error
        except Exception as e:
            raise ValueError("what a library makes of it") from e


def test_exhausted_gpu_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ran out of memory: lower batch or"), explain_resource_errors(tmp_path):
        raise RuntimeError("CUDA out of memory")


def test_torch_cannot_write_to_a_folder_that_vanished_and_to_a_full_disk(tmp_path: Path) -> None:
    gone = tmp_path / "run"
    with pytest.raises(UserError, match=f"^{gone} has vanished: restore it, then"), explain_resource_errors(gone):
        torch.save({}, gone / "weights" / "a.pt")
    with pytest.raises(UserError, match=f"^{gone} has vanished: restore it, then"), explain_resource_errors(gone):
        (gone / "weights" / "a.pt").write_bytes(b"")
    if os.path.exists("/dev/full"):
        with pytest.raises(UserError, match="as on a full disk"), explain_resource_errors(tmp_path):
            torch.save({"a": torch.zeros(1 << 16)}, "/dev/full")


@pytest.mark.parametrize(
    "error",
    [RuntimeError("something else"), FileNotFoundError(errno.ENOENT, "No such file", "/etc/no/such"), KeyError(1)],
)
def test_bugs_stay_bugs(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), explain_resource_errors(tmp_path):
        raise error


def test_a_full_disk_that_is_another_one_is_named(tmp_path: Path) -> None:
    other = tmp_path / "other"
    error = OSError(errno.ENOSPC, "No space left on device", str(other / "a.bin"))
    told = f"^the disk of {other} is full .*make room, and start the same line again$"
    with pytest.raises(UserError, match=told), explain_storage(tmp_path / "run"):
        raise error
    assert storage_problem(error, tmp_path / "run", elsewhere=False)


def test_what_cannot_be_read_elsewhere_counts_if_it_is_asked_for(tmp_path: Path) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/etc/shadow")
    assert storage_problem(error, tmp_path) and storage_problem(error, tmp_path, elsewhere=False) is None
