"""What `sora plugins list` and `sora plugins show` print, as plain rows and records."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from sora_cli.errors import SoraError, UsageError, unknown_name

from .commands import find_plugin_commands
from .kinds import KINDS
from .manager import Plugins, load_attribute
from .model_facts import class_names, model_facts
from .selection import package_of, provider
from .specs import ModelSpec, Spec, TextEncoderSpec

COMMAND_KIND = "command"
PLUGIN_KIND = "plugin"
#: Of a model's fields those that are shown before the others.
FIRST = ("kind", "plugin", "package", "name", "summary", "aliases", "status", "tasks")


class Listing(NamedTuple):
    """Rows for the table, and what is wrong with the names that two plugins claim."""

    rows: list[dict[str, Any]]
    errors: list[SoraError]


class Description(NamedTuple):
    """One thing that has the name asked for."""

    title: str
    record: dict[str, Any]


def list_plugins(plugins: Plugins, kind: str | None, built_in: frozenset[str]) -> Listing:
    """One row per thing that plugins add, then one per broken plugin.

    kind: a key of KINDS, "command" or "plugin" (one row per plugin); None lists everything but whole plugins.
    """
    known = [*KINDS, COMMAND_KIND, PLUGIN_KIND]
    if kind is not None and kind not in known:
        raise unknown_name("plugin kind", kind, known)
    by_kind, clashes = _usable(plugins, kind)
    rows = [_spec_row(plugins, each, spec) for each, specs in by_kind.items() for spec in specs.values()]
    if kind in (None, COMMAND_KIND):
        rows.extend(
            _row(COMMAND_KIND, command.name, command.summary, sorted(command.plugins), "ready")
            for command in find_plugin_commands(built_in).commands.values()
        )
    broken = {each.name: each.reason for each in plugins.broken}
    if kind == PLUGIN_KIND:
        rows.extend(
            _row(PLUGIN_KIND, name, f"{point.value} from {provider(point)}", [name], "ready")
            for name, point in plugins.points.items()
            if name not in broken
        )
    if kind in (None, PLUGIN_KIND):
        rows.extend(_row(PLUGIN_KIND, name, reason, [name], "broken") for name, reason in broken.items())
    return Listing(rows, list(clashes.values()))


def describe_plugins(plugins: Plugins, name: str, kind: str | None, built_in: frozenset[str]) -> list[Description]:
    """Everything called `name` (an alias counts): specs of all kinds, or of one, and the plugin itself.

    That two plugins claim `name` is an error only when nothing else is called so.
    """
    found = []
    words: set[str] = set()
    by_kind, clashes = _usable(plugins, kind)
    for each, specs in by_kind.items():
        for spec in specs.values():
            words.update((spec.name, *spec.aliases))
            if name in (spec.name, *spec.aliases):
                found.append(Description(f"{each} {spec.name}", _spec_record(plugins, each, spec)))
    if kind in (None, COMMAND_KIND):
        commands = find_plugin_commands(built_in).commands
        words.update(commands)
        if name in commands:
            command = commands[name]
            record = {"kind": COMMAND_KIND, "name": name, "summary": command.summary, "target": command.point.value}
            found.append(Description(f"command {name}", {**record, "plugin": sorted(command.plugins)}))
    if kind in (None, PLUGIN_KIND):
        words.update(plugins.points)
        if name in plugins.points:
            found.append(Description(f"plugin {name}", _plugin_record(plugins, name)))
    if not found and name in clashes:
        raise clashes[name]
    if not found:
        see = "sora plugins list" + (f" --kind {kind}" if kind else "")
        raise unknown_name(kind or "plugin or name", name, words, see=see)
    return found


def _usable(plugins: Plugins, kind: str | None) -> tuple[dict[str, Mapping[str, Spec]], dict[str, UsageError]]:
    """Specs of one kind, or of all, and what is wrong with the names that two plugins claim."""
    kinds = list(KINDS) if kind is None else [kind] if kind in KINDS else []
    clashes = {name: clash for each in kinds for name, clash in plugins.clashes(each).items()}
    return {each: plugins.specs(each) for each in kinds}, clashes


def _row(kind: str, name: str, summary: str, plugins: list[str], status: str) -> dict[str, Any]:
    return {"kind": kind, "name": name, "summary": summary, "plugin": ", ".join(plugins), "status": status}


def _spec_row(plugins: Plugins, kind: str, spec: Spec) -> dict[str, Any]:
    missing = plugins.missing_packages(spec)
    status = f"missing {', '.join(missing)}" if missing else "ready"
    row = _row(kind, spec.name, spec.summary, [plugins.owner(kind, spec.name)], status)
    return {**row, "aliases": list(spec.aliases)}


def _spec_record(plugins: Plugins, kind: str, spec: Spec) -> dict[str, Any]:
    owner = plugins.owner(kind, spec.name)
    record: dict[str, Any] = {"kind": kind, "plugin": owner, "package": package_of(plugins.points[owner])}
    for field in dataclasses.fields(spec):
        record[field.name] = _plain(getattr(spec, field.name))
    missing = plugins.missing_packages(spec)
    record["status"] = f"missing {', '.join(missing)}" if missing else "ready"
    if isinstance(spec, ModelSpec):
        facts = _plain(model_facts(plugins, spec))
        # What people look for first, and how it is built last.
        record = {**{key: record[key] for key in FIRST}, **facts, **{**record, **facts}}
    if isinstance(spec, TextEncoderSpec) and spec.classes is not None:
        names = class_names(spec)
        record["classes"] = None if names is None else {str(number): name for number, name in enumerate(names)}
    options = getattr(spec, "options", None)
    if options:
        record["options"] = _option_lines(options, spec.name)
    return record


def _plugin_record(plugins: Plugins, name: str) -> dict[str, Any]:
    broken = [each.reason for each in plugins.broken if each.name == name]
    provides: dict[str, list[str]] = {}
    for kind, specs in _usable(plugins, None)[0].items():
        names = [each for each in specs if plugins.owner(kind, each) == name]
        if names:
            provides[kind] = names
    return {
        "kind": PLUGIN_KIND,
        "name": name,
        "module": plugins.points[name].value,
        "package": package_of(plugins.points[name]),
        "status": f"broken: {'; '.join(broken)}" if broken else "ready",
        "load_ms": round(plugins.load_ms.get(name, 0.0), 1),
        "provides": provides,
    }


def _option_lines(target: str, what: str) -> dict[str, str]:
    """What each `-O key=value` of a model or scheduler means, from its pydantic class."""
    options = load_attribute(target, what=what)
    return {
        name: f"{field.description or 'no description'} (default: {field.default})"
        for name, field in options.model_fields.items()
    }


def _plain(value: Any) -> Any:
    """A spec's field as JSON knows it; functions by their name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if callable(value):
        return f"{value.__module__}:{value.__qualname__}"
    return value
