"""`sora vae`, all but training: clips of any length through an autoencoder, piece by piece."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from sora_cli.console import get_console
from sora_cli.errors import MissingError, UsageError
from sora_cli.plugin.manager import get_plugins
from sora_cli.plugin.specs import MetricSpec, VAESpec
from sora_cli.training.table import is_image
from sora_cli.video.clips import ClipFile, open_clip
from sora_cli.video.io import write_image, write_video
from sora_cli.video.latent_file import LatentFile, open_latents, write_latents
from sora_cli.video.latents import key_seed, to_frames
from sora_cli.weights.locate import locate_parts, locate_weights, weights_present

from .components import DTYPES, choose_device, choose_dtype, choose_vae_dtype, prepare_torch
from .output import DEFAULT_FOLDER

if TYPE_CHECKING:
    from sora_cli.plugin.manager import Plugins

#: Frames encoded together where frames are coded alone, and about as many where pieces are short.
FRAMES_AT_ONCE = 16
DEFAULT_METRICS = ("psnr", "ssim")
LATENTS_SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class CodecOptions:
    """How clips are coded. name, weights: of the autoencoder, "auto" for the best that is here; sample, seed: draw
    from the posterior. memory: plain, low or tiled; size, frames, fps: see `open_clip`.
    """

    name: str = "auto"
    weights: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    memory: str = "plain"
    sample: bool = False
    seed: int = 42
    size: str | None = None
    frames: int | None = None
    fps: float | None = None


class Codec:
    """An autoencoder, loaded, and how clips go through it. Raises SoraError for what cannot be had or does not fit."""

    def __init__(self, options: CodecOptions) -> None:
        plugins = get_plugins()
        prepare_torch_threads(options.threads)
        self.options = options
        self.spec = choose_vae(options, plugins)
        self.weights = locate_weights(self.spec.weights, what=self.spec.name, override=options.weights)
        self.device = choose_device(options.device)  # type: ignore[arg-type]  # typed by the command
        self.dtype = choose_vae_dtype(choose_dtype(options.dtype, self.device), self.device)  # type: ignore[arg-type]
        self.vae: Any = plugins.load_target(self.spec)(self.weights, self.device, self.dtype)
        if isinstance(self.vae, torch.nn.Module):
            self.vae.requires_grad_(False).eval()
        if options.memory != "plain":
            if not hasattr(self.vae, "set_memory_mode"):
                raise UsageError(f"the autoencoder {self.spec.name} has no memory mode {options.memory}")
            self.vae.set_memory_mode(options.memory)
        get_console().note(f"{self.spec.name} on {self.device.type} in {str(self.dtype).removeprefix('torch.')}")

    @contextlib.contextmanager
    def open(self, path: str | Path) -> Iterator[ClipFile]:
        """A clip in a size that the autoencoder can code."""
        options = self.options
        multiple = 1 if self.spec.covers_edges else self.spec.spatial_stride
        with open_clip(
            Path(path), size=options.size, frames=options.frames, fps=options.fps, multiple=multiple
        ) as clip:
            yield clip

    def latent_shape(self, clip: ClipFile) -> tuple[int, int, int, int]:
        """(C, L, h, w) of a clip."""
        spec = self.spec
        sides = spec.latent_side(clip.height), spec.latent_side(clip.width)
        return spec.latent_channels, spec.latent_frames(clip.num_frames), *sides

    def encode(self, clip: ClipFile) -> Iterator[Tensor]:
        """Latents (1, C, some, h, w) float32 on the CPU, piece by piece."""
        first, others = self._piece_sizes(clip)
        torch.manual_seed(key_seed(self.options.seed, "encode"))
        for index, pixels in enumerate(clip.pieces(first, others)):
            with torch.inference_mode():
                yield self._encode_piece(pixels.to(self.device), index).float().cpu()

    def _piece_sizes(self, clip: ClipFile) -> tuple[int, int]:
        spec = self.spec
        if spec.piece_frames is None:
            return clip.num_frames, clip.num_frames
        many = max(1, FRAMES_AT_ONCE // spec.piece_frames) * spec.piece_frames
        return spec.leading_frames + many, many

    def _encode_piece(self, pixels: Tensor, index: int) -> Tensor:
        options: dict[str, Any] = {}
        if self.spec.is_sampled:
            options["sample"] = self.options.sample
        if self.spec.leading_frames and index:
            options["continues"] = True
        latents: Tensor = self.vae.encode(pixels, **options)
        return latents

    def decode(self, latents: Tensor, num_frames: int, size: tuple[int, int]) -> Iterator[Tensor]:
        """Pixels (1, 3, some, H, W) float32 on the CPU, clamped to [-1, 1], of this size, piece by piece."""
        with torch.inference_mode():
            for pixels in self.vae.decode(latents.to(self.device), num_frames):
                yield pixels[:, :, :, : size[0], : size[1]].float().clamp(-1.0, 1.0).cpu()

    def about(self, clip: ClipFile) -> dict[str, Any]:
        """What is stored with latents, so that they can be decoded."""
        return {
            "vae": self.spec.name,
            "weights": None if self.weights is None else self.weights.fingerprint,
            "num_frames": clip.num_frames,
            "fps": clip.fps,
            "height": clip.height,
            "width": clip.width,
            "sample": self.options.sample and self.spec.is_sampled,
            "seed": self.options.seed,
            "source": clip.path.name,
        }


def prepare_torch_threads(threads: int | None) -> None:
    """As for every command; see `prepare_torch`."""
    from sora_cli.config.schema import ProcessesSection

    prepare_torch(ProcessesSection(threads=threads))


def choose_vae(options: CodecOptions, plugins: Plugins) -> VAESpec:
    """The autoencoder that was named; "auto" is the one of highest rank whose weights are on this machine."""
    if options.name != "auto":
        spec = plugins.get("vae", options.name)
        assert isinstance(spec, VAESpec)  # the plugin manager checked it
        return spec
    if options.weights is not None:
        raise UsageError("--vae-weights are weights of one autoencoder", hint="say which with --vae NAME")
    specs = [spec for spec in plugins.specs("vae").values() if isinstance(spec, VAESpec)]
    here = [spec for spec in specs if weights_present(spec.weights)]
    if not here:
        raise MissingError("there is no autoencoder with weights on this machine", hint="give --vae NAME")
    best, here_best = (max(group, key=lambda spec: spec.rank) for group in (specs, here))
    if here_best is not best:
        get_console().note(f"using {here_best.name}, which is here; --vae {best.name} is better, and is downloaded")
    return here_best


def check_files(paths: Sequence[str | Path]) -> None:
    """Raise UsageError for files that are not there, before anything is loaded."""
    absent = [str(path) for path in paths if not Path(path).is_file()]
    if absent:
        raise UsageError(
            f"there is no file {absent[0]}", hint=f"missing too: {', '.join(absent[1:])}" if absent[1:] else None
        )


# -- encode and decode ---------------------------------------------------------------------------------------------


def encode(
    videos: Sequence[str], output: Path | None, options: CodecOptions, *, store: str = "fp32", overwrite: bool = False
) -> None:
    """Write the latents of clips, and print the files. store: number format in them."""
    check_files(videos)
    targets = name_targets(videos, output, [LATENTS_SUFFIX] * len(videos), overwrite=overwrite)
    codec, console = Codec(options), get_console()
    for video, target in zip(videos, targets, strict=True):
        with codec.open(video) as clip:
            shape = codec.latent_shape(clip)
            with (
                write_latents(target, shape, codec.about(clip), DTYPES[store]) as writer,
                console.progress(f"encoding {clip.path.name}", shape[1]) as progress,
            ):
                for piece in codec.encode(clip):
                    writer.add(piece)
                    progress.advance(piece.shape[2])
            console.result(target, {"path": str(target), "shape": list(shape), **codec.about(clip)})


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
        options = CodecOptions(**{**asdict(options), "name": names.pop()})
    suffixes = [".png" if about["num_frames"] == 1 else ".mp4" for about in abouts]
    targets = name_targets(files, output, suffixes, overwrite=overwrite)
    codec = Codec(options)
    for file, target in zip(files, targets, strict=True):
        with open_latents(file) as opened:
            check_latents(codec, opened)
            _decode_file(codec, opened, target)
        console.result(target, {"path": str(target), **opened.about})


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
        write_clip(target, frames(), about["fps"], settings)


def _decode_stream(codec: Codec, latents: LatentFile, size: tuple[int, int]) -> Iterator[Tensor]:
    """Pieces that are coded alone are read alone; an autoencoder that goes on from piece to piece gets all."""
    spec, count = codec.spec, latents.about["num_frames"]
    if spec.piece_frames is None or spec.leading_frames:
        yield from codec.decode(latents.read(0, latents.shape[1]), count, size)
        return
    frames = max(1, FRAMES_AT_ONCE // spec.piece_frames) * spec.piece_frames
    place, left = 0, count
    while left > 0:
        some = min(frames, left)
        length = spec.latent_frames(some)
        yield from codec.decode(latents.read(place, place + length), some, size)
        place, left = place + length, left - some


def write_clip(target: Path, frames: Iterator[Any], fps: float, settings: Mapping[str, Any]) -> None:
    """Write frames (T, H, W, 3) as a video, or the only one as a picture."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".png":
        write_image(target, next(frames)[0], settings)
    else:
        write_video(target, frames, fps, settings)


def name_targets(
    sources: Sequence[str | Path], output: Path | None, suffixes: Sequence[str], *, overwrite: bool
) -> list[Path]:
    """One path for each source: `output` for a single one when it has an ending, else inside that folder.

    Raises UsageError for two sources of one name, and for files that are there already.
    """
    if output is not None and output.suffix and not output.is_dir():
        if len(sources) > 1:
            raise UsageError(f"{len(sources)} files cannot be written to {output}", hint="give a folder with --output")
        if output.suffix != suffixes[0]:
            raise UsageError(f"--output {output}: the file must end in {suffixes[0]}")
        targets = [output]
    else:
        folder = output or DEFAULT_FOLDER
        pairs = zip(sources, suffixes, strict=True)
        targets = [folder / f"{Path(source).stem}{suffix}" for source, suffix in pairs]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"two files would be written to {target}", hint="give them in separate calls")
        if target.exists() and not overwrite:
            raise UsageError(f"{target} is there already", hint="--overwrite replaces it; --output names another place")
    return targets


# -- reconstructions -----------------------------------------------------------------------------------------------


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
    check_files(videos)
    are_pictures = [options.frames == 1 or is_image(Path(video)) for video in videos]
    suffixes = [".png" if is_picture else ".mp4" for is_picture in are_pictures]
    targets = name_targets(videos, output, suffixes, overwrite=overwrite)
    codec, console = Codec(options), get_console()
    for video, target in zip(videos, targets, strict=True):
        with codec.open(video) as clip:
            with console.progress(f"reconstructing {clip.path.name}", clip.num_frames) as progress:
                record = _write_reconstruction(codec, clip, target, separate, progress.advance)
            console.result(target, record)


def _write_reconstruction(
    codec: Codec, clip: ClipFile, target: Path, separate: bool, advance: Callable[[int], None]
) -> dict[str, Any]:
    from sora_cli.video.lossless import LosslessFiles

    has_spatial = hasattr(codec.vae, "reconstruct_frames")
    names = ["original", "full", *(["spatial"] if has_spatial else [])]
    paths = {name: target.with_name(f"{target.stem}-{name}") for name in names}
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

        write_clip(target, frames(), clip.fps, {"vae": codec.about(clip), "panels": names})
    written = {} if files is None else {name: str(path) for name, path in files.paths.items()}
    return {"path": str(target), "panels": names, **({"files": written} if written else {}), **codec.about(clip)}


# -- measures ------------------------------------------------------------------------------------------------------


def evaluate(
    videos: Sequence[str], options: CodecOptions, *, metrics: Sequence[str] = (), metric_weights: Sequence[str] = ()
) -> None:
    """Measure reconstructions of clips, each and all together, and print a table."""
    check_files(videos)
    chosen = load_metrics(metrics or DEFAULT_METRICS, metric_weights, options)
    codec, console = Codec(options), get_console()
    rows: list[dict[str, Any]] = []
    for video in videos:
        with codec.open(video) as clip:
            with console.progress(f"measuring {clip.path.name}", clip.num_frames) as progress:
                values = measure(reconstructions(codec, clip), chosen, advance=progress.advance)
            rows.append(
                {"clip": clip.path.name, "frames": clip.num_frames, "size": f"{clip.height}x{clip.width}", **values}
            )
    means = {name: _mean([row[name] for row in rows]) for name in chosen}
    rows.append({"clip": "mean", "frames": None, "size": None, **means})
    units = {name: spec.unit for name, (spec, _) in chosen.items()}
    title = ", ".join(f"{name} in {unit}" for name, unit in units.items() if unit)
    if options.memory == "tiled":
        console.warn("tiled coding is not exact: these are figures of tiles, not of the autoencoder")
    console.table(rows, list(rows[0]), title or None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


Chosen = Mapping[str, tuple[MetricSpec, Any]]


def load_metrics(names: Sequence[str], metric_weights: Sequence[str], options: CodecOptions) -> Chosen:
    """Measures by name. metric_weights: PART=FILE. Raises UsageError, or MissingError for weights that are not here."""
    plugins = get_plugins()
    device = choose_device(options.device)  # type: ignore[arg-type]  # typed by the command
    given = dict(_part_and_file(text) for text in metric_weights)
    chosen: dict[str, tuple[MetricSpec, Any]] = {}
    for name in dict.fromkeys(names):
        spec = plugins.get("metric", name)
        assert isinstance(spec, MetricSpec)  # the plugin manager checked it
        located = locate_parts(spec.weights, what=spec.name, overrides=given, option="--metric-weights")
        chosen[spec.name] = (spec, plugins.load_target(spec)(located, device))
    known = {part for spec, _ in chosen.values() for part in spec.weights}
    if unused := sorted(set(given) - known):
        raise UsageError(
            f"no measure looks with {', '.join(unused)}", hint=f"parts: {', '.join(sorted(known)) or 'none'}"
        )
    return chosen


def _part_and_file(text: str) -> tuple[str, str]:
    part, equals, file = text.partition("=")
    if not equals:
        raise UsageError(
            f"--metric-weights {text!r} is not PART=FILE", hint="example: --metric-weights alexnet=alexnet.pth"
        )
    return part, file


def measure(
    pieces: Iterator[Reconstructed], metrics: Chosen, *, advance: Callable[[int], None] = lambda _: None
) -> dict[str, float | None]:
    """The mean of each measure over the frames of a clip; None where a clip is too short for it."""
    values: dict[str, list[Tensor]] = {name: [] for name in metrics}
    before: tuple[Tensor, Tensor] | None = None
    for piece in pieces:
        pair = tuple((frames + 1.0) / 2.0 for frames in (piece.original, piece.full))
        for name, (_, metric) in metrics.items():
            ours = pair
            if metric.overlap and before is not None:
                ours = tuple(torch.cat(each, dim=2) for each in zip(before, pair, strict=True))
            if ours[0].shape[2] > metric.overlap:
                try:
                    values[name].append(metric(*ours)[0].double().cpu())
                except ValueError as error:
                    raise UsageError(f"{name} {error}") from error
        overlap = max((metric.overlap for _, metric in metrics.values()), default=0)
        if overlap:
            before = (pair[0][:, :, -overlap:], pair[1][:, :, -overlap:])
        advance(piece.original.shape[2])
    return {name: float(torch.cat(found).mean()) if found else None for name, found in values.items()}


def statistics(videos: Sequence[str], options: CodecOptions) -> None:
    """Mean and deviation of raw latents, for scaling, and print them."""
    from sora_cli.video.statistics import Moments

    check_files(videos)
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
