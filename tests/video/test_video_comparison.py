"""Frames that are compared, at their common size, and statistics of what comes in pieces."""

from __future__ import annotations

import pytest
import torch

from sora_cli.video.comparison import fit, frame_numbers
from sora_cli.video.statistics import Moments


@pytest.mark.parametrize(
    ("total", "num_frames", "sample_rate", "expected"),
    [(100, 4, 1, [0, 1, 2, 3]), (100, 3, 2, [0, 2, 5]), (5, 4, 2, [0, 4]), (3, 9, 1, [0, 1, 2]), (1, 2, 3, [])],
)
def test_frame_numbers(total: int, num_frames: int, sample_rate: int, expected: list[int]) -> None:
    assert frame_numbers(total, num_frames, sample_rate) == expected


@pytest.mark.parametrize("size", [(40, 64), (65, 31), (24, 24)])
def test_frames_are_fitted(size: tuple[int, int]) -> None:
    frames = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    whole = fit(frames, resolution=21)
    assert min(whole.shape[-2:]) == 21
    assert whole.min() >= 0
    assert whole.max() <= 1
    assert fit(frames, resolution=21, crop=16).shape == (2, 3, 16, 16)
    assert torch.equal(fit(frames, resolution=min(size), crop=None)[..., :1, :1], frames[..., :1, :1] / 255)
    with pytest.raises(ValueError, match="a square of 22 pixels does not fit in frames of"):
        fit(frames, resolution=21, crop=22)


def test_moments_do_not_depend_on_pieces_and_order() -> None:
    values = torch.randn(5, 3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e6
    by_channel = values.transpose(0, 1).flatten(1)
    for pieces in ([values], [values[3:], values[:1], values[1:3]], [values[:0], *values.split(1)]):
        moments = Moments()
        for piece in pieces:
            moments.add(piece)
        assert moments.count == 40
        # Sums of plain squares of numbers about a million would have 4 digits left.
        torch.testing.assert_close(moments.channel_mean, by_channel.mean(dim=1), rtol=1e-14, atol=0)
        torch.testing.assert_close(moments.channel_std, by_channel.std(dim=1, correction=0), rtol=1e-9, atol=0)
        assert moments.mean == pytest.approx(float(values.mean()), rel=1e-14)
        assert moments.std == pytest.approx(float(values.std(correction=0)), rel=1e-9)
