"""Making the clips that are compared, with the product's own commands, and reading them back."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

Clip = NDArray[np.uint8]


class Rendered(NamedTuple):
    """A rendered clip and the parameters it shows."""

    clip: Clip
    scene: dict[str, Any]


def sora(*arguments: str) -> str:
    """Run the program; its standard output."""
    program = Path(sys.executable).with_name("sora")
    done = subprocess.run([program, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


def frames_of(path: Path) -> Clip:
    """(T, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def rendered(folder: Path, count: int, seed: int, *, frames: int = 51, size: str = "144x256") -> list[Rendered]:
    """Renders of all scenes in turn; what is in the folder already is kept."""
    sora("scenes", "render", "-o", str(folder), "--count", str(count), "--seed", str(seed), "--frames", str(frames),
         "--size", size, "-q")  # fmt: skip
    with (folder / "clips.csv").open(newline="") as table:
        paths = [folder / row["path"] for row in csv.DictReader(table)]
    return [Rendered(frames_of(path), json.loads(Path(f"{path}.json").read_text())["scene"]) for path in paths[:count]]


def generated(folder: Path, prompts: Sequence[str], options: Sequence[str]) -> list[Clip]:
    """A clip for each prompt; what is in the folder already with the same settings is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prompts.txt"
    file.write_text("\n".join(prompts) + "\n")
    said = sora("generate", "--prompt-file", str(file), "-m", "nano", "-o", str(folder), "-q", *options)
    paths = [Path(line) for line in said.splitlines()]
    assert len(paths) == len(prompts)
    return [frames_of(path) for path in paths]


def reconstructed(folder: Path, count: int) -> list[Clip]:
    """The first `count` rendered clips of a folder through the autoencoder."""
    videos = sorted(folder.glob("clip_*.mp4"))[:count]
    output = folder / "reconstructed"
    made = [output / f"{path.stem}-compared.mp4" for path in videos]
    missing = [str(path) for path, there in zip(videos, made, strict=True) if not there.exists()]
    if missing:
        sora("vae", "reconstruct", *missing, "--vae", "nano", "-o", str(output), "-q")
    both = [frames_of(path) for path in made]
    return [clip[:, :, clip.shape[2] // 2 :] for clip in both]


def contact_sheet(path: Path, rows: Sequence[Sequence[Clip]], *, columns: int = 6, width: int = 160) -> None:
    """A picture with a row for each clip: frames from first to last."""
    from PIL import Image

    strips = []
    for clips in rows:
        for clip in clips:
            places = np.linspace(0, len(clip) - 1, columns).astype(int)
            pictures = [Image.fromarray(clip[place]) for place in places]
            height = round(width * clip.shape[1] / clip.shape[2])
            strips.append(np.concatenate([np.asarray(picture.resize((width, height))) for picture in pictures], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(strips, axis=0)).save(path, quality=85)
