"""Make nano's upscaler from renders of two sizes: small ones as the autoencoder gives them back, and large ones.

    python -m sora_plugins.nano.making.upscaler pairs autoencoder.safetensors -o pairs.safetensors --count 600
    python -m sora_plugins.nano.making.upscaler train pairs.safetensors -o upscaler.safetensors --steps 13000
    python -m sora_plugins.nano.making.upscaler eval held-out-pairs.safetensors upscaler.safetensors
    python -m sora_plugins.nano.making.upscaler export upscaler.safetensors -o WEIGHTS_FILE

`train` keeps its state beside its output every 500 steps; after an interruption the same command goes on there.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from sora_plugins.nano.autoencoder import NanoAutoencoder, to_channels_last
from sora_plugins.nano.making.autoencoder import add_latent_noise
from sora_plugins.nano.scenes.catalogue import SCENES, clip_params
from sora_plugins.nano.scenes.renderer import render
from sora_plugins.nano.upscaler import FACTOR, UpscalerNetwork

SMALL = (144, 256)
PIECE = 9  # frames that the autoencoder gets, one of which is a pair
FIRSTS = 40  # frames of a clip that a piece may begin with
BATCH, CROP = 8, 48  # of small pictures
PATCH = 8  # side of the places whose sharpness is compared
SAVED = 500  # steps between two


@torch.no_grad()
def make_pairs(autoencoder: NanoAutoencoder, count: int, seed: int) -> dict[str, Tensor]:
    """Pictures as nano makes them, `small` (count, 3, H, W), and as they are painted, `large` (count, 3, 4 H, 4 W).

    uint8; the scenes take turns. Half of them are decoded from latents with noise, which sampled ones have too.
    """
    height, width = SMALL
    large_size = FACTOR * height, FACTOR * width
    small = torch.empty((count, 3, *SMALL), dtype=torch.uint8)
    large = torch.empty((count, 3, *large_size), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    for index in range(count):
        params = clip_params(seed, index)
        rng = random.Random(f"{seed}-{index}-pair")
        first, place = rng.randrange(FIRSTS), rng.randrange(PIECE)
        pixels = to_pixels(render(params, PIECE, *SMALL, first=first).permute(3, 0, 1, 2))[None]
        z = autoencoder.encode(pixels)
        z = add_latent_noise(z, generator) if rng.random() < 0.5 else z
        decoded = torch.cat(list(autoencoder.decode(z, PIECE)), dim=2)[0, :, place]
        small[index] = ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        large[index] = render(params, 1, *large_size, first=first + place)[0].permute(2, 0, 1)
    return {"small": small, "large": large}


def to_pixels(values: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return values.float() / 127.5 - 1


def crops(pairs: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random windows of small pictures (BATCH, 3, CROP, CROP) and the same of large ones, half of them mirrored."""
    small: list[Tensor] = []
    large: list[Tensor] = []
    height, width = pairs["small"].shape[-2:]
    for _ in range(BATCH):
        limits = (len(pairs["small"]), height - CROP + 1, width - CROP + 1, 2)
        index, row, column, is_mirrored = (int(torch.randint(limit, (), generator=generator)) for limit in limits)
        for windows, name, scale in ((small, "small", 1), (large, "large", FACTOR)):
            rows, columns = (slice(scale * start, scale * (start + CROP)) for start in (row, column))
            window = to_pixels(pairs[name][index, :, rows, columns])
            windows.append(window.flip(-1) if is_mirrored else window)
    return torch.stack(small), torch.stack(large)


def loss_of(made: Tensor, wanted: Tensor) -> Tensor:
    """Errors of pictures (N, 3, H, W) and of their differences, and errors of how sharp each place is.

    Squares keep sparse lights, which absolute errors erase. What cannot be known exactly, such as where each drop of
    foam is, comes out blurred by errors alone; that a place has as much of it as it should is asked for besides.
    """
    loss = 8 * F.mse_loss(made, wanted) + 0.3 * F.l1_loss(made, wanted)
    for axis in (2, 3):
        ours, theirs = made.diff(dim=axis), wanted.diff(dim=axis)
        sharpness = F.avg_pool2d(ours.abs(), PATCH), F.avg_pool2d(theirs.abs(), PATCH)
        loss = loss + 8 * F.mse_loss(ours, theirs) + F.l1_loss(*sharpness)
    return loss


def train(
    pairs: dict[str, Tensor], output: Path, *, steps: int, seed: int, rate: float, start: Path | None = None
) -> UpscalerNetwork:
    """Train a network from nothing or from `start`, going on where an interrupted training stopped, and write it."""
    torch.manual_seed(seed)
    network = UpscalerNetwork()
    if start is not None:
        network.load_state_dict(load_file(start))
    to_channels_last(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    kept, done = output.with_suffix(".state"), 0
    if kept.exists():
        state = torch.load(kept, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    begin, total = time.monotonic(), 0.0
    for step in range(done, steps):
        progress = step / steps
        factor = min(1.0, (step + 1) / 100) * (1.0 if progress < 0.4 else 0.02 + 0.98 * (1 - progress) / 0.6)
        optimizer.param_groups[0]["lr"] = rate * factor
        # Of each step its own, so that a resumed training sees what an uninterrupted one does.
        small, large = crops(pairs, torch.Generator().manual_seed(seed * 1_000_003 + step))
        with torch.autocast("cpu", torch.bfloat16):
            made = network(small)
        loss = loss_of(made, large)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += float(loss.detach())
        if (step + 1) % SAVED == 0 or step + 1 == steps:
            count = (step - done) % SAVED + 1
            each = (time.monotonic() - begin) / (step + 1 - done)
            print(f"step {step + 1} of {steps}: loss {total / count:.5f}, {each:.3f} s each", flush=True)
            total = 0.0
            part = kept.with_suffix(".part")
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, part)
            os.replace(part, kept)
    save({key: value.contiguous() for key, value in network.state_dict().items()}, output)
    kept.unlink(missing_ok=True)
    return network


def save(tensors: dict[str, Tensor], output: Path) -> None:
    """Write a file, which is there whole or not at all."""
    part = output.with_suffix(".part")
    save_file(tensors, part)
    os.replace(part, output)


@torch.no_grad()
def evaluate(network: UpscalerNetwork, pairs: dict[str, Tensor]) -> None:
    """Print the PSNR of each scene, and its sharpness as a share of the painted one, bicubic and with the network."""
    network.eval()
    values: dict[str, list[list[float]]] = {}
    for index, (small, large) in enumerate(zip(pairs["small"], pairs["large"], strict=True)):
        given, wanted = to_pixels(small)[None], to_pixels(large)[None]
        bicubic = F.interpolate(given, scale_factor=FACTOR, mode="bicubic")
        row = [figure for made in (bicubic, network(given)) for figure in (psnr(made, wanted), sharpness(made, wanted))]
        for name in (list(SCENES)[index % len(SCENES)], "all"):
            values.setdefault(name, []).append(row)
    for name, rows in values.items():
        before, sharp_before, after, sharp_after = torch.tensor(rows).mean(dim=0).tolist()
        print(
            f"{name}: PSNR {before:.2f} dB bicubic, {after:.2f} dB upscaled; "
            f"sharpness {sharp_before:.2f} bicubic, {sharp_after:.2f} upscaled"
        )


def psnr(made: Tensor, wanted: Tensor) -> float:
    """In dB, of values in [-1, 1]."""
    return float(10 * torch.log10(4 / (made.clamp(-1, 1) - wanted).square().mean()))


def sharpness(made: Tensor, wanted: Tensor) -> float:
    """The energy of differences between neighbours, as a share of those wanted."""
    ours, theirs = (sum(x.clamp(-1, 1).diff(dim=axis).square().sum() for axis in (2, 3)) for x in (made, wanted))
    return float(ours / theirs)


def shipped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that go into the package."""
    return {key: value.bfloat16().contiguous() for key, value in tensors.items()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("pairs", "train", "eval", "export"):
        command = commands.add_parser(name)
        if name in ("train", "eval"):
            command.add_argument("pairs", type=Path)
        if name != "train":
            command.add_argument("weights", type=Path, help="of the autoencoder for pairs, else of the upscaler")
        if name != "eval":
            command.add_argument("-o", "--output", type=Path, required=True)
        if name in ("pairs", "train"):
            command.add_argument("--seed", type=int, default=201)
        if name == "pairs":
            command.add_argument("--count", type=int, default=600)
        if name == "train":
            command.add_argument("--steps", type=int, default=13000)
            command.add_argument("--rate", type=float, default=1e-3)
            command.add_argument("--load", type=Path, help="weights to start from")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.command == "pairs":
        autoencoder = NanoAutoencoder()
        autoencoder.load_state_dict(load_file(arguments.weights))
        save(make_pairs(autoencoder, arguments.count, arguments.seed), arguments.output)
    elif arguments.command == "train":
        pairs = load_file(arguments.pairs)
        options = {"steps": arguments.steps, "seed": arguments.seed, "rate": arguments.rate, "start": arguments.load}
        train(pairs, arguments.output, **options)
    elif arguments.command == "eval":
        network = UpscalerNetwork()
        network.load_state_dict(load_file(arguments.weights))
        evaluate(network, load_file(arguments.pairs))
    else:
        save(shipped(load_file(arguments.weights)), arguments.output)


if __name__ == "__main__":
    main()
