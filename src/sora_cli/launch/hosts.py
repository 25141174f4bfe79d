"""Starting one command on several machines through ssh, as `colossalai run --hostfile` does."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sora_cli.console import get_console
from sora_cli.errors import SoraError, UsageError

#: Where the machines meet unless another port is asked for, as torch's launchers have it.
PORT = 29500
#: Beginnings of the variables that go with the command.
FORWARDED = ("SORA_", "HF_", "CUDA_", "NCCL_", "GLOO_", "WANDB_", "TORCH_", "OMP_NUM_THREADS", "PATH", "PYTHONPATH")
#: Parts of names of variables that are not sent.
SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD")
POLL_SECONDS = 0.1


def read_hosts(path: Path) -> list[str]:
    """The machines that a file names, one a line; blank lines and lines that begin with # are left out.

    Raises UsageError for a file that cannot be read, names none, or one twice.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the host file {path}: {error}") from error
    hosts = [line for line in lines if line and not line.startswith("#")]
    if not hosts:
        raise UsageError(f"the host file {path} names no machine", hint="it has one name a line")
    for host in hosts:
        if hosts.count(host) > 1:
            raise UsageError(f"the host file {path} names {host} twice")
        if any(character.isspace() for character in host) or host.startswith("-"):
            raise UsageError(f"the host file {path}: {host!r} is no name of a machine")
    return hosts


def without_option(arguments: Sequence[str], *options: str) -> list[str]:
    """A command line without some options that take a value, in both ways to write them."""
    kept, skip = [], False
    for word in arguments:
        if skip:
            skip = False
        elif word in options:
            skip = True
        elif not word.startswith(tuple(f"{option}=" for option in options)):
            kept.append(word)
    return kept


def host_commands(
    hosts: Sequence[str], arguments: Sequence[str], *, port: int, environ: Mapping[str, str], folder: Path
) -> list[list[str]]:
    """The ssh command of each machine: this command, in this folder, with its number and where the first one is."""
    # Secrets stay here: a command line can be seen by every user of a machine.
    kept = {
        name: value
        for name, value in environ.items()
        if name.startswith(FORWARDED) and not any(word in name for word in SECRETS)
    }
    meeting = f"{hosts[0].rpartition('@')[2]}:{port}"
    commands = []
    for rank, host in enumerate(hosts):
        place = ("--nnodes", str(len(hosts)), "--node-rank", str(rank), "--rdzv-endpoint", meeting)
        line = ["env", *(f"{name}={value}" for name, value in kept.items())]
        line += [sys.executable, "-m", "sora_cli", *arguments, *place]
        # When this side goes or closes the pipe, the command there is told to stop: ssh passes no signals on.
        watch = '( cat <&3; kill -TERM "$pid" ) >/dev/null 2>&1 & watcher=$!'
        ending = 'wait "$pid"; code=$?; kill "$watcher" 2>/dev/null; exit "$code"'
        start = f"{shlex.join(line)} <&- & pid=$!"
        remote = f"exec 3<&0; cd {shlex.quote(str(folder))} || exit 2; {start}; {watch}; {ending}"
        commands.append(["ssh", "-o", "BatchMode=yes", host, remote])
    return commands


def run_on_hosts(hosts: Sequence[str], arguments: Sequence[str], *, port: int = PORT) -> None:
    """Run this command on all machines and say what they say; the first machine's results go to stdout.

    The Python and the folder must be at the same place on all of them. Raises SoraError naming the first machine that
    failed, after the others have ended; KeyboardInterrupt after Ctrl-C, which they get too.
    """
    commands = host_commands(hosts, arguments, port=port, environ=os.environ, folder=Path.cwd())
    processes: list[subprocess.Popen[str]] = []
    for command in commands:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        except OSError as error:
            _end(processes)
            raise SoraError(f"ssh cannot be started: {error}") from error
        processes.append(process)
    readers = [
        _follow(host, process, is_first=host == hosts[0]) for host, process in zip(hosts, processes, strict=True)
    ]
    try:
        failed = _wait(hosts, processes)
    except BaseException:
        _end(processes)
        raise
    finally:
        for reader in (thread for pair in readers for thread in pair):
            reader.join()
    if failed is not None:
        raise SoraError(f"the command failed on {failed}", hint="what it said is above")


def _follow(host: str, process: subprocess.Popen[str], *, is_first: bool) -> tuple[threading.Thread, threading.Thread]:
    console = get_console()

    def results() -> None:
        assert process.stdout is not None  # a pipe
        for line in process.stdout:
            if is_first:
                console.result(line.rstrip("\n"))

    def messages() -> None:
        assert process.stderr is not None  # a pipe
        for line in process.stderr:
            console.note(f"{host}: {line.rstrip()}")

    threads = threading.Thread(target=results), threading.Thread(target=messages)
    for thread in threads:
        thread.start()
    return threads


def _wait(hosts: Sequence[str], processes: Sequence[subprocess.Popen[str]]) -> str | None:
    """Return when all have ended; the machine that failed first, whose end ends the others."""
    failed = None
    while True:
        codes = [process.poll() for process in processes]
        if failed is None and any(code not in (None, 0) for code in codes):
            failed = next(host for host, code in zip(hosts, codes, strict=True) if code not in (None, 0))
            _end(processes)
        if all(code is not None for code in codes):
            return failed
        time.sleep(POLL_SECONDS)


def _end(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        if process.poll() is None and process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
