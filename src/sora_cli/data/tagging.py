"""`sora data tag`: lists of what captions speak of, and captions in another language, by a language model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sora_cli.errors import UnknownNameError, UsageError
from sora_cli.plugin.protocols import CaptionAnswer, CaptionQuestion
from sora_cli.text.answers import is_refusal, one_line, without_thoughts
from sora_cli.text.captions import parse_tags
from sora_cli.text.chat import CUT_OFF

from .captioning import TEXT, Asked, answer_rows, run_asking, usage
from .questions import Prompt, find_prompt
from .work import Made, Row, RowFunction, Work

if TYPE_CHECKING:
    import polars as pl

    from .run import StepOptions

#: A caption is in a language when it is this likely.
SURE = 0.9


def tag_prompts(keys: Sequence[str], given: str | None) -> dict[str, Prompt]:
    """What is asked for each column. given: the prompt that the user names, for one key. Raises UsageError."""
    if given is not None and len(keys) != 1:
        raise UsageError("a prompt is for one key", hint="give --key once")
    prompts = {}
    for key in keys:
        if not key.isidentifier() or key in (TEXT, "path"):
            raise UsageError(f"{key!r} cannot be the column of tags", hint="letters, digits and _")
        try:
            prompts[key] = find_prompt(given or f"tag-{key}", is_about_text=True)
        except UnknownNameError as error:
            if given is not None:
                raise
            raise UsageError(
                f"there is no preset for the tags {key!r}", hint="say what is to be listed with --prompt"
            ) from error
    return prompts


def run_tag(
    frame: pl.DataFrame, prompts: Mapping[str, Prompt], asked: Asked, step: StepOptions, *, keep_bad: bool
) -> None:
    """Add a column of tags for each key."""
    settings = {"prompts": {key: dataclasses.asdict(prompt) for key, prompt in prompts.items()}}
    work = asked.work("tag", f"{__name__}:make_tagger", settings, [TEXT], list(prompts))
    _run(frame, work, asked, step, verb="tagging", keep_bad=keep_bad)


def run_translate(
    frame: pl.DataFrame, prompt: Prompt, language: str, asked: Asked, step: StepOptions, *, keep_bad: bool
) -> None:
    """Put captions into a language, an ISO 639-1 code; those that surely are in it stay as they are."""
    settings = {"prompt": dataclasses.asdict(prompt), "language": language}
    work = asked.work("translate", f"{__name__}:make_translator", settings, [TEXT], [TEXT])
    _run(frame, work, asked, step, verb="translating", keep_bad=keep_bad)


def _run(frame: pl.DataFrame, work: Work, asked: Asked, step: StepOptions, *, verb: str, keep_bad: bool) -> None:
    if TEXT not in frame.columns:
        raise UsageError("the table has no column text", hint="`sora data caption` writes it")
    run_asking(frame, dataclasses.replace(work, seconds=step.seconds), asked, step, verb=verb, keep_bad=keep_bad)


def make_tagger(options: Mapping[str, Any], device: str) -> RowFunction:
    """`Work.target` of `run_tag`."""
    captioner = Asked(options["captioner"], options["options"]).load(device)
    prompts = {key: Prompt(**prompt) for key, prompt in options["prompts"].items()}

    def tag(rows: Sequence[Row]) -> list[Made]:
        known = [row for row in rows if (row.get(TEXT) or "").strip()]
        questions = [CaptionQuestion(prompt.question(TEXT, row)) for row in known for prompt in prompts.values()]
        answers = list(captioner(questions) if questions else ())
        made = iter(
            _tags(dict(zip(prompts, answers[start : start + len(prompts)], strict=True)))
            for start in range(0, len(answers), len(prompts))
        )
        return [next(made) if (row.get(TEXT) or "").strip() else Made(reason="it has no caption") for row in rows]

    return tag


def _tags(answers: Mapping[str, CaptionAnswer]) -> Made:
    """The tags of one row."""
    found: dict[str, str | None] = {}
    reason: str | None = None
    for key, answer in answers.items():
        text = without_thoughts(answer.text or "")
        why = answer.reason
        if "]" not in text and answer.is_cut:
            why = CUT_OFF
        elif "]" not in text and is_refusal(one_line(text)):
            why = f"the model refused: {one_line(text)[:100]}"
        found[key] = parse_tags(text) if why is None else None
        reason = reason if why is None else f"{key}: {why}"
    return Made([{**found, **usage(*answers.values())}], reason)


def make_translator(options: Mapping[str, Any], device: str) -> RowFunction:
    """`Work.target` of `run_translate`."""
    captioner = Asked(options["captioner"], options["options"]).load(device)
    prompt, language = Prompt(**options["prompt"]), options["language"]

    def question(row: Row) -> CaptionQuestion:
        return CaptionQuestion(prompt.question(TEXT, {TEXT: row.get(TEXT), "language": language}))

    def translate(rows: Sequence[Row]) -> list[Made]:
        stays = [is_surely_in(language, row.get(TEXT)) for row in rows]
        answers = iter(
            answer_rows(captioner, [row for row, stay in zip(rows, stays, strict=True) if not stay], question)
        )
        return [
            Made([{TEXT: row[TEXT], **usage()}]) if stay else next(answers)
            for row, stay in zip(rows, stays, strict=True)
        ]

    return translate


def is_surely_in(language: str, text: str | None) -> bool:
    """Whether a caption is in a language without doubt; never without the package py3langid."""
    identify = _identifier()
    if not text or identify is None:
        return False
    found, probability = identify(text)
    return bool(found == language and probability >= SURE)


@lru_cache(maxsize=1)
def _identifier() -> Callable[[str], tuple[str, float]] | None:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    return lambda text: identifier.classify(text)
