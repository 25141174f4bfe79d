"""The image-family networks: DiT and Latte of classes, PixArt-alpha and PixArt-Sigma of text."""

from __future__ import annotations

from typing import Any

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import Constraints, ModelSpec, TrainedSize, Weights

VARIANT = "XL/2"
#: What all released networks share.
XL_2: dict[str, Any] = {
    "in_channels": 4,
    "patch_size": (1, 2, 2),
    "hidden_size": 1152,
    "depth": 28,
    "num_heads": 16,
    "mlp_ratio": 4.0,
    "class_dropout_prob": 0.1,
}
#: As the pages of PixArt's models name it.
RAIL = "CreativeML Open RAIL++-M"
#: `-m auto` never takes these before a model of any prompt.
RANK = -1


def _constraints(resolution: str, side: int, *, frames: int = 1) -> Constraints:
    what = "pictures" if frames == 1 else f"clips of {frames} frames"
    return Constraints(
        spatial_multiple=16,
        max_frames=frames,
        max_side=2 * side,
        trained=f"{what} of about {side}x{side}",
        trained_sizes=(TrainedSize(resolution, frames),),
    )


def _dit(side: int) -> ModelSpec:
    file = f"DiT-XL-2-{side}x{side}.pt"
    return ModelSpec(
        name=f"dit-xl-2-{side}",
        summary=f"DiT-XL/2: pictures of the 1000 classes of ImageNet, {side}x{side}",
        tasks=("t2i",),
        target="sora_plugins.dit.dit:build",
        variants={VARIANT: {**XL_2, "condition": "label_1000", "learn_sigma": True, "no_temporal_pos_emb": True}},
        weights={
            VARIANT: Weights(
                files=(file,),
                by_hand=f"https://dl.fbaipublicfiles.com/DiT/models/{file}",
                licence="CC-BY-NC-4.0",
                size_gib=2.5,
            )
        },
        scheduler="iddpm",
        vae="sd-vae-ft-ema",
        text_encoder="imagenet-classes",
        constraints=_constraints(str(side), side),
        load="sora_plugins.dit.weights:map_tensors",
        start="sora_plugins.dit.weights:start_dit",
        diffusers_config="sora_plugins.dit.diffusers_layout:read_config",
        text_width="sora_plugins.dit.config:dit_text_width",
        readme="sora_plugins.dit:dit-xl-2.md",
        rank=RANK,
    )


def _latte() -> ModelSpec:
    return ModelSpec(
        name="latte-ucf101",
        summary="Latte-XL/2: clips of the 101 actions of UCF101, 16 frames of 256x256",
        tasks=("t2v", "t2i"),
        target="sora_plugins.dit.latte:build",
        variants={VARIANT: {**XL_2, "condition": "label_101", "learn_sigma": True}},
        weights={VARIANT: Weights(repo="maxin-cn/Latte", files=("ucf101.pt",), size_gib=2.5)},
        scheduler="iddpm",
        vae="sd-vae-ft-ema",
        text_encoder="ucf101-classes",
        constraints=_constraints("256", 256, frames=16),
        load="sora_plugins.dit.weights:map_tensors",
        start="sora_plugins.dit.weights:start_dit",
        text_width="sora_plugins.dit.config:dit_text_width",
        readme="sora_plugins.dit:latte-ucf101.md",
        rank=RANK,
    )


def _pixart(
    name: str, resolution: str, side: int, weights: Weights, *, vae: str, text_encoder: str, **config: Any
) -> ModelSpec:
    family = "Sigma" if "sigma" in name else "alpha"
    network = {**XL_2, "caption_channels": 4096, "pred_sigma": True, "drop_path": 0.0, "no_temporal_pos_emb": True}
    return ModelSpec(
        name=name,
        summary=f"PixArt-{family}: pictures of any text, about {side}x{side}",
        tasks=("t2i",),
        target="sora_plugins.dit.pixart:build",
        options="sora_plugins.dit.options:PixArtOptions",
        variants={VARIANT: {**network, **config}},
        weights={VARIANT: weights},
        scheduler="dpm-solver",
        vae=vae,
        text_encoder=text_encoder,
        constraints=_constraints(resolution, side),
        load="sora_plugins.dit.weights:map_tensors",
        start="sora_plugins.dit.weights:start_pixart",
        diffusers="sora_plugins.dit.diffusers_layout:write_pixart",
        diffusers_config="sora_plugins.dit.diffusers_layout:read_config",
        text_width="sora_plugins.stdit.config:text_width",
        readme=f"sora_plugins.dit:pixart-{family.lower()}.md",
        rank=RANK,
    )


def _alpha(side: int, file: str, **config: Any) -> ModelSpec:
    weights = Weights(repo="PixArt-alpha/PixArt-alpha", files=(file,), licence=RAIL, size_gib=2.3)
    config = {"model_max_length": 120, **config}
    return _pixart(
        f"pixart-alpha-{side}", str(side), side, weights, vae="sd-vae-ft-ema", text_encoder="t5-v1.1-xxl-120", **config
    )


def _sigma(size: str, file: str, side: int, space_scale: float) -> ModelSpec:
    weights = Weights(repo="PixArt-alpha/PixArt-Sigma", files=(file,), licence=RAIL, size_gib=2.3)
    config = {"model_max_length": 300, "space_scale": space_scale, "base_size": side // 8}
    return _pixart(
        f"pixart-sigma-{size}", str(side), side, weights, vae="sdxl-vae", text_encoder="t5-v1.1-xxl", **config
    )


@hookimpl
def sora_models() -> list[ModelSpec]:
    """The released models."""
    return [
        _dit(256),
        _dit(512),
        _latte(),
        _alpha(256, "PixArt-XL-2-256x256.pth", input_size=(1, 32, 32)),
        _alpha(512, "PixArt-XL-2-512x512.pth", input_size=(1, 64, 64)),
        _alpha(1024, "PixArt-XL-2-1024-MS.pth", space_scale=2.0, base_size=128, has_size_conditions=True),
        _sigma("256", "PixArt-Sigma-XL-2-256x256.pth", 256, 0.5),
        _sigma("512", "PixArt-Sigma-XL-2-512-MS.pth", 512, 1.0),
        _sigma("1024", "PixArt-Sigma-XL-2-1024-MS.pth", 1024, 2.0),
        _sigma("2k", "PixArt-Sigma-XL-2-2K-MS.pth", 2048, 4.0),
    ]
