"""Loading the four parts of a run onto the device."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sora_cli.acceleration.attention import attention_backend, set_attention
from sora_cli.errors import MissingError, UsageError
from sora_cli.plugin.manager import load_attribute
from sora_cli.plugin.protocols import Scheduler, TextEncoder, VideoAutoencoder
from sora_cli.weights.load import load_network

if TYPE_CHECKING:
    from sora_cli.config.schema import DeviceName, DTypeName, HardwareSection
    from sora_cli.plugin.manager import Plugins

    from .plan import GeneratePlan

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Processor flags of the x86 extensions with bfloat16 matrix arithmetic; without them bf16 is slower than fp32.
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}


@dataclass(frozen=True)
class LoadedComponents:
    """The parts, ready to use. dtype: number format of the network and the autoencoder."""

    model: Any
    vae: VideoAutoencoder
    text_encoder: TextEncoder
    scheduler: Scheduler
    device: torch.device
    dtype: torch.dtype


def load_components(plan: GeneratePlan, plugins: Plugins) -> LoadedComponents:
    """Import and load everything the plan names. Raises SoraError for weights that do not fit, missing packages, ..."""
    specs, config = plan.components, plan.config
    device = choose_device(config.hardware.device)
    dtype = choose_dtype(config.model.dtype, device)
    prepare_torch(config.hardware)
    backend = attention_backend(config.model.attention, device, dtype)
    if plan.weights.model is None:
        raise MissingError(
            f"{specs.model.name} ({plan.variant}) comes without weights", hint="give a file or folder with --weights"
        )
    build = plugins.load_target(specs.model)
    map_keys = load_attribute(specs.model.load, what=specs.model.name) if specs.model.load else None
    model = load_network(
        functools.partial(build, specs.model.variants[plan.variant], plan.model_options),
        plan.weights.model,
        what=f"{specs.model.name} ({plan.variant})",
        device=device,
        dtype=dtype,
        map_keys=map_keys,
    )
    set_attention(model, backend)
    return LoadedComponents(
        model=model,
        vae=plugins.load_target(specs.vae)(plan.weights.vae, device, dtype),
        # The released models were sampled with their text encoder in float32 (generation.md section 1).
        text_encoder=plugins.load_target(specs.text_encoder)(plan.weights.text_encoder, device, torch.float32),
        scheduler=plugins.load_target(specs.scheduler)(plan.scheduler_options),
        device=device,
        dtype=dtype,
    )


def choose_device(name: DeviceName) -> torch.device:
    """The device asked for; "auto" takes CUDA, then an Apple GPU, then the CPU. Raises UsageError when it is absent."""
    available: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if name == "auto":
        return torch.device(next(known for known, is_there in available.items() if is_there()))
    if not available[name]():
        raise UsageError(f"--device {name} is not available here", hint="use --device cpu; `sora doctor` says more")
    return torch.device(name)


def choose_dtype(name: DTypeName, device: torch.device) -> torch.dtype:
    """The number format asked for; "auto" is bf16 on CUDA and on processors with bf16 matrix arithmetic, else fp32."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda" or (device.type == "cpu" and cpu_has_bf16()):
        return torch.bfloat16
    return torch.float32


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor multiplies bf16 matrices in hardware; False where the system does not say."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return bool(BF16_FLAGS & set(flags.split()))


def prepare_torch(hardware: HardwareSection) -> None:
    """Fix what makes results differ between two runs of one command: threads and the choice of kernels.

    The default number of threads is that of the cores this process may use, not of the idle ones: sums are split by
    thread, so their last bits depend on it, and the same command must give the same bytes on a busy machine too.
    """
    torch.set_num_threads(hardware.threads or available_cores())
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def available_cores() -> int:
    """Cores this process may run on, or what OMP_NUM_THREADS says."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdigit() and int(limit) > 0:
        return int(limit)
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
