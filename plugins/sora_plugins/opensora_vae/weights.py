"""Loading the released autoencoder: a hub folder, another folder or a single file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sora_plugins.sd_vae.weights import modern_names

if TYPE_CHECKING:
    import torch

    from sora_cli.weights.locate import LocatedWeights

    from .model import VideoAutoencoder


def load(weights: LocatedWeights, device: torch.device, dtype: torch.dtype) -> VideoAutoencoder:
    """The autoencoder of these weights, of the sizes that the config.json beside them gives, by default the released.

    Raises SoraError for weights that do not fit. Built from the architecture alone: nothing else is downloaded.
    """
    from sora_cli.errors import SoraError
    from sora_cli.weights.load import load_network

    from .config import VideoAutoencoderConfig
    from .model import VideoAutoencoder

    try:
        config = VideoAutoencoderConfig.from_mapping(weights.config())
    except (TypeError, ValueError) as error:
        raise SoraError(f"the config.json in {weights.folder} describes no video autoencoder: {error}") from error
    network = load_network(
        lambda: VideoAutoencoder(config),
        weights,
        what="the video autoencoder",
        device=device,
        dtype=dtype,
        map_keys=modern_names,
    )
    assert isinstance(network, VideoAutoencoder)
    return network
