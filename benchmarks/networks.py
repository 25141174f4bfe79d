"""How fast the networks of Open-Sora 1.2 run, as a share of what the machine's own matrix products reach.

    python benchmarks/networks.py [model] [vae] [memory] [--device cpu] [--size 144x256] [--frames 17] [--json FILE]

model: one call of STDiT3-XL/2 with guidance (two rows, 300 text tokens). vae: encoding and decoding with the video
autoencoder. memory: peak of decoding by length, which must not grow. Weights are random; speed does not depend on them.
The rate of a large matrix product is measured between the networks in the same run, and shares are of its median.
Nothing is imported that a bare machine with torch and numpy lacks.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

TEXT_TOKENS = 300
MIB = 2**20


def seconds(call: Callable[[], object], device: torch.device, runs: int) -> float:
    """Median time of `runs` calls after one to warm up."""
    times = []
    for run in range(runs + 1):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if run:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP per second of a square matrix product of random numbers."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device, 5)


def random_weights(build: Callable[[], nn.Module], device: torch.device, dtype: torch.dtype) -> Any:
    """A network with small random weights, made without its own initialisation, which takes minutes at full size."""
    with torch.device("meta"):
        network = build()
    network = network.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.normal_(0, 0.02, generator=generator)
    return network.requires_grad_(False).eval()


# -- the diffusion network -----------------------------------------------------------------------------------------


def model_flops(latent: tuple[int, int, int], rows: int) -> float:
    """Multiplications and additions of one call of STDiT3-XL/2 (stdit.md section 10), r = 4."""
    depth, width, text_width, channels, patch = 28, 1152, 4096, 4, 4
    frames, height, width_px = latent
    positions = -(-height // 2) * -(-width_px // 2)
    tokens, text = frames * positions, TEXT_TOKENS
    block = 56 * tokens * width**2 + 8 * text * width**2 + 8 * tokens * text * width
    block += 4 * tokens * width * (positions + frames)
    ends = 2 * tokens * patch * channels * width + 2 * tokens * width * patch * 2 * channels
    ends += 2 * text * (text_width * width + width**2) + 4 * (256 * width + width**2) + 12 * width**2
    return float(rows * (depth * block + ends))


def run_model(device: torch.device, dtype: torch.dtype, size: tuple[int, int], num_frames: int, runs: int) -> dict:
    """One guided call at the size of a clip."""
    from sora_plugins.opensora_vae import latent_frames
    from sora_plugins.stdit.stdit3 import build

    network = random_weights(lambda: build({}), device, dtype)
    latent = (latent_frames(num_frames), size[0] // 8, size[1] // 8)
    x = torch.randn(2, 4, *latent, device=device)
    y = torch.randn(2, 1, TEXT_TOKENS, 4096, device=device).to(dtype)
    mask = torch.ones(1, TEXT_TOKENS, dtype=torch.int64, device=device)
    t = torch.full((2,), 500.0, device=device)
    scalars = {name: torch.tensor([float(v)], device=device) for name, v in zip(("height", "width"), size, strict=True)}
    fps = torch.tensor([24.0], device=device)

    with torch.inference_mode():
        took = seconds(lambda: network(x, t, y, mask=mask, fps=fps, **scalars), device, runs)
    shape = "x".join(map(str, latent))
    return {
        "what": f"STDiT3-XL/2, 2 rows of {shape} latents",
        "seconds": took,
        "flop": model_flops(latent, 2),
        "peak_mib": peak_mib(device),
    }


# -- the video autoencoder -----------------------------------------------------------------------------------------


def vae_flops(size: tuple[int, int], num_frames: int) -> dict[str, float]:
    """Of encoding and decoding whole pieces of 17 frames (vae.md section 12)."""
    height, width = size
    latent = (height // 8) * (width // 8)
    attention = 4.0 * latent**2 * 512 + 8.0 * latent * 512**2
    pieces = num_frames / 17
    return {
        "encode": num_frames * (4.096e6 * height * width + attention) + pieces * 2.109e9 * latent,
        "decode": num_frames * (9.428e6 * height * width + attention) + pieces * 2.394e9 * latent,
    }


def make_vae(device: torch.device, dtype: torch.dtype) -> Any:
    """The video autoencoder of Open-Sora 1.2 with random weights."""
    from sora_plugins.opensora_vae.config import VideoAutoencoderConfig
    from sora_plugins.opensora_vae.model import VideoAutoencoder

    return random_weights(lambda: VideoAutoencoder(VideoAutoencoderConfig()), device, dtype)


def run_vae(device: torch.device, dtype: torch.dtype, size: tuple[int, int], num_frames: int, runs: int) -> list[dict]:
    """Encoding and decoding of a clip."""
    vae = make_vae(device, dtype)
    pixels = torch.rand(1, 3, num_frames, *size, device=device).to(dtype) * 2 - 1
    flops = vae_flops(size, num_frames)
    with torch.inference_mode():
        encode_seconds = seconds(lambda: vae.encode(pixels), device, runs)
        latents = vae.encode(pixels)
        encode_peak = peak_mib(device)
        decode_seconds = seconds(lambda: last_piece(vae.decode(latents, num_frames)), device, runs)
    clip = f"{num_frames} frames of {size[0]}x{size[1]}"
    return [
        {"what": f"encode {clip}", "seconds": encode_seconds, "flop": flops["encode"], "peak_mib": encode_peak},
        {"what": f"decode {clip}", "seconds": decode_seconds, "flop": flops["decode"], "peak_mib": peak_mib(device)},
    ]


def last_piece(pieces: Any) -> Tensor:
    """Run a streamed decode to its end, keeping nothing but the last piece."""
    for piece in pieces:
        last = piece
    return last


def run_memory(device: torch.device, dtype: torch.dtype, size: tuple[int, int], num_frames: int) -> dict:
    """Peak of decoding a clip of some length; in a process of its own, so that peaks do not mix."""
    from sora_plugins.opensora_vae import latent_frames

    vae = make_vae(device, dtype)
    before = peak_mib(device)
    latents = torch.randn(1, 4, latent_frames(num_frames), size[0] // 8, size[1] // 8, device=device).to(dtype)
    with torch.inference_mode():
        last_piece(vae.decode(latents, num_frames))
    return {"frames": num_frames, "weights_mib": before, "peak_mib": peak_mib(device)}


def peak_mib(device: torch.device) -> float:
    """Most memory so far: allocated on a GPU, resident in main memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would give a child process the peak of its parent
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


# -- together ------------------------------------------------------------------------------------------------------


def memory_by_length(arguments: argparse.Namespace) -> list[dict]:
    """`run_memory` for several lengths."""
    rows = []
    for frames in (17, 51, 102):
        command = [sys.executable, __file__, "one-length", "--device", arguments.device, "--dtype", arguments.dtype]
        command += ["--size", arguments.size, "--frames", str(frames)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout))
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", help="model, vae, memory; all of them when none is named")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--size", default="144x256", help="height x width in pixels")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    height, width = (int(side) for side in arguments.size.split("x"))
    if arguments.parts == ["one-length"]:
        print(json.dumps(run_memory(device, dtype, (height, width), arguments.frames)))
        return
    parts = arguments.parts or ["model", "vae", "memory"]
    rates, rows = [matmul_rate(device, dtype)], []
    if "model" in parts:
        rows.append(run_model(device, dtype, (height, width), arguments.frames, arguments.runs))
        rates.append(matmul_rate(device, dtype))
    if "vae" in parts:
        rows += run_vae(device, dtype, (height, width), arguments.frames, arguments.runs)
        rates.append(matmul_rate(device, dtype))
    rate = statistics.median(rates)
    for row in rows:
        row["share_of_matmul"] = round(row["flop"] / row["seconds"] / rate, 3)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{platform.machine()} CPU"
    result = {
        "machine": machine,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": arguments.dtype,
        "matmul_tflops": round(rate / 1e12, 3),
        "networks": rows,
        "decode_memory": memory_by_length(arguments) if "memory" in parts else [],
    }
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def show(result: dict[str, Any]) -> None:
    """The table."""
    print(f"{result['machine']}, torch {result['torch']}, {result['dtype']}, {result['threads']} threads")
    print(f"matrix product: {result['matmul_tflops']} TFLOP/s")
    for row in result["networks"]:
        tera = row["flop"] / 1e12
        print(
            f"{row['what']:<48} {row['seconds']:>9.3f} s  {tera:>8.2f} TFLOP  {tera / row['seconds']:>8.2f} TFLOP/s"
            f"  {row['share_of_matmul']:>5.0%} of the product  peak {row['peak_mib']:>7.0f} MiB"
        )
    for row in result["decode_memory"]:
        print(
            f"decode {row['frames']:>4} frames: peak {row['peak_mib']:>7.0f} MiB, before {row['weights_mib']:.0f} MiB"
        )


if __name__ == "__main__":
    main()
