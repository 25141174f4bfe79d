"""Several machines: SLURM's variables, and the launch line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sora_cli.config.resolve import Resolved
from sora_cli.config.schema import GenerateConfig, HardwareSection
from sora_cli.errors import UsageError
from sora_cli.launch.mesh import Team, sequence_degree
from sora_cli.launch.slurm import first_host, slurm_nodes
from sora_cli.launch.torchrun import launch_line

STEP = {
    "SLURM_PROCID": "1",
    "SLURM_NNODES": "2",
    "SLURM_NTASKS": "2",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "123456",
    "SLURM_JOB_NODELIST": "gpu[03-04],gpu09",
}


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [
        ("gpu01", "gpu01"),
        ("gpu[03-05,9]", "gpu03"),
        ("a-[7,9]-ib,b1", "a-7-ib"),
        ("node1,node2", "node1"),
        ("c[001-128]", "c001"),
    ],
)
def test_first_host(nodelist, host):
    assert first_host(nodelist) == host


def test_a_job_step_on_two_machines():
    assert slurm_nodes(STEP) == (2, 1, "gpu03:23456")
    assert slurm_nodes({}) is None
    assert slurm_nodes({**STEP, "SLURM_NNODES": "1", "SLURM_NTASKS": "1"}) is None


def test_several_tasks_on_a_machine_are_refused():
    with pytest.raises(UsageError, match="16 tasks on 2 machines") as caught:
        slurm_nodes({**STEP, "SLURM_NTASKS": "16"})
    assert "--ntasks-per-node=1" in (caught.value.hint or "")


def line(**hardware):
    return launch_line(Resolved(GenerateConfig(hardware=HardwareSection(**hardware)), {}), Path("run.json"))


def test_the_line_for_several_machines():
    shown = str(line(gpus=8, nnodes=2, node_rank=1, rdzv_endpoint="head:29500"))
    for part in ("--nnodes=2", "--node-rank=1", "--rdzv-backend=c10d", "--rdzv-endpoint=head:29500"):
        assert part in shown
    assert "--standalone" not in shown


def test_the_line_under_slurm(monkeypatch):
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    shown = str(line(gpus=4))
    assert "--nnodes=2 --node-rank=1" in shown
    assert "--rdzv-endpoint=gpu03:23456" in shown
    assert "--rdzv-endpoint=other:1" in str(line(gpus=4, nnodes=3, rdzv_endpoint="other:1"))


@pytest.mark.parametrize(
    ("hardware", "message"),
    [
        ({"nnodes": 2}, "need a place to meet"),
        ({"nnodes": 2, "rdzv_endpoint": "a:1", "node_rank": 2}, "none of 2 machines"),
    ],
)
def test_what_several_machines_need(hardware, message):
    with pytest.raises(UsageError, match=message):
        line(**hardware)


def test_who_makes_what():
    assert sequence_degree(4, 1, None) == 4
    assert sequence_degree(4, 3, None) == 1
    assert sequence_degree(4, 3, 2) == 2
    assert [Team(data_rank=1, data_size=3).takes(index) for index in range(5)] == [False, True, False, False, True]
    assert Team().is_leader
    assert not Team(sequence_rank=1, sequence_size=2).is_leader
    assert Team().share(None, 0) == (None, 0)
