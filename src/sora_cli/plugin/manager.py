"""Finds the installed plugins, asks their hooks for specs and imports what the specs name.

One broken plugin never stops the others: it is skipped, named once on stderr with the reason, and listed by
`sora plugins list`. A name that two plugins claim is left out, and an error where somebody asks for it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from typing import Any

import pluggy

from sora_cli.errors import MissingError, SoraError, UsageError, did_you_mean, unknown_name

from . import hooks
from .blame import named, owner_of
from .kinds import KINDS, members
from .selection import PLUGIN_GROUP, VARIABLE, check_selected, installed, package_of, provider, selected
from .spec_checks import fault_of
from .specs import Spec

SLOW_MS = 100.0
#: What `load_attribute` was asked for, as "package.module:attribute".
imported: set[str] = set()


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
        self._clashes: dict[str, dict[str, UsageError]] = {}

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
        """All specs of `kind` (a key of KINDS) by name, in plugin order, without names that two plugins claim."""
        if kind not in self._specs:
            self._collect(kind)
        return self._specs[kind]

    def clashes(self, kind: str) -> dict[str, UsageError]:
        """What is wrong with each name or alias of `kind` that two plugins claim."""
        self.specs(kind)
        return self._clashes[kind]

    def get(self, kind: str, name: str) -> Spec:
        """The spec with this name or alias; an error with the closest name when there is none, or when two claim it."""
        specs = self.specs(kind)
        if name in self._clashes[kind]:
            raise self._clashes[kind][name]
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
        found = load_attribute(target, what=spec.name)
        kind = self._kind_of(spec)
        return _checked(found, spec, kind, self.whose(spec)) if kind is not None and callable(found) else found

    def whose(self, spec: Spec) -> str:
        """A spec with its kind and plugin, in words."""
        kind = self._kind_of(spec)
        if kind is None:
            return spec.name
        return f"{kind} {spec.name!r} of {named(self.points[self._owners[kind][spec.name]])}"

    def targets(self) -> dict[str, EntryPoint]:
        """Everything that the specs name as "package.module:attribute", and the entry point of the plugin."""
        return {
            value: self.points[self._owners[kind][spec.name]]
            for kind, specs in self._specs.items()
            for spec in specs.values()
            for value in vars(spec).values()
            if isinstance(value, str) and value in imported
        }

    def _kind_of(self, spec: Spec) -> str | None:
        return next((kind for kind, specs in self._specs.items() if specs.get(spec.name) is spec), None)

    def _load_plugin(self, point: EntryPoint) -> None:
        start = time.perf_counter()
        try:
            module = point.load()
            _check_hooks(module)
            self._manager.register(module, point.name)
            self._manager.check_pending()
        except pluggy.PluginValidationError as reason:
            self._unregister(point.name)
            self._break(point.name, _explain(reason))
        except _HookFailure as reason:
            self._break(point.name, str(reason))
        except (Exception, SystemExit) as reason:
            self._unregister(point.name)
            self._break(point.name, f"does not import: {type(reason).__name__}: {reason}", reason)
        self.load_ms[point.name] = (time.perf_counter() - start) * 1000

    def _unregister(self, name: str) -> None:
        if self._manager.has_plugin(name):
            self._manager.unregister(name=name)

    def _break(self, name: str, reason: str, error: BaseException | None = None) -> None:
        from sora_cli.debug import is_debug

        self.broken.append(BrokenPlugin(name, reason))
        package = package_of(self.points[name])
        lines = [f"plugin {name!r} ({package}) is skipped: {reason}", "  update or uninstall it"]
        if error is not None and is_debug():
            lines = [lines[0], *"".join(traceback.format_exception(error)).splitlines()]
        elif error is not None:
            lines[1] += "; --debug shows the traceback"
        self._warn("\n".join(lines))

    def _collect(self, kind: str) -> None:
        specs: dict[str, Spec] = {}
        owner_of: dict[str, str] = {}
        claims: dict[str, list[str]] = {}
        # Called one by one, not through pluggy's hook call, so that a failure blames one plugin only.
        implementations = getattr(self._manager.hook, KINDS[kind].hook).get_hookimpls()
        for implementation in sorted(implementations, key=lambda i: i.plugin_name):
            plugin = implementation.plugin_name
            try:
                found = _call(implementation.function, kind)
            except _HookFailure as failure:
                self._break(plugin, str(failure), failure.__cause__)
                continue
            for spec in found:
                for word in (spec.name, *spec.aliases):
                    claims.setdefault(word, []).append(plugin)
                specs[spec.name], owner_of[spec.name] = spec, plugin
        clashes = {word: _clash(kind, word, plugins) for word, plugins in claims.items() if len(plugins) > 1}
        for clash in clashes.values():
            self._warn(f"{clash.message}: it is left out")
        self._specs[kind] = {name: spec for name, spec in specs.items() if name not in clashes}
        self._owners[kind], self._clashes[kind] = owner_of, clashes


@functools.cache
def get_plugins() -> Plugins:
    """The installed plugins, loaded at the first call; broken ones are named on stderr."""
    return Plugins.load()


def load_attribute(target: str, *, what: str) -> Any:
    """Import "package.module:attribute". what: whose it is, for the message when that fails."""
    module, _, attribute = target.partition(":")
    imported.add(target)
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as reason:
        raise SoraError(
            f"{what}: {target} cannot be imported: {reason}",
            hint=f"this is a fault of {owner_of(target) or 'the plugin'} or of its installation",
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
    hook, wanted = KINDS[kind].hook, KINDS[kind].spec
    try:
        found = function()
    except (Exception, SystemExit) as reason:
        raise _HookFailure(f"{hook}() raised {type(reason).__name__}: {reason}") from reason
    if not isinstance(found, list):
        raise _HookFailure(f"{hook}() returned {type(found).__name__}, not a list")
    words: set[str] = set()
    for spec in found:
        if not isinstance(spec, wanted):
            raise _HookFailure(f"{hook}() returned a list with {type(spec).__name__}, not {wanted.__name__}")
        if fault := fault_of(spec):
            raise _HookFailure(f"{hook}() returned {wanted.__name__} {spec.name!r}: {fault}")
        for word in (spec.name, *spec.aliases):
            if word in words:
                raise _HookFailure(f"{hook}() gives the {kind} name {word!r} twice")
            words.add(word)
    return found


def _checked(target: Callable[..., Any], spec: Spec, kind: str, whose: str) -> Callable[..., Any]:
    """A target that says whose it is where it cannot be called as its kind is, or gives something else."""
    hint = f"this is a fault of the plugin; see {type(spec).__name__} in sora_cli.plugin.specs"

    @functools.wraps(target)
    def make(*inputs: Any, **options: Any) -> Any:
        try:
            inspect.signature(target).bind(*inputs, **options)
        except TypeError as reason:
            raise SoraError(f"{whose}: its target cannot be called: {reason}", hint=hint) from reason
        except ValueError:  # compiled code without a signature
            pass
        made = target(*inputs, **options)
        if lacking := [name for name in members(kind, spec) if not hasattr(made, name)]:
            raise SoraError(f"{whose}: its target gave {type(made).__name__}, without {', '.join(lacking)}", hint=hint)
        return made

    return make


def _clash(kind: str, word: str, plugins: Sequence[str]) -> UsageError:
    names = " and ".join(repr(name) for name in plugins)
    return UsageError(
        f"plugins {names} both claim the {kind} name {word!r}",
        hint="uninstall one of them, or name those to keep in SORA_PLUGINS",
    )


def _check_hooks(plugin: Any) -> None:
    """_HookFailure for mistakes that would leave a plugin without hooks, or without the ones that it seems to have."""
    if isinstance(plugin, type):
        raise _HookFailure(f"its entry point names the class {plugin.__name__}; name a module or an instance")
    marked = _hook_names(plugin)
    for kind in KINDS.values():
        if callable(getattr(plugin, kind.hook, None)) and kind.hook not in marked:
            raise _HookFailure(f"{kind.hook}() is not marked with @hookimpl")


def _explain(error: pluggy.PluginValidationError) -> str:
    """What is wrong with a hook in one line, with the closest hook when its name is unknown."""
    known = [kind.hook for kind in KINDS.values()]
    names = _hook_names(error.plugin)
    for name in names:
        if name not in known:
            suggestion = did_you_mean(name, known)
            return f"unknown hook {name}(){f', {suggestion}' if suggestion else ''}"
    for name in names:
        if arguments := list(inspect.signature(getattr(error.plugin, name)).parameters):
            return f"{name}({', '.join(arguments)}): hooks take no arguments"
    return " ".join(str(error).split())


def _hook_names(plugin: Any) -> list[str]:
    marker = f"{hooks.PROJECT}_impl"
    return [name for name in dir(plugin) if isinstance(getattr(getattr(plugin, name, None), marker, None), dict)]
