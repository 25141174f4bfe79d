"""The command line that starts one process per GPU, and the checks before it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from . import machine

if TYPE_CHECKING:
    from ..config.resolve import Resolved
    from ..config.schema import HardwareSection

WORKER = "sora_cli.launch.worker"


@dataclass(frozen=True)
class LaunchLine:
    """A command and the environment variables added to it."""

    argv: tuple[str, ...]
    env: Mapping[str, str]

    def __str__(self) -> str:
        """As one would type it in a shell."""
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in self.env.items()), shlex.join(self.argv)])


def launch_line(resolved: Resolved, run_file: Path) -> LaunchLine | None:
    """How this run is started on several GPUs; None for one process.

    run_file: the JSON file with the settings that every process reads.
    """
    hardware = resolved.config.hardware
    if hardware.gpus == 1:
        return None
    # One thread per process unless said otherwise: processes that share cores slow each other down.
    env = {"OMP_NUM_THREADS": str(hardware.threads or 1), **(resolved.launch.env if resolved.launch else {})}
    argv = (
        sys.executable,
        *("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={hardware.gpus}"),
        *("-m", WORKER, str(run_file)),
    )
    return LaunchLine(argv, env)


def check_hardware(hardware: HardwareSection) -> None:
    """UsageError when this machine cannot run as many processes as asked for, or they cannot be split as asked."""
    wanted = hardware.gpus
    if hardware.sequence_parallel and wanted % hardware.sequence_parallel:
        raise UsageError(
            f"{wanted} processes cannot be split into groups of {hardware.sequence_parallel}",
            hint="--sequence-parallel must divide --gpus: data x sequence equals the number of processes",
        )
    if hardware.device == "mps" and wanted > 1:
        raise UsageError(f"--gpus {wanted} does not work on an Apple GPU", hint="leave --gpus out")
    # Whether a single device works is seen when it is opened.
    if wanted == 1 or hardware.device == "cpu":
        return
    found = len(machine.gpus())
    if found < wanted:
        has = {0: "no NVIDIA GPU", 1: "1 GPU"}.get(found, f"{found} GPUs")
        raise UsageError(
            f"{wanted} GPUs asked for, but this machine has {has}",
            hint="leave --gpus out for one device\nCUDA_VISIBLE_DEVICES may hide GPUs",
        )
