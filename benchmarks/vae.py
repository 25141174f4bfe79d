"""Frames per second and peak memory of the video autoencoder in its memory modes, by length and size of the clip.

    python benchmarks/vae.py [--sizes 48x64,64x96] [--frames 17,34] [--modes whole,plain,low,tiled] [--json FILE]

whole: all frames in one call, what the modes are compared with. plain: pieces of 17 frames, frame by frame. low: the
same numbers up to rounding, in slabs. tiled: other numbers, in tiles; their distance from plain is printed, as is that
of low and whole. Decoded frames go to main memory at once, as a writer would take them, except with whole.

Weights are random with the released widths (--tiny: a small network, to try the program). They react more to tiles
than trained ones do. Memory is without weights and without the clip: allocated on a GPU, live tensors on a CPU. Slabs
are the same share of a frame as at 720p (but at least four rows), so that small pictures show what large ones need.
Nothing is imported that a bare machine with torch, numpy, safetensors, pluggy, typer and rich lacks.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sora_plugins.opensora_vae.config import VideoAutoencoderConfig
from sora_plugins.opensora_vae.model import VideoAutoencoder
from sora_plugins.sd_vae import slabs
from sora_plugins.sd_vae.modes import SLAB_BYTES

MIB = 2**20
PIXELS_720P = 720 * 1280
MODES = ("whole", "plain", "low", "tiled")
TINY = {
    "vae_2d": {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4},
    "vae_temporal": {"filters": 8, "num_res_blocks": 1, "channel_multipliers": [1, 1, 1, 1], "num_groups": 4},
}


# -- memory --------------------------------------------------------------------------------------------------------


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that were made and are still there. given: tensors that do not count."""

    def __init__(self, given: list[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen = {tensor.untyped_storage().data_ptr() for tensor in given}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().nbytes():
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage.data_ptr(), storage.nbytes())

    def _gone(self, pointer: int, size: int) -> None:
        self.seen.discard(pointer)
        self.now -= size


@contextmanager
def peak_memory(given: list[Tensor], device: torch.device) -> Iterator[Callable[[], float]]:
    """Afterwards the call gives the peak within the block in MiB, without what was there before."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield lambda: (torch.cuda.max_memory_allocated() - before) / MIB
        return
    with LiveBytes(given) as live:
        yield lambda: live.peak / MIB


# -- the network ---------------------------------------------------------------------------------------------------


def make_vae(device: torch.device, dtype: torch.dtype, is_tiny: bool) -> VideoAutoencoder:
    """Random weights that keep values at about the size they come in with."""
    with torch.device("meta"):
        config = VideoAutoencoderConfig.from_mapping(TINY) if is_tiny else VideoAutoencoderConfig()
        vae = VideoAutoencoder(config)
    vae.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    norms = {id(module.weight) for module in vae.modules() if isinstance(module, nn.GroupNorm)}
    with torch.no_grad():
        for parameter in vae.parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
            parameter.normal_(1.0 if id(parameter) in norms else 0.0, spread, generator=generator)
        vae.shift.zero_()
        vae.scale.fill_(1)
    vae.spatial_vae.to(dtype)
    vae.temporal_vae.to(dtype)
    return vae.requires_grad_(False).eval()


def encode(vae: VideoAutoencoder, pixels: Tensor, mode: str, frames_at_once: int | None) -> Tensor:
    """Means of the latents, (1, 4, L, h, w)."""
    if mode != "whole":
        return vae.encode(pixels, sample=False, frames_at_once=frames_at_once)
    frames = vae.spatial_vae.encode(pixels, sample=False, frames_at_once=pixels.shape[2])
    size = vae.config.micro_frame_size or pixels.shape[2]
    return torch.cat([vae.temporal_vae.encode(piece).mean for piece in frames.split(size, dim=2)], dim=2)


def decode(vae: VideoAutoencoder, latents: Tensor, out: Tensor, mode: str, frames_at_once: int | None) -> Tensor:
    """Pixels into `out` (1, 3, T, H, W), which is in main memory; none stay on the device unless the mode is whole."""
    num_frames = out.shape[2]
    if mode == "whole":
        frames = torch.cat(list(vae.decode_temporal(latents, num_frames, is_raw=False)), dim=2)
        return out.copy_(next(vae.spatial_vae.decode_frames(frames, num_frames)))
    done = 0
    for piece in vae.decode(latents, num_frames, frames_at_once=frames_at_once):
        out[:, :, done : done + piece.shape[2]] = piece
        done += piece.shape[2]
    return out


# -- measuring -----------------------------------------------------------------------------------------------------


def timed(call: Callable[[], Tensor], device: torch.device, runs: int) -> tuple[float, Tensor]:
    """Median seconds and the last result."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        result = call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def distance(values: Tensor, wanted: Tensor) -> dict[str, float | None]:
    """Largest and root mean square difference, and PSNR in dB of the range of the wanted values (None: no error)."""
    error = values.double() - wanted.double()
    rms = float(error.square().mean().sqrt())
    spread = float(wanted.max() - wanted.min())
    return {
        "max_error": float(error.abs().max()),
        "rms_error": rms,
        "psnr_db": 20 * math.log10(spread / rms) if rms > 0 else None,
    }


def slab_bytes(height: int, width: int, frames_at_once: int | None, dtype_bytes: int) -> int:
    """The same share of a frame as at 720p, but at least four rows of 256 channels; never more than usual."""
    share = height * width * (frames_at_once or PIXELS_720P) / PIXELS_720P
    return min(SLAB_BYTES, max(int(SLAB_BYTES * share), 4 * 256 * width * dtype_bytes))


def measure(vae: VideoAutoencoder, options: argparse.Namespace, height: int, width: int, num_frames: int) -> list[dict]:
    """A row for each mode and direction. A mode that does not fit the device's memory has no numbers."""
    device = next(vae.parameters()).device
    pixels = torch.rand(1, 3, num_frames, height, width, device=device).mul_(2).sub_(1).to(vae.dtype)
    latents = torch.randn(1, 4, vae.latent_frames(num_frames), height // 8, width // 8, device=device)
    out = torch.empty(1, 3, num_frames, 8 * (height // 8), 8 * (width // 8), dtype=vae.dtype)
    given = [pixels, latents, out, *vae.state_dict().values()]
    at_once = options.frames_at_once or None
    slabs.SLAB_BYTES = slab_bytes(height, width, at_once, vae.dtype.itemsize)
    calls: dict[str, Callable[[str], Tensor]] = {
        "encode": lambda mode: encode(vae, pixels, mode, at_once),
        "decode": lambda mode: decode(vae, latents, out, mode, at_once),
    }
    rows = []
    for direction, call in calls.items():
        results: dict[str, Tensor] = {}
        for mode in options.modes:
            vae.set_memory_mode("plain" if mode == "whole" else mode, tile=options.tile, overlap=options.overlap)
            row = {"direction": direction, "mode": mode, "height": height, "width": width, "frames": num_frames}
            try:
                with torch.inference_mode(), peak_memory(given, device) as peak:
                    took, result = timed(lambda call=call, mode=mode: call(mode), device, options.runs)
                results[mode] = result.cpu().clone()
                row |= {"seconds": took, "frames_per_second": num_frames / took, "peak_mib": peak()}
                del result
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
            rows.append(row)
        for row in rows[-len(options.modes) :]:
            if row["mode"] != "plain" and {"plain", row["mode"]} <= results.keys():
                row |= distance(results[row["mode"]], results["plain"])
    return rows


def show(row: dict[str, Any]) -> str:
    """A line of the table."""
    clip = f"{row['frames']:>4} x {row['height']}x{row['width']}"
    line = f"{row['direction']}  {clip:<16} {row['mode']:<6}"
    if "seconds" not in row:
        return f"{line} does not fit"
    line += f" {row['frames_per_second']:>9.2f} frames/s  peak {row['peak_mib']:>9.1f} MiB"
    if "rms_error" in row:
        psnr = "equal" if row["psnr_db"] is None else f"{row['psnr_db']:.1f} dB"
        line += f"  from plain: max {row['max_error']:.2g}, rms {row['rms_error']:.2g}, PSNR {psnr}"
    return line


def parse() -> argparse.Namespace:
    """The options; lists are separated by commas."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="48x64,64x96", help="height x width in pixels")
    parser.add_argument("--frames", default="17,34")
    parser.add_argument("--modes", default=",".join(MODES), help=f"of {', '.join(MODES)}")
    parser.add_argument("--tile", type=int, default=0, help="pixels; default 256, or 48 below 256 pixels")
    parser.add_argument("--overlap", type=int, default=0, help="pixels; default 64, or 16 below 256 pixels")
    parser.add_argument("--frames-at-once", type=int, default=1, help="0: the autoencoder's own choice")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--tiny", action="store_true", help="a small network")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.modes = options.modes.split(",")
    unknown = set(options.modes) - set(MODES)
    if unknown:
        parser.error(f"unknown modes {', '.join(sorted(unknown))}; there are {', '.join(MODES)}")
    options.sizes = [tuple(int(side) for side in size.split("x")) for size in options.sizes.split(",")]
    options.frames = [int(frames) for frames in options.frames.split(",")]
    is_small = min(map(min, options.sizes)) < 256
    options.tile = options.tile or (48 if is_small else 256)
    options.overlap = options.overlap or (16 if is_small else 64)
    return options


def main() -> None:
    """Measure and print."""
    options = parse()
    device = torch.device(options.device)
    vae = make_vae(device, getattr(torch, options.dtype), options.tiny)
    with torch.inference_mode():  # libraries choose their kernels
        clip = torch.zeros(1, 3, 1, *options.sizes[0], device=device)
        for _ in vae.decode(encode(vae, clip, "plain", 1), 1):
            pass
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    about = {
        "machine": machine,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": options.dtype,
        "network": "tiny" if options.tiny else "released widths",
        "tile": options.tile,
        "overlap": options.overlap,
    }
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    rows = []
    for height, width in options.sizes:
        for num_frames in options.frames:
            for row in measure(vae, options, height, width, num_frames):
                print(show(row), flush=True)
                rows.append(row)
    if options.json:
        options.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
