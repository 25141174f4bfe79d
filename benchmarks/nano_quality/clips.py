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
#: Of clips that are made from captions; the next one's is one more.
FIRST_SEED = 1000


class Rendered(NamedTuple):
    """A rendered clip, the parameters it shows, and a caption that is true for it."""

    clip: Clip
    scene: dict[str, Any]
    caption: str


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
        rows = list(csv.DictReader(table))[:count]
    scenes = [json.loads((folder / f"{row['path']}.json").read_text())["scene"] for row in rows]
    return [
        Rendered(frames_of(folder / row["path"]), scene, row["text"]) for row, scene in zip(rows, scenes, strict=True)
    ]


def generated(folder: Path, prompts: Sequence[str], options: Sequence[str]) -> list[Clip]:
    """A clip for each prompt; what is in the folder already with the same settings is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "prompts.txt"
    file.write_text("\n".join(prompts) + "\n")
    said = sora("generate", "--prompt-file", str(file), "-m", "nano", "-o", str(folder), "-q", *options)
    paths = [Path(line) for line in said.splitlines()]
    assert len(paths) == len(prompts)
    return [frames_of(path) for path in paths]


def retold(folder: Path, renders: Sequence[Rendered], options: Sequence[str]) -> list[Clip]:
    """A clip for the caption and camera of each render, each from its own seed; what is there already is kept."""
    prompts = [each.caption + json.dumps({"camera": each.scene["camera"]}) for each in renders]
    paths = [folder / f"clip_{index:05}.mp4" for index in range(len(renders))]
    files = [{"path": str(path), "seed": FIRST_SEED + index} for index, path in enumerate(paths)]
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "settings.yaml"  # of which JSON is a part
    settings.write_text(json.dumps({"prompt": {"prompts": prompts}, "output": {"files": files}}))
    sora("generate", "--config", str(settings), "-m", "nano", "-q", *options)
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
