"""`sora data caption`: what models say about pictures and about frames of videos."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.console import counted, get_console
from sora_cli.errors import UsageError
from sora_cli.plugin.manager import get_plugins, load_attribute
from sora_cli.plugin.protocols import CaptionAnswer, Captioner, CaptionQuestion
from sora_cli.plugin.specs import DataToolSpec
from sora_cli.text.answers import is_refusal, one_line, read_fields, whole_sentences
from sora_cli.text.chat import CUT_OFF, printable
from sora_cli.video.media import is_image

from .addresses import at_hand
from .index import STAMP
from .questions import Prompt
from .work import REASON, Made, Results, Row, RowFunction, Work

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from .run import StepOptions
    from .work import Engine

TEXT = "text"
#: Frames of a row on their way from the process that read them.
FRAMES = "__frames"
#: What an answer took; columns of the log, not of the output.
REQUESTS, PROMPT_TOKENS, ANSWER_TOKENS = "__requests", "__prompt_tokens", "__answer_tokens"
USAGE = {REQUESTS: "int", PROMPT_TOKENS: "int", ANSWER_TOKENS: "int"}
MILLION = 1_000_000


@dataclasses.dataclass(frozen=True)
class Asked:
    """Who is asked: a captioner with its own options, complete. is_remote: see DataToolSpec.

    without_effect: options that change no answer, which its options class names in `WITHOUT_EFFECT`.
    """

    captioner: str
    options: Mapping[str, Any]
    is_remote: bool = False
    without_effect: tuple[str, ...] = ()

    @classmethod
    def checked(cls, captioner: str, options: Sequence[str], model: str | None) -> Asked:
        """From what a user typed: options as KEY=VALUE; model: its option of that name. Raises SoraError."""
        from sora_cli.config.checks import complete_options
        from sora_cli.config.layers import option_pairs

        given = option_pairs(options, example="max_tokens=200")
        if model is not None and given.setdefault("model", model) != model:
            raise UsageError(f"the model is {model} and {given['model']}", hint="leave -O model=... out")
        plugins = get_plugins()
        spec = plugins.get("captioner", captioner)
        assert isinstance(spec, DataToolSpec)
        plugins.check_installed(spec)
        complete = complete_options(spec.options, given, f"captioner {spec.name}", dict.fromkeys(given, "flag"))
        known = load_attribute(spec.options, what=spec.name) if spec.options else None
        return cls(spec.name, complete, spec.is_remote, getattr(known, "WITHOUT_EFFECT", ()))

    def work(
        self, name: str, target: str, settings: Mapping[str, Any], inputs: Sequence[str], columns: Sequence[str]
    ) -> Work:
        """Questions to it about each row. settings: of the row function, beside the captioner and its options."""
        options = {"captioner": self.captioner, "options": dict(self.options), **settings}
        with_effect = {key: value for key, value in self.options.items() if key not in self.without_effect}
        return Work(
            *(name, target, options, tuple(inputs), {**dict.fromkeys(columns, "str"), **USAGE}),
            rows_at_once=1 if self.is_remote else self.options.get("batch_size", 1),
            settings={**options, "options": with_effect},
        )

    def load(self, device: str) -> Captioner:
        """The captioner, ready. Raises SoraError when it cannot be used."""
        plugins = get_plugins()
        spec = plugins.get("captioner", self.captioner)
        assert isinstance(spec, DataToolSpec)
        own = load_attribute(spec.options, what=spec.name)(**self.options) if spec.options else None
        captioner: Captioner = plugins.load_target(spec)({}, device, own)
        return captioner

    def engine(self, step: StepOptions, rows: int, before: Work | None) -> Engine:
        """Threads for a service, with processes that read files; one process per GPU, or one, for a model here.

        Raises UsageError for GPUs that cannot be shared as the option `tensor_parallel` says.
        """
        from .local import LocalEngine
        from .threads import ThreadEngine

        shared = self.options.get("tensor_parallel", 1)
        if step.gpus % shared:
            raise UsageError(f"{step.gpus} GPUs cannot be shared by {shared} each", hint=f"give --gpus {shared}")
        if step.engine != "local" or step.address is not None:
            if shared > 1:
                raise UsageError("processes of a Ray cluster have one GPU each", hint="leave tensor_parallel out")
            return step.make_engine(rows)
        if self.is_remote:
            return ThreadEngine(min(self.options["in_flight"], max(1, rows)), before, step.devices(rows))
        # Every process holds the model, and uses all cores.
        return LocalEngine(step.devices(rows)[::shared] if step.gpus or step.workers else ("cpu",))

    def report(self, results: Results, seconds: float) -> dict[str, Any]:
        """What all questions took, those of an interrupted run before included. seconds: that this run took."""
        frame = results.frame(USAGE)
        sums = frame.explode("rows").unnest("rows").select(list(USAGE)).sum().row(0) if frame.height else (0, 0, 0)
        requests, prompt, answer = sums
        record = {"requests": requests, "prompt_tokens": prompt, "answer_tokens": answer}
        prices = (self.options.get("price_prompt"), self.options.get("price_answer"))
        words = f"{counted(requests, 'request')}, {prompt} tokens asked and {answer} answered"
        if all(price is not None for price in prices):
            record["cost"] = round(prompt / MILLION * prices[0] + answer / MILLION * prices[1], 6)
            words += f", for {record['cost']:g} at the prices given"
        record["rows_per_minute"] = round(results.added / max(seconds, 1e-9) * 60, 1)
        if requests or results.added:
            get_console().note(f"{words}; {record['rows_per_minute']:g} rows a minute")
        return record


@dataclasses.dataclass(frozen=True)
class CaptionOptions:
    """What is asked and how answers become captions.

    shorter_size: of the frames that are shown, where they are larger. strip_opening, score_text, clean: changes to
    captions, see `sora data filter`; seed: of those by chance.
    """

    prompt: Prompt
    shorter_size: int = 512
    strip_opening: bool = False
    score_text: bool = False
    clean: bool = False
    seed: int = 42


def run_caption(
    frame: pl.DataFrame, asked: Asked, options: CaptionOptions, step: StepOptions, *, keep_bad: bool = False
) -> None:
    """Caption the rows of a table."""
    prompt = options.prompt
    if prompt.takes_caption() and TEXT not in frame.columns:
        raise UsageError(f"the prompt {prompt.name} takes captions, and the table has no column text")
    if options.score_text and not {"aes", "flow"} & set(frame.columns):
        raise UsageError("--score-text needs the column aes or flow, which the table lacks")
    work, before = caption_work(asked, options, step.seconds)
    run_asking(
        *(frame, work, asked, step),
        verb="captioning",
        keep_bad=keep_bad,
        before=before,
        amend=lambda made: amend_captions(made, options),
    )


def run_asking(
    frame: pl.DataFrame,
    work: Work,
    asked: Asked,
    step: StepOptions,
    *,
    verb: str,
    keep_bad: bool,
    before: Work | None = None,
    amend: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
) -> None:
    """Ask about the rows of a table and write what comes of it; see `run.run_step`."""
    from .run import run_step

    started = time.monotonic()
    run_step(
        *(frame, work, step),
        verb=verb,
        bad="keep" if keep_bad else "drop",
        without=tuple(USAGE),
        engine=asked.engine(step, frame.height, before),
        amend=amend,
        report=lambda results: asked.report(results, time.monotonic() - started),
    )


def caption_work(asked: Asked, options: CaptionOptions, seconds: float) -> tuple[Work, Work]:
    """Caption; and what reads the frames of rows before that. Later changes of captions are no part of it."""
    inputs = ("path", STAMP, *((TEXT,) if options.prompt.takes_caption() else ()))
    settings = {"prompt": dataclasses.asdict(options.prompt), "shorter_size": options.shorter_size}
    work = asked.work("caption", f"{__name__}:make_captioner", settings, inputs, [TEXT])
    work = dataclasses.replace(work, seconds=seconds)
    return work, dataclasses.replace(work, target=f"{__name__}:make_looker")


def make_looker(options: Mapping[str, Any], device: str) -> RowFunction:
    """`Work.target` that puts the frames into rows."""

    def look(row: Row) -> Made:
        return Made([{**row, FRAMES: read_frames(row["path"], options["prompt"]["frames"], options["shorter_size"])}])

    return lambda rows: [look(row) for row in rows]


def make_captioner(options: Mapping[str, Any], device: str) -> RowFunction:
    """`Work.target` of `caption_work`; rows may have their frames already."""
    prompt = Prompt(**options["prompt"])
    captioner = Asked(options["captioner"], options["options"]).load(device)

    def question(row: Row) -> CaptionQuestion:
        medium = "image" if is_image(row["path"]) else "video"
        words = prompt.question(medium, {TEXT: row.get(TEXT)})
        frames = row.get(FRAMES) or read_frames(row["path"], prompt.frames, options["shorter_size"])
        return CaptionQuestion(words, frames, prompt.fields)

    return lambda rows: answer_rows(captioner, rows, question, prompt.fields)


def answer_rows(captioner: Captioner, rows: Sequence[Row], question: Any, fields: Sequence[str] = ()) -> list[Made]:
    """The captions of rows. question: (row) -> CaptionQuestion; a row for which it raises has its reason."""
    made: list[Made | None] = []
    asked: list[CaptionQuestion] = []
    for row in rows:
        try:
            asked.append(question(row))
            made.append(None)
        except Exception as error:  # decoders raise almost anything for damaged files
            made.append(Made(reason=str(error) or type(error).__name__))
    answers = iter(captioner(asked) if asked else ())
    return [_made(next(answers), fields) if each is None else each for each in made]


def _made(answer: CaptionAnswer, fields: Sequence[str]) -> Made:
    text, reason = read_answer(answer, fields)
    return Made([{TEXT: text, **usage(answer)}], reason)


def usage(*answers: CaptionAnswer) -> dict[str, int]:
    """What answers took together, as columns."""
    return {
        REQUESTS: sum(answer.requests for answer in answers),
        PROMPT_TOKENS: sum(answer.prompt_tokens for answer in answers),
        ANSWER_TOKENS: sum(answer.answer_tokens for answer in answers),
    }


def read_answer(answer: CaptionAnswer, fields: Sequence[str] = ()) -> tuple[str | None, str | None]:
    """(caption on one line, None), or (None, the reason why there is none)."""
    if answer.text is None:
        return None, answer.reason or "there is no answer"
    text = one_line(answer.text)
    if is_refusal(text):
        return None, f"the model refused: {text[:100]}"
    if fields:
        try:
            text = read_fields(answer.text, fields)
        except ValueError as error:
            return None, CUT_OFF if answer.is_cut else str(error)
    elif answer.is_cut:
        text = whole_sentences(text)
        if not text:
            return None, CUT_OFF
    if not any(letter.isalnum() for letter in text):
        return None, "the answer is empty"
    return text, None


def amend_captions(frame: pl.DataFrame, options: CaptionOptions) -> pl.DataFrame:
    """The captions of a table as the options want them, which costs nothing and can be done again."""
    import polars as pl

    from .operations import FilterOptions, make_steps
    from .row_map import RowMap
    from .steps import Tally, apply_steps

    wanted = FilterOptions(
        refine_llm_caption=options.strip_opening,
        score_to_text=options.score_text,
        clean_caption=options.clean,
        seed=options.seed,
    )
    with RowMap(1) as rows:
        steps = make_steps(wanted, rows)
        made = apply_steps(frame.lazy(), steps, Tally.of(steps)).collect() if steps else frame
    is_empty = pl.col(REASON).is_null() & (pl.col(TEXT).fill_null("") == "")
    reason = pl.format("{}: nothing is left of the answer after cleaning", "path")
    return made.with_columns(
        pl.when(is_empty).then(reason).otherwise(REASON).alias(REASON),
        pl.when(pl.col(TEXT) != "").then(TEXT).alias(TEXT),
    )


def read_frames(path: str, count: int, shorter_size: int) -> list[NDArray[np.uint8]]:
    """The frames (H, W, 3) RGB, upright, that stand for a picture or video, made smaller where they are larger."""
    from sora_cli.training.clip_reader import BadClipError, read_clip, read_image

    from .sampling import CAPTION_POINTS, at_points, evenly_spaced

    def choose(num_frames: int) -> list[int]:
        if count in CAPTION_POINTS:
            return at_points(num_frames, CAPTION_POINTS[count])
        return evenly_spaced(num_frames, count)

    try:
        with at_hand(path) as file:
            frames = read_image(Path(file)) if is_image(path) else read_clip(Path(file), 1, choose).frames
    except BadClipError as error:
        raise ValueError(printable(str(error))) from error
    return [_smaller(frame, shorter_size) for frame in frames.permute(0, 2, 3, 1).numpy()]


def _smaller(frame: NDArray[np.uint8], shorter_size: int) -> NDArray[np.uint8]:
    import numpy as np
    from PIL import Image

    height, width = frame.shape[:2]
    scale = shorter_size / min(height, width)
    if scale >= 1:
        return np.ascontiguousarray(frame)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.array(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
