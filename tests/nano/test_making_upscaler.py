"""Training of nano's upscaler, in miniature: what it is shown, and that it goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from nano_miniature import call
from safetensors.torch import load_file, save_file
from torch import Tensor

from sora_plugins.nano.autoencoder import NanoAutoencoder
from sora_plugins.nano.making import upscaler as making
from sora_plugins.nano.scenes.catalogue import clip_params
from sora_plugins.nano.scenes.renderer import render

STEPS = 4


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {"SMALL": (32, 48), "BATCH": 2, "CROP": 16, "SAVED": 2}.items():
        monkeypatch.setattr(making, name, value)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pairs() -> dict[str, Tensor]:
    torch.manual_seed(0)
    autoencoder = NanoAutoencoder()
    torch.nn.init.normal_(autoencoder.basis, std=0.02)
    return making.make_pairs(autoencoder, 3, seed=7)


def test_pairs_are_of_one_moment(pairs: dict[str, Tensor]) -> None:
    assert pairs["small"].shape == (3, 3, 32, 48)
    assert pairs["large"].shape == (3, 3, 128, 192)
    painted = [render(clip_params(7, 1), 1, 128, 192, first=first)[0].permute(2, 0, 1) for first in range(60)]
    assert any(torch.equal(pairs["large"][1], each) for each in painted)


def test_windows_show_the_same_place(pairs: dict[str, Tensor]) -> None:
    pairs["small"] = torch.nn.functional.avg_pool2d(pairs["large"].float(), making.FACTOR).round().byte()
    small, large = making.crops(pairs, torch.Generator().manual_seed(1))
    assert small.shape == (2, 3, 16, 16)
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(large, making.FACTOR), small, atol=0.01, rtol=0)


def test_the_loss_wants_places_as_sharp_as_they_are() -> None:
    wanted = torch.ones(1, 3, 32, 32)
    wanted[..., ::2] = -1
    moved, blurred = wanted.roll(1, dims=3), torch.zeros_like(wanted)
    # With squares alone nothing is better than stripes in the wrong place; here they are as sharp as they should be.
    penalties = []
    for made in (wanted, moved, blurred):
        squares = (made - wanted).square().mean() + sum(
            (made.diff(dim=axis) - wanted.diff(dim=axis)).square().mean() for axis in (2, 3)
        )
        penalties.append(float(making.loss_of(made, wanted) - 8 * squares - 0.3 * (made - wanted).abs().mean()))
    assert penalties == pytest.approx([0, 0, 2], abs=1e-4)
    assert (making.sharpness(moved, wanted), making.sharpness(blurred, wanted)) == (1, 0)


def test_an_interrupted_training_equals_one_that_was_not(
    pairs: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(pairs, tmp_path / "pairs.safetensors")
    whole, resumed = tmp_path / "whole.safetensors", tmp_path / "resumed.safetensors"
    common = ("train", tmp_path / "pairs.safetensors", "--steps", STEPS, "-o")
    call(making.main, *common, whole)
    drawn, shown = making.crops, 0

    def stops(*arguments: object) -> tuple[Tensor, Tensor]:
        nonlocal shown
        shown += 1
        if shown == 4:
            raise KeyboardInterrupt
        return drawn(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "crops", stops)
    with pytest.raises(KeyboardInterrupt):
        call(making.main, *common, resumed)
    assert not resumed.exists()
    call(making.main, *common, resumed)
    assert shown == 4 + STEPS - 2, "only the steps after the last that was kept"
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".safetensors"}, "nothing is left over"
    ours, theirs = load_file(resumed), load_file(whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    call(making.main, *common, tmp_path / "more.safetensors", "--load", whole)
    assert not torch.equal(load_file(tmp_path / "more.safetensors")["output.weight"], theirs["output.weight"])
    call(making.main, "export", whole, "-o", tmp_path / "small.safetensors")
    assert load_file(tmp_path / "small.safetensors")["output.weight"].dtype == torch.bfloat16
    capsys.readouterr()
    call(making.main, "eval", tmp_path / "pairs.safetensors", tmp_path / "small.safetensors")
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "waterfall",
        "all",
        "ocean",
        "rain",
    ]
