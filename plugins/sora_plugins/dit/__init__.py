"""The image-family networks: DiT and Latte of classes or captions, PixArt-alpha and PixArt-Sigma of text."""

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
#: What DiT and Latte share.
LABELS: dict[str, Any] = {**XL_2, "learn_sigma": True}
#: The same, of captions as CLIP encodes them.
CAPTIONS: dict[str, Any] = {**LABELS, "condition": "text", "caption_channels": 512}
#: What the networks of PixArt share.
PIXART: dict[str, Any] = {**XL_2, "caption_channels": 4096, "pred_sigma": True, "drop_path": 0.0}
DIT_MEMORY, PIXART_MEMORY = "sora_plugins.dit.memory:dit_memory", "sora_plugins.dit.memory:pixart_memory"
#: `-m auto` never takes these before a model of any prompt.
RANK = -1
#: Of networks of which no weights were released.
OWN_PAGE, NOT_YET = "own-weights.md", "nothing yet: the weights are your own"


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
        variants={VARIANT: {**LABELS, "condition": "label_1000", "no_temporal_pos_emb": True}},
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
        memory=DIT_MEMORY,
        rank=RANK,
    )


def _latte() -> ModelSpec:
    return ModelSpec(
        name="latte-ucf101",
        summary="Latte-XL/2: clips of the 101 actions of UCF101, 16 frames of 256x256",
        tasks=("t2v", "t2i"),
        target="sora_plugins.dit.latte:build",
        variants={VARIANT: {**LABELS, "condition": "label_101"}},
        weights={VARIANT: Weights(repo="maxin-cn/Latte", files=("ucf101.pt",), size_gib=2.5)},
        scheduler="iddpm",
        vae="sd-vae-ft-ema",
        text_encoder="ucf101-classes",
        constraints=_constraints("256", 256, frames=16),
        load="sora_plugins.dit.weights:map_tensors",
        start="sora_plugins.dit.weights:start_dit",
        text_width="sora_plugins.dit.config:dit_text_width",
        readme="sora_plugins.dit:latte-ucf101.md",
        memory=DIT_MEMORY,
        rank=RANK,
    )


def _of_captions(name: str, network: str, summary: str, variants: dict[str, dict[str, Any]]) -> ModelSpec:
    """A network of captions that everybody trains for himself."""
    return ModelSpec(
        name=name,
        summary=summary,
        tasks=("t2v", "t2i"),
        target=f"sora_plugins.dit.{network}:build",
        variants=variants,
        scheduler="dpm-solver",
        vae="sd-vae-ft-ema",
        text_encoder="clip-vit-base-patch32",
        constraints=Constraints(spatial_multiple=16, trained=NOT_YET),
        load="sora_plugins.dit.weights:map_tensors",
        start="sora_plugins.dit.weights:start_dit",
        memory=DIT_MEMORY,
        text_width="sora_plugins.dit.config:dit_text_width",
        readme=f"sora_plugins.dit:{OWN_PAGE}",
        rank=RANK,
    )


def _pixart(
    name: str, summary: str, variants: dict[str, dict[str, Any]], *, page: str = OWN_PAGE, **more: Any
) -> ModelSpec:
    return ModelSpec(
        name=name,
        summary=summary,
        target="sora_plugins.dit.pixart:build",
        options="sora_plugins.dit.options:PixArtOptions",
        variants={variant: {**PIXART, **config} for variant, config in variants.items()},
        scheduler="dpm-solver",
        load="sora_plugins.dit.weights:map_tensors",
        start="sora_plugins.dit.weights:start_pixart",
        diffusers="sora_plugins.dit.diffusers_layout:write_pixart",
        diffusers_config="sora_plugins.dit.diffusers_layout:read_config",
        memory=PIXART_MEMORY,
        text_width="sora_plugins.stdit.config:text_width",
        readme=f"sora_plugins.dit:{page}",
        rank=RANK,
        **more,
    )


def _pictures(
    name: str,
    resolution: str,
    side: int,
    repo: str,
    files: dict[str, str],
    *,
    vae: str,
    text_encoder: str,
    **config: Any,
) -> ModelSpec:
    """A released PixArt. files: of each variant."""
    family = "Sigma" if "sigma" in name else "alpha"
    return _pixart(
        name,
        f"PixArt-{family}: pictures of any text, about {side}x{side}",
        {variant: {"no_temporal_pos_emb": True, **config} for variant in files},
        tasks=("t2i",),
        weights={
            variant: Weights(repo=repo, files=(file,), licence=RAIL, size_gib=2.3) for variant, file in files.items()
        },
        vae=vae,
        text_encoder=text_encoder,
        constraints=_constraints(resolution, side),
        page=f"pixart-{family.lower()}.md",
    )


def _alpha(side: int, file: str, sam: str | None = None, **config: Any) -> ModelSpec:
    """sam: file of weights that saw the pictures of SAM, before those of high quality."""
    files = {VARIANT: file, **({"SAM": sam} if sam else {})}
    config = {"model_max_length": 120, **config}
    return _pictures(
        f"pixart-alpha-{side}",
        str(side),
        side,
        "PixArt-alpha/PixArt-alpha",
        files,
        vae="sd-vae-ft-ema",
        text_encoder="t5-v1.1-xxl-120",
        **config,
    )


def _sigma(size: str, file: str, side: int, space_scale: float) -> ModelSpec:
    config = {"model_max_length": 300, "space_scale": space_scale, "base_size": side // 8}
    return _pictures(
        f"pixart-sigma-{size}",
        str(side),
        side,
        "PixArt-alpha/PixArt-Sigma",
        {VARIANT: file},
        vae="sdxl-vae",
        text_encoder="t5-v1.1-xxl",
        **config,
    )


def _own() -> list[ModelSpec]:
    """The networks of which no weights were released."""
    return [
        _of_captions(
            "dit-text",
            "dit",
            "DiT-XL/2 of captions: clips or pictures, with weights of your own",
            {"video": CAPTIONS, "image": {**CAPTIONS, "no_temporal_pos_emb": True}},
        ),
        _of_captions(
            "latte-text", "latte", "Latte-XL/2 of captions: clips, with weights of your own", {VARIANT: CAPTIONS}
        ),
        _pixart(
            "pixart-video",
            "PixArt-alpha of clips: any text, with weights of your own",
            {
                "16x256": {"model_max_length": 120, "space_scale": 0.5},
                "64x256": {"model_max_length": 120, "time_scale": 2 / 3},
            },
            tasks=("t2v", "t2i"),
            vae="sd-vae-ft-ema",
            text_encoder="t5-v1.1-xxl-120",
            constraints=Constraints(spatial_multiple=16, trained=NOT_YET),
        ),
        _pixart(
            "pixart-1b",
            "PixArt of 1.5 billion parameters: pictures of about 2048x2048, with weights of your own",
            {
                "1B/2": {
                    "hidden_size": 1872,
                    "num_heads": 26,
                    "model_max_length": 300,
                    "space_scale": 4.0,
                    "base_size": 256,
                    "no_temporal_pos_emb": True,
                }
            },
            tasks=("t2i",),
            vae="sdxl-vae",
            text_encoder="t5-v1.1-xxl",
            constraints=Constraints(spatial_multiple=16, max_frames=1, trained=NOT_YET),
        ),
    ]


@hookimpl
def sora_models() -> list[ModelSpec]:
    """The released models."""
    return [
        _dit(256),
        _dit(512),
        _latte(),
        _alpha(256, "PixArt-XL-2-256x256.pth", "PixArt-XL-2-SAM-256x256.pth", input_size=(1, 32, 32)),
        _alpha(512, "PixArt-XL-2-512x512.pth", input_size=(1, 64, 64)),
        _alpha(1024, "PixArt-XL-2-1024-MS.pth", space_scale=2.0, base_size=128, has_size_conditions=True),
        _sigma("256", "PixArt-Sigma-XL-2-256x256.pth", 256, 0.5),
        _sigma("512", "PixArt-Sigma-XL-2-512-MS.pth", 512, 1.0),
        _sigma("1024", "PixArt-Sigma-XL-2-1024-MS.pth", 1024, 2.0),
        _sigma("2k", "PixArt-Sigma-XL-2-2K-MS.pth", 2048, 4.0),
        *_own(),
    ]
