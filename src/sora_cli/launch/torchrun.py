"""Starting one process per GPU with torchrun, following them, and the checks before it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..console import get_console
from ..errors import NotEnoughMemoryError, SoraError, UsageError
from . import machine
from .events import Replay
from .mesh import sequence_degree
from .parent import ask_to_end_with_parent
from .slurm import SlurmNodes, slurm_nodes

if TYPE_CHECKING:
    from ..config.resolve import Resolved
    from ..config.resolve_train import ResolvedTrain
    from ..config.schema import ProcessesSection

WORKER = "sora_cli.launch.worker"
POLL_SECONDS = 0.1
#: How long processes may take to keep their latents after an interrupt.
PATIENCE_SECONDS = 30.0
LOG_LINES = 12
#: Rank and signal of a process in the launcher's report.
KILLED = re.compile(r"rank +: (\d+) .*\n +exitcode +: -\d+ .*\((SIG\w+)\)")


@dataclass(frozen=True)
class LaunchLine:
    """A command and the environment variables added to it."""

    argv: tuple[str, ...]
    env: Mapping[str, str]

    def __str__(self) -> str:
        """As one would type it in a shell."""
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in self.env.items()), shlex.join(self.argv)])


def launch_line(resolved: Resolved | ResolvedTrain, run_file: Path) -> LaunchLine | None:
    """How this run is started on several GPUs; None for one process.

    run_file: the JSON file with the settings that every process reads.
    """
    hardware = resolved.config.hardware
    nodes = machines(hardware)
    if hardware.gpus * nodes.nnodes == 1:
        return None
    # One thread per process unless said otherwise: processes that share cores slow each other down.
    env = {"OMP_NUM_THREADS": str(hardware.threads or 1), **(resolved.launch.env if resolved.launch else {})}
    if nodes.nnodes == 1:
        meeting: tuple[str, ...] = ("--standalone",)
    else:
        meeting = (
            f"--nnodes={nodes.nnodes}",
            f"--node-rank={nodes.node_rank}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={nodes.rdzv_endpoint}",
            f"--rdzv-id=sora-{nodes.rdzv_endpoint}",
        )
    argv = (
        sys.executable,
        *("-m", "torch.distributed.run", *meeting, f"--nproc-per-node={hardware.gpus}"),
        *("-m", WORKER, str(run_file)),
    )
    return LaunchLine(argv, env)


def machines(hardware: ProcessesSection) -> SlurmNodes:
    """The machines of a run: what was asked for, else what SLURM says, else this one. Raises UsageError."""
    if hardware.nnodes == 1:
        return slurm_nodes(os.environ) or SlurmNodes(1, 0, "")
    if hardware.rdzv_endpoint is None:
        raise UsageError(
            f"{hardware.nnodes} machines need a place to meet",
            hint="give --rdzv-endpoint HOST:PORT with the name of machine 0, the same on all of them",
        )
    if hardware.node_rank >= hardware.nnodes:
        raise UsageError(
            f"--node-rank {hardware.node_rank} is none of {hardware.nnodes} machines",
            hint=f"they are numbered from 0 to {hardware.nnodes - 1}",
        )
    return SlurmNodes(hardware.nnodes, hardware.node_rank, hardware.rdzv_endpoint)


def run_processes(
    resolved: Resolved,
    *,
    num_batches: int,
    paths: Sequence[Path],
    done: Iterable[Path],
    references: Mapping[str, Any],
) -> None:
    """Run on several processes, say what they say, and return when all clips are made.

    num_batches, paths: of the plan; done: clips that are there already; references: those that are found. Processes
    that share a clip are started once more, with less at a time, when one runs out of memory: alone it cannot try again
    while the others wait for it. Raises the SoraError of the first process that failed, after all have ended; after
    Ctrl-C or a termination signal KeyboardInterrupt.
    """
    content = {**run_file_content(resolved, num_batches, done), "references": references}
    order = [str(path) for path in paths]
    try:
        follow_run(resolved, content, order)
    except NotEnoughMemoryError:
        # The processes of other machines have ended, and are not started again from here.
        if content["sequence"] == 1 or machines(resolved.config.hardware).nnodes > 1:
            raise
        get_console().note("out of memory; once more with one row of the batch at a time")
        made = [str(path) for path in paths if str(path) not in order]
        follow_run(resolved, {**content, "done": [*content["done"], *made], "one_row": True}, order, said=made)


def follow_run(
    resolved: Resolved | ResolvedTrain, content: Mapping[str, Any], order: list[str], said: Sequence[str] = ()
) -> None:
    """Start the processes and follow them to their end.

    content: what each of them reads; order: results to come, taken out of it when they are said. Raises the SoraError
    of the first process that failed, KeyboardInterrupt after an interrupt.
    """
    folder = Path(tempfile.mkdtemp(prefix="sora-"))
    try:
        run_file = folder / "run.json"
        run_file.write_text(json.dumps(content), encoding="utf-8")
        line = launch_line(resolved, run_file)
        assert line is not None  # there are several processes
        replay = Replay(folder, resolved.config.hardware.gpus, order, said)
        with (folder / "torchrun.log").open("wb") as log:
            # In a session of its own, so that Ctrl-C reaches this process alone, which then ends all of them.
            process = subprocess.Popen(
                line.argv,
                env={**os.environ, **line.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=ask_to_end_with_parent,
            )
            _follow(process, replay)
        if process.returncode != 0:
            log_text = (folder / "torchrun.log").read_text(encoding="utf-8", errors="replace")
            raise replay.error or _killed(log_text) or replay.lost_connection or _unexplained(log_text)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_file_content(resolved: Resolved, num_batches: int, done: Iterable[Path]) -> dict[str, Any]:
    """What every process needs to know; JSON-safe."""
    hardware = resolved.config.hardware
    count = hardware.gpus * machines(hardware).nnodes
    return {
        "config": resolved.config.model_dump(mode="json"),
        "origins": dict(resolved.origins),
        "device": "cpu" if hardware.device == "cpu" else "cuda",
        # As it is before any of them starts, so that all make the same plan.
        "free_gib": machine.gpu_free_gib(),
        "sequence": sequence_degree(count, num_batches, hardware.sequence_parallel),
        "done": [str(path) for path in done],
    }


def _follow(process: subprocess.Popen[bytes], replay: Replay) -> None:
    """Say what the processes say until they have ended; on an interrupt, end them."""
    try:
        while process.poll() is None:
            replay.poll()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
    except BaseException:
        _end(process, replay)
        raise
    finally:
        replay.poll()
        replay.close()
    replay.flush()


def _end(process: subprocess.Popen[bytes], replay: Replay) -> None:
    """Ask the launcher to end its processes, which keeps their latents; after a while end them all by force."""
    process.send_signal(signal.SIGTERM)
    for _ in range(round(PATIENCE_SECONDS / POLL_SECONDS)):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
            break
        replay.poll()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _killed(log: str) -> SoraError | None:
    """The error for a process that a signal ended, by the launcher's report. The launcher's own signal is SIGTERM."""
    for rank, signal_name in KILLED.findall(log):
        if signal_name == "SIGTERM":
            continue
        hint = "what was made is kept: the same command goes on from there"
        if signal_name == "SIGKILL":
            hint = f"the system kills a process when memory runs out; see the kernel's log (dmesg)\n{hint}"
        return SoraError(f"process {rank} of the run was killed ({signal_name})", hint=hint)
    return None


def _unexplained(log: str) -> SoraError:
    """The error for processes that ended without saying why, with the last lines of the launcher."""
    lines = log.splitlines()[-LOG_LINES:]
    return SoraError("a process of the run ended without a message", hint="\n".join(lines) or None)


def check_hardware(hardware: ProcessesSection, *, are_there: bool = True) -> None:
    """UsageError when this machine cannot run as many processes as asked for, or they cannot be split as asked.

    are_there: whether the GPUs must be there, False for a dry run.
    """
    wanted = hardware.gpus
    machines(hardware)
    if hardware.sequence_parallel and wanted % hardware.sequence_parallel:
        raise UsageError(
            f"{wanted} processes cannot be split into groups of {hardware.sequence_parallel}",
            hint="--sequence-parallel must divide --gpus: data x sequence equals the number of processes",
        )
    if hardware.device == "mps" and wanted > 1:
        raise UsageError(f"--gpus {wanted} does not work on an Apple GPU", hint="leave --gpus out")
    # Whether a single device works is seen when it is opened.
    if wanted == 1 or hardware.device == "cpu" or not are_there:
        return
    found = len(machine.gpus())
    if found < wanted:
        has = {0: "no NVIDIA GPU", 1: "1 GPU"}.get(found, f"{found} GPUs")
        raise UsageError(
            f"{wanted} GPUs asked for, but this machine has {has}",
            hint="leave --gpus out for one device\nCUDA_VISIBLE_DEVICES may hide GPUs",
        )
