"""Checkpoints: whole or not there."""

from __future__ import annotations

import errno
import json
from types import SimpleNamespace

import pytest
import torch

from sora_cli.errors import SoraError
from sora_cli.launch.mesh import Team
from sora_cli.training import checkpoint
from sora_cli.training.checkpoint import Checkpointer, complete_checkpoints, read_checkpoint
from sora_cli.training.run_folder import damaged_checkpoints
from sora_cli.training.start import restore


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


def state(value):
    return {"model": {"weight": torch.full((64, 64), float(value))}, "ema": {"weight": torch.full((3,), value / 2)}}


def names(folder):
    return [path.name for path in complete_checkpoints(folder)]


def test_there_and_back(folder):
    saver = Checkpointer(folder)
    saver.save(12, state(1), {"epoch": 2, "loss": 0.25})
    saver.wait()
    files, record = read_checkpoint(folder / "step-12")
    assert record == {"epoch": 2, "loss": 0.25}
    assert set(files) == {"model", "ema"}
    assert torch.equal(files["model"]["weight"], torch.ones(64, 64))
    modes = {path.stat().st_mode for path in (folder / "step-12").iterdir()}
    assert len(modes) == 1, "weights can be read by whoever can read the record"


def test_what_is_written_is_the_state_at_the_call(folder, monkeypatch):
    """Also for tensors in main memory, which go on being changed while the thread writes."""
    import threading

    may_write, write = threading.Event(), checkpoint.save_tensors

    def wait_and_write(*arguments):
        assert may_write.wait(60)
        write(*arguments)

    monkeypatch.setattr(checkpoint, "save_tensors", wait_and_write)
    saver, files = Checkpointer(folder), state(1)
    saver.save(1, files, {})
    files["model"]["weight"].fill_(7)
    may_write.set()
    saver.wait()
    assert float(read_checkpoint(folder / "step-1")[0]["model"]["weight"].max()) == 1


def test_the_last_ones_stay(folder):
    saver = Checkpointer(folder, keep=2)
    for step in (2, 9, 10, 100):
        saver.save(step, state(step), {})
    saver.wait()
    assert names(folder) == ["step-10", "step-100"]
    assert sorted(path.name for path in folder.iterdir()) == ["step-10", "step-100"]


def test_the_same_step_again(folder):
    saver = Checkpointer(folder)
    for value in (1, 2):
        saver.save(5, state(value), {"value": value})
    saver.wait()
    assert read_checkpoint(folder / "step-5")[1] == {"value": 2}


def test_a_full_disk_leaves_what_was_there(folder, monkeypatch):
    saver = Checkpointer(folder, keep=1)
    saver.save(1, state(1), {})
    saver.wait()

    def full(path, tensors):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_tensors", full)
        saver.save(2, state(2), {})
        with pytest.raises(SoraError, match=r"could not be written .* No space left"):
            saver.wait()
    assert [path.name for path in folder.iterdir()] == ["step-1"]
    saver.save(3, state(3), {})  # and it goes on when there is room
    saver.wait()
    assert names(folder) == ["step-3"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "ema.safetensors").unlink(), "ema.safetensors is missing"),
        (lambda path: (path / "ema.safetensors").write_bytes(b"x"), "ema.safetensors has 1 bytes instead of"),
        (lambda path: (path / "manifest.json").unlink(), "manifest.json"),
        (lambda path: (path / "manifest.json").write_text("{"), "manifest.json"),
    ],
)
def test_damaged_ones_are_left_out_and_named(folder, damage, message):
    saver = Checkpointer(folder)
    for step in (1, 2):
        saver.save(step, state(step), {})
    saver.wait()
    damage(folder / "step-2")
    assert names(folder) == ["step-1"]
    assert [path.name for path in damaged_checkpoints(folder)] == ["step-2"]
    with pytest.raises(SoraError) as caught:
        read_checkpoint(folder / "step-2")
    assert message in (caught.value.hint or "")


def test_damaged_ones_are_told_and_a_run_without_a_whole_one_does_not_start_over(folder, capsys):
    saver = Checkpointer(folder)
    for step in (1, 2, 3):
        saver.save(step, state(step), {"identity": {}, "config": {}, "step": step})
    saver.wait()
    plan = SimpleNamespace(
        folder=folder,
        identity={},
        config=SimpleNamespace(run=SimpleNamespace(resume=True, load=None), model_dump=lambda mode: {}),
    )
    loop = SimpleNamespace(
        team=Team(),
        position=SimpleNamespace(step=0, epoch=0),
        restore=lambda files, record: setattr(loop.position, "step", record["step"]),
    )
    for step in (1, 3):
        (folder / f"step-{step}" / "model.safetensors").unlink()
    restore(loop, plan)
    assert loop.position.step == 2
    said = capsys.readouterr().err
    assert "step-3 is damaged and left out: model.safetensors is missing" in said
    assert "step-1" not in said, "it is not the newest in any case"
    (folder / "step-2" / "model.safetensors").unlink()
    with pytest.raises(SoraError, match=r"no checkpoint of the run in .* is whole") as caught:
        restore(loop, plan)
    assert "step-2: model.safetensors is missing" in (caught.value.hint or "")


def test_a_flipped_bit_is_found(folder):
    saver = Checkpointer(folder)
    saver.save(1, state(1), {})
    saver.wait()
    file = folder / "step-1" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(SoraError) as caught:
        read_checkpoint(folder / "step-1")
    assert "model.safetensors has changed since it was written" in (caught.value.hint or "")


def test_other_folders_are_no_checkpoints(folder):
    for name in ("step-3.tmp", "step-x", "step-4"):
        (folder / name).mkdir(parents=True)
    (folder / "step-3.tmp" / "manifest.json").write_text(json.dumps({}))
    assert names(folder) == []
