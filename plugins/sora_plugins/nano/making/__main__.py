"""Make all of nano's weights from nothing but the renderer and a sentence encoder: every step below, in order.

    python -m sora_plugins.nano.making -o FOLDER --text-model all-MiniLM-L6-v2

What is done is kept: after an interruption the same command goes on, rendering and the diffusion model where they
stopped, the other steps from their beginning. The files for the package are in FOLDER/weights at the end. The same
settings give the same files on the same machine and torch version.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from sora_plugins.nano.text import TABLE_FILE, VOCABULARY_FILE

AUTOENCODER, MODEL = "autoencoder.safetensors", "model.safetensors"


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


def train_decoder(clips: Path, before: Path, after: Path, *options: object) -> None:
    """Train the decoder of `before` into `after`, which appears when it is done."""
    if after.exists():
        return
    part = after.with_suffix(".part")
    shutil.copyfile(before, part)
    step("autoencoder", "train", clips, part, *options)
    os.replace(part, after)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--text-model", type=Path, required=True, help="folder of sentence-transformers' encoder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clips", type=int, default=4800, help="clips to render; 5.6 MB each")
    parser.add_argument("--steps", type=int, default=12000, help="of the diffusion model")
    parser.add_argument("--decoder-steps", type=int, default=1500, help="of the decoder, twice")
    parser.add_argument("--processes", type=int, default=1, help="that train the diffusion model together")
    arguments = parser.parse_args()
    folder, seed = arguments.output, ("--seed", arguments.seed)
    folder.mkdir(parents=True, exist_ok=True)
    clips, latents, text, model = (folder / name for name in ("clips", "latents", "text", "run"))
    fitted, trained, mended = (folder / f"{name}-{AUTOENCODER}" for name in ("fitted", "trained", "mended"))

    step("clips", "-o", clips, "--count", arguments.clips, *seed)
    if not (text / TABLE_FILE).exists():
        step("text_table", "--model", arguments.text_model, "-o", text)
    if not fitted.exists():
        step("autoencoder", "fit", clips, "-o", fitted, *seed)
    train_decoder(clips, fitted, trained, "--steps", arguments.decoder_steps, *seed)
    step("latents", clips, trained, "-o", latents)
    training = (f"{__package__}.train", latents, text, "-o", model, "--steps", arguments.steps, *seed)
    if arguments.processes == 1:
        run("-m", *training)
    else:
        run("-m", "torch.distributed.run", "--nproc-per-node", arguments.processes, "-m", *training)
    errors = ("--rate", 6e-4, "--model", model / MODEL, "--text", text)
    train_decoder(clips, trained, mended, "--steps", arguments.decoder_steps, "--seed", arguments.seed + 1, *errors)

    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    step("autoencoder", "export", clips, mended, "-o", weights / AUTOENCODER)
    for file in (model / MODEL, text / TABLE_FILE, text / VOCABULARY_FILE):
        shutil.copyfile(file, weights / file.name)
    print(f"made: {weights}")


if __name__ == "__main__":
    main()
