"""Tiny checkpoints of DiT, Latte and PixArt in the layout of the released files, and a table of clips with labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from media import save_video
from opensora_tiny import FRAME_AUTOENCODER, TEXT_WIDTH, noisy_tensors

WIDTH, CLIP_WIDTH = 48, 16
#: What a file has around its tensors, by its ending or name.
WRAPPED = {"ucf101.pt": "ema", ".pt": None, ".pth": "state_dict"}


def make_tiny_image_model(folder: Path, name: str, **changes: Any) -> list[str]:
    """Write the weights of a model under the released name, with a config.json that says how small they are, its
    autoencoder and its text encoder. changes: of the network, when it is built again from these weights.

    Returns the arguments that make `sora` use them, but for the model's name.
    """
    from clip_tiny import make_tiny_clip
    from t5_tiny import make_tiny_t5

    from sora_cli.plugin.manager import get_plugins, load_attribute
    from sora_plugins.sd_vae.config import SpatialConfig
    from sora_plugins.sd_vae.model import SpatialAutoencoder

    spec: Any = get_plugins().get("model", name)
    small = {"hidden_size": WIDTH, "depth": 2, "num_heads": 4, "caption_channels": TEXT_WIDTH}
    config = {**next(iter(spec.variants.values())), **small}
    tensors = noisy_tensors(lambda: load_attribute(spec.target, what=name)(config, None))
    tensors["x_embedder.proj.weight"] = tensors["x_embedder.proj.weight"][:, :, 0].clone()
    tensors["pos_embed"] = torch.zeros(1, 256, WIDTH)
    (file,) = next(iter(spec.weights.values())).files
    if name.startswith("latte"):
        tensors["temp_embed"] = torch.zeros(1, 16, WIDTH)
    for part in ("model", "vae"):
        (folder / part).mkdir(parents=True)
    wrapped = WRAPPED.get(file, WRAPPED[Path(file).suffix])
    torch.save({wrapped: tensors} if wrapped else tensors, folder / "model" / file)
    (folder / "model" / "config.json").write_text(json.dumps({**config, **changes}))

    from safetensors.torch import save_file

    autoencoder = noisy_tensors(lambda: SpatialAutoencoder(SpatialConfig.from_mapping(FRAME_AUTOENCODER)))
    save_file(autoencoder, folder / "vae" / "model.safetensors")
    (folder / "vae" / "config.json").write_text(json.dumps(FRAME_AUTOENCODER))
    flags = ["--weights", str(folder / "model"), "--vae-weights", str(folder / "vae")]
    if name.startswith("pixart"):
        make_tiny_t5(folder / "text", width=TEXT_WIDTH)
    elif changes.get("condition") == "text":
        make_tiny_clip(folder / "text", width=CLIP_WIDTH)
    else:
        return flags
    return [*flags, "--text-weights", str(folder / "text")]


def make_table(folder: Path, texts: Sequence[str]) -> Path:
    """Clips of 12 frames of 64x64, each a colour that grows brighter, with these texts or labels."""
    folder.mkdir(parents=True)
    rows = []
    for number, text in enumerate(texts):
        colour = np.array([40 * number % 160, 30, 90])
        frames = [np.full((64, 64, 3), colour + 5 * index, np.uint8) for index in range(12)]
        save_video(folder / f"{number}.mp4", frames)
        rows.append({"path": f"{number}.mp4", "text": text, "num_frames": 12, "height": 64, "width": 64, "fps": 24})
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "clips.csv"
