"""Encode rendered clips into the latents that the diffusion model is trained on.

    python -m sora_plugins.nano.making.latents CLIPS autoencoder.safetensors -o LATENTS

Each clip gives one safetensors file with `clip` (the whole clip) and `stills` (single frames from different moments),
each as rendered and mirrored left to right: (2, 14, 32, 9, 16) and (2, 4, 32, 9, 16), float16, axes mirror, frame,
channel, height, width. The scene's parameters are kept in the file's metadata.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from sora_plugins.nano.autoencoder import NanoAutoencoder

from .autoencoder import to_pixels

STILLS = (0, 13, 27, 45)


def encode_clip(model: NanoAutoencoder, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of one clip; see the module."""
    pixels = to_pixels(np.load(path))
    pixels = torch.cat([pixels, pixels.flip(-1)])
    clip = model.encode(pixels).transpose(1, 2)
    stills = torch.cat([model.encode(pixels[:, :, i : i + 1]).transpose(1, 2) for i in STILLS], dim=1)
    return {"clip": clip.half().contiguous(), "stills": stills.half().contiguous()}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = NanoAutoencoder()
    model.load_state_dict(load_file(arguments.weights))
    arguments.output.mkdir(parents=True, exist_ok=True)
    files = sorted(arguments.clips.glob("clip_*.npy"))
    for path in files:
        target = arguments.output / f"{path.stem}.safetensors"
        if target.exists():
            continue
        partial = target.with_suffix(".part")
        save_file(encode_clip(model, path), partial, metadata={"params": path.with_suffix(".json").read_text()})
        os.replace(partial, target)
    print(f"{len(files)} clips encoded in {arguments.output}")


if __name__ == "__main__":
    main()
