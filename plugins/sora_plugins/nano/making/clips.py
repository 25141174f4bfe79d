"""Render the clips that nano is made from.

    python -m sora_plugins.nano.making.clips -o FOLDER --count 1200 --seed 1

Writes `clip_00000.npy` (uint8, T, H, W, 3) and `clip_00000.json` (the scene's parameters) for each index. A clip
depends on the seed and its index only, so several processes may share the work (--start, --step), and finished
clips are not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

import numpy as np
import torch

from sora_plugins.nano.scenes.catalogue import SceneParams, clip_params
from sora_plugins.nano.scenes.renderer import render

FRAMES, HEIGHT, WIDTH = 51, 144, 256


def read_params(path: Path) -> SceneParams:
    """The parameters written beside a clip."""
    return SceneParams(**json.loads(path.read_text()))


def write_clip(folder: Path, index: int, params: SceneParams) -> None:
    """Render one clip; the .npy appears whole, after its parameters."""
    clip = render(params, FRAMES, HEIGHT, WIDTH).numpy()
    stem = folder / f"clip_{index:05d}"
    stem.with_suffix(".json").write_text(json.dumps(dataclasses.asdict(params)))
    partial = stem.with_suffix(".part")
    with partial.open("wb") as file:
        np.save(file, clip)
    os.replace(partial, stem.with_suffix(".npy"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--step", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    begin, made = time.monotonic(), 0
    for index in range(arguments.start, arguments.count, arguments.step):
        if (arguments.output / f"clip_{index:05d}.npy").exists():
            continue
        write_clip(arguments.output, index, clip_params(arguments.seed, index))
        made += 1
        if made % 50 == 0:
            print(f"{index + 1} of {arguments.count} clips, {(time.monotonic() - begin) / made:.2f} s each", flush=True)


if __name__ == "__main__":
    main()
