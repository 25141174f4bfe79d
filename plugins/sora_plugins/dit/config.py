"""Architecture of the image-family networks: DiT and Latte, and PixArt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from sora_cli.errors import SoraError

#: How keys and values are chosen where there are to be fewer.
SAMPLINGS = ("conv", "uniform", "ave", "uniform_every")

Config = TypeVar("Config", bound="BackboneConfig")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """What the networks have in common. Field names are those of the reference's constructors.

    class_dropout_prob: how often training takes the condition away. no_temporal_pos_emb: whether frames get no position
    of their own. caption_channels: width of the text features.
    """

    in_channels: int = 4
    patch_size: tuple[int, int, int] = (1, 2, 2)
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    class_dropout_prob: float = 0.1
    no_temporal_pos_emb: bool = False
    caption_channels: int = 4096

    def __post_init__(self) -> None:
        counts = (self.in_channels, *self.patch_size, self.hidden_size, self.depth, self.num_heads)
        if len(self.patch_size) != 3 or not all(isinstance(count, int) and count > 0 for count in counts):
            raise ValueError("sizes, depth and heads must be whole numbers above 0, and a patch has three sizes")
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} must be divisible by num_heads {self.num_heads} and by 4")

    @classmethod
    def from_mapping(cls: type[Config], values: Mapping[str, Any]) -> Config:
        """Read a config.json; keys that say nothing about the network, such as the number format, are ignored.

        Raises SoraError for values that make no network.
        """
        chosen = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        try:
            if "patch_size" in chosen:
                chosen["patch_size"] = tuple(chosen["patch_size"])
            return cls(**chosen)
        except (TypeError, ValueError) as error:
            raise SoraError(
                f"this is no configuration of a {cls.__name__.removesuffix('Config')}: {error}",
                hint="look into config.json",
            ) from error


@dataclass(frozen=True, kw_only=True)
class DiTConfig(BackboneConfig):
    """Sizes of a DiT or Latte.

    condition: "label_K" for K classes, or "text" for one vector of text per sample. learn_sigma: whether the output has
    2 * in_channels channels, the second half for the variance.
    """

    condition: str = "text"
    learn_sigma: bool = True
    caption_channels: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.condition != "text" and not self.condition.rpartition("_")[2].isdecimal():
            raise ValueError(f'condition {self.condition!r} is neither "text" nor "label_" and a number of classes')

    @property
    def num_classes(self) -> int | None:
        """Of a network of classes; None when the condition is text."""
        return None if self.condition == "text" else int(self.condition.rpartition("_")[2])


def dit_text_width(config: Mapping[str, Any]) -> int:
    """Numbers of the text of a sample that a DiT or Latte reads, 1 for classes. config: as in a config.json."""
    is_text = config.get("condition", DiTConfig.condition) == "text"
    return int(config.get("caption_channels", DiTConfig.caption_channels)) if is_text else 1


@dataclass(frozen=True, kw_only=True)
class PixArtConfig(BackboneConfig):
    """Sizes of a PixArt.

    model_max_length: rows of the "no text" table. pred_sigma: whether the output has 2 * in_channels channels, the
    second half for the variance. drop_path: of the last block in training, rising from 0. space_scale, time_scale:
    what positions are divided by. base_size: side in latent pixels of the square whose positions are unscaled; None
    takes the square with as many tokens as the picture. has_size_conditions: the network is told the size in pixels and
    the aspect ratio of pictures (PixArt-MS). qk_norm, kv_compress_config: of PixArt-Sigma, which no released weights
    use: queries and keys are normed; the blocks `kv_compress_layer` have fewer keys and values, chosen by `sampling`
    (one of SAMPLINGS): one in every `scale_factor` along each side, or of the whole sequence with "uniform_every".
    """

    model_max_length: int = 120
    pred_sigma: bool = True
    drop_path: float = 0.0
    space_scale: float = 1.0
    time_scale: float = 1.0
    base_size: int | None = None
    has_size_conditions: bool = False
    qk_norm: bool = False
    kv_compress_config: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        compress = self.kv_compress_config or {}
        if compress.get("scale_factor", 1) > 1 and compress.get("sampling") not in SAMPLINGS:
            raise ValueError(f"kv_compress_config needs as sampling one of {', '.join(SAMPLINGS)}")
        if self.has_size_conditions and self.hidden_size % 3:
            raise ValueError(f"hidden_size {self.hidden_size} must be divisible by 3 for size conditions")

    def compression(self, block: int) -> tuple[str, int] | None:
        """How keys and values of a block are chosen, and of how many along a side one is kept; None when all are."""
        compress = self.kv_compress_config or {}
        if block not in compress.get("kv_compress_layer", ()) or compress.get("scale_factor", 1) == 1:
            return None
        return compress["sampling"], compress["scale_factor"]

    def base(self, rows: int, columns: int) -> int:
        """Tokens along the square whose positions are unscaled."""
        return math.isqrt(rows * columns) if self.base_size is None else self.base_size // self.patch_size[1]
