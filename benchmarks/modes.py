"""How well nano keeps what it is given: pictures, edited videos, and the place where old and new frames meet.

    python benchmarks/modes.py [-o outputs/modes] [--count 6] [--json FILE] [OPTION of sora generate ...]

Of rendered clips, one of each of the first scenes: the PSNR (dB) of a picture that is the first, the last or a key
frame, and what is left at several strengths of an edit with another prompt, beside the autoencoder alone; and the step
between the frames where something meets something else, over the largest other step in the clip, when a video goes on
at its end or its beginning, a clip leads from one picture to another, or a loop closes. Clips that exist are not made
again. Further arguments go to `sora generate`, such as `--steps 8`.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Clip = NDArray[np.uint8]
KEY_SECONDS = 1.0
RATE = 24
STRENGTHS = (0.2, 0.5, 0.8)
OTHER_PROMPT = "white clouds in a blue sky"


def main() -> None:
    """Make the clips, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("outputs/modes"))
    parser.add_argument("--count", type=int, default=6, help="clips that pictures and videos are taken from")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments, options = parser.parse_known_args()
    start = time.perf_counter()
    figures: dict[str, list[float]] = {}
    for number, (video, prompt) in enumerate(rendered(arguments.output / "given", arguments.count)):
        for name, value in measure(arguments.output / f"clip-{number}", video, prompt, options).items():
            figures.setdefault(name, []).append(value)
    report(figures, time.perf_counter() - start, arguments.json)


def sora(*arguments: str) -> str:
    """Run the program; its standard output."""
    command = [sys.executable, "-m", "sora_cli", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def rendered(folder: Path, count: int) -> list[tuple[Path, str]]:
    """Rendered clips of 51 frames and their captions."""
    sora("scenes", "render", "-o", str(folder), "--count", str(count), "--seed", "7", "-q")
    with (folder / "clips.csv").open(newline="") as table:
        return [(folder / row["path"], row["text"]) for row in csv.DictReader(table)][:count]


def frames_of(path: Path) -> Clip:
    """(T, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def measure(folder: Path, video: Path, prompt: str, options: Sequence[str]) -> Mapping[str, float]:
    """All figures of one rendered clip. folder: for what is made of it."""
    folder.mkdir(parents=True, exist_ok=True)
    given = frames_of(video)
    first, last = folder / "first.png", folder / "last.png"
    Image.fromarray(given[0]).save(first)
    Image.fromarray(given[-1]).save(last)

    def made(name: str, *extra: str, text: str = prompt, command: Sequence[str] = ("generate",)) -> Clip:
        target = folder / f"{name}.mp4"
        sora(*command, text, "-m", "nano", "-q", "-o", str(target), *extra, *options)
        return frames_of(target)

    coded = folder / "coded.mp4"
    if not coded.exists():
        sora("vae", "reconstruct", str(video), "--vae", "nano", "-q", "-o", str(coded))
    coded_frames = frames_of(coded)[:, :, given.shape[2] :][:, :, : given.shape[2]]
    figures = {"autoencoder, first frame dB": psnr(coded_frames[0], given[0])}
    figures["first frame dB"] = psnr(made("first", "--first", str(first))[0], given[0])
    figures["last frame dB"] = psnr(made("last", "--last", str(last))[-1], given[-1])
    key = made("key", "--keyframe", f"{first}@{KEY_SECONDS:g}s")
    figures["key frame dB"] = psnr(key[round(KEY_SECONDS * RATE)], given[0])
    for strength in STRENGTHS:
        edited = made(f"edit-{strength:g}", "--edit", str(video), "--strength", f"{strength:g}", text=OTHER_PROMPT)
        count = min(len(edited), len(given))
        figures[f"edit {strength:g} dB"] = psnr(edited[:count], given[:count])
    figures.update(seams(video, given, first, last, made))
    return figures


def seams(video: Path, given: Clip, first: Path, last: Path, made: Callable[..., Clip]) -> Mapping[str, float]:
    """Steps where old and new meet, over the largest other one."""
    forward = made("forward", "--by", "1s", command=("extend", str(video)))
    backward = made("backward", "--by", "1s", "--backward", command=("extend", str(video)))
    led = made("connect", "--connect", str(first), str(last))
    loop = made("loop", "--seamless")
    picture_loop = made("picture-loop", "--first", str(first), "--seamless")
    return {
        "on at the end, step": step_ratio(forward, len(given) - 1),
        "on at the beginning, step": step_ratio(backward, len(backward) - len(given) - 1),
        "led to a picture, step": step_ratio(led, len(led) - 2),
        "loop, step": step_ratio(np.concatenate([loop, loop[:1]]), len(loop) - 1),
        "loop of a picture, step": step_ratio(np.concatenate([picture_loop, picture_loop[:1]]), len(picture_loop) - 1),
    }


def psnr(a: Clip, b: Clip) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-9)))


def step_ratio(frames: Clip, place: int) -> float:
    """The mean change from frame `place` to the next, over the largest of the others."""
    steps = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    return float(steps[place] / np.delete(steps, place).max())


def report(figures: Mapping[str, Sequence[float]], seconds: float, path: Path | None) -> None:
    """Print a table, and the figures as JSON."""
    names = {name: {"mean": float(np.mean(each)), "worst": float(worst(name, each))} for name, each in figures.items()}
    print(f"{'':28}{'mean':>8}{'worst':>8}")
    for name, each in names.items():
        print(f"{name:28}{each['mean']:8.2f}{each['worst']:8.2f}")
    document = {"figures": names, "clips": len(next(iter(figures.values()))), "seconds": round(seconds, 1)}
    print(json.dumps(document))
    if path is not None:
        path.write_text(json.dumps(document, indent=2) + "\n")


def worst(name: str, values: Sequence[float]) -> float:
    """The least PSNR, or the largest step."""
    return min(values) if name.endswith("dB") else max(values)


if __name__ == "__main__":
    main()
