"""The combined autoencoder: streaming, memory, the released file, and files that do not fit."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from live_tensors import LiveBytes
from safetensors.torch import save_file

from sora_cli.errors import SoraError
from sora_cli.weights.locate import locate_weights
from sora_plugins.opensora_vae.config import VideoAutoencoderConfig
from sora_plugins.opensora_vae.memory import PARAMETERS, decode_memory
from sora_plugins.opensora_vae.model import VideoAutoencoder
from sora_plugins.opensora_vae.weights import load
from sora_plugins.sd_vae import model as spatial
from sora_plugins.sd_vae.memory import frame_bytes
from sora_plugins.sd_vae.model import SpatialAutoencoder
from sora_plugins.sd_vae.weights import modern_names

MANIFESTS = Path(os.environ.get("GOLDENS_DIR") or Path(__file__).parents[1] / "goldens").resolve() / "manifests"
CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "vae_2d": {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4},
    "vae_temporal": {"filters": 8, "num_res_blocks": 1, "channel_multipliers": [1, 1, 1, 1], "num_groups": 4},
}


@pytest.fixture
def tiny() -> VideoAutoencoder:
    torch.manual_seed(0)
    return VideoAutoencoder(VideoAutoencoderConfig.from_mapping(TINY)).eval()


@pytest.fixture
def folder(tmp_path: Path, tiny: VideoAutoencoder) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    save_file({name: tensor.contiguous() for name, tensor in tiny.state_dict().items()}, tmp_path / "model.safetensors")
    return tmp_path


def load_from(place: Path, dtype: torch.dtype = torch.float32) -> VideoAutoencoder:
    weights = locate_weights(None, what="the autoencoder", override=str(place))
    assert weights is not None
    return load(weights, CPU, dtype)


@pytest.mark.parametrize(
    ("name", "network"), [("OpenSora-VAE-v1.2", VideoAutoencoder), ("AutoencoderKL-f8-4ch", SpatialAutoencoder)]
)
def test_the_released_file_fits(name, network):
    path = MANIFESTS / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"golden manifest {path.name!r} is not in {MANIFESTS}")
    manifest = json.loads(path.read_text())
    with torch.device("meta"):
        made = network()
    wanted = {entry["key"]: entry["shape"] for entry in manifest["tensors"]}
    assert {key: list(tensor.shape) for key, tensor in made.state_dict().items()} == wanted
    assert len(wanted) == manifest["num_tensors"]
    assert sum(tensor.numel() for tensor in made.state_dict().values()) == manifest["num_elements"]
    aliases = manifest["legacy_key_aliases"]
    assert aliases
    old = {
        alias: torch.zeros([*wanted[key], 1, 1][: 4 if key.endswith("weight") else 1]) for alias, key in aliases.items()
    }
    assert {key: list(tensor.shape) for key, tensor in modern_names(old).items()} == {
        key: wanted[key] for key in aliases.values()
    }


def test_the_micro_frame_size_of_a_file_is_not_followed():
    """Released code puts 17 in its place, and the models know no other code."""
    assert VideoAutoencoderConfig.from_mapping({**TINY, "micro_frame_size": None}).micro_frame_size == 17
    with pytest.raises(ValueError, match="micro_frame_size 0 must be at least 1"):
        VideoAutoencoderConfig(micro_frame_size=0)


def test_parameters_of_the_estimate():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in VideoAutoencoder().parameters()) == PARAMETERS


@pytest.mark.parametrize("num_frames", [1, 5, 17, 18, 40])
def test_streamed_equals_whole(tiny, num_frames):
    latents = torch.randn(1, 4, tiny.latent_frames(num_frames), 3, 4)
    with torch.inference_mode():
        one, three, default = (
            torch.cat(list(tiny.decode(latents, num_frames, frames_at_once=count)), dim=2) for count in (1, 3, None)
        )
    assert one.shape == (1, 3, num_frames, 24, 32)
    torch.testing.assert_close(one, three, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(one, default, atol=1e-5, rtol=1e-5)


def test_wrong_number_of_latents(tiny):
    with pytest.raises(ValueError, match="17 frames have 5 latent frames, not 4"):
        tiny.decode(torch.randn(1, 4, 4, 2, 2), 17)


def test_memory_does_not_grow_with_the_length(tiny):
    peaks = []
    for num_frames in (17, 51, 102):
        latents = torch.randn(1, 4, tiny.latent_frames(num_frames), 4, 4)
        with torch.inference_mode(), LiveBytes() as live:
            for _ in tiny.decode(latents, num_frames, frames_at_once=1):
                pass
        peaks.append(live.peak - latents.nbytes)
    assert peaks[2] < 1.02 * peaks[0]


def test_the_estimate_of_a_frame_at_real_width():
    torch.manual_seed(0)
    network = SpatialAutoencoder().eval()
    with torch.inference_mode(), LiveBytes() as live:
        network.decode(torch.randn(1, 4, 16, 16))
    assert 0.95 < live.peak / frame_bytes(128, 128, 4) < 1.05
    assert frame_bytes(720, 1280, 2) / 2**20 == 1350, "vae.md section 13, row 3"
    whole = decode_memory({}, height=720, width=1280, num_frames=102, frames_at_once=1, dtype_bytes=2)
    assert whole.working / 2**20 == pytest.approx(2231, rel=0.01), "as measured on a GPU"


def test_queries_in_pieces(monkeypatch):
    torch.manual_seed(0)
    attention = spatial.Attention(8, 4)
    x = torch.randn(2, 8, 5, 5)
    expected = attention(x)
    monkeypatch.setattr(spatial, "QUERIES_AT_ONCE", 7)
    torch.testing.assert_close(attention(x), expected)


def test_encoding_means_and_samples(tiny):
    pixels = torch.rand(1, 3, 20, 30, 37) * 2 - 1
    with torch.inference_mode():
        mean = tiny.encode(pixels, sample=False)
        first, second = (tiny.encode(pixels, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1))
    assert mean.shape == (1, 4, 6, 3, 4)
    assert torch.equal(first, second)
    assert not torch.equal(first, mean)


# --- files -------------------------------------------------------------------------------------------------------


def test_a_folder_and_single_files(folder, tiny):
    latents = torch.randn(1, 4, 1, 2, 2)
    expected = torch.cat(list(tiny.decode(latents, 1)), dim=2)
    torch.save(tiny.state_dict(), folder / "plain.pt")
    for place in (folder, folder / "model.safetensors", folder / "plain.pt"):
        loaded = load_from(place)
        torch.testing.assert_close(torch.cat(list(loaded.decode(latents, 1)), dim=2), expected)


def test_constants_of_the_file_win_and_stay_exact(folder, tiny):
    state = {**tiny.state_dict(), "shift": torch.full((1, 4, 1, 1, 1), 0.123456789)}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    loaded = load_from(folder, torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    assert loaded.shift.dtype == torch.float32
    assert float(loaded.shift[0, 0]) == pytest.approx(0.123456789, abs=1e-8)


def test_scalar_constants(tmp_path):
    config = {**TINY, "shift": 0.5, "scale": 2}
    network = VideoAutoencoder(VideoAutoencoderConfig.from_mapping(config))
    assert network.shift.shape == network.scale.shape == ()
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()}, tmp_path / "model.safetensors"
    )
    assert float(load_from(tmp_path).scale) == 2


class Malicious:
    def __reduce__(self) -> Any:
        return os.mkdir, ("made-by-the-checkpoint",)


def test_files_that_do_not_fit(folder):
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SoraError, match="cannot read the weights file"):
        load_from(folder)
    save_file({"something": torch.ones(1)}, file)
    with pytest.raises(SoraError, match="do not fit the video autoencoder"):
        load_from(folder)
    with (folder / "bad.pt").open("wb") as stream:
        pickle.dump({"a": Malicious()}, stream)
    with pytest.raises(SoraError, match=r"bad\.pt"):
        load_from(folder / "bad.pt")
    assert not Path("made-by-the-checkpoint").exists()
    (folder / "config.json").write_text('{"vae_temporal": {"activation_fn": "tanh"}}')
    with pytest.raises(SoraError, match="describes no video autoencoder: activation_fn 'tanh'"):
        load_from(folder)
