"""Finds the installed plugins, asks their hooks for specs and imports what the specs name.

One broken plugin never stops the others: it is skipped, named once on stderr with the reason, and listed by
`sora plugins list`.
"""

from __future__ import annotations

import functools
import importlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from typing import Any

import pluggy

from sora_cli.errors import MissingError, SoraError, UsageError, did_you_mean, unknown_name

from . import hooks
from .kinds import KINDS
from .selection import PLUGIN_GROUP, VARIABLE, check_selected, installed, provider, selected
from .specs import Spec

SLOW_MS = 100.0


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that was skipped, wholly or for one hook, and why."""

    name: str
    reason: str


class _HookFailure(Exception):
    """A hook that raised or returned something that is no list of specs."""


class Plugins:
    """The plugins of this run. Make it with `Plugins.load`, or take the shared one from `get_plugins`."""

    def __init__(self, warn: Callable[[str], None], kept: frozenset[str] | None = None) -> None:
        self.broken: list[BrokenPlugin] = []
        self.load_ms: dict[str, float] = {}
        self.points: dict[str, EntryPoint] = {}
        """The entry point of each plugin that is switched on, broken ones included."""
        self._warn = warn
        self._kept = kept
        self._manager = pluggy.PluginManager(hooks.PROJECT)
        self._manager.add_hookspecs(hooks)
        self._specs: dict[str, dict[str, Spec]] = {}
        self._owners: dict[str, dict[str, str]] = {}

    @classmethod
    def load(
        cls,
        environ: Mapping[str, str] | None = None,
        entry_points: Iterable[EntryPoint] | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> Plugins:
        """Import the plugins that SORA_PLUGINS leaves on, in the order of their names.

        environ: instead of the process environment. entry_points: instead of those of the installed packages.
        warn: gets one line per broken plugin; the console by default.
        """
        points = sorted(installed(PLUGIN_GROUP) if entry_points is None else entry_points, key=lambda p: p.name)
        names = selected(environ)
        plugins = cls(warn or _warn_on_console, names)
        check_selected(names, {point.name for point in points})
        by_name: dict[str, list[EntryPoint]] = {}
        for point in points:
            if names is None or point.name in names:
                by_name.setdefault(point.name, []).append(point)
        for name, claims in by_name.items():
            plugins.points[name] = claims[0]
            if len(claims) > 1:
                packages = " and ".join(sorted(provider(claim) for claim in claims))
                plugins._break(name, f"{packages} both have a plugin of this name; uninstall one")
            else:
                plugins._load_plugin(claims[0])
        return plugins

    def specs(self, kind: str) -> dict[str, Spec]:
        """All specs of `kind` (a key of KINDS) by name, in plugin order; an error when two plugins claim a name."""
        if kind not in self._specs:
            self._specs[kind], self._owners[kind] = self._collect(kind)
        return self._specs[kind]

    def get(self, kind: str, name: str) -> Spec:
        """The spec with this name or alias; an error with the closest name when there is none."""
        specs = self.specs(kind)
        if name in specs:
            return specs[name]
        for spec in specs.values():
            if name in spec.aliases:
                return spec
        known = [*specs, *(alias for spec in specs.values() for alias in spec.aliases)]
        error = unknown_name(kind.replace("-", " "), name, known, see=f"sora plugins list --kind {kind}")
        if self._kept is not None:
            left = ", ".join(sorted(self._kept)) or "no plugin"
            error.hint = f"{error.hint}\n{VARIABLE} leaves only {left} on"
        raise error

    def owner(self, kind: str, name: str) -> str:
        """The plugin that a spec comes from; `name` may be an alias."""
        spec = self.get(kind, name)
        return self._owners[kind][spec.name]

    def missing_packages(self, spec: Spec) -> list[str]:
        """The import names in `spec.needs` that are not installed."""
        return [package for package in spec.needs if not _is_importable(package)]

    def check_installed(self, spec: Spec) -> None:
        """Raise MissingError when a package that a spec needs is not installed."""
        missing = self.missing_packages(spec)
        if missing:
            install = f"pip install 'sora-cli[{spec.extra}]'" if spec.extra else f"pip install {' '.join(missing)}"
            verb = "is" if len(missing) == 1 else "are"
            raise MissingError(f"{spec.name} needs {', '.join(missing)}, which {verb} not installed", hint=install)

    def load_target(self, spec: Spec) -> Any:
        """Import what `spec.target` names.

        Raises MissingError when a package it needs is not installed, SoraError when it cannot be imported.
        """
        self.check_installed(spec)
        target = getattr(spec, "target", None)
        if target is None:
            raise TypeError(f"{type(spec).__name__} names no target")
        return load_attribute(target, what=spec.name)

    def _load_plugin(self, point: EntryPoint) -> None:
        start = time.perf_counter()
        try:
            module = point.load()
            self._manager.register(module, point.name)
            self._manager.check_pending()
        except pluggy.PluginValidationError as reason:
            self._unregister(point.name)
            self._break(point.name, _explain(reason))
        except (Exception, SystemExit) as reason:
            self._unregister(point.name)
            self._break(point.name, f"does not import: {type(reason).__name__}: {reason}")
        self.load_ms[point.name] = (time.perf_counter() - start) * 1000

    def _unregister(self, name: str) -> None:
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)

    def _break(self, name: str, reason: str) -> None:
        self.broken.append(BrokenPlugin(name, reason))
        self._warn(f"plugin {name!r} is skipped: {reason}")

    def _collect(self, kind: str) -> tuple[dict[str, Spec], dict[str, str]]:
        specs: dict[str, Spec] = {}
        owner_of: dict[str, str] = {}
        claimed: dict[str, str] = {}
        # Called one by one, not through pluggy's hook call, so that a failure blames one plugin only.
        implementations = getattr(self._manager.hook, KINDS[kind].hook).get_hookimpls()
        for implementation in sorted(implementations, key=lambda i: i.plugin_name):
            plugin = implementation.plugin_name
            try:
                found = _call(implementation.function, kind)
            except _HookFailure as failure:
                self._break(plugin, str(failure))
                continue
            for spec in found:
                for word in (spec.name, *spec.aliases):
                    if word in claimed:
                        raise _clash(kind, word, claimed[word], plugin)
                    claimed[word] = plugin
                specs[spec.name], owner_of[spec.name] = spec, plugin
        return specs, owner_of


@functools.cache
def get_plugins() -> Plugins:
    """The installed plugins, loaded at the first call; broken ones are named on stderr."""
    return Plugins.load()


def load_attribute(target: str, *, what: str) -> Any:
    """Import "package.module:attribute". what: whose it is, for the message when that fails."""
    module, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as reason:
        raise SoraError(
            f"{what}: {target} cannot be imported: {reason}", hint="this is a fault of the plugin or its installation"
        ) from reason
    return found


def _warn_on_console(text: str) -> None:
    from sora_cli.console import get_console

    get_console().warn(text)


def _is_importable(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _call(function: Callable[[], Any], kind: str) -> list[Spec]:
    """What a hook returns, checked; _HookFailure with the reason otherwise."""
    hook, wanted, _ = KINDS[kind]
    try:
        found = function()
    except (Exception, SystemExit) as reason:
        raise _HookFailure(f"{hook}() raised {type(reason).__name__}: {reason}") from reason
    if not isinstance(found, list):
        raise _HookFailure(f"{hook}() returned {type(found).__name__}, not a list")
    for spec in found:
        if not isinstance(spec, wanted):
            raise _HookFailure(f"{hook}() returned a list with {type(spec).__name__}, not {wanted.__name__}")
    return found


def _clash(kind: str, word: str, first: str, second: str) -> UsageError:
    if first == second:
        return UsageError(f"plugin {first!r} claims the {kind} name {word!r} twice")
    return UsageError(
        f"plugins {first!r} and {second!r} both claim the {kind} name {word!r}",
        hint="uninstall one of them, or name those to keep in SORA_PLUGINS",
    )


def _explain(error: pluggy.PluginValidationError) -> str:
    """pluggy's message on one line, with the closest hook when a hook name is unknown."""
    text = " ".join(str(error).split())
    known = [kind.hook for kind in KINDS.values()]
    unknown = [name for name in _hook_names(error.plugin) if name not in known]
    if unknown:
        suggestion = did_you_mean(unknown[0], known)
        return f"unknown hook {unknown[0]}(){f', {suggestion}' if suggestion else ''}"
    return text


def _hook_names(plugin: Any) -> list[str]:
    marker = f"{hooks.PROJECT}_impl"
    return [name for name in dir(plugin) if isinstance(getattr(getattr(plugin, name, None), marker, None), dict)]
