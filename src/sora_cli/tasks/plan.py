"""What `sora generate` will do, worked out before anything heavy is imported: clips, sizes, settings, files."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli import version
from sora_cli.conditioning.long_video import Segments, notes_on, segments_of
from sora_cli.conditioning.loops import Loop, loop_of
from sora_cli.conditioning.references import Extension, Given, extension_of, given_to
from sora_cli.conditioning.sources import Sources, check_standard_input
from sora_cli.config.schema import GenerateConfig
from sora_cli.config.settings import settings_of
from sora_cli.errors import MissingError, UsageError
from sora_cli.launch.machine import gpu_free_gib
from sora_cli.redaction import stored
from sora_cli.text.prompts import Prompt, check_text, parse_prompt, part_texts, read_prompts, split_segments
from sora_cli.text.scores import Scores, append_scores
from sora_cli.video.settings import HASH_KEY
from sora_cli.video.shapes import ClipShape, accepted_from, is_accepted, resolve_shape, with_frames
from sora_cli.weights.locate import locate_weights
from sora_cli.weights.lora import LocatedLora, locate_lora

from .chosen import (
    Components,
    ComponentWeights,
    find_components,
    load_options,
    locate_components,
    network_config,
    text_dtype_of,
    variant_of,
)
from .given_checks import check_given, check_length, unused_settings
from .output import check_suffix, name_outputs, settings_hash
from .prompt_checks import check_classes
from .records import picture_record
from .refine import refine_prompts
from .run_memory import latent_size, main_memory_note, plan_run_memory

if TYPE_CHECKING:
    from sora_cli.acceleration.memory_plan import MemoryPlan
    from sora_cli.config.resolve import Resolved
    from sora_cli.plugin.manager import Plugins
    from sora_cli.plugin.specs import Constraints

#: Single frames are conditioned on this frame rate, not on the clip's: so the released models were trained
#: (Open-Sora 66a42cd, generation.md section 4).
IMAGE_FPS = 120.0
DEFAULT_FPS = 24.0


@dataclass(frozen=True)
class Clip:
    """One clip to make. prompt: as written, without JSON; texts: what is encoded for each part; settings: stored."""

    prompt: str
    texts: tuple[str, ...]
    seed: int
    path: Path
    settings: Mapping[str, Any]
    given: Given = field(default_factory=Given)
    """Pictures and videos that are in it."""
    refined: str | None = None
    """What a language model made of the prompt."""

    @property
    def settings_hash(self) -> str:
        """What tells this clip from one made with other settings."""
        return str(self.settings[HASH_KEY])


@dataclass(frozen=True)
class GeneratePlan:
    """All of one run. latent_shape: (C, T, h, w); notes: what the user should know about choices made here.

    model_config: the architecture, of the variant or of a config.json beside the weights. text_dtype: fp32, bf16, int8.
    """

    config: GenerateConfig
    components: Components
    weights: ComponentWeights
    shape: ClipShape
    latent_shape: tuple[int, int, int, int]
    steps: int
    guidance: float
    variant: str
    model_config: Mapping[str, Any]
    model_options: Any
    scheduler_options: Any
    loras: tuple[LocatedLora, ...]
    text_dtype: str
    memory: MemoryPlan
    segments: Segments
    extension: Extension | None
    sources: Sources
    loop: Loop | None
    clips: tuple[Clip, ...]
    notes: tuple[str, ...]

    @property
    def is_image(self) -> bool:
        """Whether the clips are single pictures."""
        return self.shape.num_frames == 1

    @property
    def conditioning_fps(self) -> float:
        """The frame rate told to the model."""
        return IMAGE_FPS if self.is_image else self.shape.fps

    @cached_property
    def batches(self) -> list[tuple[Clip, ...]]:
        """Clips sampled together. The cut is over all clips, finished or not, so that it is the same in every run."""
        size = self.config.sampling.batch_size
        return [self.clips[start : start + size] for start in range(0, len(self.clips), size)]


def plan_generate(
    resolved: Resolved,
    plugins: Plugins,
    *,
    need_weights: bool = True,
    free_gib: float | None = None,
    sources: Sources | None = None,
) -> GeneratePlan:
    """Work out a run of `sora generate`. Reads the prompt file and looks for weights and references, writes nothing
    but what it fetches.

    need_weights: False lets weights be absent and asks no language model (for a dry run). free_gib: free memory of a
    GPU, asked of the driver when it is not given. sources: where references are found; those that are known need not be
    fetched. Raises SoraError for all that can be wrong at this point: prompts, sizes, options, names, missing weights,
    references.
    """
    config, sources = resolved.config, sources or Sources()
    check_standard_input(config.conditioning, config.prompt.file)
    components = find_components(config, plugins)
    prompts, notes = _prompts(config)
    check_classes(config, components, prompts)
    of_prompts = [prompt.settings.get("reference_path") or "" for prompt in prompts]
    check_standard_input(config.conditioning, config.prompt.file, of_prompts)
    course = _course(config, components, sources, [prompt.text for prompt in prompts])
    shape = course.shape
    guidance = _guidance(config)
    weights, missing = _weights(config, components, shape, need_weights=need_weights)
    notes += missing
    if config.output.upscaler is not None and shape.enlarged is None:
        notes.append("--upscaler has no effect: the clip is no larger than what the model makes")
    variant = variant_of(config, components.model)
    latent_shape = latent_size(components.vae, shape)
    text_dtype = text_dtype_of(config, components.text_encoder)
    model_config = network_config(components.model, variant, weights.model)
    memory = plan_run_memory(
        resolved, components, weights, shape, model_config, text_dtype, gpu_free_gib() if free_gib is None else free_gib
    )
    if note := main_memory_note(memory):
        notes.append(note)
    plan = GeneratePlan(
        config=config,
        components=components,
        weights=weights,
        shape=shape,
        latent_shape=latent_shape,
        steps=config.sampling.steps or components.scheduler.default_steps,
        guidance=guidance,
        variant=variant,
        model_config=model_config,
        loras=tuple(locate_lora(place, raw=config.model.raw) for place in config.model.lora),
        text_dtype=text_dtype,
        memory=memory,
        model_options=load_options(components.model, config.model.options),
        scheduler_options=load_options(components.scheduler, config.sampling.scheduler_options),
        clips=(),
        segments=course.segments,
        extension=course.extension,
        sources=sources,
        loop=course.loop,
        notes=(*resolved.notes, *course.notes, *notes),
    )
    givens = [_given(plan, prompt, index, len(prompts)) for index, prompt in enumerate(prompts)]
    more = [
        note
        for given in dict.fromkeys(givens)
        for note in check_given(given, components.vae, latent_shape[1], config, float(shape.fps), sources)
    ]
    plan = replace(plan, notes=(*plan.notes, *more, *unused_settings(resolved, givens)))
    prompts = refine_prompts(plan, prompts, givens, may_ask=need_weights)
    return replace(plan, config=_settled(config, prompts), clips=tuple(_clips(plan, prompts, givens)))


def _guidance(config: GenerateConfig) -> float:
    """The guidance of the run. Raises UsageError for a negative prompt that it gives no effect."""
    guidance = 1.0 if config.sampling.guidance is None else config.sampling.guidance
    if config.prompt.negative and guidance <= 1:
        raise UsageError(
            f"a negative prompt has no effect with guidance {guidance:g}: there is no second half to steer away from",
            hint="use --guidance above 1, or drop --negative-prompt",
        )
    return guidance


def _weights(
    config: GenerateConfig, components: Components, shape: ClipShape, *, need_weights: bool
) -> tuple[ComponentWeights, list[str]]:
    """The weights of the parts, and notes; where they may be absent, none of them and a note of what is missing."""
    try:
        weights = locate_components(config, components, download=need_weights)
        if shape.enlarged is not None and (spec := components.upscaler) is not None:
            own = locate_weights(spec.weights, what=spec.name, download=need_weights, option="another --upscaler")
            weights = replace(weights, upscaler=own)
        return weights, []
    except MissingError as error:
        if need_weights:
            raise
        return ComponentWeights(None, None, None), [error.message]


def sampled_shape(config: GenerateConfig, components: Components) -> ClipShape:
    """The shape of a sampled part, without what makes it longer. Raises UsageError."""
    return resolve_shape(config.shape, _constraints(config, components), config.shape.fps or DEFAULT_FPS)


def _constraints(config: GenerateConfig, components: Components) -> Constraints:
    constraints = components.model.constraints
    # Other weights may have learned other sizes.
    return constraints if config.model.weights is None else replace(constraints, sampled_area=None)


@dataclass(frozen=True)
class _Course:
    """How long clips are. shape: of a sampled part; the others: what makes it longer than asked for."""

    shape: ClipShape
    extension: Extension | None
    loop: Loop | None
    segments: Segments
    notes: tuple[str, ...]


def _course(config: GenerateConfig, components: Components, sources: Sources, texts: Sequence[str]) -> _Course:
    """The lengths of a run. texts: its prompts. Raises SoraError for lengths, sizes and videos that do not fit."""
    vae, constraints = components.vae, _constraints(config, components)
    shape = sampled_shape(config, components)
    extension = extension_of(
        config.conditioning,
        vae,
        shape.num_frames,
        functools.partial(accepted_from, constraints=constraints),
        sources,
    )
    loop = loop_of(
        config.conditioning,
        vae,
        shape.num_frames,
        functools.partial(is_accepted, constraints=constraints),
    )
    notes = check_length(config.shape, shape.num_frames, vae, extension, loop)
    for longer in (extension, loop):
        if longer is not None:
            shape = with_frames(shape, longer.sampled, config.shape, constraints)
    segments = segments_of(config, vae, loop.frames if loop else shape.num_frames)
    if extension is not None:
        extension = replace(extension, new=extension.new + segments.total - segments.frames)
    known = extension.overlap if extension is not None else 0
    notes += notes_on(segments, texts, shape.save_fps, known)
    return _Course(shape, extension, loop, segments, (*shape.notes, *notes))


def _prompts(config: GenerateConfig) -> tuple[list[Prompt], list[str]]:
    """The prompts of this run, and notes about them."""
    section = config.prompt
    notes = []
    if section.prompts and section.file is not None:
        notes.append(f"prompts are given, so the prompt file {section.file} is not read")
    may_be_empty = section.refine or bool(section.refined)
    raw_prompts = read_prompts(
        section.prompts, section.file, section.start_index, section.end_index, may_be_missing=may_be_empty
    )
    prompts = [parse_prompt(raw) for raw in raw_prompts]
    check_text(section.negative or "")
    segments = [split_segments(prompt.text) for prompt in prompts]
    first = 0 if section.prompts else section.start_index
    empty = [str(first + index) for index, parts in enumerate(segments) if not parts[0].text.strip()]
    if empty and not may_be_empty:
        where = f", counted from 0: {', '.join(empty)}" if len(prompts) > 1 or first else ""
        notes.append(f"the prompt is empty, so its clip is made from no text{where}")
    return prompts, notes


def _settled(config: GenerateConfig, prompts: Sequence[Prompt]) -> GenerateConfig:
    """The configuration for the processes of a run, which plan again: they neither read nor ask what was before."""
    refined = tuple(prompt.refined for prompt in prompts if prompt.refined is not None)
    if not refined and config.prompt.file != "-":
        return config
    raw = tuple(prompt.raw for prompt in prompts)
    section = config.prompt.model_copy(update={"prompts": raw, "file": None, "refined": refined})
    return config.model_copy(update={"prompt": section})


def _clips(plan: GeneratePlan, prompts: Sequence[Prompt], givens: Sequence[Given]) -> list[Clip]:
    """One clip per prompt and sample, prompts outermost; sample k has seed S + k. Where files are named, one each."""
    sampling, files = plan.config.sampling, plan.config.output.files
    if files:
        jobs = [(prompt, given, file.seed) for prompt, given, file in zip(prompts, givens, files, strict=True)]
        paths = [check_suffix(file.path, is_image=plan.is_image) for file in files]
    else:
        jobs = [
            (prompt, given, sampling.seed + k)
            for prompt, given in zip(prompts, givens, strict=True)
            for k in range(sampling.num_samples)
        ]
        # A prompt that was made up names its file; otherwise the words of the user do.
        names = [(prompt.text if prompt.text.strip() else prompt.sent, seed) for prompt, _, seed in jobs]
        paths = name_outputs(names, plan.config.output.path, is_image=plan.is_image)
    common = picture_record(plan)
    commits = {
        part: weights.commit
        for part, weights in vars(plan.weights).items()
        if weights is not None and weights.commit is not None
    }
    alone = _of_one_clip(plan)
    clips = [
        _clip(alone, prompt, given, seed, path, common) for (prompt, given, seed), path in zip(jobs, paths, strict=True)
    ]
    # Beside the fingerprints, which the hash is made of: the same files from elsewhere make the same clip.
    return [replace(clip, settings={**clip.settings, "commits": commits}) for clip in clips] if commits else clips


def _of_one_clip(plan: GeneratePlan) -> GeneratePlan:
    """The plan without what is said of other clips, which would be looked through for each of thousands."""
    config = plan.config
    prompt = config.prompt.model_copy(update={"prompts": (), "refined": ()})
    output = config.output.model_copy(update={"files": ()})
    return replace(plan, config=config.model_copy(update={"prompt": prompt, "output": output}))


def _given(plan: GeneratePlan, prompt: Prompt, index: int, count: int) -> Given:
    """Pictures and videos of a prompt. Raises UsageError for a model that takes none."""
    given = given_to(
        plan.config.conditioning,
        dict(prompt.settings),
        prompt=index,
        num_prompts=count,
        vae=plan.components.vae,
        num_frames=plan.shape.num_frames,
        fps=float(plan.shape.save_fps),
        segments=plan.segments,
        sources=plan.sources,
    )
    given = replace(given, extension=plan.extension)
    model = plan.components.model
    if "i2v" not in (*model.tasks, *(model.own_tasks if plan.config.model.weights is not None else ())):
        hint = "weights that were trained on given frames can: --weights RUN" if model.own_tasks else None
        if plan.segments.count > 1:
            raise UsageError(f"{model.name} makes clips from text alone, so none can go on from another", hint=hint)
        if given:
            raise UsageError(f"{model.name} makes clips from text alone, not from pictures or videos", hint=hint)
    return given


def _clip(plan: GeneratePlan, prompt: Prompt, given: Given, seed: int, path: Path, common: Mapping[str, Any]) -> Clip:
    config = plan.config
    conditioning = config.conditioning.model_copy(
        update={
            **{key: prompt.settings[key] for key in Scores._fields if key in prompt.settings},
            **plan.sources.conditioning_as_said(config.conditioning),
            # Of this clip alone, so that it can be made again by itself.
            "references": (given.reference_text,) if given.reference_text else (),
            "mask_strategy": (given.strategy_text,) if given.strategy_text else (),
        }
    )
    scores = Scores(conditioning.aes, conditioning.motion, conditioning.camera)
    texts = tuple(append_scores(text, scores) for text in part_texts(prompt.sent, plan.segments.count))
    later = {"later_texts": texts[1:]} if len(set(texts)) > 1 else {}
    made_from = {**common, "text": texts[0], **later, "seed": seed, **given.record(), **plan.segments.record()}
    for words in (prompt.text, *texts):
        check_text(words)
    refined = () if prompt.refined is None else (prompt.refined,)
    if prompt.refined is not None and prompt.refined.motion is not None:
        # It is stored with the refined text, and gone with it when another prompt is given.
        conditioning = conditioning.model_copy(update={"motion": config.conditioning.motion})
    own = {"conditioning": conditioning, "prompt": config.prompt.model_copy(update={"refined": refined})}
    settings = {
        HASH_KEY: settings_hash(made_from),
        "sora": version(),
        "prompt": prompt.text,
        **made_from,
        **({"sources": plan.sources.digests(given.read)} if given else {}),
        # The configuration that makes this one clip again, as `--from` reads it in any folder.
        "config": settings_of(config.model_copy(update=own), prompt=prompt.text, seed=seed),
    }
    return Clip(
        prompt.text, texts, seed, path, stored(settings), given, prompt.refined.text if prompt.refined else None
    )
