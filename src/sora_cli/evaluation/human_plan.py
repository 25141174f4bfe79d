"""Plans of clips to be judged by people: YAML files with tasks, each a list of batches.

presets/README.md lists the keys. A plan names its prompts or takes them from inputs: files with prompts and references
that the user gives.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sora_cli.config.checks import validated
from sora_cli.config.files import Document, read_yaml
from sora_cli.config.layers import Problem, flatten, nest, raise_problems, settings_in
from sora_cli.config.schema import GenerateConfig, Score, Section
from sora_cli.errors import UsageError, did_you_mean, unknown_name
from sora_cli.plugin.manager import get_plugins
from sora_cli.presets import find_preset, read_table
from sora_cli.text.prompts import parse_prompt, read_prompts
from sora_cli.video.media import is_image, is_video

from .samples import Sample, Settings

SECTIONS = ("shape", "sampling", "conditioning")
#: What resolutions B, B1 and B2 of a plan are steps of; B1 is one above the base, B2 two, at most the last.
LADDER = ("144p", "240p", "360p", "480p", "720p", "1080p")
STEPS = {"B": 0, "B1": 1, "B2": 2}
SEED = 42
INPUT_KINDS = ("prompts", "reference")


class Batch(Section):
    """Clips of one name, numbered by the place of their prompts."""

    name: str = Field(min_length=1, description="how files begin; {resolution}, {duration} and {aspect} are filled in")
    prompts: str | tuple[str, ...] = Field(description="an input of the plan, or the prompts themselves")
    range: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]] | None = Field(
        None, description="first prompt to use, and the one to stop before"
    )
    aspect_ratios: tuple[str, ...] = Field((), description="width:height; the batch is made in each of them")
    vary: dict[Literal["aes", "motion", "camera"], tuple[Score | str | None, ...]] = Field(
        {}, description="scores put into the prompts: each prompt with each value, null for none"
    )
    references: tuple[str, ...] = Field((), description="inputs for each prompt or for all; several separated by ;")
    mask_strategy: tuple[str, ...] = Field((), description="where they go, for each prompt or for all")
    shape: dict[str, Any] = Field({}, description="settings of `sora generate`; the resolution may be B, B1 or B2")
    sampling: dict[str, Any] = Field({}, description="settings of `sora generate`")
    conditioning: dict[str, Any] = Field({}, description="settings of `sora generate`")


@dataclass(frozen=True)
class HumanPlan:
    """A plan. tasks: batches by task, and texts for other tasks that are part of it; inputs: their kinds by name.

    settings: of all batches. where: file and line of a key, dotted.
    """

    document: Document
    tasks: Mapping[str, Sequence[Batch | str]]
    inputs: Mapping[str, str]
    base: str | None
    seed: int
    settings: Settings

    def batches(self, task: str) -> Iterator[tuple[str, Batch]]:
        """The batches of a task with their dotted keys, those of tasks that are part of it in their places."""
        for index, batch in enumerate(self.tasks[task]):
            if isinstance(batch, str):
                yield from self.batches(batch)
            else:
                yield f"tasks.{task}.{index}", batch


@dataclass(frozen=True)
class Part:
    """The samples of one batch of a task, under its name."""

    task: str
    name: str
    samples: list[Sample]


def read_human_plan(plan: str) -> HumanPlan:
    """A plan file (.yaml), or a preset of kind human. Raises UsageError that names file, line and key."""
    path = Path(plan).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        path = find_preset("human", plan, get_plugins()).path
    document = read_yaml(path)
    data = document.data
    known = ("base", "seed", "inputs", "tasks", *SECTIONS)
    if not isinstance(data, dict) or not isinstance(data.get("tasks"), dict) or not data["tasks"]:
        raise UsageError(f"{path}: a plan needs tasks, each a list of batches", hint="sora presets show basic is one")
    problems = [
        Problem(document.where(key), f"unknown key {key!r}", did_you_mean(key, known))
        for key in data
        if key not in known
    ]
    inputs = data.get("inputs") or {}
    if not isinstance(inputs, dict) or any(kind not in INPUT_KINDS for kind in inputs.values()):
        problems.append(Problem(document.where("inputs"), "inputs: each is `name: prompts` or `name: reference`"))
    base, seed = data.get("base"), data.get("seed", SEED)
    if base is not None and base not in LADDER:
        problems.append(Problem(document.where("base"), f"base: {base!r} is none of {', '.join(LADDER)}"))
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        problems.append(Problem(document.where("seed"), f"seed: {seed!r} is no whole number from 0 on"))
    settings = _settings(data, "", document, problems)
    tasks: dict[str, list[Batch | str]] = {}
    for task, content in data["tasks"].items():
        if not isinstance(content, list) or not content:
            problems.append(Problem(document.where(f"tasks.{task}"), f"the task {task!r} is no list of batches"))
            continue
        tasks[task] = []
        for index, raw in enumerate(content):
            tasks[task] += _batch(raw, f"tasks.{task}.{index}", tasks, document, problems)
    raise_problems(problems)
    made = HumanPlan(document, tasks, inputs, base, seed, settings)
    raise_problems([problem for task in tasks for problem in _strange_inputs(made, task)])
    return made


def _batch(
    raw: Any, key: str, tasks: Mapping[str, Any], document: Document, problems: list[Problem]
) -> list[Batch | str]:
    """One entry of a task, as a list; empty where it is wrong."""
    where = document.where(key)
    if isinstance(raw, str):
        if raw not in list(tasks)[:-1]:
            problems.append(Problem(where, f"{raw!r} is none of the tasks above", did_you_mean(raw, tasks)))
        return [raw]
    if not isinstance(raw, dict):
        problems.append(Problem(where, f"{raw!r} is neither a batch, `name: ...`, nor the name of a task above"))
        return []
    fields = Batch.model_fields
    strange = [name for name in raw if name not in fields]
    problems += [
        Problem(document.where(f"{key}.{name}"), f"unknown key {name!r}", did_you_mean(name, fields))
        for name in strange
    ]
    if strange:
        return []
    batch = validated(Batch, raw, lambda name: document.where(f"{key}.{name}"))
    _settings(raw, f"{key}.", document, problems)
    try:
        batch.name.format(resolution="", duration="", aspect="")
    except (KeyError, IndexError, ValueError) as error:
        place = document.where(f"{key}.name")
        problems.append(Problem(place, f"name: only {{resolution}}, {{duration}} and {{aspect}} stand in it: {error}"))
    return [batch]


def _settings(raw: Mapping[str, Any], prefix: str, document: Document, problems: list[Problem]) -> Settings:
    """The checked settings among the keys of a batch, or of the plan. prefix: of their dotted keys."""

    def where(key: str) -> str:
        return document.where(f"{prefix}{key}")

    every = settings_in(GenerateConfig)
    allowed = {key: setting for key, setting in every.items() if key.partition(".")[0] in SECTIONS}
    values = flatten({name: raw[name] for name in SECTIONS if name in raw}, allowed, where, problems)
    validated(GenerateConfig, nest(values, every), where)
    resolution, known = values.get("shape.resolution"), [*STEPS, *read_table("resolutions")["resolutions"]]
    if resolution is not None and resolution not in known:
        problems.append(
            Problem(where("shape.resolution"), f"unknown resolution {resolution!r}", did_you_mean(resolution, known))
        )
    return nest(values, every)


def _strange_inputs(plan: HumanPlan, task: str) -> Iterator[Problem]:
    for key, batch in plan.batches(task):
        for name, kind in _needed(batch):
            if plan.inputs.get(name) != kind:
                field = "prompts" if kind == "prompts" else "references"
                advice = did_you_mean(name, plan.inputs) or f"write {name}: {kind} under inputs"
                yield Problem(plan.document.where(f"{key}.{field}"), f"{field}: {name!r} is no such input", advice)


def _needed(batch: Batch) -> list[tuple[str, str]]:
    """Name and kind of each input that a batch uses."""
    prompts = [(batch.prompts, "prompts")] if isinstance(batch.prompts, str) else []
    return [*prompts, *((name, "reference") for entry in batch.references for name in entry.split(";"))]


# -- inputs --------------------------------------------------------------------------------------------------------


def find_inputs(given: Sequence[str], plan: HumanPlan, tasks: Sequence[str]) -> dict[str, str]:
    """Path (or address) by name of each input that the tasks use.

    given: texts NAME=PATH, and folders in which the files are called by the names. Raises UsageError.
    """
    named: dict[str, str] = {}
    folders = []
    for text in given:
        name, equals, path = text.partition("=")
        if not equals:
            if not Path(text).is_dir():
                raise UsageError(f"there is no folder {text}", hint="--input takes a folder, or NAME=FILE")
            folders.append(Path(text))
        elif name not in plan.inputs:
            raise unknown_name("input", name, plan.inputs)
        else:
            named[name] = path
    needed = dict(each for task in tasks for _, batch in plan.batches(task) for each in _needed(batch))
    for name, kind in needed.items():
        if name not in named:
            named.update((name, str(path)) for path in itertools.islice(_called(name, kind, folders), 1))
        elif not ("://" in named[name] or Path(named[name]).is_file()):
            raise UsageError(f"no such file: {named[name]}", hint=f"it was given as --input {name}={named[name]}")
    missing = [name for name in needed if name not in named]
    if missing:
        raise UsageError(
            f"the plan needs {', '.join(f'{name} ({needed[name]})' for name in missing)}",
            hint=f"give each, --input {missing[0]}=FILE, or --input FOLDER with files of these names",
        )
    return {name: named[name] for name in needed}


def _called(name: str, kind: str, folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        for path in sorted(folder.iterdir()):
            fits = path.suffix == ".txt" if kind == "prompts" else is_image(path) or is_video(path)
            if path.stem == name and fits:
                yield path


# -- samples -------------------------------------------------------------------------------------------------------


def choose_tasks(plan: HumanPlan, tasks: Sequence[str]) -> list[str]:
    """The tasks as asked for, or all. Raises UsageError for an unknown one."""
    for task in tasks:
        if task not in plan.tasks:
            raise unknown_name("task", task, plan.tasks)
    return list(dict.fromkeys(tasks)) or list(plan.tasks)


def make_parts(
    plan: HumanPlan,
    tasks: Sequence[str],
    inputs: Mapping[str, str],
    *,
    base: str | None = None,
    seed: int | None = None,
) -> list[Part]:
    """The samples of tasks, each once. inputs: of `find_inputs`. base, seed: instead of the plan's.

    Raises UsageError for batches that do not fit their prompts.
    """
    parts = []
    made: dict[str, Sample] = {}
    for task in tasks:
        for key, batch in plan.batches(task):
            for aspect in batch.aspect_ratios or (None,):
                settings = _of_batch(plan, key, batch, base or plan.base, aspect)
                name = _name(batch, settings["shape"])
                samples = _samples(plan, key, batch, name, settings, inputs, plan.seed if seed is None else seed)
                fresh = [sample for sample in samples if made.get(sample.name) != sample]
                for sample in fresh:
                    if sample.name in made:
                        place = plan.document.where(f"{key}.name")
                        raise UsageError(f"{place}: another batch has {sample.name} too", hint="give it another name")
                    made[sample.name] = sample
                parts += [Part(task, name, fresh)] if fresh else []
    return parts


def _of_batch(
    plan: HumanPlan, key: str, batch: Batch, base: str | None, aspect: str | None
) -> dict[str, dict[str, Any]]:
    """The settings of a batch, over those of the plan."""
    settings = {
        section: {**plan.settings.get(section, {}), **_settings_of(batch).get(section, {})} for section in SECTIONS
    }
    shape = settings["shape"]
    step = STEPS.get(shape.get("resolution", ""))
    if step is not None:
        if base not in LADDER:
            wrong = "has no base" if base is None else f"has the base {base!r}"
            place = plan.document.where(f"{key}.shape.resolution")
            raise UsageError(
                f"{place}: B, B1 and B2 are steps above a base, and the plan {wrong}",
                hint=f"choose one of {', '.join(LADDER)} with --base",
            )
        shape["resolution"] = LADDER[min(LADDER.index(base) + step, len(LADDER) - 1)]
    if aspect is not None:
        shape["aspect_ratio"] = aspect
    return settings


def _settings_of(batch: Batch) -> Settings:
    problems: list[Problem] = []  # none, for it is checked
    every = settings_in(GenerateConfig)
    content = {section: getattr(batch, section) for section in SECTIONS}
    return nest(flatten(content, every, lambda key: key, problems), every)


def _name(batch: Batch, shape: Mapping[str, Any]) -> str:
    """aspect is written height_width, as the reference does."""
    aspect = "_".join(reversed(str(shape.get("aspect_ratio", "")).split(":")))
    return batch.name.format(resolution=shape.get("resolution", ""), duration=shape.get("duration", ""), aspect=aspect)


def _samples(
    plan: HumanPlan,
    key: str,
    batch: Batch,
    name: str,
    settings: Mapping[str, dict[str, Any]],
    inputs: Mapping[str, str],
    seed: int,
) -> list[Sample]:
    """One for each prompt and value of what varies; numbers go on from the first prompt of the range."""
    suffix = ".png" if settings["shape"].get("frames") == 1 else ".mp4"
    given = {section: values for section, values in settings.items() if values}
    prompts = _prompts(plan, key, batch, inputs)
    made = [
        _with_settings(prompt, {**tail, **varied})
        for prompt, tail in zip(prompts, _tails(plan, key, batch, inputs, len(prompts)), strict=True)
        for varied in _varied(batch)
    ]
    start = batch.range[0] if batch.range else 0
    return [Sample(f"{name}_{number:04d}{suffix}", prompt, seed, given) for number, prompt in enumerate(made, start)]


def _prompts(plan: HumanPlan, key: str, batch: Batch, inputs: Mapping[str, str]) -> list[str]:
    """The prompts in the range of a batch."""
    start, end = batch.range or (0, None)
    if isinstance(batch.prompts, str):
        source = inputs[batch.prompts]
        prompts = read_prompts((), source, start, end)
    else:
        source = plan.document.where(f"{key}.prompts")
        prompts = list(batch.prompts)[start:end]
    if not prompts or not all(prompt.strip() for prompt in prompts):
        what = "an empty prompt" if prompts else "no prompt"
        raise UsageError(f"{source}: {what} from number {start} on", hint="write one prompt a line")
    return prompts


def _tails(plan: HumanPlan, key: str, batch: Batch, inputs: Mapping[str, str], count: int) -> list[dict[str, Any]]:
    """What each of `count` prompts of a batch is given besides its text."""
    paths = [";".join(inputs[name] for name in entry.split(";")) for entry in batch.references]
    given: dict[str, Sequence[str]] = {"references": paths, "mask_strategy": batch.mask_strategy}
    for field, values in given.items():
        if len(values) not in (0, 1, count):
            place = plan.document.where(f"{key}.{field}")
            raise UsageError(f"{place}: {len(values)} of {field} for {count} prompts", hint="give one, or one each")
    words = {"references": "reference_path", "mask_strategy": "mask_strategy"}
    return [
        {words[field]: values[number % len(values)] for field, values in given.items() if values}
        for number in range(count)
    ]


def _varied(batch: Batch) -> list[dict[str, Any]]:
    """All combinations of the values that vary; null stands for none of that score."""
    return [
        {field: value for field, value in zip(batch.vary, values, strict=True) if value is not None}
        for values in itertools.product(*batch.vary.values())
    ]


def _with_settings(prompt: str, settings: Mapping[str, Any]) -> str:
    """A prompt with settings behind it as JSON, over those that it has."""
    if not settings:
        return prompt
    parsed = parse_prompt(prompt)
    return f"{parsed.text}{json.dumps({**parsed.settings, **settings}, ensure_ascii=False)}"


def folder_name(model: str, weights: str | None) -> str:
    """`samples_<model>_<label>`: the last part of the weights' path; with "ema" in it the folder's name and `_ema`."""
    if not weights:
        return f"samples_{model}"
    path = Path(weights)
    label = f"{path.parent.name}_ema" if "ema" in weights else path.name
    return f"samples_{model}_{label}"
