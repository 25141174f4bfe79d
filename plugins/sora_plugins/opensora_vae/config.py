"""Configuration of the video autoencoder of Open-Sora 1.2; field names are those of the released config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sora_plugins.sd_vae.config import SpatialConfig

from .sizes import MICRO_FRAME_SIZE

Constants = float | tuple[float, ...]
#: Mean and deviation of the released autoencoder's latents per channel; they are in its checkpoint too.
SHIFT = (-0.10, 0.34, 0.27, 0.98)
SCALE = (3.85, 2.32, 2.33, 3.06)


@dataclass(frozen=True, kw_only=True)
class TemporalConfig:
    """Sizes of the temporal autoencoder, by default those released as VAE_Temporal_SD.

    filters x channel_multipliers: width of each level. temporal_downsample: whether the frames are halved after each
    level but the last. activation_fn: "swish" (SiLU) or "relu".
    """

    in_out_channels: int = 4
    latent_embed_dim: int = 4
    embed_dim: int = 4
    filters: int = 128
    num_res_blocks: int = 4
    channel_multipliers: tuple[int, ...] = (1, 2, 2, 4)
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    num_groups: int = 32
    activation_fn: str = "swish"

    def __post_init__(self) -> None:
        if self.activation_fn not in ("swish", "relu"):
            raise ValueError(f"activation_fn {self.activation_fn!r} must be swish or relu")
        if len(self.temporal_downsample) != len(self.channel_multipliers) - 1:
            raise ValueError(
                f"{len(self.channel_multipliers)} levels have {len(self.channel_multipliers) - 1} temporal_downsample "
                f"flags, not {len(self.temporal_downsample)}"
            )

    @property
    def time_factor(self) -> int:
        """Frames per latent frame."""
        return 2 ** sum(self.temporal_downsample)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> TemporalConfig:
        """Read `vae_temporal` of a config.json; keys that do not describe the network are ignored."""
        known = {each.name for each in fields(cls)}
        chosen: dict[str, Any] = {}
        for key, value in values.items():
            chosen[key] = tuple(value) if isinstance(value, list) else value
        return cls(**{key: value for key, value in chosen.items() if key in known})


@dataclass(frozen=True, kw_only=True)
class VideoAutoencoderConfig:
    """The spatial and the temporal autoencoder together.

    micro_frame_size: frames that are coded together, independently of all others; None codes a clip as a whole, which
    is another code, not a way to save memory. shift, scale: latents are (z - shift) / scale.
    """

    spatial: SpatialConfig = field(default_factory=SpatialConfig)
    temporal: TemporalConfig = field(default_factory=TemporalConfig)
    scaling_factor: float = 0.18215
    micro_frame_size: int | None = MICRO_FRAME_SIZE
    shift: Constants = SHIFT
    scale: Constants = SCALE

    def __post_init__(self) -> None:
        if self.micro_frame_size is not None and self.micro_frame_size < 1:
            raise ValueError(f"micro_frame_size {self.micro_frame_size} must be at least 1, or None")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> VideoAutoencoderConfig:
        """Read a config.json; what it does not say is as released.

        Its micro_frame_size is not read: the released models were trained and sampled with 17 whatever the file says,
        and another number is another code.
        A network of another size names its sizes in `vae_2d` or `vae_2d.architecture` (as the config.json of a spatial
        autoencoder does) and in `vae_temporal`.
        """
        spatial, temporal = dict(values.get("vae_2d") or {}), dict(values.get("vae_temporal") or {})
        chosen: dict[str, Any] = {}
        for name in ("shift", "scale"):
            if values.get(name) is not None:
                value = values[name]
                chosen[name] = tuple(map(float, value)) if isinstance(value, list | tuple) else float(value)
        if "scaling_factor" in spatial:
            chosen["scaling_factor"] = float(spatial["scaling_factor"])
        return cls(
            spatial=SpatialConfig.from_mapping({**spatial, **(spatial.get("architecture") or {})}),
            temporal=TemporalConfig.from_mapping(temporal),
            **chosen,
        )
