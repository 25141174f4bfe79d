"""Tiny checkpoints with the architecture, file names and tensor names of the released Open-Sora."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

TEXT_WIDTH = 32
SHAPE = ("-m", "opensora-v1.2", "--size", "64x96", "--frames", "17", "--steps", "2", "--device", "cpu")

NETWORK = {
    "model_type": "STDiT3",
    "hidden_size": 32,
    "depth": 1,
    "num_heads": 4,
    "caption_channels": TEXT_WIDTH,
    "model_max_length": 300,
    "in_channels": 4,
    "input_sq_size": 512,
    "qk_norm": True,
    "enable_flash_attn": False,
    "freeze_y_embedder": True,
}

AUTOENCODER = {
    "model_type": "VideoAutoencoderPipeline",
    "vae_2d": {
        "type": "VideoAutoencoderKL",
        "from_pretrained": "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
        "subfolder": "vae",
        "micro_batch_size": 4,
        "block_out_channels": [8, 8, 8, 8],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
    "vae_temporal": {
        "type": "VAE_Temporal_SD",
        "from_pretrained": None,
        "filters": 8,
        "num_res_blocks": 1,
        "channel_multipliers": [1, 1, 1, 1],
        "temporal_downsample": [False, True, True],
        "num_groups": 4,
    },
    "micro_frame_size": 17,
    "shift": [-0.10, 0.34, 0.27, 0.98],
    "scale": [3.85, 2.32, 2.33, 3.06],
}


FRAME_AUTOENCODER = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [8, 8, 8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "scaling_factor": 0.18215,
}


def make_tiny_opensora(folder: Path) -> list[str]:
    """Write the three folders `model`, `vae` and `text` into `folder`, always with the same numbers.

    Returns the arguments that make `sora generate` use them.
    """
    from t5_tiny import make_tiny_t5

    from sora_plugins.opensora_vae.config import VideoAutoencoderConfig
    from sora_plugins.opensora_vae.model import VideoAutoencoder
    from sora_plugins.stdit.stdit3 import build

    _write(folder / "model", NETWORK, lambda: build(NETWORK))
    _write(folder / "vae", AUTOENCODER, lambda: VideoAutoencoder(VideoAutoencoderConfig.from_mapping(AUTOENCODER)))
    make_tiny_t5(folder / "text", width=TEXT_WIDTH)
    return _flags(folder)


def make_tiny_opensora_v1_0(folder: Path) -> list[str]:
    """As `make_tiny_opensora` for version 1.0: the network is a pickled table with positions of 16 x 256 x 256 pixels,
    as released, with a config.json beside it that says how small it is."""
    from sora_plugins.stdit.layers import frame_table, position_table
    from sora_plugins.stdit.stdit1 import build

    config = {**NETWORK, "model_type": "STDiT", "model_max_length": 120}
    tensors = _write(folder / "model", config, lambda: build(config))
    (folder / "model" / "model.safetensors").unlink()
    tables = {
        "pos_embed": position_table(32, 16, 16, scale=0.5, base=None),
        "pos_embed_temporal": frame_table(32, 16, scale=1.0),
    }
    torch.save({**tables, **tensors}, folder / "model" / "OpenSora-v1-HQ-16x256x256.pth")
    return _with_frame_autoencoder(folder)


def make_tiny_opensora_v1_1(folder: Path) -> list[str]:
    """As `make_tiny_opensora` for version 1.1, whose config.json does not say `qk_norm_legacy`."""
    from sora_plugins.stdit.stdit2 import build

    config = {**NETWORK, "model_type": "STDiT2", "hidden_size": 48, "model_max_length": 200}
    _write(folder / "model", config, lambda: build(config))
    return _with_frame_autoencoder(folder)


def make_tiny_pixart(folder: Path, **changes: Any) -> list[str]:
    """As `make_tiny_opensora` for PixArt. changes: of config.json."""
    from sora_plugins.dit.pixart import build

    config = {
        **NETWORK,
        "model_type": "PixArt",
        "hidden_size": 48,
        "model_max_length": 120,
        "qk_norm": False,
        **changes,
    }
    _write(folder / "model", config, lambda: build(config))
    return _with_frame_autoencoder(folder)


def _with_frame_autoencoder(folder: Path) -> list[str]:
    from t5_tiny import make_tiny_t5

    from sora_plugins.sd_vae.config import SpatialConfig
    from sora_plugins.sd_vae.model import SpatialAutoencoder

    config = SpatialConfig.from_mapping(FRAME_AUTOENCODER)
    _write(folder / "vae", FRAME_AUTOENCODER, lambda: SpatialAutoencoder(config))
    make_tiny_t5(folder / "text", width=TEXT_WIDTH)
    return _flags(folder)


def _flags(folder: Path) -> list[str]:
    flags = {"--weights": "model", "--vae-weights": "vae", "--text-weights": "text"}
    return [text for flag, name in flags.items() for text in (flag, str(folder / name))]


def _write(folder: Path, config: dict[str, Any], make: Any) -> dict[str, torch.Tensor]:
    """Write config.json and model.safetensors, and return the tensors."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    tensors = noisy_tensors(make)
    save_file(tensors, folder / "model.safetensors")
    return tensors


def noisy_tensors(make: Callable[[], nn.Module]) -> dict[str, torch.Tensor]:
    """The tensors of a network, always the same, all with noise, so that every part of it counts."""
    torch.manual_seed(0)
    network = make()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
