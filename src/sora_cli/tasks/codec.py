"""An autoencoder as `sora vae` uses it: clips of any length go through it piece by piece."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sora_cli.console import get_console
from sora_cli.errors import MissingError, UsageError
from sora_cli.files import check_files
from sora_cli.plugin.manager import get_plugins
from sora_cli.plugin.specs import VAESpec
from sora_cli.video.clips import ClipFile, open_clip
from sora_cli.video.io import write_image, write_video
from sora_cli.video.latents import key_seed
from sora_cli.weights.locate import locate_weights, weights_present

from .components import choose_device, choose_dtype, choose_vae_dtype, prepare_torch
from .output import DEFAULT_FOLDER, check_free

if TYPE_CHECKING:
    from sora_cli.plugin.manager import Plugins

#: Frames encoded together where frames are coded alone, and about as many where pieces are short.
FRAMES_AT_ONCE = 16
VIDEO, PICTURE = ".mp4", ".png"


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
                latents = self._encode_piece(pixels.to(self.device), index).float().cpu()
            yield latents

    def first_piece(self, clip: ClipFile) -> Tensor | None:
        """The first frames that are coded together; None where nothing is to be measured on them."""
        if self.options.memory != "tiled":
            return None
        return next(clip.pieces(min(clip.num_frames, self.spec.leading_frames + (self.spec.piece_frames or 1))))

    def first_latents(self, num_frames: int) -> int:
        """Latent frames of that piece."""
        return self.spec.latent_frames(min(num_frames, self.spec.leading_frames + (self.spec.piece_frames or 1)))

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
        pieces = iter(self.vae.decode(latents.to(self.device), num_frames))
        while True:
            with torch.inference_mode():  # not around the yield, where it would reach the caller
                pixels = next(pieces, None)
                if pixels is None:
                    return
                pixels = pixels[:, :, :, : size[0], : size[1]].float().clamp(-1.0, 1.0).cpu()
            yield pixels

    def measure_tiles(self, pixels: Tensor | None = None, latents: Tensor | None = None) -> dict[str, float]:
        """How far tiles are from exact coding, on the first piece of a clip; {} when coding is exact.

        pixels, latents: of that piece, for encoding and for decoding. "latents": rms of the difference over the
        deviation; "pixels": PSNR of the first decoded frames against exactly decoded ones, dB.
        """
        if self.options.memory != "tiled":
            return {}
        found: dict[str, Tensor] = {}
        for mode in ("low", "tiled"):  # in the end it is tiled again
            self.vae.set_memory_mode(mode)
            with torch.inference_mode():
                if pixels is not None:
                    torch.manual_seed(key_seed(self.options.seed, "encode"))
                    found[f"{mode} latents"] = self._encode_piece(pixels.to(self.device), 0).float()
                if latents is not None:
                    decoded = self.vae.decode(latents.to(self.device), self.spec.most_frames(latents.shape[2]))
                    found[f"{mode} pixels"] = next(iter(decoded)).float().clamp(-1.0, 1.0)
        errors = {}
        if pixels is not None:
            exact, tiled = found["low latents"], found["tiled latents"]
            errors["latents"] = float((exact - tiled).square().mean().sqrt() / exact.std())
        if latents is not None:
            error = float((found["low pixels"] - found["tiled pixels"]).square().mean()) / 4.0
            errors["pixels"] = 10.0 * math.log10(1.0 / max(error, 1e-10))
        return errors

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
        get_console().note(
            f"using {here_best.name}, which is here; --vae {best.name} is better, and would be downloaded"
        )
    return here_best


def check_clips(paths: Sequence[str]) -> None:
    """Raise SoraError for what is no video or picture that can be read, before anything is loaded."""
    check_files(paths)
    for path in paths:
        with open_clip(Path(path), clip_fps=1.0):  # the frames are not looked at
            pass


def report_tiles(errors: Mapping[str, float]) -> None:
    """Say how far tiles are from exact coding."""
    texts = {
        "latents": "latents differ by {:.1%} of their deviation",
        "pixels": "frames have {:.1f} dB against exactly decoded ones",
    }
    if errors:
        said = " and ".join(texts[name].format(value) for name, value in errors.items())
        get_console().warn(f"tiles are not exact: in the first piece {said}")


def write_clip(
    target: Path, frames: Iterator[Any], size: tuple[int, int], fps: float, settings: Mapping[str, Any]
) -> None:
    """Write frames (T, H, W, 3) as a video, or the only one as a picture. size: (height, width) of the frames.

    Videos have even sides: an odd row or column at the bottom or the right is left out, and that is said.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == PICTURE:
        write_image(target, next(frames)[0], settings)
        return
    height, width = (side // 2 * 2 for side in size)
    if (height, width) != size:
        get_console().warn(f"{target} is written as {height}x{width}: videos have even sides")
    write_video(target, (piece[:, :height, :width] for piece in frames), fps, settings)


def check_is_picture(target: Path, num_frames: int) -> None:
    """Raise UsageError for more than one frame in a picture."""
    if target.suffix == PICTURE and num_frames > 1:
        raise UsageError(
            f"{target} is a picture, and there are {num_frames} frames", hint="write a .mp4, or --frames 1"
        )


def name_targets(
    sources: Sequence[str | Path],
    output: Path | None,
    suffixes: Sequence[str],
    *,
    overwrite: bool,
    also: Sequence[str] = (),
    ending: str = "",
) -> list[Path]:
    """One path for each source: `output` for a single one when it has an ending, else inside that folder.

    suffixes: of each; also: others that a file named by the user may have. ending: put after the source's name. Raises
    UsageError for two sources of one name, for a source itself, and for files that are there already.
    """
    is_file = output is not None and output.suffix and not output.suffix[1:].isdigit() and not output.is_dir()
    if output is not None and is_file:
        if len(sources) > 1:
            raise UsageError(f"{len(sources)} files cannot be written to {output}", hint="give a folder with --output")
        if output.suffix not in (suffixes[0], *also):
            known = " or ".join(dict.fromkeys((suffixes[0], *also)))
            raise UsageError(f"--output {output}: the file must end in {known}")
        targets = [output]
    else:
        folder = output or DEFAULT_FOLDER
        pairs = zip(sources, suffixes, strict=True)
        targets = [folder / f"{Path(source).stem}{ending}{suffix}" for source, suffix in pairs]
    for target in targets:
        if targets.count(target) > 1:
            raise UsageError(f"two files would be written to {target}", hint="give them in separate calls")
    check_free(targets, sources, overwrite=overwrite)
    return targets
