"""How fast training is: one update of STDiT3 as a share of the machine's matrix rate, and clips decoded per second.

    python benchmarks/training.py [update] [loader] [--depth 4] [--size 144x256] [--frames 17] [--json FILE]

update: forward, backward, clipping, AdamW on float32 masters and EMA of an STDiT3 of the width of XL/2 and a few of its
28 blocks, in bf16, with and without gradient checkpointing; the rate of a large matrix product is measured in the same
run. loader: windows of 17 frames out of H.264 clips of 10 s at 360p, fitted to 144p, by one process: only the window
decoded as here, and the whole clip decoded as the reference does.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import TEXT_TOKENS, matmul_rate

SIZES = {"fps": 24.0, "height": 144.0, "width": 256.0}
LOADER_CLIPS, CLIP_SECONDS, WINDOW = 12, 10, 17


def update_flops(depth: int, latent: tuple[int, int, int]) -> float:
    """Operations of forward and backward pass, without what checkpointing computes twice (stdit.md section 10)."""
    width, (frames, height, width_px) = 1152, latent
    positions = -(-height // 2) * -(-width_px // 2)
    tokens = frames * positions
    block = 56 * tokens * width**2 + 8 * TEXT_TOKENS * width**2 + 8 * tokens * TEXT_TOKENS * width
    block += 4 * tokens * width * (positions + frames)
    return 3.0 * depth * block


def measure_update(device: torch.device, depth: int, size: tuple[int, int], num_frames: int, runs: int) -> list[dict]:
    """Both ways, after two updates that make buffers."""
    from sora_cli.training.engine import Engine, EngineOptions, use_gradient_checkpointing
    from sora_plugins.opensora_vae.sizes import MICRO_FRAME_SIZE
    from sora_plugins.rectified_flow.rectified_flow import RectifiedFlow
    from sora_plugins.stdit.stdit3 import build

    latent_frames = -(-num_frames * 5 // MICRO_FRAME_SIZE)
    latent = (latent_frames, size[0] // 8, size[1] // 8)
    rows = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        config = {"hidden_size": 1152, "depth": depth, "num_heads": 16, "class_dropout_prob": 0.0}
        network = build(config).to(device)
        engine = Engine(network, EngineOptions(dtype=torch.bfloat16))
        if checkpointing:
            use_gradient_checkpointing(network)
        network.train()
        flow = RectifiedFlow()
        x0, noise = (torch.randn(1, 4, *latent, device=device) for _ in range(2))
        given: dict[str, Any] = {
            "y": torch.randn(1, 1, TEXT_TOKENS, 4096, device=device),
            "mask": torch.ones(1, TEXT_TOKENS, device=device),
            **{name: torch.full((1,), value, device=device) for name, value in SIZES.items()},
        }
        times = []
        for run in range(runs + 2):
            start = time.perf_counter()
            t = torch.tensor([500.0], device=device)
            engine.backward(flow.loss(engine.model, x0, noise=noise, t=t, **given).mean())
            engine.update(1e-4, 1.0)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if run > 1:
                times.append(time.perf_counter() - start)
        rate = matmul_rate(device, torch.bfloat16)
        seconds = statistics.median(times)
        tokens = latent[0] * (latent[1] // 2) * (latent[2] // 2)
        rows.append(
            {
                "what": "update, " + ("checkpointing" if checkpointing else "all kept"),
                "seconds": round(seconds, 3),
                "tokens_per_second": round(tokens / seconds),
                "share_of_matmul_rate": round(update_flops(depth, latent) / seconds / rate, 3),
                "matmul_tflops": round(rate / 1e12, 3),
            }
        )
    return rows


def measure_loader() -> list[dict]:
    """Clips per second of one process, both ways in the same run."""
    from sora_cli.training.clip_reader import read_clip
    from sora_cli.training.transforms import frame_indices, last_start, video_resize_crop
    from sora_cli.video.io import write_video

    generator = np.random.default_rng(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        base = generator.integers(0, 255, (45, 80, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        for index in range(LOADER_CLIPS):
            frames = np.stack([np.roll(base, (step, index * step), (0, 1)) for step in range(24 * CLIP_SECONDS)])
            write_video(Path(folder) / f"{index}.mp4", [frames], 24)
        for what in ("only the window", "the whole clip"):
            start = time.perf_counter()
            for index in range(LOADER_CLIPS):

                def choose(total: int, index: int = index) -> list[int]:
                    begin = int(np.random.default_rng(index).random() * (last_start(total, WINDOW, 1) + 1))
                    window = frame_indices(total, WINDOW, 1, begin)
                    return window if what == "only the window" else list(range(total))  # noqa: B023  # used at once

                read = read_clip(Path(folder) / f"{index}.mp4", WINDOW, choose)
                video_resize_crop(read.frames[:WINDOW], (144, 256))
            each = (time.perf_counter() - start) / LOADER_CLIPS
            rows.append({"what": f"loader, {what}", "clips_per_second": round(1 / each, 2)})
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", default=["update", "loader"])
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--size", default="144x256")
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    height, width = map(int, arguments.size.split("x"))
    rows: list[dict] = []
    if "update" in arguments.parts:
        rows += measure_update(
            torch.device(arguments.device), arguments.depth, (height, width), arguments.frames, arguments.runs
        )
    if "loader" in arguments.parts:
        rows += measure_loader()
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    result = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "rows": rows}
    print(json.dumps(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
