"""The options of `sora vae`; conventions and shared options are those of `options` and `train_options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from . import complete
from .options import setting

# -- sora vae train: what is not shared with `sora train` ----------------------------------------------------------

Vae = Annotated[
    str | None,
    setting(
        "vae.name",
        "--vae",
        "video autoencoder",
        "NAME",
        values=complete.vaes,
        parameter="vae_name",
    ),
]
Weights = Annotated[
    str | None,
    setting(
        "vae.weights",
        "--vae-weights",
        "where training starts: another autoencoder's name, hub id, folder, file or training run",
        "WHERE",
        parameter="vae_start",
    ),
]
Raw = Annotated[
    bool | None,
    setting(
        "vae.raw",
        "--raw/--averaged",
        "of a training run take the last weights, not their average",
        default="averaged",
        parameter="vae_raw",
    ),
]
Initialize = Annotated[
    Literal["released", "random"] | None,
    setting(
        "vae.initialize",
        "--init",
        "start from released weights or from random ones",
        "NAME",
        default="released",
        parameter="vae_init",
    ),
]
NetworkConfig = Annotated[
    Path | None,
    setting("vae.config", "--vae-config", "config.json of a network of other sizes", "FILE", parameter="vae_config"),
]
Dtype = Annotated[
    Literal["fp32", "bf16"] | None,
    setting(
        "vae.dtype",
        "--dtype",
        "number format of the network: fp32 or bf16",
        "NAME",
        default="bf16",
        parameter="vae_dtype",
    ),
]
Freeze = Annotated[
    list[str] | None,
    setting(
        "vae.freeze", "--freeze", "part of the network that is not trained; repeatable", "NAME", parameter="vae_freeze"
    ),
]
Checkpointing = Annotated[
    bool | None,
    setting(
        "vae.gradient_checkpointing",
        "--gradient-checkpointing/--no-gradient-checkpointing",
        "compute blocks again in the backward pass: less memory, a third more time",
        default="yes",
        parameter="vae_checkpointing",
    ),
]
Mixing = Annotated[
    Literal["none", "image", "length"] | None,
    setting("data.mixing", "--mixing", "lengths of clips: none, image or length", "NAME", default="none"),
]
PerceptualWeight = Annotated[
    float | None,
    setting("loss.perceptual_weight", "--perceptual-weight", "weight of the perceptual term", "W", default="0.1"),
]
PerceptualWeights = Annotated[
    str | None,
    setting(
        "loss.perceptual_weights",
        "--perceptual-weights",
        "file with the network that the perceptual term looks with",
        "FILE",
    ),
]
KlWeight = Annotated[
    float | None, setting("loss.kl_weight", "--kl-weight", "weight of the posteriors' divergence", "W", default="1e-6")
]
Discriminator = Annotated[
    str | None,
    setting(
        "discriminator.name",
        "--discriminator",
        "network to train against",
        "NAME",
        values=complete.discriminators,
        parameter="discriminator",
    ),
]
Samples = Annotated[
    int | None,
    setting("validation.samples", "--samples", "clips that are written beside their reconstructions", "N"),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="recipe to start from; `sora presets list --kind vae` shows them",
        rich_help_panel="Run",
        metavar="NAME",
        autocompletion=complete.vae_presets,
    ),
]

# -- the other commands --------------------------------------------------------------------------------------------

Videos = Annotated[list[str], typer.Argument(help="video or picture files", metavar="VIDEO...")]
LatentFiles = Annotated[list[Path], typer.Argument(help="files that `sora vae encode` wrote", metavar="LATENTS...")]
Name = Annotated[
    str,
    typer.Option(
        "--vae",
        help="video autoencoder",
        metavar="NAME",
        rich_help_panel="Autoencoder",
        autocompletion=complete.vaes,
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--vae-weights",
        help="its weights: hub id, folder, file or training run (default: the released ones)",
        metavar="WHERE",
        rich_help_panel="Autoencoder",
    ),
]
Format = Annotated[
    Literal["auto", "fp32", "bf16"],
    typer.Option("--dtype", help="number format", metavar="NAME", rich_help_panel="Autoencoder"),
]
Sample = Annotated[
    bool,
    typer.Option(
        "--sample/--mean",
        help="draw latents from the posterior, as in training, or take its mean",
        rich_help_panel="Autoencoder",
    ),
]
Seed = Annotated[
    int, typer.Option("--seed", help="of what is drawn", metavar="N", min=0, rich_help_panel="Autoencoder")
]
Memory = Annotated[
    Literal["plain", "low", "tiled"],
    typer.Option(
        "--memory",
        help="plain; low: less memory, same result to rounding; tiled: least, NOT exact, the error is measured",
        metavar="NAME",
        rich_help_panel="Autoencoder",
    ),
]
LowMemory = Annotated[
    bool, typer.Option("--low-memory", help="the same as --memory low", rich_help_panel="Autoencoder")
]
ClipSize = Annotated[
    str | None,
    typer.Option("--size", help="fit clips to HEIGHTxWIDTH first", metavar="HxW", rich_help_panel="Clips"),
]
ClipFrames = Annotated[
    int | None, typer.Option("--frames", help="only the first N frames", metavar="N", min=1, rich_help_panel="Clips")
]
ClipFps = Annotated[
    float | None,
    typer.Option("--fps", help="take frames at this constant rate", metavar="FPS", min=0.001, rich_help_panel="Clips"),
]
DeviceName = Annotated[
    Literal["auto", "cuda", "mps", "cpu"],
    typer.Option("--device", help="auto, cuda, mps or cpu", metavar="NAME", rich_help_panel="Hardware"),
]
ThreadCount = Annotated[
    int | None,
    typer.Option(
        "--threads",
        help="CPU threads (default: the cores that may be used)",
        metavar="N",
        min=1,
        rich_help_panel="Hardware",
    ),
]
To = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="file to write, or folder for several (default: outputs/)",
        metavar="PATH",
        rich_help_panel="Output",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what is there", rich_help_panel="Output")]
Store = Annotated[
    Literal["fp32", "bf16", "fp16"],
    typer.Option("--store", help="number format of the latents in the file", metavar="NAME", rich_help_panel="Output"),
]
Separate = Annotated[
    bool,
    typer.Option(
        "--separate",
        help="write original, full and spatial reconstruction as lossless files of their own (.mkv, .png)",
        rich_help_panel="Output",
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="measure of quality, repeatable (default: psnr and ssim)",
        metavar="NAME",
        rich_help_panel="Measures",
        autocompletion=complete.metrics,
    ),
]
MetricWeights = Annotated[
    list[str] | None,
    typer.Option(
        "--metric-weights",
        help="file of a network that measures look with, repeatable: alexnet=FILE, vgg16=FILE, pwc=FILE",
        metavar="PART=FILE",
        rich_help_panel="Measures",
    ),
]
