"""The STDiT family: STDiT3, the network of Open-Sora 1.2 and, at a small size, of nano."""

from __future__ import annotations

from typing import Any

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import Constraints, ModelSpec, TrainedSize, Weights


def _stdit3(hidden_size: int, num_heads: int) -> dict[str, Any]:
    """The fields of the released config.json; only width and heads differ between the variants."""
    return {
        "in_channels": 4,
        "patch_size": (1, 2, 2),
        "hidden_size": hidden_size,
        "depth": 28,
        "num_heads": num_heads,
        "mlp_ratio": 4.0,
        "input_sq_size": 512,
        "caption_channels": 4096,
        "model_max_length": 300,
        "class_dropout_prob": 0.1,
        "pred_sigma": True,
        "drop_path": 0.0,
        "qk_norm": True,
        "skip_y_embedder": False,
    }


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
    """The released model of Open-Sora 1.2."""
    return [
        ModelSpec(
            name="opensora-v1.2",
            summary="Open-Sora 1.2: 1.1 billion parameters, 144p to 720p, up to 16 seconds",
            aliases=("opensora",),
            tasks=("t2v", "i2v", "extend", "t2i"),
            target="sora_plugins.stdit.stdit3:build",
            options="sora_plugins.stdit.options:STDiTOptions",
            variants={"XL/2": _stdit3(1152, 16), "3B/2": _stdit3(1872, 26)},
            weights={
                "XL/2": Weights(
                    repo="hpcai-tech/OpenSora-STDiT-v3",
                    files=("config.json", "model.safetensors"),
                    licence="Apache-2.0",
                    size_gib=4.5,
                )
            },
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
            rank=20,
            auto_memory_gib=12.0,
        )
    ]
