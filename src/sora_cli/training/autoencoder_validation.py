"""What is looked at between updates of an autoencoder: its loss and PSNR on clips of their own, and samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sora_cli.launch.mesh import Team
from sora_cli.video.io import write_image, write_video
from sora_cli.video.latents import to_frames

from .autoencoder import AutoencoderObjective
from .clip_reader import UNKNOWN_FPS
from .validation import evaluating

if TYPE_CHECKING:
    from .source import ClipSource


@dataclass(frozen=True)
class AutoencoderValidation:
    """Loss without a discriminator, and PSNR in dB of the reconstruction from means, over the clips of a table."""

    source: ClipSource
    objective: AutoencoderObjective
    team: Team
    device: torch.device

    def run(self, network: Any) -> dict[str, float]:
        """The mean loss as "all", and "psnr" of the mean squared error of each clip, mean."""
        plan = self.source.plan(0, num_ranks=self.team.data_size, shuffle=False, drop_last=False)
        steps = plan.num_steps(self.team.data_size)
        numbers = range(self.team.data_rank, steps * self.team.data_size, self.team.data_size)
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)
        with evaluating(network):
            for batch in self.source.load(plan, numbers, 0, dtype=torch.float32, pin_memory=False):
                counted = torch.from_numpy(~plan.micro_batch(batch.number).is_repeat).tolist()
                for pixels, is_counted in zip(batch.pixels.split(1), counted, strict=True):
                    out = network(pixels.to(self.device), sample=False)  # every rank calls it as often
                    if is_counted:
                        loss = self.objective.total(pixels.to(self.device), out, with_adversary=False)
                        sums += torch.tensor([float(loss), psnr(pixels, out.pixels), 1.0], device=self.device)
        total, quality, count = self.team.mean(sums).tolist()
        return {"all": total / count, "psnr": quality / count}


def psnr(pixels: Tensor, decoded: Tensor) -> float:
    """Peak signal to noise of clips in [-1, 1], dB; 100 for equal ones."""
    error = float((pixels.cpu().float() - decoded.cpu().float().clamp(-1.0, 1.0)).square().mean()) / 4.0
    return 100.0 if error < 1e-10 else -10.0 * math.log10(error)


@dataclass(frozen=True)
class AutoencoderSamples:
    """The first clips of a table, each beside its reconstruction."""

    source: ClipSource
    count: int
    device: torch.device
    folder: Path

    def run(self, network: Any, step: int, *, writes: bool) -> list[Path]:
        """Make the pictures on every process, write them on one; the paths."""
        plan = self.source.plan(0, num_ranks=1, shuffle=False, drop_last=False)
        paths: list[Path] = []
        with evaluating(network):
            for batch in self.source.load(plan, range(len(plan)), 0, dtype=torch.float32, pin_memory=False):
                for pixels, fps in zip(batch.pixels.split(1), batch.fps.tolist(), strict=True):
                    if len(paths) == self.count:
                        return paths
                    decoded = network(pixels.to(self.device), sample=False).pixels.cpu().float()
                    both = to_frames(torch.cat([pixels, decoded], dim=4)[0])
                    ending = "png" if len(both) == 1 else "mp4"
                    path = self.folder / f"step-{step:07}-{len(paths)}.{ending}"
                    paths.append(path)
                    if writes:
                        path.parent.mkdir(parents=True, exist_ok=True)
                        if len(both) == 1:
                            write_image(path, both[0], {"step": step})
                        else:
                            write_video(path, [both], fps or UNKNOWN_FPS, {"step": step})
        return paths
