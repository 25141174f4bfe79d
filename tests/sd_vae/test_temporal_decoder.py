"""The temporal decoder: against the class of diffusers, in chunks, and through the commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from live_tensors import LiveBytes
from opensora_tiny import make_tiny_opensora_v1_0
from torch import Tensor, nn

from sora_cli.weights.locate import locate_weights
from sora_plugins.sd_vae.memory import TEMPORAL_PARAMETERS, frame_bytes
from sora_plugins.sd_vae.modes import CHUNK
from sora_plugins.sd_vae.weights import build_temporal, load_temporal

NAME = "svd-temporal-decoder"
STRIDE = 8


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """A small network of diffusers' class with random weights."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = diffusers.AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(32, 32, 64, 64), layers_per_block=2
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "mix_factor" in name:  # in the middle of its range the two branches would count the same
                parameter.copy_(torch.randn_like(parameter))
            elif parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def folder(theirs: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint, as it is released."""
    folder = tmp_path_factory.mktemp("vae")
    theirs.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ours(folder: Path) -> Any:
    weights = locate_weights(None, what="it", override=str(folder))
    assert weights is not None
    return load_temporal(weights, torch.device("cpu"), torch.float32)


def noise(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def decoded(network: Any, latents: Tensor, **options: Any) -> list[Tensor]:
    with torch.inference_mode():
        return list(network.decode(latents, latents.shape[2], **options))


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 5), (1, CHUNK)])
def test_it_decodes_what_diffusers_decodes(ours: Any, theirs: nn.Module, batch: int, frames: int):
    latents = noise(batch, 4, frames, 3, 4)
    [mine] = decoded(ours, latents)
    rows = latents.transpose(1, 2).flatten(0, 1) / theirs.config.scaling_factor
    given = theirs.decode(rows, num_frames=frames).sample.unflatten(0, (batch, frames)).transpose(1, 2)
    assert mine.shape == (batch, 3, frames, 3 * STRIDE, 4 * STRIDE)
    assert given.std() > 0.1
    torch.testing.assert_close(mine, given, atol=1e-5, rtol=1e-5)


def test_it_encodes_frames_by_themselves(ours: Any, theirs: nn.Module):
    pixels = noise(1, 3, 5, 16, 24)
    given = theirs.encode(pixels[0].transpose(0, 1)).latent_dist
    mine = ours.encode(pixels, sample=False)[0].transpose(0, 1) / ours.scaling_factor
    torch.testing.assert_close(mine, given.mean, atol=1e-5, rtol=1e-5)
    draw = noise(5, 4, 2, 3)
    mine = ours.encode(pixels, noise=draw, frames_at_once=2)[0].transpose(0, 1) / ours.scaling_factor
    torch.testing.assert_close(mine, given.mean + given.std * draw, atol=1e-5, rtol=1e-5)


def test_chunks_are_decoded_as_if_there_were_no_others(ours: Any):
    latents = noise(1, 4, 2 * CHUNK + 3, 2, 2)
    pieces = decoded(ours, latents)
    assert [piece.shape[2] for piece in pieces] == [CHUNK, CHUNK, 3]
    for piece, chunk in zip(pieces, latents.split(CHUNK, dim=2), strict=True):
        assert torch.equal(piece, *decoded(ours, chunk))
    assert all(map(torch.equal, pieces, decoded(ours, latents, frames_at_once=1)))
    shifted = torch.cat(decoded(ours, latents[:, :, 4:]), dim=2)
    assert (shifted[:, :, 0] - torch.cat(pieces, dim=2)[:, :, 4]).abs().max() > 0.01, "what a chunk is counts"


def test_wrong_lengths(ours: Any):
    with pytest.raises(ValueError, match="2 latent frames are as many frames, not 3"):
        list(ours.decode(noise(1, 4, 2, 2, 2), 3))


def test_its_memory_at_the_released_widths():
    network = build_temporal({}).eval().requires_grad_(False)
    assert sum(parameter.numel() for parameter in network.parameters()) == TEMPORAL_PARAMETERS
    with torch.inference_mode(), LiveBytes(network) as live:
        list(network.decode(noise(1, 4, 2, 4, 4), 2))
    assert live.peak == pytest.approx(frame_bytes(32, 32, 4, 2), rel=0.01)


def test_incomplete_weights_are_refused(folder: Path, tmp_path: Path, sora: Callable[..., Any]):
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    del tensors["decoder.time_conv_out.bias"]
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    _write_clip(Path("clip.mp4"), 4)
    failed = sora("vae", "encode", "clip.mp4", "--vae", NAME, "--vae-weights", str(tmp_path))
    assert (failed.code, "1 missing: module.decoder.time_conv_out.bias" in failed.err) == (1, True), failed.err


# --- commands --------------------------------------------------------------------------------------------------------


def _write_clip(path: Path, frames: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (frames, 32, 32, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _frames(path: str) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_the_codec_commands(sora: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch):
    _write_clip(Path("clip.mp4"), CHUNK + 5)
    which = ("--vae", NAME, "--vae-weights", str(folder), "--device", "cpu", "--dtype", "fp32")
    for command in (
        ("encode", "clip.mp4", "-o", "latents.safetensors"),
        ("decode", "latents.safetensors", "-o", "back.mp4"),
        ("reconstruct", "clip.mp4", "-o", "direct"),
    ):
        done = sora("vae", *command, *which)
        assert done.code == 0, done.err
    back = _frames("back.mp4")
    assert back.shape == (CHUNK + 5, 32, 32, 3)
    assert back.std() > 1
    [direct] = Path("direct").glob("*.mp4")
    assert len(_frames(str(direct))) == CHUNK + 5
    monkeypatch.setattr("sora_cli.tasks.vae.FRAMES_AT_ONCE", CHUNK // 2)  # read at a time: chunks stay whole
    assert sora("vae", "decode", "latents.safetensors", "-o", "again.mp4", *which).code == 0
    assert (_frames("again.mp4") == back).all()
    shown = json.loads(sora("vae", "eval", "clip.mp4", *which, "--json").out)
    assert 0 < shown[0]["psnr"] < 40
    refused = sora("vae", "decode", "latents.safetensors", "-o", "x.mp4", *which, "--memory", "low")
    assert (refused.code, "has no memory mode low" in refused.err) == (2, True), refused.err


def test_clips_of_open_sora_1_0(sora: Callable[..., Any], folder: Path, tmp_path: Path):
    """The same latents, decoded by either; the same command gives the same file."""
    weights = make_tiny_opensora_v1_0(tmp_path / "tiny")
    assert weights[2] == "--vae-weights"
    size = ("--size", "64x64", "--frames", "4", "--steps", "2", "--device", "cpu", "--dtype", "fp32")
    for name, vae in (
        ("plain", weights[2:4]),
        ("temporal", ["--vae", NAME, "--vae-weights", str(folder)]),
        ("again", ["--vae", NAME, "--vae-weights", str(folder)]),
    ):
        command = ("generate", "a fox", "-m", "opensora-v1.0", *size, *weights[:2], *weights[4:], *vae)
        done = sora(*command, "-o", f"{name}.mp4")
        assert done.code == 0, done.err
    plain, temporal, again = (_frames(f"{name}.mp4") for name in ("plain", "temporal", "again"))
    assert temporal.shape == (4, 64, 64, 3)
    assert (temporal == again).all()
    assert (temporal != plain).any()
