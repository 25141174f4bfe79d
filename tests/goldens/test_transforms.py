"""Golden topic `transforms`: fitting frames to a size, and choosing frames."""

from __future__ import annotations

import pytest
import torch
from loader import cases, load_tensors

from sora_cli.training import transforms


def center_square(x):
    return transforms.center_crop(x, (min(x.shape[-2:]),) * 2)


def shifted_square(x, offset):
    return transforms.crop(x, *offset, (min(x.shape[-2:]),) * 2)


#: kind -> function of (input, target, case); those of the second table give frames in [0, 1]
FITTED = {
    "video_center": transforms.video_center,
    "video_resize_crop": transforms.video_resize_crop,
    "image_center": transforms.image_center,
    "image_resize_crop": transforms.image_resize_crop,
}
PIECES = {
    "center_crop_resize": lambda x, target, case: transforms.resize(center_square(x), target),
    "center_crop": lambda x, target, case: transforms.center_crop(x, target),
    "random_crop": lambda x, target, case: transforms.crop(x, *case["offset"], target),
    "random_shift_crop_resize": lambda x, target, case: transforms.resize(shifted_square(x, case["offset"]), target),
    "hflip": lambda x, target, case: x.flip(-1),
}


@pytest.mark.parametrize("case", cases("transforms", "transforms"))
def test_spatial(case):
    tensors = load_tensors("transforms", "transforms.safetensors")
    frames, expected = (tensors[f"{case['case']}.{name}"] for name in ("input", "expected"))
    target = tuple(case["target"])
    if case["kind"] in FITTED:
        found = FITTED[case["kind"]](frames, target)
    else:
        found = PIECES[case["kind"]](frames.float() / 255, target, case)
    assert (found.dtype, list(found.shape)) == (torch.float32, case["output_shape"])
    torch.testing.assert_close(found, expected, atol=case["atol"], rtol=0)
    if case["kind"].startswith("image"):
        differing = ((found - expected).abs() > 1e-6).float().mean()
        assert differing <= 0.005


@pytest.mark.parametrize("case", cases("transforms", "temporal"))
def test_frames(case):
    total, count, interval = case["total_frames"], case["num_frames"], case["frame_interval"]
    if case["indices"] == "error":
        with pytest.raises(ValueError, match="frames asked for"):
            transforms.frame_indices(total, count, interval, case["begin"])
        return
    assert transforms.frame_indices(total, count, interval, case["begin"]) == case["indices"]
    # The reference never draws the last possible start.
    assert transforms.last_start(total, count, interval) in (case["max_begin"], case["max_begin"] + 1)
