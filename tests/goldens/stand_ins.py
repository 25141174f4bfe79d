"""A plugin whose networks are stand-ins, for whole runs: what is sampled from what is written down in EVENTS.

Latents say where they are from: channel 0 is the number of a source in SOURCES (a reference or a sampled clip), channel
1 a latent frame of it; pixels keep the source in all channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sora_cli import ModelSpec, SchedulerSpec, TextEncoderSpec, VAESpec, Weights, hookimpl
from sora_cli.plugin.protocols import SampleRequest, TextEmbedding
from sora_cli.text.cleaning import clean_caption

EVENTS: list[dict[str, Any]] = []
SOURCES: list[str] = []
PROMPTS: list[str] = []
MODULE = __name__


def number_of(source: str) -> int:
    """Of a source; 1 and up."""
    if source not in SOURCES:
        SOURCES.append(source)
    return SOURCES.index(source) + 1


def pieces_of_17(num_frames: int) -> int:
    """Latent frames of the autoencoder of Open-Sora 1.2."""
    return num_frames // 17 * 5 + -(-(num_frames % 17) // 4)


def every_frame(num_frames: int) -> int:
    """Latent frames of an autoencoder of single frames."""
    return num_frames


@hookimpl
def sora_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name=f"stand-in-{vae}",
            summary="a network that is not called",
            tasks=("t2v", "i2v", "t2i"),
            target=f"{MODULE}:build",
            variants={"only": {}},
            weights={"only": Weights(repo="nobody/stand-in", files=("model.safetensors",))},
            scheduler="stand-in",
            vae=vae,
            text_encoder="stand-in",
        )
        for vae in ("vae_1_2", "vae_2d")
    ]


@hookimpl
def sora_vaes() -> list[VAESpec]:
    shared: dict[str, Any] = {
        "summary": "",
        "latent_channels": 4,
        "spatial_stride": 8,
        "is_sampled": False,
    }
    return [
        VAESpec(
            name="vae_1_2",
            target=f"{MODULE}:StandInVAE",
            temporal_stride=4,
            latent_frames=pieces_of_17,
            piece_frames=17,
            **shared,
        ),
        VAESpec(
            name="vae_2d",
            target=f"{MODULE}:StandInFrameVAE",
            temporal_stride=1,
            latent_frames=every_frame,
            **shared,
        ),
    ]


@hookimpl
def sora_text_encoders() -> list[TextEncoderSpec]:
    return [TextEncoderSpec(name="stand-in", summary="", target=f"{MODULE}:StandInText", width=1, max_tokens=1)]


@hookimpl
def sora_schedulers() -> list[SchedulerSpec]:
    return [SchedulerSpec(name="stand-in", summary="", target=f"{MODULE}:StandInScheduler", prediction="velocity")]


class StandInNetwork(nn.Module):
    """Is not called."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1))


def build(config: Any, options: Any) -> StandInNetwork:
    return StandInNetwork()


class StandInVAE:
    """Sources of pixels are sources of latents."""

    latent_frames = staticmethod(pieces_of_17)

    def __init__(self, weights: Any, device: Any, dtype: Any) -> None:
        pass

    def encode(self, pixels: Tensor) -> Tensor:
        count = self.latent_frames(pixels.shape[2])
        latents = torch.zeros(1, 4, count, pixels.shape[3] // 8, pixels.shape[4] // 8)
        latents[:, 0] = pixels[0, 0, 0, 0, 0]
        latents[:, 1] = torch.arange(count)[:, None, None]
        return latents

    def decode(self, latents: Tensor, num_frames: int, *, frames_at_once: int | None = None) -> Iterator[Tensor]:
        height, width = latents.shape[3] * 8, latents.shape[4] * 8
        for frame in range(num_frames):
            source = latents[0, 0, frame * latents.shape[2] // num_frames, 0, 0]
            yield (source / 127.5 - 1).expand(1, 3, 1, height, width)


class StandInFrameVAE(StandInVAE):
    """The same, one latent for each frame."""

    latent_frames = staticmethod(every_frame)


class StandInText:
    """Cleans prompts as the released samplers did; their embedding is a number."""

    def __init__(self, weights: Any, device: Any, dtype: Any) -> None:
        pass

    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        (prompt,) = prompts
        PROMPTS.append(clean_caption(prompt))
        return TextEmbedding(torch.full((1, 1, 1, 1), len(PROMPTS) - 1.0), torch.ones(1, 1, dtype=torch.int64))


class StandInScheduler:
    """Writes down what it is called with."""

    def __init__(self, options: Any = None) -> None:
        self.count = 0

    def sample(self, model: Any, request: SampleRequest, **options: Any) -> Tensor:
        rows, _, frames = request.noise.shape[:3]
        mask = torch.ones(rows, frames) if request.frame_mask is None else request.frame_mask
        size = request.height, request.width, request.num_frames, request.height / request.width, request.fps
        EVENTS.append(
            {
                "event": "sample",
                "prompts": [PROMPTS[int(row)] for row in request.text.embeddings.flatten()],
                "latent_shape": list(request.noise.shape[:3]),
                "latent_frames": [[said_by(frame) for frame in row.transpose(0, 1)] for row in request.noise],
                "mask": [[round(each, 6) for each in row] for row in mask.tolist()],
                "model_args": {
                    **{name: [value] * rows for name, value in zip(SIZES, size, strict=True)},
                    "hw": [[request.height, request.width]] * rows,
                },
            }
        )
        sampled = torch.zeros_like(request.noise)
        for row in range(rows):
            sampled[row, 0] = number_of(f"clip{self.count}[{row}]")
        sampled[:, 1] = torch.arange(frames)[:, None, None]
        self.count += 1
        options["on_step"](options["steps"], sampled)
        return sampled


SIZES = ("height", "width", "num_frames", "ar", "fps")


def said_by(frame: Tensor) -> str:
    """What a latent frame (C, h, w) says it is."""
    if frame[0].std() > 0.01:
        return "noise"
    return f"{SOURCES[round(float(frame[0, 0, 0])) - 1]}#{round(float(frame[1, 0, 0]))}"
