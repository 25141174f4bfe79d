"""From decoded pixels to 8-bit frames, and latents kept on disk so that an interrupted run can go on."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sora_cli.files import claimed
from sora_cli.weights.save import save_tensors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def to_frames(pixels: Tensor, dtype: torch.dtype = torch.float32) -> NDArray[np.uint8]:
    """Pixels (3, T, H, W) in [-1, 1] to frames (T, H, W, 3) uint8.

    Clamp, map to [0, 255], add one half and truncate: generation.md section 14, as the released samples were written.
    dtype: the number format it is computed in; Open-Sora's reconstruction tool took that of the model, and bfloat16
    moves about a third of the values by up to 2.
    """
    values = (pixels.to(dtype).clamp(-1, 1) + 1) / 2 * 255 + 0.5
    frames: NDArray[np.uint8] = values.clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0).contiguous().cpu().numpy()
    return frames


def key_seed(*key: Any) -> int:
    """A seed in 0 .. 2^63 - 1 from a key."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def draw_noise(seed: int, shape: tuple[int, int, int, int]) -> Tensor:
    """Gaussian noise (C, T, H, W), float32 on the CPU: the same for a seed on every device and in every batch."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32)


#: `(noise, text, *, fps, seed) -> noise`; see `ModelSpec.noise`.
NoiseShaper: TypeAlias = Callable[..., Tensor]


@dataclass(frozen=True)
class ClipNoise:
    """The noise of a clip or a part of one, (C, T, H, W). shaper: of the model, with the text and frame rate for it."""

    seed: int
    shape: tuple[int, int, int, int]
    shaper: NoiseShaper | None
    text: str
    fps: float

    def start(self) -> Tensor:
        """What sampling starts from."""
        return self._draw(self.seed)

    def of_step(self, step: int) -> Tensor:
        """Fresh noise of a sampling step."""
        return self._draw(key_seed(self.seed, "step", step))

    def _draw(self, seed: int) -> Tensor:
        noise = draw_noise(seed, self.shape)
        if self.shaper is None:
            return noise
        return self.shaper(noise, self.text, fps=self.fps, seed=key_seed(seed, "shared"))


def step_noise(noises: Sequence[ClipNoise], device: torch.device, step: int) -> Tensor:
    """Fresh noise of a sampling step for a batch, (n, C, T, H, W)."""
    return torch.stack([noise.of_step(step) for noise in noises]).to(device)


def part_seed(seed: int, part: int) -> int:
    """The seed of a part of a video; the first part is the clip that the seed makes alone."""
    return key_seed(seed, "segment", part) if part else seed


def kept_path(output: Path, part: int = 0) -> Path:
    """Where the latents of a part of an unfinished output are kept."""
    return output.with_name(f"{output.name}{f'.part{part + 1}' if part else ''}.partial.safetensors")


def remove_kept(output: Path) -> None:
    """Remove what is kept of all parts of an output, also of runs with more parts."""
    for path in (kept_path(output), *output.parent.glob(f"{glob.escape(output.name)}.part[0-9]*.partial.safetensors")):
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class KeptLatents:
    """Latents (n, C, T, H, W) float32 after `step` of `steps` steps, as a sampler gives them to `on_step`.

    clips: the settings hash of each row.
    """

    clips: tuple[str, ...]
    step: int
    steps: int
    latents: Tensor

    def rows(self, clips: tuple[str, ...]) -> Tensor | None:
        """The latents of these clips in this order, or None when one is not here."""
        if not set(clips) <= set(self.clips):
            return None
        return self.latents[[self.clips.index(clip) for clip in clips]]


def keep_latents(path: Path, kept: KeptLatents) -> None:
    """Write latents so that the file is the old one or the new one, never half of one. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    metadata = {"clips": json.dumps(kept.clips), "step": str(kept.step), "steps": str(kept.steps)}
    with claimed(temporary):
        try:
            save_tensors(temporary, {"latents": kept.latents.float().cpu().contiguous()}, metadata)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def read_kept(path: Path) -> KeptLatents | None:
    """The latents kept at `path`, or None when there are none or they cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return KeptLatents(
                clips=tuple(json.loads(metadata["clips"])),
                step=int(metadata["step"]),
                steps=int(metadata["steps"]),
                latents=file.get_tensor("latents"),
            )
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
