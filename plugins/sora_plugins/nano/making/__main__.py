"""Make all of nano's weights from nothing but the renderer and a sentence encoder: every step below, in order.

    python -m sora_plugins.nano.making -o FOLDER --text-model all-MiniLM-L6-v2

Clips, features, the diffusion model and its export are made by `sora` itself. What is done is kept: after an
interruption the same command goes on, rendering, extracting and training where they stopped, the other steps from their
beginning. The files for the package are in FOLDER/weights at the end. The same settings give the same files on the same
machine and torch version.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from sora_plugins.nano.scene_clips import TABLE
from sora_plugins.nano.text import TABLE_FILE, VOCABULARY_FILE

AUTOENCODER, MODEL, UPSCALER = "autoencoder.safetensors", "model.safetensors", "upscaler.safetensors"
#: Aspect ratios of clips and pictures, with the share of each.
SHAPES = {"16:9": 0.88, "1:1": 0.04, "4:3": 0.03, "9:16": 0.03, "21:9": 0.02}
#: Stages of the diffusion model, each a preset nano-NAME, with their share of the updates.
STAGES = {"stills": 0.1, "pieces": 0.25, "clips": 0.65}
#: More than the 51 that are trained, because a bucket wants clips that are longer.
FRAMES = 52
CAPTIONS = 8
HELD_OUT = 36
#: Pictures for each clip; they take a thirtieth of the time.
PICTURES = 2


def run(*words: object) -> None:
    """Run `python words`, on one thread; exit as it does when it fails."""
    command = [sys.executable, *map(str, words)]
    print("+", " ".join(command[1:]), flush=True)
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        raise SystemExit(done.returncode)


def step(name: str, *words: object) -> None:
    """Run a script of this package."""
    run("-m", f"{__package__}.{name}", *words)


def sora(*words: object) -> None:
    """Run a command of the program."""
    run("-m", "sora_cli", *words)


def render(folder: Path, count: int, seed: int) -> None:
    """Clips and pictures of all shapes, and clips that nothing is trained on; each set has other scenes."""
    for number, (shape, share) in enumerate(SHAPES.items()):
        name, options = shape.replace(":", "x"), ("--aspect-ratio", shape, "--captions", CAPTIONS)
        for place, (kind, frames, many) in enumerate((("clips", FRAMES, 1), ("stills", 1, PICTURES))):
            own = ("--count", max(1, round(count * share * many)), "--seed", 100 * seed + 2 * number + place)
            sora("scenes", "render", "-o", folder / kind / name, "--frames", frames, *own, *options)
    sora("scenes", "render", "-o", folder / "held-out", "--count", HELD_OUT, "--seed", 100 * seed + 99)


def train_decoder(table: Path, before: Path, after: Path, *options: object) -> None:
    """Train the decoder of `before` into `after`, which appears when it is done."""
    if after.exists():
        return
    part = after.with_suffix(".part")
    shutil.copyfile(before, part)
    step("autoencoder", "train", table, part, *options)
    os.replace(part, after)


def train_model(folder: Path, autoencoder: Path, text: Path, *, steps: int, seed: int, processes: int) -> None:
    """Features and updates of every stage, and the weights in the end."""
    tables = {"stills": ("stills",), "pieces": ("stills", "clips"), "clips": ("stills", "clips")}
    before: tuple[object, ...] = ()
    for stage, share in STAGES.items():
        features, run_folder = folder / f"features-{stage}", folder / f"run-{stage}"
        common = ("--preset", f"nano-{stage}", "--text-weights", text, "--seed", seed)
        data = [word for kind in tables[stage] for word in ("--data", folder / kind / "*" / TABLE)]
        sora("train", "extract", *common, "--vae-weights", autoencoder, *data, "-o", features)
        many = ("--device", "cpu", "--gpus", processes) if processes > 1 else ()
        length = ("--steps", round(steps * share), "--init", "random")
        sora("train", *common, "--data", features, "--run", run_folder, *length, *before, *many)
        before = ("--load", run_folder)
    sora("train", "export", run_folder, "-o", folder / MODEL, "--overwrite")


def train_upscaler(folder: Path, autoencoder: Path, count: int, steps: int, seed: int) -> None:
    """Pictures in two sizes, of scenes that nothing else is made from, and the network that enlarges them."""
    pairs, trained = folder / "pairs.safetensors", folder / UPSCALER
    if trained.exists():
        return
    if not pairs.exists():
        step("upscaler", "pairs", autoencoder, "-o", pairs, "--count", count, "--seed", 100 * seed + 98)
    step("upscaler", "train", pairs, "-o", trained, "--steps", steps, "--seed", seed)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--text-model", type=Path, required=True, help="folder of sentence-transformers' encoder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clips", type=int, default=6000, help="clips to render; 0.2 MB each, and their features 1 MB")
    parser.add_argument("--steps", type=int, default=12000, help="of the diffusion model")
    parser.add_argument("--decoder-steps", type=int, default=1500, help="of the decoder, twice")
    parser.add_argument("--pairs", type=int, default=600, help="pictures in two sizes for the upscaler; 2 MB each")
    parser.add_argument("--upscaler-steps", type=int, default=13000, help="of the upscaler")
    parser.add_argument("--processes", type=int, default=1, help="that train the diffusion model together")
    arguments = parser.parse_args()
    folder, seed = arguments.output, ("--seed", arguments.seed)
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "text"
    table, held_out = folder / "clips" / "16x9" / TABLE, ("--held-out", folder / "held-out" / TABLE)
    fitted, trained, mended = (folder / f"{name}-{AUTOENCODER}" for name in ("fitted", "trained", "mended"))

    render(folder, arguments.clips, arguments.seed)
    if not (text / TABLE_FILE).exists():
        step("text_table", "--model", arguments.text_model, "-o", text)
    if not fitted.exists():
        step("autoencoder", "fit", table, "-o", fitted, *seed, *held_out)
    decoder = ("--steps", arguments.decoder_steps, *held_out)
    train_decoder(table, fitted, trained, *decoder, *seed)
    options = {"steps": arguments.steps, "seed": arguments.seed, "processes": arguments.processes}
    train_model(folder, trained, text, **options)
    errors = ("--rate", 6e-4, "--model", folder / MODEL, "--text", text)
    train_decoder(table, trained, mended, *decoder, "--seed", arguments.seed + 1, *errors)

    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    step("autoencoder", "export", mended, "-o", weights / AUTOENCODER)
    train_upscaler(folder, weights / AUTOENCODER, arguments.pairs, arguments.upscaler_steps, arguments.seed)
    step("upscaler", "export", folder / UPSCALER, "-o", weights / UPSCALER)
    for file in (folder / MODEL, text / TABLE_FILE, text / VOCABULARY_FILE):
        shutil.copyfile(file, weights / file.name)
    print(f"made: {weights}")


if __name__ == "__main__":
    main()
