"""Loading the four parts of a run onto the device."""

from __future__ import annotations

import functools
import os
import textwrap
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sora_cli.acceleration.attention import choose_attention, set_attention
from sora_cli.acceleration.offload import offload_blocks
from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.plugin.blame import wrong_result
from sora_cli.plugin.manager import load_attribute
from sora_cli.plugin.protocols import Scheduler, TextEmbedding, TextEncoder, Upscaler, VideoAutoencoder
from sora_cli.weights.load import load_network
from sora_cli.weights.lora import merge_loras

if TYPE_CHECKING:
    from sora_cli.config.schema import DeviceName, DTypeName, ProcessesSection
    from sora_cli.launch.mesh import Team
    from sora_cli.plugin.manager import Plugins
    from sora_cli.plugin.specs import TextEncoderSpec
    from sora_cli.weights.lora import LocatedLora

    from .plan import GeneratePlan
    from .train_plan import TrainPlan

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TEXT_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
#: Processor flags of the x86 extensions with bfloat16 matrix arithmetic; without them bf16 is slower than fp32.
BF16_FLAGS = {"amx_bf16", "avx512_bf16"}


class Parts:
    """The parts of a run, each loaded when it is first used.

    dtype, vae_dtype: number format of the network and of the autoencoder.

    What is on the device at a time follows the memory plan: with offloading, a part leaves it when another one works.
    """

    def __init__(self, plan: GeneratePlan, plugins: Plugins, team: Team) -> None:
        self.plan, self.plugins, self.team = plan, plugins, team
        self.device = choose_device(plan.config.hardware.device)
        self.dtype = choose_dtype(plan.config.model.dtype, self.device)
        self.vae_dtype = choose_vae_dtype(self.dtype, self.device)
        #: What clips are given, encoded (`given.GivenLatents`); made when a batch needs it.
        self.given: Any = None
        prepare_torch(plan.config.hardware)
        self.attention = choose_attention(plan.config.model.attention, self.device, self.dtype)
        self.scheduler: Scheduler = plugins.load_target(plan.components.scheduler)(plan.scheduler_options)
        is_planned = self.device.type == "cuda"
        self.decode_frames = plan.memory.decode_frames if is_planned else plan.config.hardware.decode_frames
        self.offload = plan.memory.offload if is_planned else "none"
        self.is_tight = False

    def encode(self, texts: Sequence[str]) -> list[TextEmbedding]:
        """Embeddings of texts, in main memory and without padding; the text encoder is gone afterwards.

        Each row has embeddings (1, L, D) and mask (L,) of the encoder's own length, cut to the tokens that are real.
        """
        spec, where = self.plan.components.text_encoder, self.plan.memory.text_device
        device = self.device if self.device.type != "cuda" or where == "same" else torch.device("cpu")
        dtype = TEXT_DTYPES[self.plan.text_dtype]
        encoder: TextEncoder = self.plugins.load_target(spec)(self.plan.weights.text_encoder, device, dtype)
        offloaded = offload_blocks(encoder, self.device) if where == "block" and self.device.type == "cuda" else None
        rows = []
        for text in texts:
            if cut := getattr(encoder, "tokens_cut", lambda _: 0)(text):
                start = textwrap.shorten(text, 60, placeholder=" ...")
                get_console().warn(f"the last {cut} tokens of a prompt are not read, only its start: {start}")
            embeddings, mask = _embedding(encoder.encode([text]), spec)
            length = int(mask[0].nonzero().max()) + 1
            rows.append(TextEmbedding(embeddings[0, :, :length].cpu(), _padded(mask[0].cpu(), length)))
        if offloaded is not None:
            offloaded.remove()
        del encoder
        self.free_memory()
        return rows

    @cached_property
    def model(self) -> Any:
        """The network, on the device or with its blocks fetched as they run."""
        is_by_block = self.offload == "block"
        device = torch.device("cpu") if is_by_block else self.device
        model = load_model(self.plan, self.plugins, self.plan.loras, device=device, dtype=self.dtype)
        set_attention(model, self.attention.function)
        if is_by_block:
            offload_blocks(model, self.device)
        return self._parallel(model)

    def _parallel(self, model: Any) -> Any:
        if self.team.mesh is None:
            return model
        spec = self.plan.components.parallelism
        assert spec is not None  # the plan names one for several processes
        shard = self.plan.components.model.shard
        split = load_attribute(shard, what=self.plan.components.model.name) if shard else None
        return self.plugins.load_target(spec)(model, self.team.mesh, split)

    @cached_property
    def vae(self) -> VideoAutoencoder:
        """The autoencoder."""
        vae: VideoAutoencoder = self.plugins.load_target(self.plan.components.vae)(
            self.plan.weights.vae, self.device, self.vae_dtype
        )
        return vae

    @cached_property
    def upscaler(self) -> Upscaler | None:
        """What enlarges the frames; None where they are written as they are made."""
        spec = self.plan.components.upscaler
        if self.plan.shape.enlarged is None or spec is None:
            return None
        upscaler: Upscaler = self.plugins.load_target(spec)(self.plan.weights.upscaler, self.device, self.vae_dtype)
        return upscaler

    def enter(self, part: str) -> None:
        """Make "model" or "vae" the part that works; with offloading the other one leaves the device."""
        if self.offload == "none":
            return
        other = {"model": "vae", "vae": "model"}[part]
        for name, device in ((other, torch.device("cpu")), (part, self.device)):
            # A network whose blocks are fetched keeps only little on the device.
            if name in self.__dict__ and not (name == "model" and self.offload == "block"):
                self.__dict__[name].to(device)
        self.free_memory()

    def free_memory(self) -> None:
        """Give memory that is no longer used back to the device."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _embedding(found: Any, spec: TextEncoderSpec) -> TextEmbedding:
    """What a text encoder gave for one prompt. Raises SoraError for anything else than its protocol says."""
    tensors = tuple(found) if isinstance(found, (tuple, list)) else ()
    if len(tensors) == 2 and all(isinstance(each, Tensor) for each in tensors):
        embeddings, mask = tensors
        if embeddings.ndim == 4 and mask.shape == (1, embeddings.shape[2]) and mask.any():
            return TextEmbedding(embeddings, mask)
        gave = (
            f"embeddings {tuple(embeddings.shape)} and a mask {tuple(mask.shape)} of {int(mask.count_nonzero())} tokens"
        )
    else:
        gave = type(found).__name__
    raise wrong_result(spec, f"gave {gave} for a prompt, not embeddings (1, 1, L, D) and a mask (1, L) with ones")


def load_model(
    plan: GeneratePlan | TrainPlan,
    plugins: Plugins,
    loras: Sequence[LocatedLora],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> Any:
    """The network of a plan with its weights and these adapters, to be used and not trained."""
    spec = plan.components.model
    assert plan.weights.model is not None  # only a dry run is planned without
    build = plugins.load_target(spec)
    map_keys = load_attribute(spec.load, what=spec.name) if spec.load else None

    def with_loras(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return merge_loras(tensors if map_keys is None else map_keys(tensors), loras)

    return load_network(
        functools.partial(build, plan.model_config, plan.model_options),
        plan.weights.model,
        what=f"{spec.name} ({plan.variant})",
        device=device,
        dtype=dtype,
        map_keys=with_loras if loras else map_keys,
        strict=plan.config.model.strict,
    )


def _padded(mask: Tensor, length: int) -> Tensor:
    """The mask of the encoder's own length; only its first `length` tokens have embeddings."""
    assert not bool(mask[length:].any())
    return mask


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


def choose_vae_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The number format of an autoencoder beside a network in `dtype`: never fp16, whose range the released ones leave.

    In place of fp16 it is bf16 where the device computes in it, else fp32.
    """
    if dtype != torch.float16:
        return dtype
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return choose_dtype("auto", device) if device.type == "cpu" else torch.float32


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor multiplies bf16 matrices in hardware; False where the system does not say."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "")
    return bool(BF16_FLAGS & set(flags.split()))


def is_out_of_memory(error: Exception) -> bool:
    """Whether this is what torch or NumPy raise when there is no memory; on CPU and MPS only the text says so."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return any(words in str(error) for words in ("out of memory", "can't allocate memory", "not enough memory"))


def prepare_torch(hardware: ProcessesSection) -> None:
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
