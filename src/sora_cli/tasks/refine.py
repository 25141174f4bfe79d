"""Refining the prompts of a run, once each, before its clips are worked out."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sora_cli.conditioning.references import ANY_LENGTH, Given
from sora_cli.config.schema import Refinement
from sora_cli.console import get_console
from sora_cli.errors import SoraError, UsageError
from sora_cli.launch.torchrun import machines
from sora_cli.text.chat import find_service
from sora_cli.text.prompts import Prompt, join_segments, split_segments
from sora_cli.text.refine import Kind, Refiner

if TYPE_CHECKING:
    from PIL import Image

    from .plan import GeneratePlan

#: Longest side of the picture that a language model sees: enough to recognise everything, few tokens.
PICTURE_SIDE = 768
JPEG_QUALITY = 85


def refine_prompts(
    plan: GeneratePlan, prompts: Sequence[Prompt], givens: Sequence[Given], *, may_ask: bool
) -> list[Prompt]:
    """The prompts with what a language model made of them, where that is wanted. givens: pictures and videos of each.

    may_ask: False takes only answers of earlier runs. A prompt without a good answer stays as it is, with a warning;
    SoraError when there is none to keep, UsageError for a run on several machines.
    """
    refined = _refinements(plan, prompts, givens, may_ask=may_ask)
    if not refined:
        return list(prompts)
    has_motion = plan.config.conditioning.motion is not None
    return [
        replace(
            prompt,
            refined=each,
            settings={
                **({} if has_motion or each.motion is None else {"motion": float(each.motion)}),
                **prompt.settings,
            },
        )
        for prompt, each in zip(prompts, refined, strict=True)
    ]


def _refinements(
    plan: GeneratePlan, prompts: Sequence[Prompt], givens: Sequence[Given], *, may_ask: bool
) -> Sequence[Refinement]:
    """One for each prompt, of an earlier run or new; none when nothing is to be refined."""
    section = plan.config.prompt
    if section.refined:
        if len(section.refined) != len(prompts):
            raise UsageError(f"prompt.refined has {len(section.refined)} texts for {len(prompts)} prompts")
        return section.refined
    if not (section.refine or section.refine_motion):
        return ()
    if machines(plan.config.hardware).nnodes > 1:
        raise UsageError(
            "each of several machines would get other prompts from a language model",
            hint="refine them on one machine first, and give the new prompts",
        )
    refiner = Refiner(find_service(section.refine_model, section.refine_timeout), may_ask=may_ask)
    if section.refine_motion and plan.is_image:
        get_console().note("a single frame does not move, so no motion score is chosen")
    seen: dict[Path, bytes] = {}
    ideas = itertools.count(plan.config.sampling.seed)
    results = []
    for prompt, given in zip(prompts, givens, strict=True):
        picture = _first_picture(given, seen, float(plan.shape.fps))
        text = _refine(plan, refiner, prompt, picture, ideas) if section.refine else None
        has_words = bool(split_segments(text or prompt.text)[0].text.strip())
        if may_ask and section.file is None and not has_words:
            raise SoraError("there is no prompt, and none could be made up", hint="say what to show")
        motion = _motion(plan, refiner, prompt, text or prompt.text, picture)
        results.append(Refinement(text=text, motion=motion, model=section.refine_model))
    return results


def _refine(
    plan: GeneratePlan, refiner: Refiner, prompt: Prompt, picture: bytes | None, ideas: itertools.count[int]
) -> str | None:
    """The prompt with each of its segments refined; None when all stay as they are."""
    kind: Kind = "image" if plan.is_image else "picture" if picture is not None else "video"
    segments = split_segments(prompt.text)
    # A seed has one idea for every missing prompt, so that the same command makes the same clip.
    texts = [
        refiner.prompt(segment.text, kind, picture=picture, idea=0 if segment.text.strip() else next(ideas))
        for segment in segments
    ]
    if not any(texts):
        return None
    return join_segments(
        [replace(segment, text=text or segment.text) for segment, text in zip(segments, texts, strict=True)]
    )


def _motion(plan: GeneratePlan, refiner: Refiner, prompt: Prompt, text: str, picture: bytes | None) -> int | None:
    """The motion score of a prompt, where one is wanted and none is given."""
    words = " ".join(segment.text for segment in split_segments(text)).strip()
    if not plan.config.prompt.refine_motion or plan.is_image or not words:
        return None
    if "motion" in prompt.settings or plan.config.conditioning.motion is not None:
        get_console().note("a motion score is given, so none is chosen")
        return None
    return refiner.motion(words, picture=picture)


def _first_picture(given: Given, seen: dict[Path, bytes], fps: float) -> bytes | None:
    """The earliest picture that a clip is given, or the frame from which a video goes on, as a small JPEG file.

    fps: of the clip.
    """
    if not given:
        return None
    is_last = given.extension is not None and not given.extension.is_backward
    path = given.read[0]
    if given.groups:
        path = given.files[min(given.groups, key=lambda group: (group.loop, group.target_start % ANY_LENGTH)).reference]
    if given.stills and (given.extension is None or given.extension.is_backward):
        path = given.files[min(given.stills, key=lambda still: (still.part, still.latent)).reference]
    elif is_last:
        path = given.videos[0].file
    if path not in seen:
        seen[path] = _small_jpeg(_open(path, fps, is_last=is_last))
    return seen[path]


def _small_jpeg(image: Image.Image) -> bytes:
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def _open(path: Path, fps: float, *, is_last: bool) -> Image.Image:
    """A picture, or the first or last frame of a video, as upright RGB. Raises SoraError."""
    from PIL import Image

    from sora_cli.video.clips import open_clip
    from sora_cli.video.latents import to_frames

    with open_clip(path, clip_fps=fps) as clip:  # the frames that the clip has
        frame = next(clip.only(clip.num_frames - 1 if is_last else 0, 1).pieces(1))
        return Image.fromarray(to_frames(frame[0])[0])
