"""What SLURM says about a job that runs on several machines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import UsageError

#: Ports that are free for users, spread over jobs so that two on one machine do not meet.
FIRST_PORT, NUM_PORTS = 20000, 10000


class SlurmNodes(NamedTuple):
    """The machines of a job: how many, which one this is, and where they meet."""

    nnodes: int
    node_rank: int
    rdzv_endpoint: str


def slurm_nodes(environ: Mapping[str, str]) -> SlurmNodes | None:
    """The machines of the job step this process belongs to; None outside of one or on a single machine.

    Raises UsageError when the step started several tasks on a machine: one task starts the processes of its machine.
    """
    nodes = int(environ.get("SLURM_STEP_NUM_NODES") or environ.get("SLURM_NNODES") or 1)
    if "SLURM_PROCID" not in environ or nodes == 1:
        return None
    tasks = int(environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS") or nodes)
    if tasks != nodes:
        raise UsageError(
            f"SLURM started {tasks} tasks on {nodes} machines; each machine needs one, which starts its processes",
            hint="use: srun --ntasks-per-node=1 sora generate ... --gpus N",
        )
    host = first_host(environ.get("SLURM_STEP_NODELIST") or environ["SLURM_JOB_NODELIST"])
    port = FIRST_PORT + int(environ.get("SLURM_JOB_ID", "0")) % NUM_PORTS
    return SlurmNodes(nodes, int(environ["SLURM_NODEID"]), f"{host}:{port}")


def first_host(nodelist: str) -> str:
    """The first name of a list such as "gpu[03-05,9],login1" (the brackets may stand inside a name)."""
    match = re.match(r"(?P<before>[^,\[]*)(\[(?P<first>\d+)[^\]]*\](?P<after>[^,\[]*))?", nodelist)
    if match is None or not match[0]:
        raise UsageError(f"cannot read SLURM's list of machines {nodelist!r}", hint="give --rdzv-endpoint HOST:PORT")
    return match["before"] + (match["first"] or "") + (match["after"] or "")
