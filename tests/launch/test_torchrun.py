"""The command line for several GPUs, and what is refused before it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sora_cli.config.resolve import Resolved
from sora_cli.config.schema import GenerateConfig, HardwareSection
from sora_cli.errors import SoraError, UsageError
from sora_cli.launch import machine, torchrun
from sora_cli.launch.torchrun import LaunchLine, check_hardware, launch_line
from sora_cli.presets import LaunchEntry


def resolved(launch=None, **hardware):
    return Resolved(GenerateConfig(hardware=HardwareSection(**hardware)), {}, (), launch)


def test_one_process_needs_no_launcher():
    assert launch_line(resolved(), Path("run.json")) is None


def test_the_line():
    entry = LaunchEntry(1, {}, {}, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}, {})
    line = launch_line(resolved(entry, gpus=4), Path("a run.json"))
    assert line.argv == (
        sys.executable,
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4"),
        *("-m", "sora_cli.launch.worker", "a run.json"),
    )
    assert line.env == {"OMP_NUM_THREADS": "1", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    assert str(line).startswith("OMP_NUM_THREADS=1 PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True ")
    assert str(line).endswith("-m sora_cli.launch.worker 'a run.json'")


def test_the_launcher_takes_the_line():
    """torchrun itself parses our arguments."""
    run = pytest.importorskip("torch.distributed.run")
    line = launch_line(resolved(gpus=2), Path("run.json"))
    parsed = run.get_args_parser().parse_args(list(line.argv[3:]))
    assert (parsed.nproc_per_node, parsed.standalone, parsed.module) == ("2", True, True)
    assert (parsed.training_script, parsed.training_script_args) == ("sora_cli.launch.worker", ["run.json"])


LAUNCHER_REPORT = """\
Failures:
[1]:
  rank      : 1 (local_rank: 1)
  exitcode  : -15 (pid: 28529)  (SIGTERM)
Root Cause (first observed failure):
[0]:
  rank      : 0 (local_rank: 0)
  exitcode  : {} (pid: 28528) {}
"""


def failed_run(monkeypatch, report, *errors):
    """The error of a run whose processes say `errors`, and whose launcher prints `report` and fails."""
    written = "".join(f"console.error({kind}({words!r}));" for kind, words in errors)
    code = (
        "import sys; from pathlib import Path;"
        "from sora_cli.errors import *; from sora_cli.launch.events import *;"
        "console = use_event_console(events_path(Path(sys.argv[1]).parent, 0), is_spokesman=True);"
        f"{written} print({report!r}); sys.exit(1)"
    )
    monkeypatch.setattr(
        torchrun, "launch_line", lambda _, run_file: LaunchLine((sys.executable, "-c", code, str(run_file)), {})
    )
    with pytest.raises(SoraError) as caught:
        torchrun.follow_run(resolved(gpus=2), {}, [])
    return caught.value


def test_why_a_run_failed(monkeypatch):
    killed = LAUNCHER_REPORT.format(-9, " (SIGKILL)")
    lost = ("LostConnectionError", "process 1 has no connection to the others")
    found = failed_run(monkeypatch, killed, lost)
    assert found.message == "process 0 of the run was killed (SIGKILL)"
    assert "memory" in found.hint
    # What a process says of its own accord comes first: others hang then, and the launcher kills them.
    assert failed_run(monkeypatch, killed, ("SoraError", "disk full"), lost).message == "disk full"
    assert failed_run(monkeypatch, LAUNCHER_REPORT.format(-11, " (SIGSEGV)")).message.endswith("killed (SIGSEGV)")
    # Processes of another machine are not in this launcher's report.
    ended = LAUNCHER_REPORT.format(1, "")
    assert failed_run(monkeypatch, ended, lost).message == lost[1]
    unexplained = failed_run(monkeypatch, ended)
    assert unexplained.message == "a process of the run ended without a message"
    assert "exitcode  : 1" in unexplained.hint


@pytest.mark.parametrize(
    ("found", "hardware", "message", "hint"),
    [
        (0, {"gpus": 2}, "2 GPUs asked for, but this machine has no NVIDIA GPU", "leave --gpus out"),
        (1, {"gpus": 2}, "2 GPUs asked for, but this machine has 1 GPU", "leave --gpus out"),
        (2, {"gpus": 4, "device": "cuda"}, "4 GPUs asked for, but this machine has 2 GPUs", "may hide GPUs"),
        (0, {"gpus": 2, "device": "mps"}, "--gpus 2 does not work on an Apple GPU", "leave --gpus out"),
        (4, {"gpus": 4, "sequence_parallel": 3}, "4 processes cannot be split into groups of 3", "must divide"),
        (0, {"sequence_parallel": 2}, "1 processes cannot be split into groups of 2", "must divide"),
    ],
)
def test_refused(monkeypatch, found, hardware, message, hint):
    monkeypatch.setattr(machine, "gpus", lambda: (machine.Gpu("H100", 80.0, 79.0),) * found)
    with pytest.raises(UsageError, match=message) as caught:
        check_hardware(HardwareSection(**hardware))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("found", "hardware"),
    [(0, {}), (0, {"device": "cuda"}), (0, {"gpus": 2, "device": "cpu"}), (2, {"gpus": 2}), (8, {"gpus": 4})],
)
def test_accepted(monkeypatch, found, hardware):
    monkeypatch.setattr(machine, "gpus", lambda: (machine.Gpu("H100", 80.0, 79.0),) * found)
    check_hardware(HardwareSection(**hardware))
