"""Sizes, frames and masks beyond the goldens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sora_cli.conditioning.frame_masks import KINDS, MaskRatios, draw_mask
from sora_cli.errors import UsageError
from sora_cli.training import transforms


@pytest.mark.parametrize("short", [49, 98, 103, 196, 214, 389, 498, 240, 720])
def test_no_pixel_is_lost_by_rounding(short):
    frames = torch.zeros(1, 3, short, short + 7, dtype=torch.uint8)
    for side in (32, short - 1, short, short + 1):
        assert transforms.video_center(frames, (side, side)).shape == (1, 3, side, side)


def test_squares_only():
    with pytest.raises(ValueError, match="makes squares, not 32x64"):
        transforms.video_center(torch.zeros(1, 3, 50, 50, dtype=torch.uint8), (32, 64))


def test_frames_exactly_apart():
    assert transforms.frame_indices(100, 4, 3, 5, exact_stride=True) == [5, 8, 11, 14]
    squeezed = transforms.frame_indices(10, 4, 3, 0, exact_stride=True)
    assert squeezed == [0, 3, 6, 9]
    assert transforms.effective_interval([0, 2, 4]) == 2
    assert transforms.effective_interval([7]) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_frames", [1, 2, 3, 5, 30])
def test_something_is_always_left_to_learn(kind, num_frames):
    random = np.random.default_rng(0)
    for _ in range(200):
        mask = draw_mask(kind, num_frames, random)
        assert mask.shape == (num_frames,)
        assert mask.any()
        if kind != "identity" and kind != "random" and num_frames > 1:
            assert not mask.all()


def test_names_of_earlier_configurations():
    ratios = MaskRatios({"mask_no": 0.5, "mask_quarter_head": 0.2, "mask_image_tail": 0.1, "interpolate": 0.1})
    assert [kind for kind, _ in ratios.ratios] == ["identity", "quarter_head", "image_tail", "intepolate", "identity"]
    assert ratios.ratios[-1][1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("ratios", "message"),
    [
        ({"image_haed": 0.1}, "unknown mask 'image_haed'"),
        ({"image_head": 1.1}, "mask_ratios.image_head: 1.1 is not a probability"),
        ({"image_head": 0.7, "random": 0.4}, "sum to 1.1, more than 1"),
        ({"mask_head": 0.1, "quarter_head": 0.1}, "quarter_head is there twice"),
    ],
)
def test_wrong_mask_ratios(ratios, message):
    with pytest.raises(UsageError) as caught:
        MaskRatios(ratios)
    assert message in str(caught.value)
