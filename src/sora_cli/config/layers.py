"""Layers of settings, from the strongest to the weakest, and what they give together.

A layer holds dotted keys ("sampling.steps"). Settings that are mappings of their own (`model.options`) are spread one
level further ("model.options.depth"), so that two layers can each give some of the options.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from ..errors import UsageError, closest, did_you_mean
from . import env
from .files import Document, parse_value


class Setting(NamedTuple):
    """What is known about one setting. nullable: `None` is one of its values."""

    is_text: bool
    is_list: bool
    is_mapping: bool
    nullable: bool


class Problem(NamedTuple):
    """One thing wrong in the settings. where: file and line, variable or flag."""

    where: str
    text: str
    advice: str | None = None


class Chosen(NamedTuple):
    """The value of one key after merging. level: index of its layer, 0 the strongest."""

    value: Any
    origin: str
    level: int


@dataclass(frozen=True)
class Layer:
    """Settings from one place. is_user: from the user, not from a preset or a plugin."""

    origin: str
    values: Mapping[str, Any]
    origins: Mapping[str, str] = field(default_factory=dict)
    """For keys whose origin is more exact than the layer's, e.g. the variable."""
    is_user: bool = True

    def origin_of(self, key: str) -> str:
        """Where this layer has the key from."""
        return self.origins.get(key, self.origin)

    def without(self, keys: Iterable[str]) -> Layer:
        """The same layer without some keys."""
        dropped = set(keys)
        kept = {key: value for key, value in self.values.items() if key not in dropped}
        return Layer(self.origin, kept, self.origins, self.is_user)


def settings_in(config: type[BaseModel]) -> dict[str, Setting]:
    """All settings of a config class with sections, by dotted key."""
    found = {}
    for section_name, section_field in config.model_fields.items():
        section = section_field.annotation
        assert isinstance(section, type)
        assert issubclass(section, BaseModel)
        for name, info in section.model_fields.items():
            found[f"{section_name}.{name}"] = _describe(info.annotation)
    return found


def _describe(annotation: Any) -> Setting:
    kinds = list(_alternatives(annotation))
    origins = [typing.get_origin(kind) or kind for kind in kinds]
    return Setting(
        is_text=any(kind in (str, Path) or typing.get_origin(kind) is typing.Literal for kind in kinds),
        is_list=any(origin in (tuple, list) for origin in origins),
        is_mapping=dict in origins,
        nullable=type(None) in kinds,
    )


def _alternatives(annotation: Any) -> Iterable[Any]:
    """The members of a union, without the bounds that Annotated adds."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _alternatives(typing.get_args(annotation)[0])
    elif origin in (typing.Union, types.UnionType):
        for member in typing.get_args(annotation):
            yield from _alternatives(member)
    else:
        yield annotation


# -- from files, flags, environment and -O -----------------------------------------------------------------------


# Each function adds what is wrong to `problems`, so that the caller can report all of it together.


def document_layer(document: Document, settings: Mapping[str, Setting], origin: str, problems: list[Problem]) -> Layer:
    """A layer from a YAML file whose top level holds sections; problems name file and line."""
    return Layer(origin, flatten(document.data, settings, document.where, problems))


def mapping_layer(data: Any, settings: Mapping[str, Setting], origin: str, problems: list[Problem]) -> Layer:
    """A layer from nested mappings, e.g. the settings stored in a video."""
    return Layer(origin, flatten(data, settings, lambda _: origin, problems))


def flag_layer(
    flags: Mapping[str, Mapping[str, Any]],
    options: Sequence[str],
    settings: Mapping[str, Setting],
    problems: list[Problem],
    *,
    scheduler: str = "sampling",
) -> Layer:
    """What the command line gave. flags: section -> name -> value, `None` = not given; options: texts of `-O`.

    scheduler: the section with the options of the scheduler.
    """
    given = {
        section: {name: value for name, value in values.items() if value is not None}
        for section, values in flags.items()
    }
    values = flatten(given, settings, lambda _: "flag", problems)
    for key, value in option_pairs(options, example="scheduler.num_timesteps=1000").items():
        scheduler_key = key.removeprefix("scheduler.")
        dotted = f"model.options.{key}" if scheduler_key == key else f"{scheduler}.scheduler_options.{scheduler_key}"
        values[dotted] = value
    return Layer("flag", values)


def option_pairs(options: Sequence[str], *, example: str) -> dict[str, Any]:
    """Options by name, of texts KEY=VALUE of `-O`. example: one that works. Raises UsageError for other texts."""
    values = {}
    for option in options:
        key, equals, text = option.partition("=")
        key = key.strip()
        if not equals or not key:
            raise UsageError(f"-O {option!r} is not KEY=VALUE", hint=f"example: -O {example}")
        values[key] = parse_value(text, source=f"-O {key}")
    return values


def environment_layer(
    environ: Mapping[str, str],
    settings: Mapping[str, Setting],
    problems: list[Problem],
    *,
    own: Mapping[str, Setting] | None = None,
) -> Layer:
    """The `SORA_...` variables; a variable that is no setting is a problem. own: settings to suggest, default all."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for dotted, (variable, text) in env.setting_variables(environ).items():
        key, setting = find_setting(dotted, settings)
        if setting is None:
            advice = did_you_mean(variable, _variables_like(variable, own or settings))
            problems.append(Problem("environment", f"unknown variable {variable}", advice))
            continue
        value = _environment_value(text, setting, variable, is_option=key != dotted)
        spread = {dotted: value}
        if setting.is_mapping and key == dotted:
            if not isinstance(value, dict):
                problems.append(Problem("environment", f"{variable} must hold {{name: value}} pairs, not {text!r}"))
                continue
            spread = {f"{key}.{name}": one for name, one in value.items()}
        values.update(spread)
        origins.update(dict.fromkeys(spread, f"environment {variable}"))
    return Layer("environment", values, origins)


def _environment_value(text: str, setting: Setting, variable: str, *, is_option: bool) -> Any:
    """Text settings take the variable as it is: a prompt may look like YAML by accident."""
    if is_option or setting.is_mapping:
        return parse_value(text, source=variable)
    if setting.is_list:
        return parse_value(text, source=variable) if text.startswith("[") else [text]
    if setting.is_text:
        return None if setting.nullable and text == "null" else text
    return parse_value(text, source=variable)


def _variables_like(variable: str, settings: Mapping[str, Setting]) -> list[str]:
    """Names to suggest from: those ending like the variable (SORA_STEPS -> SORA_SAMPLING__STEPS), else all."""
    known = env.known_variables(settings)
    last = variable.removeprefix(env.PREFIX).rpartition(env.SEPARATOR)[2]
    return [name for name in known if name.endswith((env.SEPARATOR + last, env.PREFIX + last))] or known


def find_setting(dotted: str, settings: Mapping[str, Setting]) -> tuple[str, Setting | None]:
    """The setting a dotted key belongs to: itself, or the mapping it is an option of."""
    if dotted in settings:
        return dotted, settings[dotted]
    parent = ".".join(dotted.split(".")[:2])
    setting = settings.get(parent)
    return parent, setting if setting is not None and setting.is_mapping else None


def flatten(
    data: Any, settings: Mapping[str, Setting], where: typing.Callable[[str], str], problems: list[Problem]
) -> dict[str, Any]:
    """Dotted keys of nested sections. where(dotted key) says the place of a problem."""
    values: dict[str, Any] = {}
    if data is None:
        return values
    if not isinstance(data, Mapping):
        problems.append(Problem(where(""), "settings must be `section: {name: value}`"))
        return values
    sections = {key.partition(".")[0] for key in settings}
    for section, content in data.items():
        if section not in sections:
            problems.append(Problem(where(section), f"unknown setting {section!r}", _advice(section, settings)))
        elif content is not None and not isinstance(content, Mapping):
            problems.append(Problem(where(section), f"{section!r} must hold `name: value` lines, not {content!r}"))
        else:
            for name, value in (content or {}).items():
                _add(f"{section}.{name}", value, settings, where, values, problems)
    return values


def _add(
    key: str,
    value: Any,
    settings: Mapping[str, Setting],
    where: typing.Callable[[str], str],
    values: dict[str, Any],
    problems: list[Problem],
) -> None:
    setting = settings.get(key)
    if setting is None:
        problems.append(Problem(where(key), f"unknown setting {key!r}", _advice(key, settings)))
    elif setting.is_mapping and value is not None:
        if isinstance(value, Mapping):
            values.update({f"{key}.{name}": one for name, one in value.items()})
        else:
            problems.append(Problem(where(key), f"{key!r} must hold `name: value` pairs, not {value!r}"))
    else:
        values[key] = _as_text(value) if setting.is_text else value


def _as_text(value: Any) -> Any:
    """`resolution: 512` is the name "512"; other types are left to validation."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _advice(key: str, settings: Mapping[str, Setting]) -> str | None:
    """A suggestion: the same name in another section, then the closest in this section, or all that it has.

    For an unknown section the closest name anywhere.
    """
    name = key.rpartition(".")[2]
    same_name = [known for known in settings if known.rpartition(".")[2] == name]
    if same_name:
        return f"did you mean {same_name[0]!r}?"
    section = key.partition(".")[0]
    siblings = {known.rpartition(".")[2]: known for known in settings if known.startswith(f"{section}.")}
    if siblings:
        return did_you_mean(name, siblings) or f"{section} has {', '.join(siblings)}"
    sections = {known.partition(".")[0] for known in settings}
    names = {known.rpartition(".")[2]: known for known in settings}
    close = closest(name, [*sections, *names])
    return f"did you mean {names.get(close, close)!r}?" if close else None


def raise_problems(problems: Sequence[Problem]) -> None:
    """Report all problems together as one UsageError; nothing when there are none."""
    if not problems:
        return
    if len(problems) == 1:
        where, text, advice = problems[0]
        raise UsageError(f"{where}: {text}", hint=advice)
    lines = [f"{where}: {text}" + (f" - {advice}" if advice else "") for where, text, advice in problems]
    raise UsageError(f"{len(problems)} problems in the settings", hint="\n".join(lines))


# -- together ----------------------------------------------------------------------------------------------------


def merge(layers: Sequence[Layer], never_null: Iterable[str] = ()) -> dict[str, Chosen]:
    """The strongest value of each key. A null replaces a weaker value by "not set", except for keys in never_null."""
    required = set(never_null)
    chosen: dict[str, Chosen] = {}
    for level, layer in enumerate(layers):
        for key, value in layer.values.items():
            if key not in chosen and not (value is None and key in required):
                chosen[key] = Chosen(value, layer.origin_of(key), level)
    return chosen


def first_value(layers: Sequence[Layer], key: str) -> Chosen | None:
    """The strongest value of one key that is not null."""
    return merge(layers, (key,)).get(key)


def drop_dependent(
    layers: Sequence[Layer], key: str, dependent: Sequence[str], name_of: typing.Callable[[str], str]
) -> tuple[list[Layer], list[str]]:
    """Take away settings that were meant for another choice: options of a model that a stronger layer replaced.

    key: the setting that holds the choice; dependent: keys or key prefixes ending in "." that go with it.
    name_of: the canonical name of a choice. Returns the layers and a note for each user setting that is not used.
    """
    winner = first_value(layers, key)
    if winner is None:
        return list(layers), []
    kept, notes = [], []
    for level, layer in enumerate(layers):
        here = first_value(layers[level:], key)
        meant_for = None if here is None or here.value == "auto" else name_of(here.value)
        if meant_for is None or meant_for == name_of(winner.value):
            kept.append(layer)
            continue
        prefixes = tuple(name for name in dependent if name.endswith("."))
        lost = [name for name in layer.values if name in dependent or name.startswith(prefixes)]
        kept.append(layer.without(lost))
        if layer.is_user:
            notes += [f"{name} ({layer.origin_of(name)}) is for {meant_for} and not used" for name in lost]
    return kept, notes


def nest(values: Mapping[str, Any], settings: Mapping[str, Setting]) -> dict[str, dict[str, Any]]:
    """Dotted keys back to sections; options go into the mapping they belong to."""
    nested: dict[str, dict[str, Any]] = {}
    for dotted, value in values.items():
        key, _ = find_setting(dotted, settings)
        section, _, name = key.partition(".")
        if key == dotted:
            nested.setdefault(section, {})[name] = value
        else:
            nested.setdefault(section, {}).setdefault(name, {})[dotted[len(key) + 1 :]] = value
    return nested
