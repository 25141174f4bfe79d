"""Subcommands that plugins add through the entry-point group `sora.commands` (name -> Typer app).

Names come from package metadata and summaries from the first line of the module's docstring, read from its source,
so that listing commands imports no plugin.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sora_cli.errors import SoraError

from .selection import COMMAND_GROUP, PLUGIN_GROUP, installed, owners, package_of, provider, selected


@dataclass(frozen=True)
class PluginCommand:
    """A subcommand of a plugin. plugins: the plugins it belongs to, see `selection.owners`."""

    name: str
    point: EntryPoint
    plugins: frozenset[str]

    @property
    def summary(self) -> str:
        """The first line of the module's docstring, or the package it comes from when there is none."""
        return first_docstring_line(self.point.module) or f"from {provider(self.point)}"

    @property
    def package(self) -> str:
        """The package it comes from, with its version."""
        return package_of(self.point)

    def load(self) -> Any:
        """Import the Typer app; a SoraError naming the package when that fails."""
        try:
            return self.point.load()
        except SoraError:
            raise
        except (Exception, SystemExit) as reason:
            raise SoraError(
                f"the plugin command {self.name!r} of {self.package} cannot be loaded: "
                f"{type(reason).__name__}: {reason}",
                hint="the other commands work; run with --debug for the traceback",
            ) from reason


@dataclass(frozen=True)
class PluginCommands:
    """The usable commands by name, and what is wrong with the others."""

    commands: Mapping[str, PluginCommand]
    warnings: tuple[str, ...]


@functools.cache
def find_plugin_commands(built_in: frozenset[str]) -> PluginCommands:
    """The commands of the installed plugins, found once; clashes are warned about on stderr."""
    from sora_cli.console import get_console

    found = collect_commands(installed(COMMAND_GROUP), installed(PLUGIN_GROUP), built_in, selected())
    for warning in found.warnings:
        get_console().warn(warning)
    return found


def collect_commands(
    points: Iterable[EntryPoint],
    plugins: Iterable[EntryPoint],
    built_in: Collection[str],
    names: frozenset[str] | None,
) -> PluginCommands:
    """Choose among entry points: a built-in command wins, two plugins with one name both lose, and both are said.

    names: the plugins that are switched on, None for all.
    """
    plugins = list(plugins)
    by_name: dict[str, list[PluginCommand]] = {}
    for point in points:
        belongs_to = owners(point, plugins)
        if names is None or belongs_to & names:
            by_name.setdefault(point.name, []).append(PluginCommand(point.name, point, belongs_to))
    commands: dict[str, PluginCommand] = {}
    warnings: list[str] = []
    for name, claims in sorted(by_name.items()):
        claimants = " and ".join(sorted(provider(claim.point) for claim in claims))
        if name in built_in:
            warnings.append(f"the command {name!r} of {claimants} is left out: sora has a built-in command {name!r}")
        elif len(claims) > 1:
            warnings.append(f"the command {name!r} is claimed by {claimants}: left out until one is uninstalled")
        else:
            commands[name] = claims[0]
    return PluginCommands(commands, tuple(warnings))


def first_docstring_line(module: str) -> str | None:
    """The first line of a module's docstring, without importing the module; None when it cannot be read."""
    source = _source_file(module)
    if source is None:
        return None
    try:
        docstring = ast.get_docstring(ast.parse(source.read_bytes()))
    except (OSError, SyntaxError, ValueError):
        return None
    return docstring.strip().splitlines()[0] if docstring and docstring.strip() else None


def _source_file(module: str) -> Path | None:
    # Only the top-level package is looked up: finding a submodule would import its parents.
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder, *rest)
        for candidate in (base.with_suffix(".py"), base / "__init__.py"):
            if candidate.is_file():
                return candidate
    return None
