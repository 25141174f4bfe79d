"""How far the colours of a long video drift from its first part: parts made from sampled latents, or from frames.

    python benchmarks/long_video.py [-o outputs/long-video] [--segments 10] [--seeds 2] [--prompts N] [--json FILE]

Videos of nano are made twice with the same noise: each part from the latents of the one before (the default), and
from its decoded frames, encoded again, as Open-Sora does (`--overlap-from frames`). Of the frames that each part adds,
the mean CIELAB colour, the mean saturation (chroma) and the contrast (deviation of lightness) are compared with those
of the first part; figures are means over all videos. Most of that is what the model makes of the scene, so the pairs of
videos are compared too: how far the last part has moved with frames, beside latents. "coding" is what is left without
the model: the first frames of the videos, decoded and encoded again once for each part, as going on from frames does;
from latents nothing is coded again (but for nano's first frame of a part). The seam is the change between the last
frame of a part and the first of the next one, over that four frames earlier and later, where latent frames of one part
meet. Videos that exist are not made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from sora_cli.conditioning.long_video import OVERLAP
from sora_cli.plugin.manager import get_plugins
from sora_cli.video.latents import to_frames
from sora_cli.weights.locate import locate_weights

PROMPTS = (
    "a waterfall in a forest",
    "ocean waves at sunset",
    "clouds in a blue sky",
    "northern lights over a lake",
    "snow falling on fir trees",
    "rain on a street at night",
    "a flower meadow in the wind",
    "green hills in the evening",
)
WAYS = ("latents", "frames")
#: CIE 1931 XYZ of linear sRGB, and its white D65 (IEC 61966-2-1).
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def main() -> None:
    """Make the videos, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("outputs/long-video"))
    parser.add_argument("--segments", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=2, help="videos of each prompt")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="use the first so many prompts")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    arguments = parser.parse_args()
    start = time.perf_counter()
    measured = {way: [measure(video) for video in videos(arguments, way)] for way in WAYS}
    measured["coding"] = [round_trips(video, arguments.segments) for video in videos(arguments, WAYS[0])]
    rows = [
        {"part": part, **{f"{way} {name}": mean(measured[way], name, part) for way in measured for name in MEASURES}}
        for part in range(arguments.segments)
    ]
    figures = {f"{way} seam": float(np.mean([each["seam"] for each in measured[way]])) for way in WAYS}
    last = rows[-1]
    figures["colour, frames - latents"] = last["frames colour"] - last["latents colour"]
    for name in ("saturation", "contrast"):
        figures[f"{name}, frames / latents"] = last[f"frames {name}"] / last[f"latents {name}"]
    report(rows, figures, time.perf_counter() - start, arguments.json)


MEASURES = ("colour", "saturation", "contrast")


def videos(arguments: argparse.Namespace, way: str) -> list[Path]:
    """Paths of the videos of one way, made with the program."""
    command = [sys.executable, "-m", "sora_cli", "generate", *PROMPTS[: arguments.prompts], "-m", "nano", "-q"]
    options = {"--segments": arguments.segments, "--num-samples": arguments.seeds, "--overlap-from": way}
    extra = [str(text) for item in options.items() for text in item]
    folder = arguments.output / way
    done = subprocess.run([*command, *extra, "-o", folder], check=True, stdout=subprocess.PIPE, text=True)
    return [Path(line) for line in done.stdout.splitlines()]


def measure(path: Path) -> dict[str, Any]:
    """Of one video: colour (distance of mean CIELAB), saturation and contrast (ratios) of each part to the first."""
    segments = json.loads(path.with_name(path.name + ".json").read_text())["segments"]
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    borders = part_borders(segments, len(frames))
    found: dict[str, Any] = compare([np.stack(frames[first:last]) for first, last in itertools.pairwise(borders)])
    steps = np.array([np.abs(b.astype(float) - a).mean() for a, b in itertools.pairwise(frames)])
    at_seam = np.array(borders[1:-1]) - 1
    return {**found, "seam": float(steps[at_seam].mean() / steps[np.stack([at_seam - 4, at_seam + 4])].mean())}


def compare(parts: Sequence[NDArray[np.uint8]]) -> dict[str, list[float]]:
    """Each of `MEASURES` for parts (T, H, W, 3), compared with the first one."""
    labs = [np.stack([lab(frame[::2, ::2]) for frame in part]) for part in parts]
    means = [part.mean(axis=(0, 1, 2)) for part in labs]
    chroma = [float(np.hypot(part[..., 1], part[..., 2]).mean()) for part in labs]
    contrast = [float(part[..., 0].std(axis=(1, 2)).mean()) for part in labs]
    return {
        "colour": [float(np.linalg.norm(each - means[0])) for each in means],
        "saturation": [each / chroma[0] for each in chroma],
        "contrast": [each / contrast[0] for each in contrast],
    }


def round_trips(path: Path, count: int) -> dict[str, list[float]]:
    """The frames that a part goes on from, decoded and encoded again up to `count` - 1 times."""
    spec: Any = get_plugins().get("vae", "nano")
    weights = locate_weights(spec.weights, what=spec.name)
    vae = get_plugins().load_target(spec)(weights, torch.device("cpu"), torch.float32)
    with av.open(str(path)) as container:
        frames = itertools.islice(container.decode(video=0), OVERLAP)
        pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    pixels = torch.from_numpy(pictures).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    parts = []
    for _ in range(count):
        pixels = torch.cat(list(vae.decode(vae.encode(pixels), OVERLAP)), dim=2)
        parts.append(to_frames(pixels[0]))
    return compare(parts)


def part_borders(segments: dict[str, Any], total: int) -> list[int]:
    """The first frame of each part in the video, and its end. segments: as stored with a video."""
    count = segments["count"]
    whole = (total - segments["frames"]) // (count - 1) + segments["overlap"]  # frames of all parts but the last
    return [0, *(whole + part * (whole - segments["overlap"]) for part in range(count - 1)), total]


def lab(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """sRGB (H, W, 3) uint8 to CIELAB (H, W, 3)."""
    value = frame.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    cube = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(cube, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def mean(measured: Sequence[dict[str, Any]], name: str, part: int) -> float:
    """Mean over videos; of ratios the geometric one."""
    values = np.array([each[name][part] for each in measured])
    return float(values.mean() if name == "colour" else np.exp(np.log(values).mean()))


def report(rows: Sequence[dict[str, Any]], figures: dict[str, float], seconds: float, path: Path | None) -> None:
    """Print the table, and the same as JSON."""
    columns = [name for name in rows[0] if name != "part"]
    print(f"{'part':4}" + "".join(f"{name:>20}" for name in columns))
    for row in rows:
        print(f"{row['part']:4}" + "".join(f"{row[name]:20.3f}" for name in columns))
    print("   ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    document = {"rows": list(rows), **figures, "seconds": round(seconds, 1)}
    print(json.dumps(document))
    if path is not None:
        path.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
