"""Interrupted runs: what is kept, that nothing half-written stays, and that resuming gives the same bytes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from executable import SHAPE, Executable, files_in, stop_when

from sora_cli.video.latents import read_kept

KEPT = "x.mp4.partial.safetensors"


@pytest.fixture(scope="module")
def uninterrupted(tiny_site: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes that every resumed run must give."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(tiny_site),
        "OMP_NUM_THREADS": "1",
    }
    Executable(folder, environment).tiny(["a cat"], "-o", "x.mp4")
    return (folder / "x.mp4").read_bytes()


def latents_are_kept(folder: Path) -> Callable[[], bool]:
    """True from the first latents kept while sampling slowly; or, while decoding slowly, from the end of sampling."""
    return (folder / KEPT).exists


RUN = ("generate", "a cat", *SHAPE, "-o", "x.mp4")
SLOW_STEPS = {"TINY_STEP_SECONDS": "0.35"}
SLOW_DECODING = {"TINY_DECODE_SECONDS": "0.5"}


def test_killed_while_sampling(executable: Executable, uninterrupted: bytes) -> None:
    folder = executable.folder
    stop_when(executable, latents_are_kept(folder), signal.SIGKILL, *RUN, **SLOW_STEPS)
    assert files_in(folder) == [KEPT]
    done = executable.tiny(["a cat"], "-o", "x.mp4")
    assert "from step" in done.stderr
    assert (folder / "x.mp4").read_bytes() == uninterrupted
    assert files_in(folder) == ["x.mp4", "x.mp4.json"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "terminate"])
def test_stopped_while_sampling(executable: Executable, uninterrupted: bytes, stop: signal.Signals) -> None:
    folder = executable.folder
    stopped = stop_when(executable, latents_are_kept(folder), stop, *RUN, **SLOW_STEPS)
    assert stopped.returncode == 130
    assert stopped.stdout == ""
    assert f"of 6 steps, in {KEPT}" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    executable.tiny(["a cat"], "-o", "x.mp4")
    assert (folder / "x.mp4").read_bytes() == uninterrupted
    assert not (folder / KEPT).exists()


def test_a_sampler_that_looks_back_goes_on_with_what_it_saw(executable: Executable) -> None:
    folder, run = executable.folder, (*RUN, "--scheduler", "dpm-solver")
    executable(*run)
    whole = (folder / "x.mp4").read_bytes()
    for name in files_in(folder):
        (folder / name).unlink()
    stop_when(executable, latents_are_kept(folder), signal.SIGKILL, *run, **SLOW_STEPS)
    kept = read_kept(folder / KEPT)
    assert kept is not None
    assert 0 < kept.step < kept.steps
    assert "from step" in executable(*run).stderr
    assert (folder / "x.mp4").read_bytes() == whole


def test_killed_while_decoding(executable: Executable, uninterrupted: bytes) -> None:
    folder = executable.folder
    stop_when(executable, latents_are_kept(folder), signal.SIGKILL, *RUN, **SLOW_DECODING)
    assert not (folder / "x.mp4").exists()
    (folder / "x.partial.mp4").write_bytes(b"what the encoder had written by then")
    done = executable.tiny(["a cat"], "-o", "x.mp4")
    assert "sampling x.mp4" not in done.stderr
    assert (folder / "x.mp4").read_bytes() == uninterrupted
    assert files_in(folder) == ["x.mp4", "x.mp4.json"]


def test_ctrl_c_while_decoding(executable: Executable, uninterrupted: bytes) -> None:
    folder = executable.folder
    stopped = stop_when(executable, latents_are_kept(folder), signal.SIGINT, *RUN, **SLOW_DECODING)
    assert stopped.returncode == 130
    assert "goes on with decoding" in stopped.stderr
    assert files_in(folder) == [KEPT]
    executable.tiny(["a cat"], "-o", "x.mp4")
    assert (folder / "x.mp4").read_bytes() == uninterrupted


def test_killed_between_the_clips_of_a_batch(executable: Executable) -> None:
    run = ("a cat", "a dog", "a cow", "--batch-size", "3")
    executable("generate", *run, *SHAPE, "-o", "reference")
    folder = executable.folder / "clips"
    first = folder / "a-cat-42.mp4"
    stop_when(executable, first.exists, signal.SIGKILL, "generate", *run, *SHAPE, "-o", "clips", **SLOW_DECODING)
    written = first.stat().st_mtime_ns
    executable("generate", *run, *SHAPE, "-o", "clips")
    assert first.stat().st_mtime_ns == written
    names = files_in(executable.folder / "reference")
    assert files_in(folder) == names
    for name in names:
        assert (folder / name).read_bytes() == (executable.folder / "reference" / name).read_bytes(), name


def test_latents_of_other_settings_are_not_used(executable: Executable, uninterrupted: bytes) -> None:
    folder = executable.folder
    other = (*RUN, "--guidance", "2")
    stop_when(executable, latents_are_kept(folder), signal.SIGKILL, *other, **SLOW_STEPS)
    done = executable.tiny(["a cat"], "-o", "x.mp4")
    assert "from other settings; starting over" in done.stderr
    assert (folder / "x.mp4").read_bytes() == uninterrupted
    assert not (folder / KEPT).exists()


@pytest.mark.parametrize("content", [b"", b"cut off"])
def test_damaged_latents_are_not_used(content: bytes, tmp_path: Path) -> None:
    (tmp_path / KEPT).write_bytes(content)
    assert read_kept(tmp_path / KEPT) is None
