"""Which plugin an unexpected error comes from, so that its message names it."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import PurePath
from typing import TYPE_CHECKING

from sora_cli.errors import SoraError

from .selection import COMMAND_GROUP, PLUGIN_GROUP, installed, package_of, provider, shared_parts

if TYPE_CHECKING:
    from .specs import Spec

OURS = "sora-cli"


def in_words(error: BaseException) -> str:
    """What an error says that nobody expected, with the plugin of other people that it came through.

    Of a file that cannot be used, its path and the reason of the system.
    """
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{os.fsdecode(error.filename)}: {error.strerror}"
    place = culprit(error)
    return text if place is None else f"{place}: {text}"


def culprit(error: BaseException) -> str | None:
    """The innermost place in a plugin of other people that an error came through, in words."""
    modules = _modules()
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        point = _point_of(frame.f_globals.get("__name__", ""), modules)
        if point is not None and provider(point) != OURS:
            return f"{named(point)}, {PurePath(frame.f_code.co_filename).name} line {line}"
    return None


def hint_of(error: BaseException, is_debug: bool = False) -> list[str]:
    """What to do about it. Without a plugin in its traceback, what was loaded of plugins of other people is named."""
    lines = []
    if culprit(error) is not None:
        lines.append("this may be a fault of the plugin: tell its author, or leave it out with SORA_PLUGINS")
    elif loaded := _in_use():
        lines.append(f"in use were {loaded}")
    return lines if is_debug else [*lines, "run with --debug for the traceback"]


def wrong_result(spec: Spec, text: str) -> SoraError:
    """The error for a part that gave something else than its protocol says. text: what, as "gave 3 frames, not 4"."""
    from .manager import get_plugins

    return SoraError(
        f"{get_plugins().whose(spec)} {text}", hint="this is a fault of the plugin; see sora_cli.plugin.protocols"
    )


def owner_of(target: str) -> str | None:
    """The plugin whose specs name "package.module:attribute", in words; None when that is not known."""
    point = _targets().get(target)
    return None if point is None else named(point)


def named(point: EntryPoint) -> str:
    """A plugin in words; of a package that only adds commands, the package."""
    if point.group == COMMAND_GROUP:
        return f"the package {package_of(point)}"
    return f"plugin {point.name!r} ({package_of(point)})"


def _in_use() -> str | None:
    theirs = [f"{target} of {named(point)}" for target, point in _targets().items() if provider(point) != OURS]
    return ", ".join(theirs) or None


def _targets() -> Mapping[str, EntryPoint]:
    """What was imported of plugins so far."""
    from .manager import get_plugins

    return get_plugins().targets() if get_plugins.cache_info().currsize else {}


def _modules() -> list[tuple[str, EntryPoint]]:
    """Modules of plugins: those of their entry points, and those of what was imported."""
    modules = [(point.module, point) for group in (PLUGIN_GROUP, COMMAND_GROUP) for point in installed(group)]
    # A plugin may have several packages, and may name what is in the package of another plugin.
    others = ((target.partition(":")[0], point) for target, point in _targets().items())
    return [*modules, *((module, point) for module, point in others if _point_of(module, modules) is None)]


def _point_of(module: str, modules: list[tuple[str, EntryPoint]]) -> EntryPoint | None:
    """The plugin one of whose modules shares the longest start with a module."""
    best = max(modules, key=lambda each: shared_parts(module, each[0]), default=None)
    return best[1] if best is not None and shared_parts(module, best[0]) else None
