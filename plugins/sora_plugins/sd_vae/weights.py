"""Names in checkpoints written before the attention layers were renamed, and loading of the released files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from sora_cli.errors import SoraError
from sora_cli.plugin.specs import StartWeights

if TYPE_CHECKING:
    import torch
    from torch import nn

    from sora_cli.weights.locate import LocatedWeights

    from .model import FrameAutoencoder
    from .temporal_decoder import TemporalDecoderAutoencoder

RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(r"(.*\.attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)$")
_ATTENTION_WEIGHT = re.compile(r".*\.attentions\.\d+\.(to_q|to_k|to_v|to_out\.0)\.weight$")
#: In front of the names in files of training, whose network codes whole clips.
TRAINED = "module."
#: Scaling of latents where the configuration beside the weights does not name one.
DEFAULT_SCALING = 0.18215


def modern_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under today's names; attention weights kept as 1 x 1 convolutions lose their two last axes."""
    renamed = {}
    for name, tensor in tensors.items():
        name = name.removeprefix(TRAINED)
        match = _OLD.match(name)
        if match:
            name = f"{match[1]}.{RENAMED[match[2]]}.{match[3]}"
        if _ATTENTION_WEIGHT.match(name) and tensor.dim() == 4:
            tensor = tensor[:, :, 0, 0]
        renamed[name] = tensor
    return renamed


def build(config: Mapping[str, Any]) -> FrameAutoencoder:
    """A network to train. config: as a config.json; what it does not say is as released. Raises SoraError."""
    from .config import SpatialConfig
    from .model import FrameAutoencoder, SpatialAutoencoder

    try:
        spatial = SpatialAutoencoder(SpatialConfig.from_mapping(config))
    except (TypeError, ValueError) as error:
        raise SoraError(f"this configuration describes no spatial autoencoder: {error}") from error
    return FrameAutoencoder(spatial, float(config.get("scaling_factor", DEFAULT_SCALING)))


def start(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> StartWeights:
    """Tensors of a released file or of a training run, for the network that `build` makes."""
    return StartWeights({f"{TRAINED}{name}": tensor for name, tensor in modern_names(tensors).items()})


def build_temporal(config: Mapping[str, Any]) -> TemporalDecoderAutoencoder:
    """As `build` with the temporal decoder."""
    from .config import SpatialConfig
    from .temporal_decoder import TemporalDecoderAutoencoder, TemporalDecoderNetwork

    try:
        network = TemporalDecoderNetwork(SpatialConfig.from_mapping(config))
    except (TypeError, ValueError) as error:
        raise SoraError(f"this configuration describes no autoencoder with a temporal decoder: {error}") from error
    return TemporalDecoderAutoencoder(network, float(config.get("scaling_factor", DEFAULT_SCALING)))


def load(weights: LocatedWeights, device: torch.device, dtype: torch.dtype) -> FrameAutoencoder:
    """A per-frame autoencoder from a released folder or file. Raises SoraError for weights that do not fit."""
    return cast("FrameAutoencoder", _load(build, weights, "the spatial autoencoder", device, dtype))


def load_temporal(weights: LocatedWeights, device: torch.device, dtype: torch.dtype) -> TemporalDecoderAutoencoder:
    """As `load` with the temporal decoder."""
    what = "the autoencoder with a temporal decoder"
    return cast("TemporalDecoderAutoencoder", _load(build_temporal, weights, what, device, dtype))


def _load(
    make: Callable[[Mapping[str, Any]], nn.Module],
    weights: LocatedWeights,
    what: str,
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Module:
    from sora_cli.weights.load import load_network

    values = weights.config()
    return load_network(
        lambda: make(values),
        weights,
        what=what,
        device=device,
        dtype=dtype,
        map_keys=lambda tensors: dict(start(tensors, values).tensors),
    )
