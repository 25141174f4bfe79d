"""Running the real `sora` executable, and reading what it wrote."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

SHAPE = ("-m", "tiny", "--size", "64x96", "--frames", "17", "--steps", "6")


@dataclass(frozen=True)
class Executable:
    """Runs `sora` in a folder of its own.

    here: the fixture `sora`, which runs it in the process of the tests: calls save a start of some seconds each, while
    `start` and `shell` start processes all the same.
    """

    folder: Path
    environment: dict[str, str]
    here: Callable[..., Any] | None = None

    @property
    def program(self) -> Path:
        """The script that an installation makes, beside the Python that runs the tests."""
        return Path(sys.executable).with_name("sora")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.program, *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run to the end; the exit code must be `code`."""
        if self.here is not None:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in {**self.environment, **environment}.items():
                    patch.setenv(name, value)
                done = self.here(*arguments)
            assert done.code == code, done.err
            return subprocess.CompletedProcess(arguments, done.code, done.out, done.err)
        process = self.start(*arguments, **environment)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == code, errors
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def shell(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a line of bash in the folder, whatever its exit code."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def tiny(
        self, prompts: Sequence[str], *arguments: str, code: int = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """`sora generate` with the tiny model at a tiny size."""
        return self("generate", *prompts, *SHAPE, *arguments, code=code, **environment)


def stop_when(
    executable: Executable, is_time: Callable[[], bool], stop: signal.Signals, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Start `sora`, send it `stop` as soon as `is_time`, and wait for its end."""
    process = executable.start(*arguments, **environment)
    deadline = time.monotonic() + 120
    while not is_time():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the moment to stop never came"
        time.sleep(0.01)
    process.send_signal(stop)
    output, errors = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def frames_of(path: Path) -> np.ndarray:
    """All frames (T, H, W, 3) uint8."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def image_of(path: Path) -> np.ndarray:
    """A picture (H, W, 3) uint8."""
    with Image.open(path) as image:
        return np.asarray(image)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit pictures; infinite when they are equal."""
    error = np.square(first.astype(float) - second.astype(float)).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def workers_in(folder: Path) -> dict[int, str]:
    """Living processes of runs on several that work in the folder, with what started them: number -> command line."""
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if (process / "cwd").resolve() == folder.resolve():
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it has ended, or is another user's
    return {number: line for number, line in found.items() if "sora_cli.launch.worker" in line}
