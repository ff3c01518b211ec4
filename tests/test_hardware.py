"""How much memory a process may take, and what the machine is called."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from dfssd.hardware import free_memory, free_on_gpu, processor

VERSION_2 = {"memory.max": "5000", "memory.current": "3000", "memory.stat": "anon 900\ninactive_file 1500\n"}
VERSION_1 = {
    "memory/memory.limit_in_bytes": "5000",
    "memory/memory.usage_in_bytes": "3000",
    "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 1500\n",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text + "\n", encoding="ascii")
    return folder


@pytest.mark.parametrize("files", [VERSION_2, VERSION_1], ids=["version 2", "version 1"])
def test_a_container_limits_it_and_copies_of_files_give_way(tmp_path: Path, files: dict[str, str]) -> None:
    assert free_memory(write(tmp_path, files)) == 5000 - 3000 + 1500


@pytest.mark.parametrize(
    "files", [{}, {**VERSION_2, "memory.max": "max"}, {**VERSION_1, "memory/memory.limit_in_bytes": str(2**62)}]
)
def test_without_a_limit_it_is_that_of_the_machine(tmp_path: Path, files: dict[str, str]) -> None:
    available = psutil.virtual_memory().available
    assert available / 2 < free_memory(write(tmp_path, files)) < available * 2


def test_processes_of_several_gpus_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(write(tmp_path, VERSION_2)) == 3500 // 4


def test_a_container_that_is_full(tmp_path: Path) -> None:
    assert free_memory(write(tmp_path, {**VERSION_2, "memory.current": "9000"})) == 0


def test_free_memory_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the first of several; a device that is no GPU has none."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ((index + 1) << 30, 80 << 30))
    assert free_on_gpu("1,2") == 2 << 30
    assert free_on_gpu("0") == 1 << 30
    assert free_on_gpu("cpu") == free_on_gpu("mps") == 0


def test_processor_has_a_name() -> None:
    """Tables of times name the machine: by its model where the system tells it."""
    name = processor()
    facts = Path("/proc/cpuinfo")
    assert name and "\n" not in name
    assert not facts.is_file() or "model name" not in facts.read_text() or name in facts.read_text()
