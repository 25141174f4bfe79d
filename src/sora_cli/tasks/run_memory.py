"""What a run of `sora generate` needs on its device: the estimates of its parts, and the plan made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sora_cli.acceleration.memory_plan import MemoryPlan, PartEstimates, plan_memory
from sora_cli.errors import SoraError, UsageError
from sora_cli.launch.machine import gpu_memory_gib, main_memory_gib
from sora_cli.plugin.manager import load_attribute
from sora_cli.plugin.specs import ModelSpec, PartMemory, TextEncoderSpec, VAESpec
from sora_cli.video.shapes import ClipShape, resolve_shape

if TYPE_CHECKING:
    from sora_cli.config.resolve import Resolved
    from sora_cli.config.schema import GenerateConfig
    from sora_cli.weights.locate import LocatedWeights

    from .chosen import Components, ComponentWeights

#: Bytes of a number in the network; "auto" is bf16 on a GPU.
DTYPE_BYTES = {"auto": 2, "bf16": 2, "fp16": 2, "fp32": 4}
#: The same in the autoencoder, which computes in fp32 beside a network in fp16 where the GPU has no bf16.
VAE_BYTES = {**DTYPE_BYTES, "fp16": 4}


def plan_run_memory(
    resolved: Resolved,
    components: Components,
    weights: ComponentWeights,
    shape: ClipShape,
    model_config: Mapping[str, Any],
    text_dtype: str,
    free_gib: float,
) -> MemoryPlan:
    """The memory plan of a run. What a launch preset says about offloading is only a suggestion and gives way to it.

    free_gib: free memory of the GPU that has least, 0 without one. Raises SoraError when the run does not fit it in
    any way the user left open.
    """
    hardware = resolved.config.hardware
    is_on_gpu = hardware.device in ("auto", "cuda") and gpu_memory_gib() > 0

    def asked(name: str) -> Any:
        """What the user said; a launch preset only suggests."""
        is_preset = resolved.origins.get(f"hardware.{name}", "").startswith("launch preset")
        return None if is_preset else getattr(hardware, name)

    def plan_for(shape: ClipShape) -> MemoryPlan:
        return plan_memory(
            run_estimates(resolved.config, components, weights, shape, model_config, text_dtype),
            available=free_gib if is_on_gpu else None,
            offload=(asked("offload") or "auto") if is_on_gpu else "none",
            text_device=hardware.text_device if is_on_gpu else "same",
            decode_frames=asked("decode_frames"),
        )

    memory = plan_for(shape)
    if not memory.fits:
        raise SoraError(
            f"{shape.height}x{shape.width}, {shape.num_frames} frames, needs about {memory.peak:.1f} GiB on a GPU, "
            f"and this one has {memory.available:.1f} free",
            hint=_memory_advice(resolved.config, components.model, memory, shape, plan_for),
        )
    return memory


def run_estimates(
    config: GenerateConfig,
    components: Components,
    weights: ComponentWeights,
    shape: ClipShape,
    model_config: Mapping[str, Any],
    text_dtype: str,
) -> PartEstimates:
    """Memory of the parts of a run on one of its devices."""
    rows = config.sampling.batch_size * (1 if config.sampling.guidance == 1 else 2)
    bytes_each = DTYPE_BYTES[config.model.dtype]
    model = _estimate(
        components.model,
        model_config,
        latent_shape=latent_size(components.vae, shape),
        rows=rows,
        text_tokens=components.text_encoder.max_tokens,
        dtype_bytes=bytes_each,
    )
    if model is not None:
        model = replace(model, working=-(-model.working // (config.hardware.sequence_parallel or 1)))
    return PartEstimates(
        text=_estimate(components.text_encoder, weights.text_encoder, prompts=1, dtype=text_dtype),
        model=model,
        vae=_vae_estimate(components.vae, weights.vae, shape, VAE_BYTES[config.model.dtype]),
    )


def _memory_advice(
    config: GenerateConfig,
    model: ModelSpec,
    memory: MemoryPlan,
    shape: ClipShape,
    plan_for: Callable[[ClipShape], MemoryPlan],
) -> str:
    lines = []
    if memory.offload != "block":
        lines.append("leave --offload out: block needs least")
    if memory.phases.get("text") == memory.peak:
        lines.append("encode the text elsewhere with --text-device cpu, or in less memory with --text-dtype int8")
        return "\n".join(lines)
    smaller = {"size": None, "aspect_ratio": config.shape.aspect_ratio or "16:9"}
    for name in ("1080p", "720p", "480p", "360p", "240p", "144p"):
        section = config.shape.model_copy(update={**smaller, "resolution": name})
        try:
            candidate = resolve_shape(section, model.constraints, shape.fps)
        except UsageError:
            continue
        if candidate.height * candidate.width < shape.height * shape.width and plan_for(candidate).fits:
            lines.append(f"--res {name} fits")
            break
    lines.append("choose a smaller --res or --len, --batch-size 1, or several GPUs with --sequence-parallel")
    return "\n".join(lines)


def main_memory_note(memory: MemoryPlan) -> str | None:
    """A warning for a run on a CPU that may not fit the main memory; swap may still carry it, so it is no refusal."""
    there = main_memory_gib()
    if memory.available is not None or there is None or memory.peak <= there:
        return None
    return f"this needs about {memory.peak:.1f} GiB of main memory, and {there:.1f} GiB are free: it may be very slow"


def _estimate(spec: ModelSpec | TextEncoderSpec, source: Any, **sizes: Any) -> PartMemory | None:
    if spec.memory is None:
        return None
    config = source if isinstance(source, Mapping) else (source.config() if source is not None else {})
    estimate: PartMemory = load_attribute(spec.memory, what=spec.name)(config, **sizes)
    return estimate


def _vae_estimate(
    spec: VAESpec, weights: LocatedWeights | None, shape: ClipShape, dtype_bytes: int
) -> Callable[[int], PartMemory] | None:
    if spec.memory is None:
        return None
    function = load_attribute(spec.memory, what=spec.name)
    sizes = {"height": shape.height, "width": shape.width, "num_frames": shape.num_frames, "dtype_bytes": dtype_bytes}
    config = weights.config() if weights is not None else {}
    return lambda frames: function(config, frames_at_once=frames, **sizes)


def latent_size(vae: VAESpec, shape: ClipShape) -> tuple[int, int, int, int]:
    """Latents (C, T, h, w) of a clip. Raises UsageError when the size does not fit the autoencoder."""
    stride = vae.spatial_stride
    if not vae.covers_edges and (shape.height % stride or shape.width % stride):
        raise UsageError(
            f"{shape.height}x{shape.width} does not fit the autoencoder {vae.name}: its sizes are multiples of {stride}"
        )
    sides = vae.latent_side(shape.height), vae.latent_side(shape.width)
    return (vae.latent_channels, vae.latent_frames(shape.num_frames), *sides)
