"""The STDiT family: the networks of Open-Sora 1.0, 1.1 and 1.2 and, at a small size, of nano."""

from __future__ import annotations

from typing import Any

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import Constraints, ModelSpec, TrainedSize, Weights


def _sizes(family: str, hidden_size: int, num_heads: int, text_tokens: int) -> dict[str, Any]:
    """Fields of a released config.json that all networks of the family have."""
    return {
        "model_type": family,
        "in_channels": 4,
        "patch_size": (1, 2, 2),
        "hidden_size": hidden_size,
        "depth": 28,
        "num_heads": num_heads,
        "mlp_ratio": 4.0,
        "caption_channels": 4096,
        "model_max_length": text_tokens,
        "class_dropout_prob": 0.1,
        "pred_sigma": True,
        "drop_path": 0.0,
    }


def _stdit1(space_scale: float, time_scale: float) -> dict[str, Any]:
    """Version 1.0 has no config.json; its networks differ in the scales of positions."""
    return {**_sizes("STDiT", 1152, 16, 120), "space_scale": space_scale, "time_scale": time_scale}


def _stdit2() -> dict[str, Any]:
    """The released config.json is older than qk_norm_legacy, and its weights need it."""
    more = {"input_sq_size": 512, "qk_norm": True, "qk_norm_legacy": True}
    return {**_sizes("STDiT2", 1152, 16, 200), **more}


def _stdit3(hidden_size: int, num_heads: int) -> dict[str, Any]:
    """Only width and heads differ between the variants."""
    more = {"input_sq_size": 512, "qk_norm": True, "skip_y_embedder": False}
    return {**_sizes("STDiT3", hidden_size, num_heads, 300), **more}


def _folder(repo: str, size_gib: float) -> Weights:
    """A released repository of version 1.1 or 1.2."""
    return Weights(repo=repo, files=("config.json", "model.safetensors"), licence="Apache-2.0", size_gib=size_gib)


def _file(name: str) -> Weights:
    """One of the released files of version 1.0."""
    return Weights(repo="hpcai-tech/Open-Sora", files=(name,), licence="Apache-2.0", size_gib=2.8)


#: The longest clips of each size in stage 3 of version 1.1 (presets/train/v1.1-stage3.yaml).
TRAINED_1_1 = (
    TrainedSize("144p", 128),
    TrainedSize("240p", 128),
    TrainedSize("360p", 128),
    TrainedSize("480p", 64),
    TrainedSize("720p", 32),
    TrainedSize("1024", 1),
)

#: The longest clips of each size that version 1.2 was trained on (generation.md section 18).
TRAINED = (
    TrainedSize("144p", 408),
    TrainedSize("240p", 408),
    TrainedSize("360p", 408),
    TrainedSize("480p", 204),
    TrainedSize("720p", 102),
)


@hookimpl
def sora_models() -> list[ModelSpec]:
    """The released models."""
    return [
        ModelSpec(
            name="opensora-v1.2",
            summary="Open-Sora 1.2: 1.1 billion parameters, 144p to 720p, up to 16 seconds",
            aliases=("opensora",),
            tasks=("t2v", "i2v", "extend", "t2i"),
            target="sora_plugins.stdit.stdit3:build",
            options="sora_plugins.stdit.options:STDiTOptions",
            variants={"XL/2": _stdit3(1152, 16), "3B/2": _stdit3(1872, 26)},
            weights={"XL/2": _folder("hpcai-tech/OpenSora-STDiT-v3", 4.5)},
            scheduler="rectified_flow",
            vae="opensora-vae-v1.2",
            text_encoder="t5-v1.1-xxl",
            constraints=Constraints(
                min_side=64,
                max_side=4096,
                trained="144p to 360p up to 16s, 480p up to 8s, 720p up to 4s, at 24 fps",
                trained_sizes=TRAINED,
            ),
            load="sora_plugins.stdit.weights:map_tensors",
            start="sora_plugins.stdit.adapt:start_stdit3",
            memory="sora_plugins.stdit.memory:network_memory",
            shard="sora_plugins.stdit.parallel:shard",
            text_width="sora_plugins.stdit.config:text_width",
            readme="sora_plugins.stdit:opensora-v1.2.md",
            rank=20,
            auto_memory_gib=12.0,
        ),
        ModelSpec(
            name="opensora-v1.0",
            summary="Open-Sora 1.0: 0.8 billion parameters, 16 frames at 512x512 or 256x256",
            tasks=("t2v", "t2i"),
            own_tasks=("i2v", "extend"),
            target="sora_plugins.stdit.stdit1:build",
            options="sora_plugins.stdit.options:STDiT1Options",
            variants={
                "16x512-HQ": _stdit1(1.0, 1.0),
                "16x256-HQ": _stdit1(0.5, 1.0),
                "16x256": _stdit1(0.5, 1.0),
                "64x512": _stdit1(1.0, 2 / 3),
            },
            weights={
                "16x512-HQ": _file("OpenSora-v1-HQ-16x512x512.pth"),
                "16x256-HQ": _file("OpenSora-v1-HQ-16x256x256.pth"),
                "16x256": _file("OpenSora-v1-16x256x256.pth"),
            },
            scheduler="iddpm",
            vae="sd-vae-ft-ema",
            text_encoder="t5-v1.1-xxl-120",
            constraints=Constraints(
                min_side=64,
                max_side=4096,
                trained="16 frames at 512x512 (variant 16x512-HQ) or 256x256 (16x256-HQ, 16x256)",
                trained_sizes=(TrainedSize("256", 16), TrainedSize("512", 16)),
            ),
            load="sora_plugins.stdit.weights:map_stdit1",
            start="sora_plugins.stdit.adapt:start_stdit1",
            memory="sora_plugins.stdit.memory:network_memory",
            shard="sora_plugins.stdit.parallel:shard",
            text_width="sora_plugins.stdit.config:text_width",
            readme="sora_plugins.stdit:opensora-v1.0.md",
        ),
        ModelSpec(
            name="opensora-v1.1",
            summary="Open-Sora 1.1: 0.8 billion parameters, 144p to 720p, up to 128 frames",
            tasks=("t2v", "i2v", "extend", "t2i"),
            target="sora_plugins.stdit.stdit2:build",
            options="sora_plugins.stdit.options:STDiT2Options",
            variants={"stage3": _stdit2(), "stage2": _stdit2()},
            weights={stage: _folder(f"hpcai-tech/OpenSora-STDiT-v2-{stage}", 2.9) for stage in ("stage3", "stage2")},
            scheduler="iddpm",
            vae="sd-vae-ft-ema",
            text_encoder="t5-v1.1-xxl-200",
            constraints=Constraints(
                min_side=64,
                max_side=4096,
                trained="144p to 360p up to 128 frames, 480p up to 64, 720p up to 32, pictures up to 1024x1024",
                trained_sizes=TRAINED_1_1,
            ),
            load="sora_plugins.stdit.weights:map_tensors",
            start="sora_plugins.stdit.adapt:start_stdit2",
            memory="sora_plugins.stdit.memory:network_memory",
            shard="sora_plugins.stdit.parallel:shard",
            text_width="sora_plugins.stdit.config:text_width",
            readme="sora_plugins.stdit:opensora-v1.1.md",
        ),
    ]
