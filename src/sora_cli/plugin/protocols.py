"""What the implementations named in specs look like. Everywhere: B batch, C channels, T frames, H height, W width.

Pixels are float in [-1, 1]; latents are scaled so that the model sees about unit variance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from sora_cli.errors import MissingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from sora_cli.video.shapes import Size


class TextEmbedding(NamedTuple):
    """Encoded prompts. embeddings: (n, 1, L, D); mask: (n, L) int64, 1 for real tokens, at least one per row."""

    embeddings: Tensor
    mask: Tensor


class TextEncoder(Protocol):
    """Turns prompts into embeddings.

    Models, autoencoders and text encoders may have `to(device)`, which lets them leave the device while unused
    (`--offload model`), and `blocks() -> Sequence[torch.nn.Module]`, their large parts in the order in which they run
    (`--offload block`).
    """

    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        """Encode n prompts, already carrying score text; the encoder does its own cleaning.

        An encoder that reads only so much of a prompt says how much is left out, so that the user can be told, with
        `tokens_cut(prompt: str) -> int`.
        """
        ...


class ClassNames(Protocol):
    """The classes that a text encoder takes as prompts."""

    names: Sequence[str] | None
    """The names of each class, by number; None when only numbers are known."""

    def class_of(self, prompt: str) -> int:
        """The number of the class that a prompt gives. Raises UsageError when there is no such class, or several."""
        ...


class VideoAutoencoder(Protocol):
    """Between pixels (B, 3, T, H, W) in [-1, 1] and latents (B, C, t, h, w), scaling included.

    `encode` takes two more options where the spec says so: `sample: bool` with `is_sampled`, to draw the latents or
    take their mean, and `continues: bool` with `leading_frames`, true for pieces behind the first. In training, pixels
    come in the number format that is trained in, such as bfloat16.

    For `sora vae` it may have `unscaled(latents)`, latents before scaling; `reconstruct_frames(pixels, *, sample)`, the
    part that codes single frames by itself; and `set_memory_mode("plain" | "low" | "tiled")`, where "low" needs less
    memory for the same result to rounding, and "tiled" the least for a result that is not exact.
    """

    def encode(self, pixels: Tensor) -> Tensor:
        """Latents of a clip or an image (T = 1)."""
        ...

    def decode(self, latents: Tensor, num_frames: int, *, frames_at_once: int | None = None) -> Iterator[Tensor]:
        """Pixels as consecutive pieces (B, 3, some frames, H, W), `num_frames` frames together, in bounded memory.

        frames_at_once: about how many frames are decoded together, None for the autoencoder's own choice. It changes
        speed and memory, and the result by no more than rounding.
        """
        ...


class Reconstruction(NamedTuple):
    """What training an autoencoder compares. Latents are raw: no shift, no scale.

    pixels (B, 3, T, H, W), None where they were not asked for; latents: of the clip; posteriors: distributions with
    `kl() -> (rows,)`, one for each part that is coded alone. Autoencoders in two stages, first frames, then time, have
    frame_latents, reconstructed latents of all frames, and encoded_frames, what those should be.
    """

    pixels: Tensor | None
    latents: Tensor
    posteriors: tuple[Any, ...] = ()
    frame_latents: Tensor | None = None
    encoded_frames: Tensor | None = None


class TrainableAutoencoder(Protocol):
    """A network that `VAESpec.train` builds; `blocks()`, its large parts, can be computed again to save memory.

    pixel_parts: names of modules that only decoding to pixels uses. has_frame_latents: whether there are two stages.
    """

    pixel_parts: tuple[str, ...]
    has_frame_latents: bool

    def __call__(
        self, pixels: Tensor, *, generator: Any = None, sample: bool = True, decodes_pixels: bool = True
    ) -> Reconstruction:
        """Encode and decode (B, 3, T, H, W) with gradients. generator: of what is drawn; sample=False takes means."""
        ...

    def last_layer(self) -> Tensor:
        """The weight where the pulls of reconstruction and discriminator are compared."""
        ...


class Metric(Protocol):
    """Compares videos with their originals, and can do so piece by piece.

    overlap: how many frames of the piece before have to come again in front of a piece (1 for measures of motion).
    """

    overlap: int

    def __call__(self, reference: Tensor, video: Tensor) -> Tensor:
        """Values (B, T - overlap) of videos (B, 3, T, H, W) in [0, 1]. Raises ValueError for too small ones."""
        ...


class SingleMetric(Protocol):
    """Looks at videos by themselves, piece by piece. overlap: as of `Metric`."""

    overlap: int

    def __call__(self, video: Tensor) -> Tensor:
        """Values (B, T - overlap) of videos (B, 3, T, H, W) in [0, 1]. Raises ValueError for too small ones."""
        ...


class FeatureSet(Protocol):
    """Features of a set of videos, or what of them a distance needs; `len` says how many were added."""

    def __len__(self) -> int: ...

    def add(self, features: Tensor) -> None:
        """Features (n, D) of one video."""
        ...


class DistributionMetric(Protocol):
    """Compares two sets of videos by features of all of them.

    piece_frames: frames that one feature is made of, 1 for single frames; what is left over at the end of a video is
    not looked at. wanted: features of each set below which the distance says little.
    """

    piece_frames: int
    wanted: int

    def features(self, video: Tensor) -> Tensor:
        """Features (n, D) on the CPU of n pieces of a video (1, 3, n * piece_frames, H, W) in [0, 1]."""
        ...

    def new_set(self) -> FeatureSet:
        """A set without features."""
        ...

    def distance(self, reference: Any, videos: Any) -> float:
        """How far two sets, which `new_set` gave, are from each other. Raises ValueError for too few features."""
        ...


class ScoringSettings(NamedTuple):
    """What a scoring back end is loaded with.

    suite: "t2v" or "i2v"; suite_file: the prompts, as the user gave them; mode: "standard" or "custom", clips by any
    name; device: a name, or "auto"; weights: part -> file that the user gave; python: of an environment of its own,
    where the back end runs in one; images: folder of the pictures of i2v, with its four crops; resize: of frames before
    their quality is measured.
    """

    suite: Literal["t2v", "i2v"]
    suite_file: Path | None = None
    mode: Literal["standard", "custom"] = "standard"
    device: str = "auto"
    gpus: int = 1
    weights: Mapping[str, str] = {}
    python: Path | None = None
    images: Path | None = None
    resize: str = "longer"


class ScoringJob(NamedTuple):
    """One dimension to score.

    entries: objects of the suite, or made for the clips of the custom mode, each with its `video_list`; folder: where
    the results are written; crop: of the i2v pictures, None for t2v.
    """

    dimension: str
    entries: Sequence[Mapping[str, Any]]
    folder: Path
    crop: str | None = None


class ScoringBackend(Protocol):
    """Scores clips by dimensions. suite_file: the prompts that the back end brings with it, None without."""

    suite_file: Path | None

    def missing(self, dimension: str) -> MissingError | None:
        """What is missing to score a dimension, with what to do about it; None when all is there."""
        ...

    def score(self, jobs: Sequence[ScoringJob]) -> None:
        """Score, and write the files of each dimension (`evaluation.vbench_results.write_results`) when it is done.

        One that is interrupted goes on where it was. Raises SoraError when dimensions failed, after all were tried.
        """
        ...


class Cutter(Protocol):
    """Finds the scenes of a video. is_rough: small frames need not be exact, see `data.analysis.analyse`."""

    is_rough: bool

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the small frames that it looks at, of a video's."""
        ...

    def scenes(self, frames: Iterator[NDArray[np.uint8]], fps: float) -> list[tuple[int, int]]:
        """(first frame, frame after the last) of each scene, of all frames (h, w, 3) of a video in order."""
        ...


class ClipFrames(NamedTuple):
    """What a scorer is shown of a clip.

    frames: (N, H, W, 3) uint8 RGB, upright, one for each index that the scorer asked for, in that order, repeated where
    it asked twice; times: (N,) of each, in seconds. num_frames: of the whole clip, 1 for a picture; fps: 0 where it has
    none; text: its caption, None or empty without one.
    """

    frames: NDArray[np.uint8]
    times: NDArray[np.float64]
    num_frames: int
    fps: float
    text: str | None = None


#: Column -> value, None where there is nothing to score; the key "reason" then says why, in words.
Scores = dict[str, "float | str | None"]


class Scorer(Protocol):
    """Gives clips the values of the columns that its spec names (DataToolSpec)."""

    def frames(self, num_frames: int, fps: float) -> list[int]:
        """The indices of the frames that it wants to see of a clip; pure and quick. fps: 0 for a picture."""
        ...

    def score(self, clips: Sequence[ClipFrames]) -> list[Scores]:
        """The scores of any number of clips, in their order; their sizes may differ. It chooses how many at a time."""
        ...


class Interpolator(Protocol):
    """Makes frames between two frames."""

    def between(self, first: NDArray[np.uint8], second: NDArray[np.uint8], doublings: int) -> list[NDArray[np.uint8]]:
        """The 2^doublings - 1 frames between two of (H, W, 3) RGB, evenly spaced in time, first to second."""
        ...


class Upscaler(Protocol):
    """Enlarges frames, each by itself."""

    def __call__(self, frames: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
        """Frames (T, H, W, 3) RGB in this height and width, in memory that grows with the result only."""
        ...


class CaptionQuestion(NamedTuple):
    """What a captioner is asked: words, and frames (H, W, 3) uint8 RGB of a clip in the order of time.

    fields: names of the strings of the JSON object that is wanted; empty for plain text.
    """

    text: str
    frames: Sequence[NDArray[np.uint8]] = ()
    fields: Sequence[str] = ()


class CaptionAnswer(NamedTuple):
    """An answer as the model gave it, or None with the reason why there is none.

    is_cut: it ends where its longest length was reached. requests, tokens: what it took, 0 where that is not known.
    """

    text: str | None
    reason: str | None = None
    is_cut: bool = False
    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0


class Captioner(Protocol):
    """A model that answers questions about clips. A remote one (DataToolSpec) is called by several threads at once.

    Options of it that others look at, where it has them: `model`; `in_flight`, threads; `batch_size`, questions at a
    time; `tensor_parallel`, GPUs of one process; `price_prompt` and `price_answer`, of a million tokens.
    """

    def __call__(self, questions: Sequence[CaptionQuestion]) -> Sequence[CaptionAnswer]:
        """An answer to each. Raises StopError when no question can be answered any more."""
        ...


class DiffusionModel(Protocol):
    """The network. Called with x (B, C, T, H, W), timestep (B,), y (B, 1, L, D) and the conditioning by keyword.

    It may have `blocks()`, see `TextEncoder`; training needs them for LoRA without targets, Muon and compilation, and
    to compute them again for less memory. And it may have `encode_text(y, mask)`: what it returns is given as y at
    every step, with mask None, so that the part that only sees the text runs once.
    """

    def __call__(self, x: Tensor, timestep: Tensor, y: Tensor, **conditioning: Any) -> Tensor:
        """Prediction (B, C or 2C, T, H, W), float32."""
        ...

    def null_text(self, num_prompts: int, length: int) -> Tensor:
        """The learned embedding of "no text", (num_prompts, 1, length, D)."""
        ...


class SampleRequest(NamedTuple):
    """All that a scheduler needs to turn noise into latents.

    noise: (n, C, T, H, W) float32. text: the n prompts; null_embeddings: (n, 1, L, D) for the unconditional half,
    or None to sample without guidance. size: pixel height, width and number of frames; fps: conditioning frame rate.
    frame_mask: (n, T) in [0, 1] or None; 1 generate, 0 keep the latent already in `noise`, between: edit ratio.
    null_mask: (n, L) tokens of `null_embeddings` to use; None takes the mask of the text, as the released models do.
    draw_noise(step) gives a fresh Gaussian (n, C, T, H, W) for that step, or for whatever a negative number stands for.
    """

    noise: Tensor
    text: TextEmbedding
    null_embeddings: Tensor | None
    height: int
    width: int
    num_frames: int
    latent_frames: int
    fps: float
    frame_mask: Tensor | None = None
    draw_noise: Callable[[int], Tensor] | None = None
    null_mask: Tensor | None = None


class Scheduler(Protocol):
    """A sampler, and the training objective that belongs to it.

    A scheduler that can train has `draw_times(batch, *, height, width, num_frames, latent_frames, generator) -> (B,)`,
    `loss(model, x0, *, noise, t, frame_mask, **conditioning) -> (B,)`, the loss of each sample, and `last_time: float`,
    the time of pure noise.
    """

    def schedule(self, steps: int, *, height: int, width: int, num_frames: int, latent_frames: int) -> Tensor:
        """The `steps` times, decreasing, float32."""
        ...

    def sample(
        self,
        model: DiffusionModel,
        request: SampleRequest,
        *,
        steps: int,
        guidance: float,
        start_step: int = 0,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Latents (n, C, T, H, W). on_step(done, latents) is called after each step; `start_step` resumes there,
        with `request.noise` holding the latents after that many steps.

        A sampler that looks back at earlier steps appends what it needs of them to those latents, as more channels:
        request.noise then holds the same. After the last step the latents are alone."""
        ...
