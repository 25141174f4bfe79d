"""The options of `sora eval metrics`, `sora eval vae` and `sora compare`; conventions are those of `options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import complete

#: What --prompts takes wherever clips have prompts; `evaluation.clip_prompts` reads it.
PROMPTS = "prompts of the clips: a table (path, text), JSON, a plan, or text with one a line in the order of the clips"
VideoPlaces = Annotated[
    list[Path], typer.Argument(help="videos or pictures, or folders of them", metavar="VIDEO|FOLDER...")
]
Measures = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="measure, or score of `sora data score`, repeatable (default: psnr and ssim; without originals flicker, "
        "sharpness and motion)",
        metavar="NAME",
        rich_help_panel="Measures",
        autocompletion=complete.measures,
    ),
]
PairMetrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        help="measure of pairs, repeatable (default: psnr, ssim, and lpips where its weights are)",
        metavar="NAME",
        rich_help_panel="Measures",
        autocompletion=complete.metrics,
    ),
]
PartWeights = Annotated[
    list[str] | None,
    typer.Option(
        "--metric-weights",
        help="file or folder of a network that measures look with, repeatable, e.g. alexnet=FILE, clip=FOLDER",
        metavar="PART=FILE",
        rich_help_panel="Measures",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        "--reference",
        help="folder with the originals, or the original of all",
        metavar="FOLDER",
        rich_help_panel="Originals",
    ),
]
ByPosition = Annotated[
    bool,
    typer.Option(
        "--by-position/--by-name",
        help="how a video finds its original: by its place when sorted, or by its name without ending",
        rich_help_panel="Originals",
    ),
]
Fit = Annotated[
    bool,
    typer.Option(
        "--fit",
        help="bring videos to the size and rate of the original, and compare the frames that both have, instead of "
        "refusing others",
        rich_help_panel="Originals",
    ),
]
SampleFrames = Annotated[
    int | None,
    typer.Option(
        "--frames",
        help="at most N frames, evenly from the first N x --sample-rate (default: all)",
        metavar="N",
        min=1,
        rich_help_panel="Frames",
    ),
]
FirstFrames = Annotated[
    int | None,
    typer.Option(
        "--frames",
        help="only the first N frames; with --sample-rate N evenly from the first N x --sample-rate",
        metavar="N",
        min=1,
        rich_help_panel="Frames",
    ),
]
SampleRate = Annotated[
    int,
    typer.Option("--sample-rate", help="one frame in so many", metavar="N", min=1, rich_help_panel="Frames"),
]
Rate = Annotated[
    float | None,
    typer.Option("--fps", help="take frames at this constant rate", metavar="FPS", min=0.001, rich_help_panel="Frames"),
]
Resolution = Annotated[
    int | None,
    typer.Option(
        "--resolution", help="resize the short side to so many pixels", metavar="N", min=1, rich_help_panel="Frames"
    ),
]
Crop = Annotated[
    int | None,
    typer.Option(
        "--crop",
        help="then compare the middle square of so many pixels",
        metavar="N",
        min=1,
        rich_help_panel="Frames",
    ),
]
Subset = Annotated[
    int | None,
    typer.Option("--subset", help="only the first N videos", metavar="N", min=1, rich_help_panel="Originals"),
]
ReferenceAggregate = Annotated[
    bool,
    typer.Option(
        "--reference-aggregate",
        help="also the mean as Open-Sora's tool takes it: by batch and place of the frame",
        rich_help_panel="Measures",
    ),
]
BatchSize = Annotated[
    int,
    typer.Option("--batch-size", help="videos of a batch of that mean", metavar="N", min=1, rich_help_panel="Measures"),
]
TimeLimit = Annotated[
    float,
    typer.Option(
        "--time-limit",
        help="seconds a video may take before it is left out",
        metavar="SECONDS",
        min=1,
        rich_help_panel="Hardware",
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        help=f"{PROMPTS} (default: the prompts stored in the videos)",
        metavar="FILE",
        rich_help_panel="Measures",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="JSON file for a report", metavar="FILE", rich_help_panel="Output"),
]
