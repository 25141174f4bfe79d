"""Golden topic `pipeline`: how pictures and videos are fitted to a clip, and frames become 8-bit."""

from __future__ import annotations

import pytest
import torch
from loader import cases, load_tensors, read

from sora_cli.training.transforms import TRANSFORMS, fitted_size
from sora_cli.video.latents import to_frames

TOPIC, GROUP = "pipeline", "reference_fit"
FOR_VIDEO, FOR_IMAGE = TRANSFORMS["resize_crop"]


@pytest.mark.parametrize("case", cases(TOPIC, GROUP, "geometry"))
def test_geometry(case):
    """The size is the fitted one, and the window that is cut is where the case says."""
    height, width = case["source"]
    target = tuple(case["target"])
    assert list(fitted_size(height, width, target)) == case["resized"]
    # Two pictures of rows and of columns, already of the fitted size, so that nothing but the crop is left.
    resized = case["resized"]
    rows = torch.arange(resized[0])[:, None].expand(*resized) % 251
    columns = torch.arange(resized[1])[None].expand(*resized) % 251
    picture = torch.stack([rows, columns, rows])[None].to(torch.uint8)
    fitted = (FOR_IMAGE if case["kind"] == "image" else FOR_VIDEO)(picture, target)
    values = ((fitted.reshape(3, *target) + 1) * 127.5).round()
    assert values[0, :, 0].tolist() == [(case["top"] + row) % 251 for row in range(target[0])]
    assert values[1, 0].tolist() == [(case["left"] + column) % 251 for column in range(target[1])]


@pytest.mark.parametrize("case", cases(TOPIC, GROUP, "pixels"))
def test_pixels(case):
    described = read(TOPIC, GROUP)
    tensors = load_tensors(TOPIC, described["file"])
    name, target = case["name"], tuple(case["target"])
    source, wanted = (tensors[key] for key in sorted(key for key in tensors if key.startswith(name)))
    if source.dtype != torch.uint8:
        source, wanted = wanted, source
    if case["kind"] == "image":
        found = FOR_IMAGE(source.permute(2, 0, 1)[None], target)[:, None]
    else:
        found = FOR_VIDEO(source, target).transpose(0, 1)
    tolerance = described["tolerance"]["pixels"][f"{case['kind']} abs"]
    torch.testing.assert_close(found, wanted, atol=tolerance, rtol=0)


def test_to_8_bit():
    described = read(TOPIC, GROUP)["to_uint8"]
    values = torch.tensor(described["value"])[None, None, None].expand(3, 1, 1, -1)
    assert to_frames(values)[0, 0, :, 0].tolist() == described["uint8"]
