"""From planned clips to files: encode the text, sample batch by batch, decode into the encoder, keep what is done."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sora_cli.conditioning.long_video import Segments
from sora_cli.conditioning.loops import Ring
from sora_cli.console import get_console
from sora_cli.errors import NotEnoughMemoryError, UsageError
from sora_cli.launch.mesh import Team
from sora_cli.plugin.blame import wrong_result
from sora_cli.plugin.manager import load_attribute
from sora_cli.plugin.protocols import SampleRequest, TextEmbedding
from sora_cli.text.scores import motion_sentence
from sora_cli.video.latents import (
    ClipNoise,
    KeptLatents,
    keep_latents,
    kept_path,
    part_seed,
    read_kept,
    remove_kept,
    step_noise,
)

from .clip_file import AddFrames, clip_file
from .components import Parts, is_out_of_memory
from .continuation import Continuation
from .given import GivenLatents
from .output import report
from .plan import Clip, GeneratePlan

if TYPE_CHECKING:
    from sora_cli.plugin.manager import Plugins

#: Latents are kept at most every half second, and so that keeping them takes at most 5 % of the time.
KEEP_SECONDS = 0.5
KEEP_SHARE = 0.05


def make_clips(
    plan: GeneratePlan,
    plugins: Plugins,
    *,
    done: frozenset[Path],
    team: Team | None = None,
    is_tight: bool = False,
) -> None:
    """Make every clip whose path is not in `done`, printing each path, in order, when its file is complete.

    team: this process among several; it makes its batches and, unless it leads its group, neither decodes nor writes.
    is_tight: call the network with one row at a time from the start.
    """
    console = get_console()
    specs = plan.components
    team = team or Team()
    parts = Parts(plan, plugins, team)
    parts.is_tight = is_tight
    names = dict.fromkeys((specs.model.name, specs.vae.name, specs.text_encoder.name))
    console.note(f"loading {', '.join(names)} ...")
    formats = " and ".join(str(each).removeprefix("torch.") for each in dict.fromkeys((parts.dtype, parts.vae_dtype)))
    console.note(f"running on {parts.device.type} in {formats}")
    console.note(f"attention {parts.attention.name}: {parts.attention.why}")
    batches = _share(plan, team, done)
    with torch.inference_mode():
        texts = TextCache(plan, parts, [clip for batch in batches for clip in batch if clip.path not in done])
        for batch in batches:
            try:
                _make_batch(plan, parts, texts, batch, done)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise out_of_memory(plan, parts, len(batch)) from error


def _share(plan: GeneratePlan, team: Team, done: frozenset[Path]) -> list[tuple[Clip, ...]]:
    """The batches of this process. Those with something to make are dealt out first, so that all have work."""
    batches = plan.batches
    dealt = sorted(range(len(batches)), key=lambda number: all(clip.path in done for clip in batches[number]))
    return [batches[number] for number in sorted(dealt[place] for place in range(len(dealt)) if team.takes(place))]


def out_of_memory(plan: GeneratePlan, parts: Parts, count: int) -> NotEnoughMemoryError:
    """The error after the last way to save memory has been tried."""
    ways = ["a smaller --res or --len", "--batch-size 1"]
    if parts.device.type == "cuda" and parts.offload != "block":
        ways.append("--offload block")
    return NotEnoughMemoryError(
        f"not enough memory on {parts.device.type} for {plan.shape.height}x{plan.shape.width}, "
        f"{plan.shape.num_frames} frames, {count} at a time",
        hint=f"try {', or '.join(ways)}",
    )


class TextCache:
    """The embeddings of all texts of a run, encoded together before anything else is loaded."""

    def __init__(self, plan: GeneratePlan, parts: Parts, clips: Sequence[Clip]) -> None:
        self.plan, self.parts = plan, parts
        negative = [plan.config.prompt.negative] if plan.config.prompt.negative and plan.guidance != 1 else []
        self._wanted = dict.fromkeys([*(text for clip in clips for text in clip.texts), *negative])
        self._rows: dict[str, TextEmbedding] = {}

    def __call__(self, texts: Sequence[str]) -> TextEmbedding:
        """Embeddings (n, 1, L, D) on the device, padded with zeros to the encoder's length, and mask (n, L)."""
        if not self._rows:
            self._rows = dict(zip(self._wanted, self.parts.encode(list(self._wanted)), strict=True))
        rows = [self._rows[text] for text in texts]
        mask = torch.stack([row.mask for row in rows])
        embeddings = torch.stack(
            [F.pad(row.embeddings, (0, 0, 0, mask.shape[1] - row.embeddings.shape[1])) for row in rows]
        )
        return TextEmbedding(embeddings.to(self.parts.device), mask.to(self.parts.device))


def _make_batch(
    plan: GeneratePlan, parts: Parts, texts: TextCache, batch: Sequence[Clip], done: frozenset[Path]
) -> None:
    """Make the clips of one batch that are not done, part by part.

    The latents of each part are kept beside the first clip of the batch until all clips are there.
    """
    pending = [clip for clip in batch if clip.path not in done]
    ends = [Continuation(plan, parts, lead=_lead(plan, clip)) for clip in pending]
    keepers: list[LatentKeeper] = []
    with contextlib.ExitStack() as stack:
        # One for each clip, so that its file is complete as soon as its last part is, and left out after an error.
        files = [stack.enter_context(contextlib.ExitStack()) for _ in pending]
        adds: list[AddFrames] = []
        for part in range(plan.segments.count):
            if pending:
                latents, keeper = _make_part(plan, parts, texts, pending, part, batch[0].path, ends)
                keepers.append(keeper)
            if not parts.team.is_leader:
                continue
            is_last = part == plan.segments.count - 1
            for clip in batch:
                if clip.path in done:
                    if is_last:
                        report(clip, "skipped")
                    continue
                row = pending.index(clip)
                if part == 0:
                    adds.append(files[row].enter_context(clip_file(plan, clip, parts.upscaler)))
                with _noting_interrupts(keepers, plan.segments):
                    for frames in ends[row].decode(
                        latents[row], part, f"decoding {clip.path.name}{_of_parts(part, plan.segments)}"
                    ):
                        adds[row](frames)
                    if is_last:
                        files[row].close()
                if not is_last:
                    continue
                if clip is pending[-1]:  # before the report, which fails when nobody reads it any more
                    remove_kept(batch[0].path)
                is_resumed = any(each.resumed_from for each in keepers)
                report(clip, "resumed" if is_resumed else "made")


def _lead(plan: GeneratePlan, clip: Clip) -> int:
    """First latent frames of a clip that are not in its video: those of a loop without a given beginning."""
    return plan.loop.lead if plan.loop and not clip.given.keeps_first(plan.latent_shape[1]) else 0


def _make_part(
    plan: GeneratePlan,
    parts: Parts,
    texts: TextCache,
    pending: Sequence[Clip],
    part: int,
    first: Path,
    ends: Sequence[Continuation],
) -> tuple[Tensor, LatentKeeper]:
    """Latents (n, C, T, h, w) of a part, sampled or found. first: the clip that they are kept beside."""
    keeper = LatentKeeper(
        kept_path(first, part),
        [clip.settings_hash for clip in pending],
        plan.steps,
        writes=parts.team.is_leader,
    )
    try:
        return _sample(plan, parts, texts, pending, keeper, part, ends), keeper
    except KeyboardInterrupt:
        keeper.save()
        if keeper.saved_step:
            where = f"{keeper.saved_step} of {plan.steps} steps{_of_parts(part, plan.segments)}, in {keeper.path}"
        else:
            where = f"{part} of {plan.segments.count} parts, beside {first}" if part else ""
        if where:
            get_console().note(f"kept: {where}; the same command goes on there")
        raise


@contextlib.contextmanager
def _noting_interrupts(keepers: Sequence[LatentKeeper], segments: Segments) -> Iterator[None]:
    """Say what is kept when decoding is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        if keepers[-1].saved_step:
            kept = f"the sampled latents{_of_parts(len(keepers) - 1, segments)}, in {keepers[-1].path}"
            get_console().note(f"kept: {kept}; the same command goes on with decoding")
        raise


def _of_parts(part: int, segments: Segments) -> str:
    return f", part {part + 1} of {segments.count}" if segments.count > 1 else ""


class LatentKeeper:
    """Keeps the latents of a batch on disk while it is sampled, and finds those of an interrupted run."""

    def __init__(self, path: Path, clips: Sequence[str], steps: int, *, writes: bool = True) -> None:
        """path: the file; clips: the settings hash of each row; steps: sampling steps in all; writes: keeps them."""
        self.path, self.clips, self.steps = path, tuple(clips), steps
        self.resumed_from = 0
        self.saved_step = 0
        self._step = 0
        self._latents: Tensor | None = None
        self._next_save = time.monotonic() + KEEP_SECONDS
        self._can_save = writes

    def find(self) -> Tensor | None:
        """Latents (n, C, T, H, W) of an interrupted run of the same clips, with `resumed_from` set to their step."""
        kept = read_kept(self.path)
        latents = kept.rows(self.clips) if kept is not None and kept.steps == self.steps else None
        if kept is None or latents is None:
            if self.path.exists():
                get_console().note(f"{self.path} is damaged or from other settings; starting over")
            return None
        self.resumed_from = self.saved_step = kept.step
        return latents

    def on_step(self, step: int, latents: Tensor) -> None:
        """Remember the latents after `step` steps; save them when it is time, and always after the last step."""
        # A copy, because a sampler may work in place.
        self._step, self._latents = step, latents.detach().clone()
        if step == self.steps or time.monotonic() >= self._next_save:
            self.save()
        if step == self.steps:  # from here on only the file is needed
            self._latents = None

    def save(self) -> None:
        """Write the last latents. A full disk does not stop the run: it only cannot be resumed, and says so once."""
        if self._latents is None or self._step == self.saved_step or not self._can_save:
            return
        start = time.monotonic()
        try:
            keep_latents(self.path, KeptLatents(self.clips, self._step, self.steps, self._latents))
        except OSError as error:
            self._can_save = False
            get_console().warn(f"the latents cannot be kept for resuming: {error}")
            return
        self.saved_step = self._step
        now = time.monotonic()
        self._next_save = now + max(KEEP_SECONDS, (now - start) / KEEP_SHARE)


def _sample(
    plan: GeneratePlan,
    parts: Parts,
    texts: TextCache,
    clips: Sequence[Clip],
    keeper: LatentKeeper,
    part: int,
    ends: Sequence[Continuation],
) -> Tensor:
    """Latents (n, C, T, H, W) of a part of a batch, from noise or from where an interrupted run stopped.

    Out of memory, the rows of a network call are tried one at a time, once.
    """
    found = keeper.find() if parts.team.is_leader else None
    start, keeper.resumed_from = parts.team.share(found, keeper.resumed_from)
    if start is None:
        start = torch.stack([noise.start() for noise in _noises(plan, clips, part)])
    elif keeper.resumed_from == plan.steps:
        return start.to(parts.device)
    noise, mask = start.to(parts.device), None
    if part or any(clip.given for clip in clips):
        if parts.given is None:
            parts.given = GivenLatents(plan, parts)
        # Latents of an interrupted run hold what is given already, and may have more behind them: `Scheduler.sample`.
        alone = noise[:, : plan.components.vae.latent_channels]
        given, mask = parts.given.into(alone, clips, part, _before(parts, ends) if part else None)
        noise = given if keeper.resumed_from == 0 else noise
    request = _request(plan, parts, texts, clips, noise, part)._replace(frame_mask=mask)
    parts.enter("model")
    ring = Ring(parts.model, plan.loop, keeper.resumed_from) if plan.loop else None
    network = ring or parts.model
    # On a CPU a batch is no faster than its clips; one by one each is bit for bit what it is alone. In a loop rows that
    # start with a picture and others are in different order.
    model = OneByOne(network, len(clips)) if parts.device.type == "cpu" or (ring and mask is not None) else network
    title = _sampling_title(clips, keeper.resumed_from, _of_parts(part, plan.segments))
    if parts.is_tight:
        return _run_sampler(plan, parts, OneByOne(network, 2 * len(clips)), request, title, keeper, ring)
    try:
        return _run_sampler(plan, parts, model, request, title, keeper, ring)
    except (RuntimeError, MemoryError) as error:
        # The other processes of a group would wait for this one's part of the call: all of them are started again.
        if not is_out_of_memory(error) or parts.team.sequence_size > 1:
            raise
    get_console().note("out of memory; once more with one row of the batch at a time")
    parts.free_memory()
    if ring:
        ring.step = keeper.resumed_from
    return _run_sampler(plan, parts, OneByOne(network, 2 * len(clips)), request, title, keeper, ring)


def _before(parts: Parts, ends: Sequence[Continuation]) -> Tensor | None:
    """Latents (n, C, t, h, w) that the clips go on from; processes that share a clip get them from their leader."""
    is_leader = parts.team.is_leader
    before = torch.stack([end.overlap(parts.given) for end in ends]).cpu() if is_leader else None
    return parts.team.share(before, 0)[0]


def _run_sampler(
    plan: GeneratePlan,
    parts: Parts,
    model: Any,
    request: SampleRequest,
    title: str,
    keeper: LatentKeeper,
    ring: Ring | None,
) -> Tensor:
    with get_console().progress(title, plan.steps, keeper.resumed_from) as progress:

        def on_step(step: int, latents: Tensor) -> None:
            keeper.on_step(step, latents)
            if ring:
                ring.step = step
            progress.update(step)

        latents = parts.scheduler.sample(
            model,
            request,
            steps=plan.steps,
            guidance=plan.guidance,
            start_step=keeper.resumed_from,
            on_step=on_step,
        )
    wanted = (len(request.noise), plan.latent_shape[0], *request.noise.shape[2:])
    if not isinstance(latents, Tensor) or latents.shape != wanted:
        gave = tuple(latents.shape) if isinstance(latents, Tensor) else type(latents).__name__
        raise wrong_result(plan.components.scheduler, f"sampled {gave}, not latents {wanted}")
    if not torch.isfinite(latents).all():
        get_console().warn(f"{title}: the latents are not finite, so the clip is nothing to look at; try --dtype fp32")
    return latents


class OneByOne:
    """Calls a network for each clip of a batch alone.

    Kernels choose their order of summation by the number of rows, so a clip in a batch differs from the clip alone in
    its last bits, which the video encoder turns into a visible part of its noise.
    """

    def __init__(self, model: Any, num_clips: int) -> None:
        """model: a DiffusionModel; num_clips: rows of a batch, of which guidance stacks several copies."""
        self.model, self.num_clips = model, num_clips

    def __call__(self, x: Tensor, timestep: Tensor, y: Tensor, **conditioning: Any) -> Tensor:
        """As the network. Row r of every tensor belongs to clip r modulo the number of clips."""
        out: Tensor | None = None
        for index in range(min(self.num_clips, len(x))):
            clip = slice(index, None, self.num_clips)
            own = {name: _own(value, index, self.num_clips) for name, value in conditioning.items()}
            part = self.model(x[clip], timestep[clip], y[clip], **own)
            if out is None:
                out = part.new_empty((len(x), *part.shape[1:]))
            out[clip] = part
        assert out is not None  # a batch has clips
        return out

    def null_text(self, num_prompts: int, length: int) -> Tensor:
        """As the network."""
        return self.model.null_text(num_prompts, length)


def _own(value: Any, index: int, step: int) -> Any:
    """The rows of a tensor that belong to one clip; a tensor with fewer rows than copies is repeated over them."""
    if not torch.is_tensor(value):
        return value
    return value[index::step] if len(value) >= step else value[index % len(value)][None]


def _sampling_title(clips: Sequence[Clip], step: int, of_parts: str) -> str:
    names = clips[0].path.name if len(clips) == 1 else f"{clips[0].path.name} and {len(clips) - 1} more"
    return f"sampling {names}{of_parts}" + (f" from step {step}" if step else "")


def _request(
    plan: GeneratePlan, parts: Parts, texts: TextCache, clips: Sequence[Clip], noise: Tensor, part: int
) -> SampleRequest:
    text = texts([clip.texts[part] for clip in clips])
    null_embeddings, null_mask = _unconditional(plan, parts, texts, text)
    return SampleRequest(
        noise=noise,
        text=text,
        null_embeddings=null_embeddings,
        null_mask=null_mask,
        height=plan.shape.asked_height,
        width=plan.shape.asked_width,
        num_frames=plan.shape.num_frames,
        latent_frames=plan.latent_shape[1],
        fps=plan.conditioning_fps,
        draw_noise=functools.partial(step_noise, _noises(plan, clips, part), noise.device),
    )


def _noises(plan: GeneratePlan, clips: Sequence[Clip], part: int) -> list[ClipNoise]:
    model = plan.components.model
    shaper = load_attribute(model.noise, what=model.name) if model.noise else None
    # A loop ends where it began: noise that travels with a camera would be torn there.
    texts = [motion_sentence(clip.texts[part]) if plan.loop else clip.texts[part] for clip in clips]
    return [
        ClipNoise(part_seed(clip.seed, part), plan.latent_shape, shaper, text, plan.conditioning_fps)
        for clip, text in zip(clips, texts, strict=True)
    ]


def _unconditional(
    plan: GeneratePlan, parts: Parts, texts: TextCache, text: TextEmbedding
) -> tuple[Tensor | None, Tensor | None]:
    """Embeddings (n, 1, L, D) for the half that guidance steers away from, and their token mask (n, L).

    The learned "no text" has no mask of its own: it is cut to each prompt's length, as in training. A negative prompt
    takes its place with its own mask. None without guidance.
    """
    if plan.guidance == 1:
        return None, None
    count, _, length, _ = text.embeddings.shape
    if plan.config.prompt.negative:
        negative = texts([plan.config.prompt.negative])
        return negative.embeddings.expand(count, -1, -1, -1), negative.mask.expand(count, -1)
    if not hasattr(parts.model, "null_text"):
        raise UsageError(
            f"{plan.components.model.name} has learned no empty prompt, so guidance {plan.guidance:g} is not possible",
            hint="use --guidance 1, or give --negative-prompt",
        )
    return parts.model.null_text(count, length).to(text.embeddings), None
