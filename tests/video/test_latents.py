"""Noise, 8-bit frames, and latents kept for resuming."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sora_cli.video.latents import ClipNoise, KeptLatents, draw_noise, keep_latents, read_kept, to_frames


@pytest.fixture
def folder(isolated: None) -> Path:
    """The empty working folder of the test."""
    return Path.cwd()


def test_noise_is_a_function_of_the_seed() -> None:
    shape = (4, 5, 6, 7)
    torch.manual_seed(1)
    first = draw_noise(42, shape)
    torch.manual_seed(2)  # the global generator must not matter
    assert torch.equal(first, draw_noise(42, shape))
    assert first.dtype == torch.float32
    assert first.shape == shape
    assert not torch.equal(first, draw_noise(43, shape))
    assert abs(float(first.mean())) < 0.2
    assert abs(float(first.std()) - 1) < 0.1


def test_to_frames_follows_the_rule_of_the_released_samples() -> None:
    # generation.md section 14, worked out by hand: -1 -> 0, 1 -> 255, 0 -> 127.5 + 0.5 -> 128, outside is clamped.
    pixels = torch.tensor([-1.0, 1.0, 0.0, -7.0, 7.0, 0.003]).view(1, 6, 1, 1).expand(3, 6, 1, 1)
    frames = to_frames(pixels)
    assert frames.shape == (6, 1, 1, 3)
    assert frames.dtype == np.uint8
    assert frames[:, 0, 0, 0].tolist() == [0, 255, 128, 0, 255, 128]


def test_to_frames_keeps_the_axes_apart() -> None:
    pixels = torch.linspace(-1, 1, 3 * 2 * 4 * 5).view(3, 2, 4, 5)
    frames = to_frames(pixels)
    assert frames[1, 2, 3, 0] == int((pixels[0, 1, 2, 3] + 1) / 2 * 255 + 0.5)
    assert frames[0, 3, 4, 2] == int((pixels[2, 0, 3, 4] + 1) / 2 * 255 + 0.5)


def test_kept_latents_come_back_exactly(folder: Path) -> None:
    path = folder / "kept"
    latents = torch.randn(2, 3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    keep_latents(path, KeptLatents(("a", "b"), 4, 9, latents))
    kept = read_kept(path)
    assert kept is not None
    assert (kept.clips, kept.step, kept.steps) == (("a", "b"), 4, 9)
    assert torch.equal(kept.latents, latents)
    assert [entry.name for entry in folder.iterdir()] == ["kept"]


def test_rows_by_clip() -> None:
    kept = KeptLatents(("a", "b", "c"), 1, 2, torch.arange(3.0).view(3, 1, 1, 1, 1))
    rows = kept.rows(("c", "a"))
    assert rows is not None
    assert rows.flatten().tolist() == [2, 0]
    assert kept.rows(("a", "x")) is None


def test_keeping_where_nothing_can_be_written(folder: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        keep_latents(folder / "absent" / "kept", KeptLatents(("a",), 1, 2, torch.zeros(1, 1, 1, 1, 1)))


def test_noise_of_a_model_that_shapes_it_knows_text_rate_and_seed() -> None:
    calls: list[tuple[str, float, int]] = []

    def shaper(noise: torch.Tensor, text: str, *, fps: float, seed: int) -> torch.Tensor:
        calls.append((text, fps, seed))
        return -noise

    shape = (2, 3, 4, 5)
    plain, shaped = ClipNoise(7, shape, None, "a", 24.0), ClipNoise(7, shape, shaper, "a", 24.0)
    assert torch.equal(plain.start(), draw_noise(7, shape))
    assert torch.equal(shaped.start(), -plain.start())
    assert torch.equal(shaped.of_step(2), -plain.of_step(2))
    assert not torch.equal(plain.of_step(2), plain.of_step(3))
    assert [call[:2] for call in calls] == [("a", 24.0)] * 2
    assert calls[0][2] != calls[1][2]
