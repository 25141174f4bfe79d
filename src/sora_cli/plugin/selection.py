"""Which plugins are switched on, and which plugin a plugin command belongs to.

SORA_PLUGINS unset: all. SORA_PLUGINS= (empty): none. SORA_PLUGINS=a,b: only these, by entry-point name.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

from sora_cli.errors import UsageError, did_you_mean

PLUGIN_GROUP = "sora"
COMMAND_GROUP = "sora.commands"
VARIABLE = "SORA_PLUGINS"


def installed(group: str) -> list[EntryPoint]:
    """The entry points of `group` of all installed packages, sorted by name."""
    return sorted(entry_points(group=group), key=lambda point: (point.name, point.value))


def selected(environ: Mapping[str, str] | None = None) -> frozenset[str] | None:
    """The plugin names in SORA_PLUGINS, or None when it is not set and all plugins are on."""
    value = (os.environ if environ is None else environ).get(VARIABLE)
    if value is None:
        return None
    return frozenset(name for name in (part.strip() for part in value.split(",")) if name)


def check_selected(names: frozenset[str] | None, known: Collection[str]) -> None:
    """A misspelt name in SORA_PLUGINS would switch a plugin off silently; it is an error instead."""
    unknown = sorted((names or frozenset()) - set(known))
    if unknown:
        word = unknown[0]
        hint = did_you_mean(word, known) or f"installed: {', '.join(sorted(known)) or 'none'}"
        raise UsageError(f"{VARIABLE} names {word!r}, and no such plugin is installed", hint=hint)


def provider(point: EntryPoint) -> str:
    """The installed package an entry point comes from, or its module when that is not known."""
    return point.dist.name if point.dist is not None else point.module


def package_of(point: EntryPoint) -> str:
    """The installed package an entry point comes from, with its version, or its module when that is not known."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.module


def owners(command: EntryPoint, plugins: Iterable[EntryPoint]) -> frozenset[str]:
    """The plugins that the command of a plugin belongs to, for SORA_PLUGINS.

    It is the plugin whose module shares the longest start with the command's module: a command in
    `sora_plugins.nano.commands` belongs to the plugin in `sora_plugins.nano`. Several with equally long starts: any
    of them. A command that shares not even the top-level package with a plugin goes by its own name.
    """
    shared = {point.name: shared_parts(command.module, point.module) for point in plugins}
    longest = max(shared.values(), default=0)
    if longest == 0:
        return frozenset({command.name})
    return frozenset(name for name, length in shared.items() if length == longest)


def shared_parts(first: str, second: str) -> int:
    """How many parts two names of modules have in common at their start."""
    count = 0
    for one, other in zip(first.split("."), second.split("."), strict=False):
        if one != other:
            break
        count += 1
    return count
