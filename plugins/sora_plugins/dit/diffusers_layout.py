"""PixArt and DiT as diffusers keeps them: names and shapes of tensors, and the fields of config.json.

Both are read, and PixArt is written. The DiT of diffusers turns timesteps into other frequencies than the original, so
that the same weights give another result there; its Latte is Latte-1, another network than the one of classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sora_cli.errors import SoraError

from .config import PixArtConfig

if TYPE_CHECKING:
    from torch import Tensor

PIXART_CLASS = "PixArtTransformer2DModel"
#: What only files of diffusers have.
PATCH = "pos_embed.proj.weight"
#: Tensors of PixArt that are no module's, here and there. diffusers takes the encoded empty prompt instead of the table
#: of "no text", which the published files of PixArt-alpha keep all the same, and those of PixArt-Sigma do not.
TENSORS = {
    "final_layer.scale_shift_table": "scale_shift_table",
    "y_embedder.y_embedding": "caption_projection.y_embedding",
}
#: Modules of PixArt, here and there; those of blocks without their number.
MODULES = {
    "x_embedder.proj": "pos_embed.proj",
    "y_embedder.y_proj.fc1": "caption_projection.linear_1",
    "y_embedder.y_proj.fc2": "caption_projection.linear_2",
    "t_embedder.mlp.0": "adaln_single.emb.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "adaln_single.emb.timestep_embedder.linear_2",
    "csize_embedder.mlp.0": "adaln_single.emb.resolution_embedder.linear_1",
    "csize_embedder.mlp.2": "adaln_single.emb.resolution_embedder.linear_2",
    "ar_embedder.mlp.0": "adaln_single.emb.aspect_ratio_embedder.linear_1",
    "ar_embedder.mlp.2": "adaln_single.emb.aspect_ratio_embedder.linear_2",
    "t_block.1": "adaln_single.linear",
    "final_layer.linear": "proj_out",
    "attn.proj": "attn1.to_out.0",
    "cross_attn.q_linear": "attn2.to_q",
    "cross_attn.proj": "attn2.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
#: Modules that hold several of diffusers', one below the other.
JOINED = {
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "cross_attn.kv_linear": ("attn2.to_k", "attn2.to_v"),
}
#: Of DiT, from there to here. Every block has its own copy of what sees timestep and class.
DIT_MODULES = {
    "norm1.linear": "adaLN_modulation.1",
    "proj_out_1": "final_layer.adaLN_modulation.1",
    "proj_out_2": "final_layer.linear",
}
DIT_COPIES = {
    "norm1.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "norm1.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "norm1.emb.class_embedder.embedding_table": "y_embedder.embedding_table",
}
_BLOCK = re.compile(r"(?:transformer_)?(blocks\.\d+\.)(.+)")
_HERE = {theirs: ours for ours, theirs in MODULES.items()} | DIT_MODULES
_TENSORS_HERE = {theirs: ours for ours, theirs in TENSORS.items()}
_PARTS = {part: (ours, parts) for ours, parts in JOINED.items() for part in parts}


def is_diffusers(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the tensors of a PixArt or DiT as diffusers names them."""
    return PATCH in tensors


def from_diffusers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a PixArt or DiT of diffusers under the names of the released files; others as they are.

    Patches stay flat. Raises SoraError for a DiT whose blocks see timestep or
    class differently, as only one trained with diffusers can.
    """
    import torch

    if not is_diffusers(tensors):
        return dict(tensors)
    made: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        block, module, kind = _split(name)
        if name == "pos_embed.pos_embed":  # the table of positions, in old files
            continue
        if name in _TENSORS_HERE:
            made[_TENSORS_HERE[name]] = tensor
        elif module in _PARTS:
            parts.setdefault(f"{block}{_PARTS[module][0]}.{kind}", {})[module] = tensor
        elif module in DIT_COPIES:
            _take_copy(made, f"{DIT_COPIES[module]}.{kind}", tensor)
        else:
            made[_joined(block, _HERE.get(module, module), kind)] = tensor
    for name, found in parts.items():
        wanted = JOINED[_split(name)[1]]
        if len(found) == len(wanted):  # what is missing is said where the names are checked
            made[name] = torch.cat([found[part] for part in wanted])
    return made


def write_pixart(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and tensors of a PixArt for diffusers. config: of the network, as its config.json.

    Raises SoraError for a network that diffusers' class is not.
    """
    made: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        block, module, kind = _split(name)
        block = f"transformer_{block}" if block else ""
        if name in TENSORS:
            made[TENSORS[name]] = tensor
        elif module in JOINED:
            pieces = tensor.chunk(len(JOINED[module]))
            made |= {f"{block}{part}.{kind}": piece for part, piece in zip(JOINED[module], pieces, strict=True)}
        else:
            made[_joined(block, MODULES.get(module, module), kind)] = tensor
    made[PATCH] = made[PATCH][:, :, 0]
    return _pixart_config(config), made


def read_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a PixArt or DiT here out of diffusers' config.json. Raises SoraError for other networks."""
    name = str(values.get("_class_name"))
    kind = values.get(
        "norm_type", {PIXART_CLASS: "ada_norm_single", "DiTTransformer2DModel": "ada_norm_zero"}.get(name)
    )
    try:
        heads, patch, channels = (values[key] for key in ("num_attention_heads", "patch_size", "in_channels"))
        shared = {
            "in_channels": channels,
            "patch_size": [1, patch, patch],
            "hidden_size": heads * values["attention_head_dim"],
            "depth": values["num_layers"],
            "num_heads": heads,
            "mlp_ratio": 4.0,
        }
        predicts_variance = (values.get("out_channels") or channels) == 2 * channels
        if kind == "ada_norm_zero":
            classes = values["num_embeds_ada_norm"]
            return {**shared, "condition": f"label_{classes}", "learn_sigma": predicts_variance}
        if kind != "ada_norm_single":
            raise SoraError(f"config.json is of a {name} of diffusers, which is neither PixArt nor DiT")
        side, scale = values["sample_size"], values.get("interpolation_scale")
        knows_sizes = values.get("use_additional_conditions")
        return {
            **shared,
            "caption_channels": values["caption_channels"],
            "pred_sigma": predicts_variance,
            "base_size": side,
            "space_scale": float(max(side // 64, 1) if scale is None else scale),
            "has_size_conditions": side == 128 if knows_sizes is None else knows_sizes,
        }
    except (KeyError, TypeError) as error:
        raise SoraError(f"config.json is of a {name} of diffusers, but incomplete: {error}") from error


def _pixart_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """What diffusers builds the network from."""
    config = PixArtConfig.from_mapping(values)
    side = config.base_size or list(values.get("input_size", (None,)))[-1]
    for what in _foreign(config, side):
        raise SoraError(f"diffusers has no PixArt {what}")
    width, channels = config.hidden_size, config.in_channels
    return {
        "_class_name": PIXART_CLASS,
        "num_attention_heads": config.num_heads,
        "attention_head_dim": width // config.num_heads,
        "in_channels": channels,
        "out_channels": 2 * channels if config.pred_sigma else channels,
        "num_layers": config.depth,
        "cross_attention_dim": width,
        "sample_size": side,
        "patch_size": config.patch_size[1],
        "interpolation_scale": config.space_scale,
        "use_additional_conditions": config.has_size_conditions,
        "caption_channels": config.caption_channels,
        "norm_type": "ada_norm_single",
        "norm_eps": 1e-6,
    }


def _foreign(config: PixArtConfig, side: int | None) -> list[str]:
    """What of a network diffusers' class has not."""
    frames, rows, columns = config.patch_size
    found = {
        "of clips: set no_temporal_pos_emb": not config.no_temporal_pos_emb,
        f"with patches of {frames} x {rows} x {columns}": frames != 1 or rows != columns,
        f"with an mlp_ratio of {config.mlp_ratio:g}, only of 4": int(config.hidden_size * config.mlp_ratio)
        != 4 * config.hidden_size,
        "with normed queries and keys as here": config.qk_norm,
        "with fewer keys and values": any(config.compression(block) for block in range(config.depth)),
        "without a base of positions: config.json needs base_size or input_size": side is None,
    }
    return [what for what, is_so in found.items() if is_so]


def _split(name: str) -> tuple[str, str, str]:
    """ "blocks.3.", "attn.proj", "weight" of a name here or there; the first is empty outside of blocks."""
    match = _BLOCK.match(name)
    block, rest = (match[1], match[2]) if match else ("", name)
    module, _, kind = rest.rpartition(".")
    return block, module, kind


def _joined(block: str, module: str, kind: str) -> str:
    return f"{block}{module}.{kind}" if module else f"{block}{kind}"


def _take_copy(made: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    import torch

    if name in made and not torch.equal(made[name], tensor):
        raise SoraError(f"the blocks of this DiT have different {name}, and the network here has one for all")
    made[name] = tensor
