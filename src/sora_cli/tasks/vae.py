"""`sora vae encode` and `decode`: files of latents from clips of any length, and clips from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.files import check_files
from sora_cli.video.latent_file import LatentFile, open_latents, write_latents
from sora_cli.video.latents import to_frames

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
from .components import DTYPES

LATENTS_SUFFIX = ".safetensors"


def encode(
    videos: Sequence[str], output: Path | None, options: CodecOptions, *, store: str = "fp32", overwrite: bool = False
) -> None:
    """Write the latents of clips, and print the files. store: number format in them."""
    check_clips(videos)
    targets = name_targets(videos, output, [LATENTS_SUFFIX] * len(videos), overwrite=overwrite)
    codec, console = Codec(options), get_console()
    for video, target in zip(videos, targets, strict=True):
        with codec.open(video) as clip:
            shape = codec.latent_shape(clip)
            errors = codec.measure_tiles(pixels=codec.first_piece(clip))
            report_tiles(errors)
            with (
                write_latents(target, shape, codec.about(clip), DTYPES[store]) as writer,
                console.progress(f"encoding {clip.path.name}", shape[1]) as progress,
            ):
                for piece in codec.encode(clip):
                    writer.add(piece)
                    progress.advance(piece.shape[2])
            about = {"path": str(target), "shape": list(shape), **codec.about(clip)}
            console.result(target, {**about, **({"tile_error": errors} if errors else {})})


def decode(files: Sequence[Path], output: Path | None, options: CodecOptions, *, overwrite: bool = False) -> None:
    """Write the clips of latents, and print the files."""
    check_files(files)
    console = get_console()
    abouts = []
    for file in files:
        with open_latents(file) as opened:
            abouts.append(dict(opened.about))
    if options.name == "auto" and abouts:
        names = {about["vae"] for about in abouts}
        if len(names) > 1:
            raise UsageError(f"these latents are of several autoencoders: {', '.join(sorted(names))}")
        options = replace(options, name=names.pop())
    suffixes = [PICTURE if about["num_frames"] == 1 else VIDEO for about in abouts]
    targets = name_targets(files, output, suffixes, overwrite=overwrite, also=(VIDEO, PICTURE))
    for target, about in zip(targets, abouts, strict=True):
        check_is_picture(target, about["num_frames"])
    codec = Codec(options)
    for file, target in zip(files, targets, strict=True):
        with open_latents(file) as opened:
            check_latents(codec, opened)
            errors = codec.measure_tiles(latents=opened.read(0, codec.first_latents(opened.about["num_frames"])))
            report_tiles(errors)
            _decode_file(codec, opened, target)
        console.result(target, {"path": str(target), **opened.about, **({"tile_error": errors} if errors else {})})


def check_latents(codec: Codec, latents: LatentFile) -> None:
    """Raise UsageError for latents of another autoencoder or shape; warn of other weights."""
    about, spec = latents.about, codec.spec
    if about["vae"] != spec.name:
        raise UsageError(f"{latents.path} holds latents of {about['vae']}, not of {spec.name}")
    height, width, frames = about["height"], about["width"], about["num_frames"]
    wanted = (
        spec.latent_channels,
        spec.latent_frames(frames),
        spec.latent_side(height),
        spec.latent_side(width),
    )
    if latents.shape != wanted:
        raise UsageError(
            f"{latents.path} has latents {latents.shape}, not {wanted} as {frames} frames of {height}x{width}"
        )
    if codec.weights is not None and about["weights"] not in (None, codec.weights.fingerprint):
        get_console().warn(f"{latents.path} was encoded with other weights of {spec.name}")


def _decode_file(codec: Codec, latents: LatentFile, target: Path) -> None:
    about = latents.about
    size, count = (about["height"], about["width"]), about["num_frames"]
    with get_console().progress(f"decoding {latents.path.name}", count) as progress:

        def frames() -> Iterator[Any]:
            for pixels in _decode_stream(codec, latents, size):
                progress.advance(pixels.shape[2])
                yield to_frames(pixels[0])

        settings = {"vae": about, "memory": codec.options.memory}
        write_clip(target, frames(), size, about["fps"], settings)


def _decode_stream(codec: Codec, latents: LatentFile, size: tuple[int, int]) -> Iterator[Tensor]:
    """Pieces that are coded alone are read alone; an autoencoder that goes on from piece to piece gets all."""
    spec, count = codec.spec, latents.about["num_frames"]
    if spec.piece_frames is None or spec.leading_frames:
        yield from codec.decode(latents.read(0, latents.shape[1]), count, size)
        return
    together = max(spec.piece_frames, spec.decoded_together)
    frames = max(1, FRAMES_AT_ONCE // together) * together
    place, left = 0, count
    while left > 0:
        some = min(frames, left)
        length = spec.latent_frames(some)
        yield from codec.decode(latents.read(place, place + length), some, size)
        place, left = place + length, left - some
