"""Measures go through videos piece by piece, at any size that they can, and say which they cannot."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from sora_plugins.metrics import frames as frames_module
from sora_plugins.metrics.flolpips import FloLpips, motion_weighted_mean
from sora_plugins.metrics.frames import FrameMetric
from sora_plugins.metrics.lpips import Lpips
from sora_plugins.metrics.pixels import WINDOW, frame_ssim, psnr, ssim
from sora_plugins.metrics.pwc import PwcNet
from sora_plugins.metrics.trunks import ALEXNET, VGG16

CPU = torch.device("cpu")


def random_network(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(0)
    network = build()
    for name, parameter in network.named_parameters():
        if "lin" in name:
            parameter.abs_()
    return network


def videos(num_frames: int, height: int, width: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    reference = torch.rand(2, channels, num_frames, height, width, generator=generator)
    return reference, (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)


@pytest.fixture(scope="module")
def metrics() -> dict[str, FrameMetric]:
    lpips, vgg = random_network(lambda: Lpips(ALEXNET)), random_network(lambda: Lpips(VGG16))
    flow = random_network(PwcNet)
    assert isinstance(lpips, Lpips)
    assert isinstance(flow, PwcNet)
    return {
        "psnr": psnr({}, CPU),
        "ssim": ssim({}, CPU),
        "lpips": FrameMetric(lpips, CPU, min_side=31),
        "lpips-vgg": FrameMetric(vgg, CPU, min_side=16),
        "flolpips": FrameMetric(FloLpips(lpips, flow), CPU, overlap=1, min_side=31),
    }


@pytest.mark.parametrize("name", ["psnr", "ssim", "lpips", "lpips-vgg", "flolpips"])
def test_pieces_are_the_whole(name: str, metrics: dict[str, FrameMetric], monkeypatch: pytest.MonkeyPatch) -> None:
    metric = metrics[name]
    reference, video = videos(5, 40, 48)
    whole = metric(reference, video)
    assert (whole.shape, whole.dtype) == ((2, 5 - metric.overlap), torch.float64)
    assert whole.isfinite().all()
    # Networks in float32 round otherwise in other batches; FloLPIPS weighs by differences of nearly equal flows.
    tolerance = {"rtol": 1e-3, "atol": 1e-6} if name == "flolpips" else {"rtol": 1e-5, "atol": 1e-7}
    monkeypatch.setattr(frames_module, "PIXELS_AT_ONCE", 1)
    torch.testing.assert_close(metric(reference, video), whole, **tolerance)
    pieces, kept = [], slice(0, 0)
    for piece in (slice(0, 2), slice(2, 3), slice(3, 5)):
        start = max(piece.start - metric.overlap, 0)
        pieces.append(metric(reference[:, :, start : piece.stop], video[:, :, start : piece.stop]))
        kept = slice(kept.stop, kept.stop + pieces[-1].shape[1])
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, **tolerance)
    assert kept.stop == whole.shape[1]


@pytest.mark.parametrize(
    ("name", "equal"), [("psnr", 100), ("ssim", 1), ("lpips", 0), ("lpips-vgg", 0), ("flolpips", 0)]
)
def test_equal_videos_and_grey_ones(name: str, equal: float, metrics: dict[str, FrameMetric]) -> None:
    reference, video = videos(2, 32, 36, channels=1)
    torch.testing.assert_close(metrics[name](video, video), torch.full((2, 2 - metrics[name].overlap), equal).double())
    grey, colours = (
        metrics[name](reference, video),
        metrics[name](*(x.expand(-1, 3, -1, -1, -1) for x in (reference, video))),
    )
    torch.testing.assert_close(grey, colours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "side"), [("ssim", 11), ("lpips", 31), ("lpips-vgg", 16), ("flolpips", 31)])
def test_frames_that_are_too_small(name: str, side: int, metrics: dict[str, FrameMetric]) -> None:
    reference, video = videos(2, side, side + 1)
    assert metrics[name](reference, video).isfinite().all()
    message = f"frames of {side + 1}x{side - 1} pixels are too small: each side needs {side} or more"
    with pytest.raises(ValueError, match=message):
        metrics[name](reference[..., 1:, :], video[..., 1:, :])


@pytest.mark.parametrize(("config", "side"), [(ALEXNET, 31), (VGG16, 16)])
def test_images_that_are_too_small(config, side: int) -> None:
    network = Lpips(config)
    assert network(*torch.rand(2, 1, 3, side, side)).shape == (1,)
    with pytest.raises(ValueError, match=f"each side needs {side} or more"):
        network(*torch.rand(2, 1, 3, side, side - 1))


def test_what_is_no_video() -> None:
    metric = psnr({}, CPU)
    reference, video = videos(2, 16, 16)
    for one, other, message in (
        (reference, video[:, :, :1], "and its original"),
        (reference[0], video[0], "videos are"),
        (reference[:, :2], video[:, :2], "videos are"),
        ((reference * 255).byte(), (video * 255).byte(), "not integers"),
    ):
        with pytest.raises(ValueError, match=message):
            metric(one, other)
    assert metric(reference[:, :, :0], video[:, :, :0]).shape == (2, 0)


def test_one_frame_has_no_motion(metrics: dict[str, FrameMetric]) -> None:
    assert metrics["flolpips"](*videos(1, 32, 32)).shape == (2, 0)


def test_equal_motion_weighs_all_places_alike() -> None:
    values = torch.rand(2, 1, 4, 6)
    difference = torch.zeros(2, 2, 16, 24)
    difference[1, 0, :8] = 2.0
    found = motion_weighted_mean(values, difference)
    assert found.isfinite().all()
    torch.testing.assert_close(found[0], values[0].mean())
    assert not math.isclose(float(found[1]), float(values[1].mean()), rel_tol=1e-3)


def test_flolpips_does_not_care_which_is_which(metrics: dict[str, FrameMetric]) -> None:
    reference, video = videos(3, 40, 32)
    torch.testing.assert_close(metrics["flolpips"](reference, video), metrics["flolpips"](video, reference))


def test_ssim_against_its_definition() -> None:
    """Window by window, as the paper has it."""
    a, b = (x[0, 0, 0].double().numpy() for x in videos(1, 14, 13))
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for top in range(14 - WINDOW + 1):
        for left in range(13 - WINDOW + 1):
            p, q = (x[top : top + WINDOW, left : left + WINDOW] for x in (a, b))
            p0, q0 = (window * p).sum(), (window * q).sum()
            pp, qq, pq = (
                (window * (p - p0) ** 2).sum(),
                (window * (q - q0) ** 2).sum(),
                (window * (p - p0) * (q - q0)).sum(),
            )
            values.append((2 * p0 * q0 + 1e-4) * (2 * pq + 9e-4) / ((p0**2 + q0**2 + 1e-4) * (pp + qq + 9e-4)))
    found = frame_ssim(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None])
    torch.testing.assert_close(found, torch.tensor([np.mean(values)]), rtol=1e-9, atol=0)


def test_lpips_in_bfloat16_and_its_gradient() -> None:
    network = random_network(lambda: Lpips(VGG16))
    assert isinstance(network, Lpips)
    reference, video = (x[:, :, 0] * 2 - 1 for x in videos(1, 32, 32))
    exact = network(reference, video)
    network.net.to(torch.bfloat16)
    video.requires_grad_()
    rounded = network(reference, video)
    assert rounded.dtype == torch.float32
    # bfloat16 has 8 bits, and 13 convolutions follow each other.
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0)
    rounded.sum().backward()
    assert video.grad is not None
    assert video.grad.isfinite().all()
    assert video.grad.abs().sum() > 0
    black = torch.zeros(1, 3, 32, 32, requires_grad=True)
    for parameter in network.net.parameters():
        parameter.zero_()
    network(black, video[:1]).sum().backward()
    assert black.grad is not None
    assert black.grad.isfinite().all(), "features of length 0"
