"""The same output written by two processes at once: one is told so, and neither's file is damaged."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from sora_cli.data.clip_folder import ClipFolder
from sora_cli.data.work import Work, kept_results, work_folder
from sora_cli.errors import SoraError, UsageError
from sora_cli.files import claimed
from sora_cli.tasks.clip_file import clip_file
from sora_cli.training.features import features_path, write_bin
from sora_cli.video.io import open_video, partial_path, write_image
from sora_cli.video.latent_file import write_latents
from sora_cli.video.latents import KeptLatents, keep_latents

FRAMES = np.zeros((2, 32, 32, 3), np.uint8)
HOLD = """
import sys
from pathlib import Path
from sora_cli.files import claimed
with claimed(Path(sys.argv[1]), is_folder=sys.argv[2] == "folder"):
    print("held", flush=True)
    sys.stdin.readline()
"""
Elsewhere = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def elsewhere() -> Elsewhere:
    """Another process that has a file or folder."""

    @contextmanager
    def hold(path: Path, kind: str = "file") -> Iterator[None]:
        command = [sys.executable, "-c", HOLD, str(path), kind]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield
            process.stdin.close()

    return hold


def test_a_claim_ends_with_its_process_and_with_the_name(elsewhere: Elsewhere, tmp_path: Path) -> None:
    path = tmp_path / "x.partial"
    with elsewhere(path), pytest.raises(BlockingIOError, match="another process is writing it"), claimed(path):
        pass
    with claimed(path):
        path.rename(tmp_path / "x")
        with claimed(path):  # a new one
            pass
    assert path.exists()


def test_a_video_is_not_written_by_two(elsewhere: Elsewhere, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    with elsewhere(partial_path(path)):
        partial_path(path).write_bytes(b"theirs")
        refused = pytest.raises(SoraError, match=r"cannot write .*x\.mp4: another process is writing it")
        with refused, open_video(path, 8):
            pass
        assert partial_path(path).read_bytes() == b"theirs"
    with open_video(path, 8) as add:  # what a killed process left does not matter
        add(FRAMES)
    assert [file.name for file in tmp_path.glob("*.mp4*")] == ["x.mp4"]


def test_nor_are_pictures_latents_and_clips(elsewhere: Elsewhere, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    with elsewhere(partial_path(path)), pytest.raises(SoraError, match="another process"):
        write_image(path, FRAMES[0])
    path = tmp_path / "x.safetensors"
    with elsewhere(tmp_path / "x.safetensors.partial"):
        with pytest.raises(SoraError, match="another process"), write_latents(path, (1, 1, 1, 1), {}):
            pass
        assert (tmp_path / "x.safetensors.partial").exists()
    kept = KeptLatents(("hash",), 1, 2, torch.zeros(1, 1, 1, 1, 1))
    with elsewhere(tmp_path / "kept.new"), pytest.raises(BlockingIOError):
        keep_latents(tmp_path / "kept", kept)
    with elsewhere(tmp_path / f"{features_path(tmp_path, 0).name}.tmp"), pytest.raises(BlockingIOError):
        write_bin(features_path(tmp_path, 0), [])


def test_half_written_clips_of_a_process_that_is_there_stay(elsewhere: Elsewhere, tmp_path: Path) -> None:
    folder = ClipFolder.at(str(tmp_path))
    theirs, left = tmp_path / ".a.partial.mp4", tmp_path / ".b.partial.mp4"
    left.touch()
    with elsewhere(theirs):
        folder.remove_partials(["a.mp4", "b.mp4"])
        assert theirs.exists()
        assert not left.exists()
        with pytest.raises(BlockingIOError), folder.new_file("a.mp4"):
            pass
        assert theirs.exists()
    folder.remove_partials(["a.mp4"])
    assert not theirs.exists()


@pytest.mark.parametrize("restart", [False, True])
def test_a_table_is_made_by_one(elsewhere: Elsewhere, tmp_path: Path, restart: bool) -> None:
    output, work = tmp_path / "out.csv", Work("test", "nowhere:nothing", {}, ("path",), {"made": "int"}, 1)
    making = pytest.raises(SoraError, match=r"cannot write .*out\.csv: another process")
    with elsewhere(work_folder(output), "folder"), making, kept_results(output, work, restart=restart):
        pass
    # Also after what was in the folder is thrown away, it is the one at this place.
    with kept_results(output, work, restart=restart), pytest.raises(BlockingIOError):  # noqa: SIM117
        with claimed(work_folder(output), is_folder=True):
            pass


def test_a_clip_that_another_run_finished_meanwhile_stays(tmp_path: Path) -> None:
    from types import SimpleNamespace

    path = tmp_path / "x.mp4"
    path.write_bytes(b"theirs")
    clip = SimpleNamespace(path=path, settings_hash="0" * 64)
    plan = SimpleNamespace(config=SimpleNamespace(output=SimpleNamespace(overwrite=False)), shape=SimpleNamespace())
    plan.shape.enlarged = None
    with pytest.raises(UsageError, match="already there, made with other settings"), clip_file(plan, clip, None):  # type: ignore[arg-type]
        pass
    assert path.read_bytes() == b"theirs"
