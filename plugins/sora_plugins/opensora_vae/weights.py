"""Loading the released autoencoder: a hub folder, another folder or a single file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from sora_cli.plugin.specs import StartWeights
from sora_plugins.sd_vae.weights import modern_names

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sora_cli.weights.locate import LocatedWeights

    from .model import VideoAutoencoder


#: Pixels per side, frames, and channels of a latent, which its spec promises.
CODE = (8, 4, 4)
#: A key of every spatial autoencoder by itself.
SPATIAL_KEY = "encoder.conv_in.weight"


def build(config: Mapping[str, Any]) -> VideoAutoencoder:
    """A network to train. config: as a config.json; what it does not say is as released. Raises SoraError."""
    from sora_cli.errors import SoraError

    from .config import VideoAutoencoderConfig
    from .model import VideoAutoencoder

    try:
        sizes = VideoAutoencoderConfig.from_mapping(config)
    except (TypeError, ValueError) as error:
        raise SoraError(f"this configuration describes no video autoencoder: {error}") from error
    code = sizes.spatial.stride, sizes.temporal.time_factor, sizes.temporal.embed_dim
    if code != CODE:
        raise SoraError(
            f"this autoencoder codes {code[0]} x {code[0]} pixels and {code[1]} frames to {code[2]} numbers",
            hint=f"it must be {CODE[0]} x {CODE[0]} pixels and {CODE[1]} frames to {CODE[2]}, as models expect",
        )
    return VideoAutoencoder(sizes)


def start(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> StartWeights:
    """Tensors of this autoencoder, or of a spatial one by itself, to which the temporal part is then new."""
    tensors = modern_names(tensors)
    if SPATIAL_KEY not in tensors:
        return StartWeights(tensors)
    spatial = {f"spatial_vae.module.{name}": tensor for name, tensor in tensors.items()}
    return StartWeights(spatial, initial=("temporal_vae", "shift", "scale"))


def load(weights: LocatedWeights, device: torch.device, dtype: torch.dtype) -> VideoAutoencoder:
    """The autoencoder of these weights, of the sizes that the config.json beside them gives, by default the released.

    Raises SoraError for weights that do not fit. Built from the architecture alone: nothing else is downloaded.
    """
    from sora_cli.weights.load import load_network

    values = weights.config()
    network = load_network(
        lambda: build(values),
        weights,
        what="the video autoencoder",
        device=device,
        dtype=dtype,
        map_keys=modern_names,
    )
    return cast("VideoAutoencoder", network)
