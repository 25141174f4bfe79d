"""`sora vae reconstruct`, `eval` and `stats`: how clips come back, and how latents are spread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.evaluation.measures import (
    DEFAULT_METRICS,
    Measures,
    Values,
    check_parts,
    load_measures,
    mean,
    read_weights,
    rounded,
    units_title,
)
from sora_cli.video.clips import ClipFile
from sora_cli.video.latents import to_frames
from sora_cli.video.lossless import ENDINGS, LosslessFiles
from sora_cli.video.media import is_image
from sora_cli.video.statistics import Moments

from .codec import (
    FRAMES_AT_ONCE,
    PICTURE,
    VIDEO,
    Codec,
    CodecOptions,
    check_clips,
    check_is_picture,
    name_targets,
    report_tiles,
    write_clip,
)
from .components import choose_device
from .output import check_free

PANELS = ("original", "full", "spatial")


class Reconstructed(NamedTuple):
    """Consecutive frames (1, 3, T, H, W) in [-1, 1]: as they were, decoded, and through the spatial part alone."""

    original: Tensor
    full: Tensor
    spatial: Tensor | None


def reconstructions(codec: Codec, clip: ClipFile, *, with_spatial: bool = False) -> Iterator[Reconstructed]:
    """A clip encoded and decoded, piece by piece; only its latents are kept as a whole.

    The clip is decoded from its file twice, so that memory does not grow with it.
    """
    latents = torch.cat(list(codec.encode(clip)), dim=2)
    report_tiles(codec.measure_tiles(codec.first_piece(clip), latents[:, :, : codec.first_latents(clip.num_frames)]))
    size = clip.height, clip.width
    waiting: Tensor | None = None
    source = clip.pieces(FRAMES_AT_ONCE)
    for full in codec.decode(latents, clip.num_frames, size):
        while waiting is None or waiting.shape[2] < full.shape[2]:
            piece = next(source)
            waiting = piece if waiting is None else torch.cat([waiting, piece], dim=2)
        original, waiting = waiting[:, :, : full.shape[2]], waiting[:, :, full.shape[2] :]
        yield Reconstructed(original, full, codec_spatial(codec, original, size) if with_spatial else None)


def codec_spatial(codec: Codec, pixels: Tensor, size: tuple[int, int]) -> Tensor | None:
    """Frames through the spatial part of the autoencoder alone; None where it has no part of its own."""
    if not hasattr(codec.vae, "reconstruct_frames"):
        return None
    with torch.inference_mode():
        found: Tensor = codec.vae.reconstruct_frames(pixels.to(codec.device), sample=codec.options.sample)
    return found[..., : size[0], : size[1]].float().clamp(-1.0, 1.0).cpu()


def reconstruct(
    videos: Sequence[str],
    output: Path | None,
    options: CodecOptions,
    *,
    separate: bool = False,
    overwrite: bool = False,
) -> None:
    """Write each clip beside its reconstructions, from the decoded frames themselves, and print the files."""
    check_clips(videos)
    are_pictures = [options.frames == 1 or is_image(Path(video)) for video in videos]
    suffixes = [PICTURE if is_picture else VIDEO for is_picture in are_pictures]
    targets = name_targets(videos, output, suffixes, overwrite=overwrite, also=(VIDEO, PICTURE), ending="-compared")
    if separate:
        parts = [path for target in targets for path in separate_paths(target).values()]
        check_free(
            [path.with_name(f"{path.name}{end}") for path in parts for end in ENDINGS], videos, overwrite=overwrite
        )
    codec, console = Codec(options), get_console()
    for video, target in zip(videos, targets, strict=True):
        with codec.open(video) as clip:
            check_is_picture(target, clip.num_frames)
            with console.progress(f"reconstructing {clip.path.name}", clip.num_frames) as progress:
                record = _write_reconstruction(codec, clip, target, separate, progress.advance)
            console.result(target, record)


def separate_paths(target: Path) -> dict[str, Path]:
    """Where each panel goes by itself, without its ending."""
    return {name: target.with_name(f"{target.stem.removesuffix('-compared')}-{name}") for name in PANELS}


def _write_reconstruction(
    codec: Codec, clip: ClipFile, target: Path, separate: bool, advance: Callable[[int], None]
) -> dict[str, Any]:
    has_spatial = hasattr(codec.vae, "reconstruct_frames")
    names = PANELS if has_spatial else PANELS[:2]
    paths = {name: path for name, path in separate_paths(target).items() if name in names}
    with contextlib.ExitStack() as stack:
        files = stack.enter_context(LosslessFiles(paths, clip.fps, clip.num_frames)) if separate else None

        def frames() -> Iterator[Any]:
            for piece in reconstructions(codec, clip, with_spatial=has_spatial):
                panels = {
                    name: to_frames(panel[0]) for name, panel in zip(names, piece, strict=False) if panel is not None
                }
                if files is not None:
                    files.add(panels)
                advance(piece.original.shape[2])
                yield torch.cat([torch.from_numpy(panel) for panel in panels.values()], dim=2).numpy()

        size = clip.height, clip.width * len(names)
        write_clip(target, frames(), size, clip.fps, {"vae": codec.about(clip), "panels": list(names)})
    written = {} if files is None else {name: str(path) for name, path in files.paths.items()}
    return {"path": str(target), "panels": list(names), **({"files": written} if written else {}), **codec.about(clip)}


# -- measures ------------------------------------------------------------------------------------------------------


def evaluate(
    videos: Sequence[str], options: CodecOptions, *, metrics: Sequence[str] = (), metric_weights: Sequence[str] = ()
) -> None:
    """Measure reconstructions of clips, each and all together, and print a table."""
    check_clips(videos)
    device = choose_device(options.device)  # type: ignore[arg-type]  # typed by the command
    given = read_weights(metric_weights)
    chosen = load_measures(metrics or DEFAULT_METRICS, given, device)
    check_parts(given, {part for measure in chosen.values() for part in measure.spec.weights})
    if sets := [name for name, measure in chosen.items() if measure.spec.subject == "sets"]:
        raise UsageError(f"{sets[0]} compares two sets of videos", hint="`sora eval metrics` has it")
    codec, console = Codec(options), get_console()
    rows: list[dict[str, Any]] = []
    for video in videos:
        with codec.open(video) as clip:
            with console.progress(f"measuring {clip.path.name}", clip.num_frames) as progress:
                values = measure(reconstructions(codec, clip), chosen, advance=progress.advance)
            rows.append(
                {"clip": clip.path.name, "frames": clip.num_frames, "size": f"{clip.height}x{clip.width}", **values}
            )
    means = {name: mean([row[name] for row in rows]) for name in chosen}
    rows.append({"clip": "mean", "frames": None, "size": None, **means})
    if console.mode != "json":
        rows = [rounded(row) for row in rows]
    console.table(rows, list(rows[0]), units_title(chosen))


def measure(
    pieces: Iterator[Reconstructed], metrics: Measures, *, advance: Callable[[int], None] = lambda _: None
) -> dict[str, float | None]:
    """The mean of each measure over the frames of a clip; None where a clip is too short for it."""
    values = Values(metrics)
    for piece in pieces:
        values.add((piece.full + 1.0) / 2.0, (piece.original + 1.0) / 2.0)
        advance(piece.original.shape[2])
    return values.means()


def statistics(videos: Sequence[str], options: CodecOptions) -> None:
    """Mean and deviation of raw latents, for scaling, and print them."""
    check_clips(videos)
    codec, console = Codec(options), get_console()
    if not hasattr(codec.vae, "unscaled"):
        raise UsageError(f"the autoencoder {codec.spec.name} does not give unscaled latents")
    moments = Moments()
    for video in videos:
        with (
            codec.open(video) as clip,
            console.progress(f"encoding {clip.path.name}", codec.latent_shape(clip)[1]) as progress,
        ):
            for latents in codec.encode(clip):
                moments.add(codec.vae.unscaled(latents.to(codec.device)).cpu())
                progress.advance(latents.shape[2])
    record = {
        "vae": codec.spec.name,
        "clips": len(videos),
        "positions": moments.count,
        "mean": moments.mean,
        "std": moments.std,
        "scaling_factor": 1.0 / moments.std if moments.std > 0 else None,
        "shift": [round(value, 6) for value in moments.channel_mean.tolist()],
        "scale": [round(value, 6) for value in moments.channel_std.tolist()],
    }
    console.record(record, title="raw latents; models see (latents - shift) / scale")
