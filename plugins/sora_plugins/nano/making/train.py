"""Train nano's diffusion model on latents; resumes from its newest checkpoint.

    python -m sora_plugins.nano.making.train LATENTS TEXT_TABLE_FOLDER -o RUN --steps 3000
    torchrun --nproc-per-node 2 -m sora_plugins.nano.making.train ...

Every step draws one kind of batch (stills, beginnings of clips, whole clips, some of them cut to another shape) and a
fresh caption for every sample; the noise moves with the clip's camera.
The batches depend on the seed and the step only, so a resumed run continues as if never stopped. Under torchrun every
process takes an equal part of each batch, on one thread: on a CPU that is faster than several threads. Matrices of the
blocks are trained with Muon (torch 2.9 or newer), everything else with AdamW; weights are averaged (EMA).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from sora_cli.acceleration.attention import BACKENDS, set_attention
from sora_plugins.nano.autoencoder import BLOCK
from sora_plugins.nano.config import MODEL_CONFIG
from sora_plugins.nano.model import NanoModel, build
from sora_plugins.nano.noise import moving_noise
from sora_plugins.nano.scenes.captions import mirrored, write_caption
from sora_plugins.nano.scenes.catalogue import SceneParams
from sora_plugins.nano.text import WordTableEncoder
from sora_plugins.rectified_flow.rectified_flow import RectifiedFlow

FPS, IMAGE_FPS = 24.0, 120.0
HELD_OUT = 36
TEXT_DROP = 0.1
#: Latent rows and columns of batches that are cut, and the share of batches: other aspect ratios.
CUTS = ((9, 9), (9, 5), (9, 12), (7, 12), (5, 9), (6, 16))
CUT_SHARE = 0.12


@dataclass(frozen=True)
class Kind:
    """A kind of batch: latent frames, samples, and the centre of the logit of its training times."""

    frames: int
    batch: int
    loc: float


KINDS = {"still": Kind(1, 48, 0.3), "piece": Kind(5, 16, 0.6), "clip": Kind(14, 6, 0.9)}


def kind_weights(progress: float) -> dict[str, float]:
    """Share of each kind of batch: layout is learned from cheap stills first, motion later."""
    if progress < 0.12:
        return {"still": 0.7, "piece": 0.3, "clip": 0.0}
    if progress < 0.45:
        return {"still": 0.35, "piece": 0.4, "clip": 0.25}
    return {"still": 0.15, "piece": 0.3, "clip": 0.55}


class Samples(NamedTuple):
    """Latents (B, C, T, h, w) float32, a caption for each, and what they show."""

    latents: Tensor
    captions: list[str]
    params: list[SceneParams]


class LatentSet:
    """All latents in memory, float16."""

    def __init__(self, files: list[Path]) -> None:
        self.clips, self.stills, self.params = [], [], []
        for path in files:
            with safe_open(path, "pt") as file:
                self.clips.append(file.get_tensor("clip"))
                self.stills.append(file.get_tensor("stills"))
                self.params.append(SceneParams(**json.loads(file.metadata()["params"])))

    def draw(self, kind: Kind, rng: random.Random) -> Samples:
        """New captions for clips that are drawn, each as rendered or mirrored, whole or cut."""
        rows, captions, shown = [], [], []
        cut = rng.choice(CUTS) if rng.random() < CUT_SHARE else None
        for _ in range(kind.batch):
            index, side = rng.randrange(len(self.params)), rng.randrange(2)
            if kind.frames == 1:
                row = self.stills[index][side, rng.randrange(self.stills[index].shape[1])][None]
            else:
                row = self.clips[index][side, : kind.frames]
            if cut is not None:
                top, left = (
                    rng.randrange(max(1, full - part + 1)) for full, part in zip(row.shape[2:], cut, strict=True)
                )
                row = row[..., top : top + cut[0], left : left + cut[1]]
            rows.append(row.float())
            params = mirrored(self.params[index]) if side else self.params[index]
            captions.append(write_caption(params, rng))
            shown.append(params)
        return Samples(torch.stack(rows).transpose(1, 2), captions, shown)


def text_tensors(encoder: WordTableEncoder, captions: list[str], rng: random.Random) -> dict[str, Tensor]:
    """Text for the model; one caption in ten is replaced by "no text"."""
    y, mask = encoder.encode(captions)
    drop = torch.tensor([int(rng.random() < TEXT_DROP) for _ in captions])
    return {"y": y, "mask": mask, "drop_ids": drop}


def size_tensors(x0: Tensor) -> dict[str, Tensor]:
    """Size and frame rate conditioning of latents (B, C, T, h, w)."""
    count, _, frames, height, width = x0.shape
    values = {"height": height * BLOCK, "width": width * BLOCK, "fps": IMAGE_FPS if frames == 1 else FPS}
    return {name: torch.full((count,), float(value)) for name, value in values.items()}


def camera_noise(x0: Tensor, params: Sequence[SceneParams], generator: torch.Generator) -> Tensor:
    """Noise for latents (B, C, T, h, w) that moves with each clip's camera."""
    noise = torch.randn(x0.shape, generator=generator)
    rows = zip(noise, params, strict=True)
    moved = [moving_noise(row, each.camera, each.camera_amplitude, fps=FPS, generator=generator) for row, each in rows]
    return torch.stack(moved)


def given_frames(kind: Kind, rng: random.Random) -> Tensor | None:
    """Frames to learn (batch, frames).

    In one sample of four some are given: the first (12 %), the last (5 %) or both (5 %), or one anywhere (2 %).
    """
    if kind.frames == 1:
        return None
    mask = torch.ones(kind.batch, kind.frames, dtype=torch.bool)
    for row in mask:
        draw = rng.random()
        first, last = (rng.choice([count for count in (1, 1, 2, most) if count < kind.frames]) for most in (5, 2))
        if draw < 0.12:
            row[:first] = False
        elif draw < 0.17:
            row[-first:] = False
        elif draw < 0.22:
            row[: min(first, kind.frames - last - 1)] = False
            row[-last:] = False
        elif draw < 0.24:
            row[rng.randrange(kind.frames)] = False
    return None if bool(mask.all()) else mask


def training_times(kind: Kind, generator: torch.Generator) -> Tensor:
    """Logit-normal times in [0, 1000], one in ten uniform."""
    logit = kind.loc + 1.1 * torch.randn(kind.batch, generator=generator)
    uniform = torch.rand(kind.batch, generator=generator)
    chosen = torch.rand(kind.batch, generator=generator) < 0.1
    return torch.where(chosen, uniform, logit.sigmoid()) * 1000


def learning_rate(step: int, steps: int) -> float:
    """Factor: 60 steps of warm-up, constant to 55 %, then linear to 2 %."""
    decay = max(0.0, (step / steps - 0.55) / 0.45)
    return min(1.0, (step + 1) / 60) * (1 - 0.98 * decay)


def make_optimizers(model: NanoModel) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest."""
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_matrix = "blocks." in name and parameter.dim() == 2 and "table" not in name
            (matrices if is_matrix else rest).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=2e-3, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1.5e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]


@torch.no_grad()
def held_out_loss(model: NanoModel, data: LatentSet, encoder: WordTableEncoder, flow: RectifiedFlow) -> str:
    """Velocity loss of the held-out clips at three times, with fixed noise and captions."""
    values = []
    for t in (300.0, 600.0, 900.0):
        losses = []
        for index, clip in enumerate(data.clips):
            x0 = clip[0].float().transpose(0, 1)[None]
            noise = camera_noise(x0, [data.params[index]], torch.Generator().manual_seed(index))
            caption = write_caption(data.params[index], random.Random(index))
            text = text_tensors(encoder, [caption], random.Random(1))
            text["drop_ids"] = torch.zeros(1, dtype=torch.long)
            with torch.autocast("cpu", torch.bfloat16):
                loss = flow.loss(model, x0, noise=noise, t=torch.tensor([t]), **text, **size_tensors(x0))
            losses.append(float(loss))
        values.append(sum(losses) / len(losses))
    return " ".join(f"{value:.3f}" for value in values)


def processes() -> tuple[int, int]:
    """This process's number and how many there are."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def share(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """This process's rows of a batch."""
    rank, count = processes()
    return {name: tensor[rank::count] for name, tensor in tensors.items()}


def average_over_processes(model: NanoModel, loss: Tensor) -> float:
    """Replace gradients by their mean over the processes and give the mean of the loss."""
    _, count = processes()
    if count > 1:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        flat = torch.cat([loss.detach().view(1), *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(flat)
        flat /= count
        loss = flat[0]
        for gradient, mean in zip(gradients, flat[1:].split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
    return float(loss.detach())


class Trainer:
    """Model, optimizers, average and step of one run."""

    def __init__(self, run: Path, steps: int, seed: int, start: Path | None = None, rate: float = 1.0) -> None:
        """start: weights that a new run goes on from; rate: factor of the learning rates."""
        torch.manual_seed(seed)
        self.run, self.steps, self.seed = run, steps, seed
        self.model = build(MODEL_CONFIG)
        set_attention(self.model, BACKENDS["math"])
        self.average = build(MODEL_CONFIG).eval()
        self.average.load_state_dict(self.model.state_dict())
        set_attention(self.average, BACKENDS["math"])
        self.optimizers = make_optimizers(self.model)
        self.base_rates = [rate * optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self.flow = RectifiedFlow()
        self.step = 0
        self.is_continued = start is not None
        if start is not None:
            weights = {name: tensor.float() for name, tensor in load_file(start).items()}
            self.model.load_state_dict(weights)
            self.average.load_state_dict(weights)
        if (run / "checkpoint.pt").exists():
            state = torch.load(run / "checkpoint.pt", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step = state["step"]

    def save(self) -> None:
        """Write the checkpoint and the averaged weights, each whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
        }
        torch.save(state, self.run / "checkpoint.part")
        os.replace(self.run / "checkpoint.part", self.run / "checkpoint.pt")
        weights = {key: value.bfloat16().contiguous() for key, value in self.average.state_dict().items()}
        save_file(weights, self.run / "model.part", metadata={"step": str(self.step)})
        os.replace(self.run / "model.part", self.run / "model.safetensors")

    def update(self, data: LatentSet, encoder: WordTableEncoder) -> float:
        """One training step; returns its loss."""
        rng = random.Random(f"{self.seed}-{self.step}")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        # Layout is learned already when a run goes on from weights.
        weights = kind_weights(1.0 if self.is_continued else self.step / self.steps)
        kind = KINDS[rng.choices(list(weights), weights=list(weights.values()))[0]]
        x0, captions, params = data.draw(kind, rng)
        noise = camera_noise(x0, params, generator)
        t = training_times(kind, generator)
        batch = {"x0": x0, "noise": noise, "t": t, **size_tensors(x0)}
        mask = given_frames(kind, rng)
        if mask is not None:
            batch["frame_mask"] = mask
        batch |= text_tensors(encoder, captions, rng)
        torch.manual_seed(generator.initial_seed())  # of the offset of the grid, the same in all processes
        with torch.autocast("cpu", torch.bfloat16):
            mean = self.flow.loss(self.model, **share(batch)).mean()
        mean.backward()
        loss = average_over_processes(self.model, mean)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, rate in zip(self.optimizers, self.base_rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * learning_rate(self.step, self.steps)
            optimizer.step()
            optimizer.zero_grad()
        decay = min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for ours, theirs in zip(self.average.parameters(), self.model.parameters(), strict=True):
                ours.lerp_(theirs, 1 - decay)
        self.step += 1
        return loss


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latents", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=Path, help="weights of an earlier run, to go on from")
    parser.add_argument("--rate", type=float, default=1.0, help="factor of the learning rates")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    is_first = processes()[0] == 0
    arguments.output.mkdir(parents=True, exist_ok=True)
    files = sorted(arguments.latents.glob("clip_*.safetensors"))
    data, held_out = LatentSet(files[:-HELD_OUT]), LatentSet(files[-HELD_OUT:])
    encoder = WordTableEncoder.load(arguments.text)
    trainer = Trainer(arguments.output, arguments.steps, arguments.seed, arguments.start, arguments.rate)
    begin, first, total = time.monotonic(), trainer.step, 0.0
    while trainer.step < arguments.steps:
        loss = trainer.update(data, encoder)
        if not math.isfinite(loss):
            raise SystemExit(f"the loss is {loss} at step {trainer.step}")
        total += loss
        if not is_first:
            continue
        if trainer.step % 25 == 0:
            each = (time.monotonic() - begin) / (trainer.step - first)
            print(f"step {trainer.step}/{arguments.steps} loss {total / 25:.4f}, {each:.2f} s each", flush=True)
            total = 0.0
        if trainer.step % 100 == 0 or trainer.step == arguments.steps:
            trainer.save()
        if trainer.step % 300 == 0 or trainer.step == arguments.steps:
            print(f"held out {held_out_loss(trainer.average, held_out, encoder, trainer.flow)}", flush=True)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
