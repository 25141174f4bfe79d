"""One command on the machines of a host file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sora_cli.errors import UsageError
from sora_cli.launch.hosts import host_commands, read_hosts, without_option


def test_host_files(tmp_path: Path):
    file = tmp_path / "hosts"
    file.write_text("node1\n\n# spare\n node2 \n")
    assert read_hosts(file) == ["node1", "node2"]
    for content, message in (
        ("", "names no machine"),
        ("a\na\n", "names a twice"),
        ("a b\n", "no name of a machine"),
        ("-oProxyCommand=x\n", "no name of a machine"),
    ):
        file.write_text(content)
        with pytest.raises(UsageError, match=message):
            read_hosts(file)
    with pytest.raises(UsageError, match="cannot read"):
        read_hosts(tmp_path / "absent")


def test_the_option_is_taken_out():
    line = ["train", "--hostfile", "h", "--gpus", "2", "--host-port=5", "-n"]
    assert without_option(line, "--hostfile", "--host-port") == ["train", "--gpus", "2", "-n"]


def test_every_machine_gets_its_number():
    commands = host_commands(
        ["a", "b"],
        ["train", "--data", "my clips.csv"],
        port=5,
        environ={"HF_HOME": "/h", "HF_TOKEN": "SECRET", "OTHER": "SECRET"},
        folder=Path("/w d"),
    )
    assert [command[-2] for command in commands] == ["a", "b"]
    logged_in = host_commands(["me@a", "b"], ["train"], port=5, environ={}, folder=Path("/"))
    assert "--rdzv-endpoint a:5" in logged_in[1][-1]
    for rank, command in enumerate(commands):
        assert "cd '/w d' || exit 2; env HF_HOME=/h " in command[-1]
        assert f"--nnodes 2 --node-rank {rank} --rdzv-endpoint a:5" in command[-1]
        assert "'my clips.csv'" in command[-1]
        assert "SECRET" not in command[-1]
