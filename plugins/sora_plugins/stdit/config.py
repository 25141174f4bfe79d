"""Architecture of the STDiT family and the options that only these models have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from sora_cli.errors import SoraError

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes that all networks of the family have. Field names are those of the released config.json.

    caption_channels, model_max_length: width and number of rows of the "no text" table. class_dropout_prob, drop_path:
    used in training only. pred_sigma: the output has 2 * in_channels channels, the second half for the variance.
    """

    family: ClassVar[str]
    """What config.json calls the network."""

    in_channels: int = 4
    patch_size: tuple[int, int, int] = (1, 2, 2)
    hidden_size: int = 1152
    depth: int = 28
    num_heads: int = 16
    mlp_ratio: float = 4.0
    caption_channels: int = 4096
    model_max_length: int = 120
    class_dropout_prob: float = 0.1
    pred_sigma: bool = True
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads or self.hidden_size % 4:
            raise ValueError(f"hidden_size {self.hidden_size} must be divisible by num_heads {self.num_heads} and by 4")
        if (self.hidden_size // self.num_heads) % 2:
            raise ValueError(f"head width {self.hidden_size // self.num_heads} must be even for rotary positions")

    def drop_rates(self) -> list[float]:
        """Rates of stochastic depth, growing from 0 at the first block to `drop_path` at the last."""
        return [self.drop_path * index / max(self.depth - 1, 1) for index in range(self.depth)]

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Read a released config.json; keys that describe software rather than the network are ignored.

        Raises SoraError for the configuration of another network and for values that make no network.
        """
        family = values.get("model_type", cls.family)
        if family != cls.family:
            raise SoraError(
                f"the weights are of a network called {family!r}, not of {cls.family}",
                hint="config.json beside the weights says so; give weights of the model that -m names",
            )
        chosen = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        if isinstance(chosen.get("patch_size"), list):
            chosen["patch_size"] = tuple(chosen["patch_size"])
        wrong = [name for name, value in chosen.items() if not _is_like(value, getattr(cls, name))]
        if wrong:
            given = ", ".join(f"{name} {chosen[name]!r}" for name in wrong)
            raise SoraError(f"this is no configuration of an {cls.family}: {given}", hint="look into config.json")
        try:
            return cls(**chosen)
        except ValueError as error:
            raise SoraError(
                f"this is no configuration of an {cls.family}: {error}", hint="look into config.json"
            ) from error


@dataclass(frozen=True, kw_only=True)
class STDiTConfig(NetworkConfig):
    """Sizes of an STDiT. space_scale, time_scale: positions in a frame and of frames are divided by them."""

    family: ClassVar[str] = "STDiT"

    space_scale: float = 1.0
    time_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.space_scale > 0 and self.time_scale > 0):
            raise ValueError(f"space_scale {self.space_scale} and time_scale {self.time_scale} must be above 0")


@dataclass(frozen=True, kw_only=True)
class STDiT2Config(NetworkConfig):
    """Sizes of an STDiT2. input_sq_size: as of STDiT3.

    qk_norm_legacy: rotary positions come before the norms of queries and keys. So the released weights were trained,
    whose config.json is older than the key.
    """

    family: ClassVar[str] = "STDiT2"

    input_sq_size: int = 32
    qk_norm: bool = False
    qk_norm_legacy: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden_size % 3:
            raise ValueError(f"hidden_size {self.hidden_size} must be divisible by 3")


@dataclass(frozen=True, kw_only=True)
class STDiT3Config(NetworkConfig):
    """Sizes of an STDiT3. input_sq_size: side in pixels of the square whose positions are unscaled.

    skip_y_embedder: the caller passes projected, packed text.
    """

    family: ClassVar[str] = "STDiT3"

    model_max_length: int = 300
    input_sq_size: int = 512
    qk_norm: bool = True
    skip_y_embedder: bool = False


def text_width(config: Mapping[str, Any]) -> int:
    """Numbers of each token of text that a network of the family reads. config: as in a config.json."""
    return int(config.get("caption_channels", NetworkConfig.caption_channels))


def _is_like(value: Any, example: Any) -> bool:
    """Whether a value of config.json is of the kind of a field's default, and possible as a count."""
    if isinstance(example, bool):
        return isinstance(value, bool)
    if isinstance(example, tuple):
        return isinstance(value, tuple) and len(value) == len(example) and all(_is_like(one, 1) for one in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value >= 0 if isinstance(example, float) else isinstance(value, int) and value >= 1
