"""What a run looks at between updates: the loss on clips it does not train on, and sample videos."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sora_cli.plugin.protocols import SampleRequest
from sora_cli.video.io import write_image, write_video
from sora_cli.video.latents import ClipNoise, NoiseShaper, key_seed, step_noise, to_frames

from .clip_reader import IMAGE_FPS
from .objective import Encoders, Objective
from .plan import EpochPlan, FixedPlan

if TYPE_CHECKING:
    from sora_cli.launch.mesh import Team

    from .loop import Encoder
    from .source import ClipSource


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network without dropout and gradients."""
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train()


def time_grid(last_time: float, count: int) -> Tensor:
    """`count` evenly spaced times between data and noise, without the two ends, (count,) float32."""
    return torch.linspace(0, last_time, count + 2)[1:-1]


@dataclass(frozen=True)
class Validation:
    """The mean loss at evenly spaced times on a table of its own.

    Noise depends on the clip's place and the time alone, so values of different updates can be compared. times: how
    many.
    """

    source: ClipSource
    objective: Objective
    encoder: Encoder
    team: Team
    times: int

    def run(self, network: Any) -> dict[str, float]:
        """Mean loss by size, e.g. "17x144x256", and of all clips as "all"."""
        plan = self.source.plan(0, num_ranks=self.team.data_size, shuffle=False, drop_last=False)
        steps = plan.num_steps(self.team.data_size)
        numbers = range(self.team.data_rank, steps * self.team.data_size, self.team.data_size)
        sizes = _sizes(plan)
        times = time_grid(self.objective.scheduler.last_time, self.times).tolist()
        sums = torch.zeros(len(sizes), 2, dtype=torch.float64, device=self.encoder.device)
        with evaluating(network):
            for batch in self.source.load(plan, numbers, 0, dtype=torch.float32, pin_memory=False):
                encoded = self.encoder.encode(batch, key_seed(self.objective.seed, "validation", batch.number))
                counted = torch.from_numpy(~plan.micro_batch(batch.number).is_repeat).to(self.encoder.device)
                losses = [self._losses(network, encoded, place, t) for place, t in enumerate(times, 1)]
                mean = torch.stack(losses).mean(dim=0).double()
                place = sizes.index(batch.size)
                sums[place, 0] += (mean * counted).sum()
                sums[place, 1] += counted.sum()
        sums = self.team.mean(sums)
        named = {
            "x".join(map(str, size)): float(total / count) for size, (total, count) in zip(sizes, sums, strict=True)
        }
        return {**named, "all": float(sums[:, 0].sum() / sums[:, 1].sum())}

    def _losses(self, network: Any, encoded: Any, place: int, t: float) -> Tensor:
        """Per clip, at the time of that place between data and noise."""
        key = (self.objective.seed, "validation", encoded.number, place)
        noise = torch.randn(encoded.latents.shape, generator=torch.Generator().manual_seed(key_seed(*key)))
        keys = [(*key, "shared", index) for index in range(len(noise))]
        noise = self.objective.shaped(noise, encoded, keys).to(encoded.latents.device)
        return self.objective.losses_at(network, encoded, t, noise=noise)


def _sizes(plan: EpochPlan | FixedPlan) -> list[tuple[int, int, int]]:
    """All sizes in the plan, the same list on every rank."""
    if isinstance(plan, EpochPlan):
        return sorted({plan.table.size(bucket.pair, bucket.aspect) for bucket in plan.buckets})
    return [plan.size]


@dataclass(frozen=True)
class Previews:
    """Sample videos of prompts with the network as it is. size: (frames, height, width)."""

    prompts: Sequence[str]
    size: tuple[int, int, int]
    fps: float
    steps: int
    guidance: float
    seed: int
    encoders: Encoders
    scheduler: Any
    latent_shape: tuple[int, int, int, int]
    folder: Path
    shaper: NoiseShaper | None = None

    def run(self, network: Any, step: int, *, writes: bool) -> list[Path]:
        """Make the videos; every process computes them, one writes. Returns their paths."""
        device, paths = self.encoders.device, []
        frames, height, width = self.size
        seeds = [self.seed + index for index in range(len(self.prompts))]
        fps = IMAGE_FPS if frames == 1 else self.fps
        with evaluating(network):
            for prompt, seed in zip(self.prompts, seeds, strict=True):
                text = self.encoders.text.encode([prompt])
                text = type(text)(text.embeddings.to(device), text.mask.to(device))
                has_null = self.guidance != 1 and hasattr(network, "null_text")
                null = network.null_text(1, text.embeddings.shape[2]).to(text.embeddings) if has_null else None
                noise = ClipNoise(seed, self.latent_shape, self.shaper, prompt, fps)
                request = SampleRequest(
                    noise.start()[None].to(device),
                    text,
                    null,
                    height,
                    width,
                    frames,
                    self.latent_shape[1],
                    fps,
                    draw_noise=functools.partial(step_noise, [noise], device),
                )
                latents = self.scheduler.sample(_Plain(network), request, steps=self.steps, guidance=self.guidance)
                if not writes:
                    continue
                ending = "png" if frames == 1 else "mp4"
                path = self.folder / f"step-{step:07}-{seed - self.seed}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                pieces = (
                    to_frames(pixels[0, :, :, :height, :width]) for pixels in self.encoders.vae.decode(latents, frames)
                )
                about = {"prompt": prompt, "step": step, "seed": seed}
                if frames == 1:
                    write_image(path, next(pieces)[0], about)
                else:
                    write_video(path, pieces, self.fps, about)
                paths.append(path)
        return paths


class _Plain:
    """A network that is given its text at each step, as in training: FSDP gathers weights only while it is called."""

    def __init__(self, network: Any) -> None:
        self.network = network

    def __call__(self, *inputs: Any, **conditioning: Any) -> Tensor:
        out: Tensor = self.network(*inputs, **conditioning)
        return out
