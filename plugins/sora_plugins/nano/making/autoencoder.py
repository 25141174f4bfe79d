"""Make nano's autoencoder from rendered clips: fit the linear encoder, then train the decoder's correction.

    python -m sora_plugins.nano.making.autoencoder fit clips.csv -o autoencoder.safetensors
    python -m sora_plugins.nano.making.autoencoder train clips.csv autoencoder.safetensors --steps 1500
    python -m sora_plugins.nano.making.autoencoder eval held-out.csv autoencoder.safetensors
    python -m sora_plugins.nano.making.autoencoder export autoencoder.safetensors -o WEIGHTS_FILE

Tables are those of `sora scenes render`; their clips have one size. `fit` solves one eigenproblem. `train` keeps the
encoder and trains the decoder on noisy latents, so that it forgives the errors of the diffusion model; it starts from
the file it writes to every 100 steps.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from sora_cli.training.captions import with_motion
from sora_cli.training.clip_reader import read_clip
from sora_cli.training.table import ClipRow, ClipTable, clip_path, open_table
from sora_plugins.nano.autoencoder import BLOCK, STRIDE, NanoAutoencoder, to_channels_last
from sora_plugins.nano.config import MODEL_CONFIG
from sora_plugins.nano.model import build
from sora_plugins.nano.noise import noise_for
from sora_plugins.nano.text import WordTableEncoder

CROP = 96
ERROR_STEPS = 3  # in which noise is taken away
BORDERS = {2: 8.0, 3: 2.0, 4: 2.0}  # weight of differences across the borders of blocks in time, rows and columns
FRAMES = 17
FITTED = 600  # clips whose blocks are analysed


def open_clips(table: Path) -> ClipTable:
    """A table of rendered clips."""
    with tempfile.TemporaryDirectory(prefix="sora-") as place:  # it stays mapped
        return open_table([str(table)], cache=Path(place) / "table")


def read_pixels(table: ClipTable, row: int, numbers: Sequence[int]) -> Tensor:
    """Frames of a clip by number: float32 (1, 3, T, H, W) in [-1, 1]."""
    path = clip_path(table.root, table.rows(np.array([row]))[0].path)
    frames = read_clip(path, len(numbers), lambda total: numbers).frames
    return (frames.transpose(0, 1)[None].float() / 127.5 - 1).contiguous()


def sample_blocks(table: ClipTable, generator: torch.Generator, blocks_per_clip: int = 120) -> Tensor:
    """Random blocks of clips (n, 3 * 4 * 16 * 16); one in eight codes a single frame, as the first latent does."""
    rows = []
    for clip, length in enumerate(table.numbers("num_frames")[:FITTED].tolist()):
        start = int(torch.randint(1, length - STRIDE, (), generator=generator))
        pixels = read_pixels(table, clip, [0, *range(start, start + STRIDE)])
        moving = NanoAutoencoder.to_blocks(pixels[:, :, 1:])
        still = NanoAutoencoder.to_blocks(pixels[:, :, :1].repeat(1, 1, STRIDE, 1, 1))
        for blocks, count in ((moving, blocks_per_clip * 7 // 8), (still, blocks_per_clip // 8)):
            flat = blocks.flatten(0, 3)
            rows.append(flat[torch.randperm(len(flat), generator=generator)[:count]])
    return torch.cat(rows)


def fit(table: ClipTable, seed: int) -> NanoAutoencoder:
    """Principal components of blocks, scaled by the square root of their deviation so that coarse channels weigh more.

    Dividing by the root, not by the deviation itself, keeps the order coarse to fine in the diffusion loss.
    """
    model = NanoAutoencoder()
    channels = len(model.basis)
    blocks = sample_blocks(table, torch.Generator().manual_seed(seed))
    mean = blocks.mean(dim=0)
    centred = blocks - mean
    variances, vectors = torch.linalg.eigh(centred.T @ centred / len(blocks))
    basis = vectors[:, -channels:].flip(1).T
    # the sign of an eigenvector is arbitrary: make its largest entry positive
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    basis = basis * largest.sign()
    deviation = variances[-channels:].flip(0).clamp(min=0).sqrt()
    scale = deviation.sqrt()
    model.mean.copy_(mean)
    model.basis.copy_(basis)
    model.scale.copy_(scale * deviation.mean().sqrt())
    return model


def pieces(table: ClipTable, generator: torch.Generator, batch: int) -> tuple[Tensor, list[int]]:
    """Random pieces of 17 frames (batch, 3, 17, H, W), starting at any frame, and the rows they come from."""
    pixels, rows = [], []
    lengths = table.numbers("num_frames")
    for _ in range(batch):
        row = int(torch.randint(len(table), (), generator=generator))
        start = int(torch.randint(int(lengths[row]) - FRAMES + 1, (), generator=generator))
        pixels.append(read_pixels(table, row, range(start, start + FRAMES)))
        rows.append(row)
    return torch.cat(pixels), rows


def crop(pixels: Tensor, z: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One random 96 x 96 window of every piece and its latents."""
    side = CROP // BLOCK
    windows, latents = [], []
    for clip, latent in zip(pixels, z, strict=True):
        row = int(torch.randint(latent.shape[-2] - side + 1, (), generator=generator))
        column = int(torch.randint(latent.shape[-1] - side + 1, (), generator=generator))
        latents.append(latent[..., row : row + side, column : column + side])
        windows.append(clip[..., row * BLOCK : row * BLOCK + CROP, column * BLOCK : column * BLOCK + CROP])
    return torch.stack(windows), torch.stack(latents)


def add_latent_noise(z: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise of up to a quarter of the latents' deviation."""
    strength = 0.25 * torch.rand(len(z), 1, 1, 1, 1, generator=generator)
    return z + strength * torch.randn(z.shape, generator=generator)


def gradients(x: Tensor) -> dict[int, Tensor]:
    """Differences of clips (B, C, T, H, W) along each of the last three axes."""
    return {axis: x.diff(dim=axis) for axis in (2, 3, 4)}


def decoder_loss(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Squared errors of clips from their first frame on and of their differences, and a little absolute error.

    Differences across the borders of blocks, where the eye sees a grid or a jolt, are counted once more. Absolute error
    alone erases sparse lights: the median of "mostly dark" is dark.
    """
    loss = 8 * F.mse_loss(decoded, pixels) + 0.15 * F.l1_loss(decoded, pixels)
    wanted = gradients(pixels)
    for axis, ours in gradients(decoded).items():
        errors = (ours - wanted[axis]).square()
        # The first frame is a block of its own: borders are after frames 0, 4, 8, ... and after pixels 15, 31, ...
        first, step = (0, STRIDE) if axis == 2 else (BLOCK - 1, BLOCK)
        borders = errors.index_select(axis, torch.arange(first, errors.shape[axis], step))
        loss = loss + 4 * errors.mean() + BORDERS[axis] * borders.mean()
    return loss


def train(
    model: NanoAutoencoder,
    table: ClipTable,
    output: Path,
    *,
    steps: int,
    seed: int,
    rate: float,
    diffusion: DiffusionErrors | None = None,
) -> None:
    """Train the decoder in place and save it to `output` every 100 steps and at the end.

    Half of the pieces are decoded from latents with the errors of the diffusion model, when there is one, the others
    from latents with noise.
    """
    to_channels_last(model.decoder)
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    begin, total = time.monotonic(), 0.0
    for step in range(steps):
        progress = step / steps
        factor = min(1.0, (step + 1) / 40) * (1.0 if progress < 0.5 else 0.04 + 0.96 * (1 - progress) * 2)
        optimizer.param_groups[0]["lr"] = rate * factor
        pixels, rows = pieces(table, generator, 4)
        z = model.encode(pixels)
        noisy = add_latent_noise(z, generator)
        if diffusion is not None:
            noisy[:2] = diffusion(z[:2], table.rows(np.array(rows[:2])), generator)
        pixels, z = crop(pixels, noisy, generator)
        with torch.autocast("cpu", torch.bfloat16):
            correction = model.decoder(z.transpose(1, 2), {})
        decoded = (model.linear_decode(z.transpose(1, 2)) + correction.float())[:, STRIDE - 1 :].transpose(1, 2)
        loss = decoder_loss(decoded, pixels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        total += float(loss.detach())
        if (step + 1) % 100 == 0 or step + 1 == steps:
            each = (time.monotonic() - begin) / (step + 1)
            print(f"step {step + 1} of {steps}: loss {total / (step % 100 + 1):.4f}, {each:.2f} s each", flush=True)
            total = 0.0
            save_file({key: value.contiguous() for key, value in model.state_dict().items()}, output)


class DiffusionErrors:
    """Latents as the diffusion model would make them: noise is added and taken away again in a few steps.

    What comes back has the model's own errors, soft detail and edges between its tokens, next to known pixels; a
    decoder trained on it learns to mend them.
    """

    def __init__(self, weights: Path, text: Path) -> None:
        self.network = build(MODEL_CONFIG)
        self.network.load_state_dict(load_file(weights))
        self.network.eval()
        self.encoder = WordTableEncoder.load(text)

    @torch.no_grad()
    def __call__(self, z: Tensor, clips: Sequence[ClipRow], generator: torch.Generator) -> Tensor:
        """z (B, C, T, h, w), the clips they come from -> same shape."""
        rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
        captions = [rng.choice(clip.texts) for clip in clips]
        embeddings, mask = self.encoder.encode(captions)
        noise = torch.randn(z.shape, generator=generator)
        for row, caption, clip in zip(noise, captions, clips, strict=True):
            row.copy_(noise_for(row, with_motion(caption, clip), fps=24.0, seed=rng.randrange(2**31)))
        start = 0.3 + 0.55 * float(torch.rand((), generator=generator))
        x = (1 - start) * z + start * noise
        size = {"height": 144.0, "width": 256.0, "fps": 24.0}
        sizes = {name: torch.full((len(z),), value) for name, value in size.items()}
        for step in range(ERROR_STEPS):
            t = start * (1 - step / ERROR_STEPS)
            with torch.autocast("cpu", torch.bfloat16):
                velocity = self.network(x, torch.full((len(z),), 1000 * t), embeddings, mask=mask, **sizes)
            x = x + start / ERROR_STEPS * velocity
        return x


@torch.no_grad()
def evaluate(model: NanoAutoencoder, table: ClipTable) -> None:
    """Print the PSNR of clips, with the decoder and with the linear inverse alone."""
    for name in ("linear", "decoder"):
        values = []
        for row in range(len(table)):
            pixels = read_pixels(table, row, range(FRAMES))
            z = model.encode(pixels)
            if name == "linear":
                decoded = model.linear_decode(z.transpose(1, 2))[:, STRIDE - 1 :].transpose(1, 2)
            else:
                decoded = torch.cat(list(model.decode(z, FRAMES)), dim=2)
            error = (decoded.clamp(-1, 1) - pixels).square().mean()
            values.append(float(10 * torch.log10(4 / error)))
        print(f"{name}: PSNR mean {np.mean(values):.2f} dB, worst {min(values):.2f} dB over {len(values)} clips")


def shipped(model: NanoAutoencoder) -> dict[str, Tensor]:
    """The tensors that go into the package: the decoder in bfloat16, the small linear part in float32."""
    tensors = model.state_dict()
    return {
        key: (value.bfloat16() if key.startswith("decoder.") else value).contiguous() for key, value in tensors.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("fit", "train", "eval", "export"):
        command = commands.add_parser(name)
        if name != "export":
            command.add_argument("table", type=Path, help="clips.csv of `sora scenes render`")
        if name != "fit":
            command.add_argument("weights", type=Path)
        if name in ("fit", "export"):
            command.add_argument("-o", "--output", type=Path, required=True)
        if name in ("fit", "train"):
            command.add_argument("--seed", type=int, default=1)
            command.add_argument("--held-out", type=Path, help="table of clips to measure the result with")
        if name == "train":
            command.add_argument("--model", type=Path, help="diffusion weights whose errors to mend")
            command.add_argument("--text", type=Path, help="folder of the text table, with --model")
            command.add_argument("--steps", type=int, default=1200)
            command.add_argument("--rate", type=float, default=1e-3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = arguments.table if arguments.command == "eval" else getattr(arguments, "held_out", None)
    if arguments.command == "fit":
        torch.manual_seed(arguments.seed)
        model = fit(open_clips(arguments.table), arguments.seed)
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, arguments.output)
    else:
        model = NanoAutoencoder()
        model.load_state_dict(load_file(arguments.weights))
    if arguments.command == "train":
        train(
            model,
            open_clips(arguments.table),
            arguments.weights,
            steps=arguments.steps,
            seed=arguments.seed,
            rate=arguments.rate,
            diffusion=DiffusionErrors(arguments.model, arguments.text) if arguments.model else None,
        )
    elif arguments.command == "export":
        save_file(shipped(model), arguments.output)
    if measured is not None:
        evaluate(model, open_clips(measured))


if __name__ == "__main__":
    main()
