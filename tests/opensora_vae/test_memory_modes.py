"""The video autoencoder in its memory modes: what it gives, and the most that lives at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from live_tensors import LiveBytes
from torch import Tensor

from sora_plugins.opensora_vae.config import TemporalConfig, VideoAutoencoderConfig
from sora_plugins.opensora_vae.memory import decode_memory, temporal_bytes
from sora_plugins.opensora_vae.model import VideoAutoencoder
from sora_plugins.opensora_vae.temporal import TemporalAutoencoder
from sora_plugins.sd_vae import slabs
from sora_plugins.sd_vae.modes import MemoryMode

TINY: dict[str, Any] = {
    "vae_2d": {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4},
    "vae_temporal": {"filters": 8, "num_res_blocks": 1, "channel_multipliers": [1, 1, 2, 2], "num_groups": 4},
}
#: Float32, two orders of the same sums (measured: 1e-6 to 4e-6 at values around 1).
TOLERANCE = {"atol": 2e-5, "rtol": 2e-5}


@pytest.fixture
def tiny() -> VideoAutoencoder:
    torch.manual_seed(0)
    return VideoAutoencoder(VideoAutoencoderConfig.from_mapping(TINY)).eval()


def whole(vae: VideoAutoencoder, latents: Tensor, num_frames: int, frames_at_once: int | None = None) -> Tensor:
    return torch.cat(list(vae.decode(latents, num_frames, frames_at_once=frames_at_once)), dim=2)


@pytest.mark.parametrize("slab_bytes", [1, 5000])
@pytest.mark.parametrize(
    ("batch", "num_frames", "height", "width"), [(1, 1, 40, 33), (2, 5, 25, 48), (1, 18, 31, 24), (2, 40, 24, 40)]
)
def test_low_equals_plain(tiny, monkeypatch, slab_bytes, batch, num_frames, height, width):
    monkeypatch.setattr(slabs, "SLAB_BYTES", slab_bytes)
    pixels = torch.rand(batch, 3, num_frames, height, width) * 2 - 1
    latents = torch.randn(batch, 4, tiny.latent_frames(num_frames), height // 8, width // 8)
    with torch.inference_mode():
        plain = tiny.encode(pixels, sample=False), whole(tiny, latents, num_frames)
        tiny.set_memory_mode("low")
        low = tiny.encode(pixels, sample=False), whole(tiny, latents, num_frames)
    for one, other in zip(low, plain, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE)


@pytest.mark.parametrize("activation", ["swish", "relu"])
def test_other_temporal_networks(monkeypatch, activation):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 2000)
    torch.manual_seed(0)
    config = TemporalConfig(
        filters=8,
        num_res_blocks=2,
        channel_multipliers=(2, 1, 3),
        temporal_downsample=(True, False),
        num_groups=2,
        activation_fn=activation,
        latent_embed_dim=3,
    )
    made = TemporalAutoencoder(config).eval()
    x, z = torch.randn(2, 4, 7, 5, 6), torch.randn(2, 4, 3, 5, 6)
    with torch.inference_mode():
        plain = made.encode(x), made.decode(z, 5)
        made.uses_slabs = True
        low = made.encode(x), made.decode(z, 5)
    torch.testing.assert_close(low[0].mean, plain[0].mean, **TOLERANCE)
    torch.testing.assert_close(low[0].logvar, plain[0].logvar, **TOLERANCE)
    torch.testing.assert_close(low[1], plain[1], **TOLERANCE)


def test_bfloat16(tiny, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 2000)
    latents = torch.randn(1, 4, 6, 3, 5)
    with torch.inference_mode():
        exact = whole(tiny, latents, 18)
        tiny.spatial_vae.bfloat16()
        tiny.temporal_vae.bfloat16()
        errors = {}
        for mode in ("plain", "low"):
            tiny.set_memory_mode(mode)
            errors[mode] = float((whole(tiny, latents, 18).float() - exact).square().mean().sqrt())
    assert errors["low"] < 1.2 * errors["plain"]


@pytest.mark.parametrize("mode", ["plain", "low", "tiled"])
def test_streamed_pieces_equal_pieces_by_themselves(tiny, mode):
    """Bit for bit: a piece of 17 frames does not know what comes before and after it."""
    tiny.set_memory_mode(mode, tile=48, overlap=16)
    latents = torch.randn(1, 4, tiny.latent_frames(40), 10, 9)
    with torch.inference_mode():
        streamed = whole(tiny, latents, 40, frames_at_once=1)
        parts = [
            whole(tiny, piece, frames, frames_at_once=1)
            for piece, frames in zip(latents.split(5, dim=2), (17, 17, 6), strict=True)
        ]
    assert torch.equal(streamed, torch.cat(parts, dim=2))


def test_tiled(tiny):
    pixels, latents = torch.rand(1, 3, 6, 100, 75) * 2 - 1, torch.randn(1, 4, 2, 12, 9)
    with torch.inference_mode():
        plain = tiny.encode(pixels, sample=False), whole(tiny, latents, 6)
        tiny.set_memory_mode("tiled", tile=48, overlap=16)
        tiled = tiny.encode(pixels, sample=False), whole(tiny, latents, 6)
        tiny.set_memory_mode("tiled", tile=240, overlap=16)
        one = tiny.encode(pixels, sample=False), whole(tiny, latents, 6)
    for some, single, wanted in zip(tiled, one, plain, strict=True):
        assert some.shape == wanted.shape
        assert not torch.allclose(some, wanted, atol=1e-3)
        torch.testing.assert_close(single, wanted, **TOLERANCE)


def test_unknown_modes_change_nothing(tiny):
    tiny.set_memory_mode("low")
    with pytest.raises(ValueError, match="memory mode 'lower' must be one of plain, low, tiled"):
        tiny.set_memory_mode("lower")
    with pytest.raises(ValueError, match="must be multiples of 8 pixels"):
        tiny.set_memory_mode("tiled", tile=100, overlap=16)
    assert tiny.spatial_vae.module.memory == MemoryMode("low")
    assert tiny.temporal_vae.uses_slabs


def test_training_is_plain(tiny):
    pixels = torch.rand(1, 3, 5, 24, 24) * 2 - 1
    noise = torch.randn(5, 4, 3, 3), [torch.randn(1, 4, 2, 3, 3)]
    plain = tiny(pixels, noise=noise).pixels
    tiny.set_memory_mode("low")
    low = tiny(pixels, noise=noise).pixels
    assert torch.equal(low, plain)
    assert low.requires_grad


# -- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["plain", "low", "tiled"])
def test_the_peak_does_not_grow_with_the_length(tiny, monkeypatch, mode):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 20000)
    tiny.set_memory_mode(mode, tile=48, overlap=16)
    peaks = []
    for num_frames in (17, 51, 102):
        latents = torch.randn(1, 4, tiny.latent_frames(num_frames), 8, 8)
        with torch.inference_mode(), LiveBytes(tiny) as live:
            for _ in tiny.decode(latents, num_frames, frames_at_once=1):
                pass
        peaks.append(live.peak - latents.nbytes)
    assert peaks[0] == peaks[1] == peaks[2]


@pytest.fixture(scope="module")
def full_temporal() -> TemporalAutoencoder:
    """Released widths, constant weights, which are made faster than random ones: only memory is looked at."""
    with torch.device("meta"):
        made = TemporalAutoencoder()
    made.to_empty(device="cpu")
    for parameter in made.parameters():
        parameter.data.fill_(0.01)
    return made.eval().requires_grad_(False)


@pytest.mark.parametrize("decodes", [True, False], ids=["decode", "encode"])
@pytest.mark.parametrize(("mode", "tensors"), [("plain", 4.1), ("low", 2.0)])
def test_the_peak_of_a_piece(full_temporal, monkeypatch, mode, tensors, decodes):
    """In tensors of 20 frames of 256 channels, 140.6 MiB at 720p in bf16: 583 plainly, 281 in slabs (vae.md)."""
    height, width = 24, 2
    unit = 20 * 256 * height * width * 4
    slab = unit // height  # one row
    monkeypatch.setattr(slabs, "SLAB_BYTES", slab)
    full_temporal.uses_slabs = mode == "low"
    given = torch.zeros(1, 4, 5 if decodes else 17, height, width)
    with torch.inference_mode(), LiveBytes(full_temporal) as live:
        full_temporal.decode(given, 17) if decodes else full_temporal.encode(given)
    # A slab of one row brings both neighbours.
    assert tensors <= live.peak / unit <= tensors + (6 * 3 * slab / unit if mode == "low" else 0.05)


def test_estimates():
    def mib(name: str) -> tuple[float, float]:
        memory = MemoryMode(name)
        temporal = temporal_bytes(720, 1280, 102, 2, memory)
        sizes = {"height": 720, "width": 1280, "num_frames": 102, "frames_at_once": 1, "dtype_bytes": 2}
        return temporal / 2**20, decode_memory({}, memory=memory, **sizes).working / 2**20

    assert mib("plain") == pytest.approx((1240, 2241), abs=3)
    assert mib("low") == pytest.approx((281 + 2.15 * 96, 450 + 1.66 * 96), abs=1)
    assert mib("tiled") == pytest.approx((281 + 2.15 * 96, 281 + 2.15 * 96), abs=1)


def test_a_clip_is_not_copied_to_be_encoded(tiny):
    """Only the frames in flight are converted to the network's number format."""
    tiny.spatial_vae.bfloat16()
    pixels = torch.rand(1, 3, 17, 64, 64)
    with torch.inference_mode(), LiveBytes(tiny) as live:
        live.seen.add(pixels.untyped_storage().data_ptr())
        tiny.spatial_vae.encode(pixels, sample=False, frames_at_once=1)
    assert live.peak < 6 * 8 * 64 * 64 * 2 < pixels.nbytes / 2
