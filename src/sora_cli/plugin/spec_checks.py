"""Whether the fields of a spec hold what they say, before something far from its plugin stumbles over them."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .specs import ModelSpec, PresetSource, Spec


def fault_of(spec: Spec) -> str | None:
    """What is wrong with a spec, in words; None when nothing is."""
    if fault := _wrong_field(spec):
        return fault
    if not spec.name or spec.name != spec.name.strip() or "\n" in spec.name:
        return "its name must be a word, for people to type"
    target = getattr(spec, "target", None)
    if target is not None and not all(target.partition(":")):
        return f"target must be 'package.module:attribute', not {target!r}"
    if isinstance(spec, ModelSpec) and not spec.variants:
        return "variants is empty; give one, such as {'base': {}}"
    if isinstance(spec, PresetSource) and spec.path() is None:
        return f"{spec.package!r} has no folder {spec.folder!r}"
    return None


def _wrong_field(record: Any) -> str | None:
    """The first field, of a record or of those in it, that holds something else than its annotation says."""
    for name, wanted in _hints(record.__class__).items():
        value = getattr(record, name)
        if not _fits(value, wanted):
            return f"{name} must be {_in_words(wanted)}, not {value!r}"
        for inner in value.values() if isinstance(value, Mapping) else (value,):
            if dataclasses.is_dataclass(inner) and (fault := _wrong_field(inner)):
                return f"{name}: {fault}"
    return None


@functools.cache
def _hints(spec: Any) -> dict[str, Any]:
    hints = get_type_hints(spec)
    return {field.name: hints[field.name] for field in dataclasses.fields(spec)}


def _fits(value: Any, wanted: Any) -> bool:
    """Whether a value is of an annotated type, as far as the annotations of specs go."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple and inner[-1] is ...:
        return isinstance(value, tuple) and all(_fits(each, inner[0]) for each in value)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(inner)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(each, inner[1]) for each in value.values())
    if origin is Callable:
        return callable(value)
    if wanted is Any:
        return True
    if wanted is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, wanted)


def _in_words(wanted: Any) -> str:
    if get_origin(wanted) in (Union, types.UnionType):
        return " or ".join(_in_words(each) for each in get_args(wanted))
    if get_origin(wanted) is Literal:
        return " or ".join(repr(each) for each in get_args(wanted))
    if get_origin(wanted) is tuple:
        return f"a tuple of {_in_words(get_args(wanted)[0])}"
    if get_origin(wanted) is Mapping:
        return "a mapping"
    if get_origin(wanted) is Callable:
        return "a function"
    return "None" if wanted is type(None) else wanted.__name__
