"""What this machine has, asked without importing torch: GPUs by nvidia-smi, processor cores by the system."""

from __future__ import annotations

import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits")


class Gpu(NamedTuple):
    """One NVIDIA GPU. memory_gib: all of its memory, used or not; free_gib: what no program holds."""

    name: str
    memory_gib: float
    free_gib: float


@lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that CUDA programs started here would see; empty without a driver.

    CUDA_VISIBLE_DEVICES is honoured as CUDA does: the list ends at the first entry that names no GPU.
    """
    return visible_gpus(_ask_driver(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def visible_gpus(listing: str, visible: str | None) -> tuple[Gpu, ...]:
    """GPUs in nvidia-smi's listing. visible: the value of CUDA_VISIBLE_DEVICES, None when not set."""
    by_name: dict[str, Gpu] = {}
    every = []
    for line in listing.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != 5 or not (parts[3].isdigit() and parts[4].isdigit()):
            continue
        gpu = Gpu(parts[2], *(round(int(mebibytes) / 1024, 1) for mebibytes in parts[3:]))
        every.append(gpu)
        by_name[parts[0]] = by_name[parts[1]] = gpu
    if visible is None:
        return tuple(every)
    chosen = []
    for name in (part.strip() for part in visible.split(",")):
        match = _named(name, by_name)
        if match is None:
            break
        chosen.append(match)
    return tuple(chosen)


def _named(name: str, by_name: dict[str, Gpu]) -> Gpu | None:
    """A GPU by index, by UUID or by the start of a UUID."""
    if name in by_name:
        return by_name[name]
    return next((gpu for uuid, gpu in by_name.items() if name.startswith("GPU-") and uuid.startswith(name)), None)


def gpu_memory_gib() -> float:
    """Memory of the smallest GPU; 0 without one. A run on several GPUs must fit the smallest."""
    return min((gpu.memory_gib for gpu in gpus()), default=0.0)


def gpu_free_gib() -> float:
    """Free memory of the GPU that has least of it; 0 without one."""
    return min((gpu.free_gib for gpu in gpus()), default=0.0)


def main_memory_gib(meminfo: Path = Path("/proc/meminfo")) -> float | None:
    """Main memory that programs started now can have; None where the system does not say (Linux does)."""
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    kibibytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if kibibytes is None else round(int(kibibytes) / 2**20, 1)


def _ask_driver() -> str:
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
