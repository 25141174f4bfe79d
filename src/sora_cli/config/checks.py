"""Checks of values against the classes that describe them, with errors that say where a value comes from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import UnknownNameError, UsageError, did_you_mean
from ..plugin.manager import load_attribute
from .layers import Problem, raise_problems

if TYPE_CHECKING:
    from ..plugin.specs import ModelSpec
    from .schema import GenerateConfig

Config = TypeVar("Config", bound=BaseModel)

OF_VIDEOS: Mapping[str, str] = {
    "shape.duration": "--len",
    "shape.segments": "--segments",
    "conditioning.seamless": "--seamless",
    "conditioning.first": "a first picture",
    "conditioning.last": "--last",
    "conditioning.keyframes": "--keyframe",
    "conditioning.extend": "a video that goes on",
    "conditioning.connect": "--connect",
    "conditioning.edit": "--edit",
    "conditioning.references": "--reference",
}
"""What a single picture cannot have: setting -> how it is given."""
IDLE_IN_PICTURES: Mapping[str, str] = {
    "shape.fps": "--fps",
    "shape.save_fps": "--save-fps",
    "conditioning.motion": "--motion",
    "conditioning.camera": "--camera",
}
"""The same for what files of settings may say for all models: refused as a flag only."""


@contextlib.contextmanager
def naming(origin: str) -> Iterator[None]:
    """Say of an unknown name where it comes from, unless it was typed just now."""
    try:
        yield
    except UnknownNameError as error:
        if origin == "flag":
            raise
        raise UnknownNameError(f"{origin}: {error.message}", hint=error.hint) from None


def validated(config: type[Config], nested: Mapping[str, Any], origin_of: Callable[[str], str]) -> Config:
    """The configuration object; one UsageError for all values that are wrong. origin_of: dotted key -> place."""
    try:
        return config.model_validate(nested)
    except ValidationError as error:
        raise_problems(_value_problems(error, origin_of))
        raise


def check_picture(config: GenerateConfig, origins: Mapping[str, str], model: ModelSpec) -> None:
    """Raise UsageError for settings of videos where the model makes single pictures only."""
    if model.constraints.max_frames != 1:
        return
    values = config.model_dump()
    given = {"--frames": origins["shape.frames"]} if (config.shape.frames or 1) > 1 else {}
    for key, words in {**OF_VIDEOS, **IDLE_IN_PICTURES}.items():
        section, _, name = key.partition(".")
        default = type(getattr(config, section)).model_fields[name].default
        is_user = origins[key] == "flag" if key in IDLE_IN_PICTURES else origins[key] != "default"
        if is_user and values[section][name] != default:
            given[words] = origins[key]
    if given:
        places = [words if origin == "flag" else f"{words} ({origin})" for words, origin in given.items()]
        raise UsageError(
            f"{model.name} makes single pictures, and this is for videos: {', '.join(places)}",
            hint="leave it out, or choose a model that makes videos: `sora plugins list --kind model`",
        )


def _value_problems(error: ValidationError, origin_of: Callable[[str], str], prefix: str = "") -> list[Problem]:
    problems = []
    for detail in error.errors(include_url=False):
        key = ".".join(str(part) for part in detail["loc"][: 1 if prefix else 2])
        name = f"{prefix}{key}" if key else prefix.rstrip(".")
        reason = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        reason = reason.partition(", unable to")[0]
        given = f" {detail['input']!r}" if isinstance(detail["input"], str | int | float) else ""
        origin = origin_of(key)
        flag = _flag_of(name) if origin == "flag" else None
        problems.append(Problem(f"{flag}{given}", reason) if flag else Problem(origin, f"{name}{given}: {reason}"))
    return problems


def _flag_of(key: str) -> str | None:
    from ..options import flag_of  # flags are made with the commands, which settings from files can do without

    return flag_of(key)


def complete_options(
    options: str | None, given: Mapping[str, Any], owner: str, origins: Mapping[str, str]
) -> dict[str, Any]:
    """All options of a model or scheduler, checked by its own options class. options: "module:Class" or None."""
    options_class: type[BaseModel] | None = None if options is None else load_attribute(options, what=owner)
    known = list(options_class.model_fields) if options_class else []
    unknown = [name for name in given if name not in known]
    has = f"the {owner} has {', '.join(known)}" if known else f"the {owner} has no options"
    raise_problems(
        [
            Problem(origins[name], f"unknown option {name!r} of the {owner}", did_you_mean(name, known) or has)
            for name in unknown
        ]
    )
    if options_class is None:
        return {}
    try:
        return options_class.model_validate(dict(given)).model_dump(mode="json")
    except ValidationError as error:
        raise_problems(_value_problems(error, lambda name: origins.get(name, owner), f"{owner}, option "))
        raise
