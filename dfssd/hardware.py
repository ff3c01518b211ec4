"""The machine: device, precision, memory, and cores."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import Any

import psutil
import torch

from dfssd.distributed.place import place
from dfssd.errors import UserError


def processor() -> str:
    """The model of the processor, such as ``AMD EPYC 7B13``, or at least its architecture."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8", errors="replace").splitlines() if facts.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def check_device(device: Any) -> str:
    """The device in Ultralytics' spelling; None picks the first GPU, or one for each process, else the CPU.

    Raises:
        UserError: The requested device does not exist on this machine, or torch cannot use it; or torchrun has started
            another number of processes than there are GPUs in it.
    """
    processes = place().local_world
    if processes == 1:
        return _existing(device)
    if device is None or str(device).strip() == "":
        device = ",".join(map(str, range(processes))) if torch.cuda.is_available() else "cpu"
    name = _existing(device)
    if name != "cpu" and (name == "mps" or len(name.split(",")) != processes):
        raise UserError(
            f"device={name}: torchrun has started {processes} processes on this machine: name as many GPUs, or leave "
            "device out, or use device=cpu"
        )
    return name


def _existing(device: Any) -> str:
    if device is None or str(device).strip() == "":
        return "0" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    name = str(device).strip().strip("[]()").replace(" ", "").replace("cuda:", "")
    if name in {"cpu", "mps"}:
        if name == "mps" and not torch.backends.mps.is_available():
            raise UserError("device=mps: this machine has no Apple GPU that torch can use; use device=cpu")
        return name
    wanted = name.split(",")
    if not all(w.lstrip("-").isdigit() for w in wanted):
        raise UserError(f"device={device}: must be cpu, mps, or the numbers of GPUs such as 0 or 0,1")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise UserError(f"device={device}: no GPU that torch {torch.__version__} can use; use device=cpu")
    if any(int(w) >= count for w in wanted):
        raise UserError(f"device={device}: this machine has {count} GPU(s), numbered from 0")
    return name


def resolve_amp(amp: Any, device: str) -> tuple[Any, bool]:
    """The value of Ultralytics' ``amp``, and whether this package itself switches on bf16 for the CPU.

    Args:
        amp: As given: true, false, ``auto``, ``bf16``, ``fp16``, ``fp32`` or None for ``auto``.
        device: As :func:`check_device` returns it.

    Returns:
        (value for Ultralytics' ``amp``, bf16 autocast on the CPU). ``auto`` is bf16 where the hardware supports
        it, else Ultralytics' own default on GPUs and fp32 on CPUs. Ultralytics rejects bf16 without CUDA, so the value
        for a CPU is false.
    """
    choice = "auto" if amp is None else {True: "true", False: "fp32"}.get(amp, str(amp).lower())
    if choice not in {"auto", "true", "fp32", "bf16", "fp16"}:
        raise UserError(f"amp={amp}: must be auto, true, false, bf16, fp16 or fp32")
    if device == "cpu":
        if choice == "fp16":
            raise UserError("amp=fp16 needs a GPU; on a CPU use amp=bf16 or amp=false")
        units = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        return False, choice == "bf16" or (choice in {"auto", "true"} and units)
    if device == "mps":
        return choice not in {"auto", "fp32"}, False
    if choice == "auto":
        return ("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else True), False
    return {"true": True, "fp32": False}.get(choice, choice), False


_CONTAINER = Path("/sys/fs/cgroup")
_LIMITS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)
"""Files of a control group, version 2 and 1: limit, use, and statistics, and the name of what gives way there."""


def free_memory(container: Path = _CONTAINER) -> int:
    """Bytes of memory that this process may still take, of those of the machine and of its container.

    Several processes that one launcher has started on this machine, one for each GPU, get equal shares.

    Args:
        container: Folder of the control group; where its files are missing or state no limit, there is none.
    """
    free = int(psutil.virtual_memory().available)
    for limit, used, statistics, files in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            most, taken = (int((container / name).read_text(encoding="ascii")) for name in (limit, used))
            lines = (container / statistics).read_text(encoding="ascii").splitlines()
            copies = next((line.split()[1] for line in lines if line.startswith(f"{files} ")), "0")
            free = min(free, most - taken + int(copies))
    return max(free, 0) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def free_on_gpu(device: str) -> int:
    """Free memory of a GPU, the first one of several [bytes]; 0 for a device that is none.

    Args:
        device: As :func:`check_device` returns it.
    """
    if device in {"cpu", "mps"}:
        return 0
    return int(torch.cuda.mem_get_info(int(device.split(",")[0]))[0])


def check_free_memory(device: str) -> None:
    """Raise :class:`UserError` if a chosen GPU has too little free memory to start with."""
    if device in {"cpu", "mps"}:
        return
    for index in (int(i) for i in device.split(",") if i.isdigit()):
        try:
            free, total = torch.cuda.mem_get_info(index)
        except RuntimeError as e:
            raise UserError(f"device={index}: the GPU cannot be used ({str(e).splitlines()[0]}); use device=cpu") from e
        if free < 1 << 30:
            raise UserError(
                f"device={index}: only {free / 2**30:.1f} of {total / 2**30:.0f} GiB are free; stop what uses it, or "
                "choose another with device="
            )


def check_batch_fits(batch: int, imgsz: int, device: str) -> None:
    """Raise :class:`UserError` if the pixels of a batch alone need more memory than the device has.

    Args:
        batch: Images in a batch, of all GPUs together.
        imgsz: Their side [px].
        device: As :func:`check_device` returns it.
    """
    if device in {"cpu", "mps"}:
        share, memory = float(batch), psutil.virtual_memory().total
    else:
        gpus = [int(i) for i in device.split(",") if int(i) >= 0]
        share = batch / max(len(gpus), 1)
        memory = min((torch.cuda.mem_get_info(i)[1] for i in gpus), default=1 << 62)
    needed = share * 3 * imgsz**2 * 4  # as float32
    if needed > memory:
        raise UserError(
            f"batch={batch} imgsz={imgsz}: the pixels of one batch alone take {needed / 2**30:,.0f} GiB, and "
            f"device={device} has {memory / 2**30:,.0f}; lower one of the two"
        )


def use_all_cores() -> None:
    """Let torch compute on ``OMP_NUM_THREADS`` cores: all of them, unless the user set it (:mod:`dfssd.process`).

    Ultralytics leaves one core free whenever it selects the CPU, for loader workers that it does not start there: on
    two cores that halves the speed of a training.
    """
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"].partition(",")[0]))
