"""The command groups: which commands exist, in which panel, and how each is imported only when it is used.

`sora --help` and completion read the names and summaries below and, for plugin commands, the metadata and the
docstrings of installed packages; no command module is imported for them.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from typer._click.core import Command, Context, Parameter
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from .errors import UsageError, unknown_name

if TYPE_CHECKING:
    from .plugin.commands import PluginCommand

PLUGIN_PANEL = "Plugin commands"


class BuiltIn(NamedTuple):
    """A command of our own: its panel in `sora --help`, its name, which is also its module, and one line of help."""

    panel: str
    name: str
    summary: str


# Panels appear in the order of their first command.
BUILT_IN = (
    BuiltIn("Create", "generate", "Make videos (or images) from text."),
    BuiltIn("Create", "i2v", "Make a video that starts with a picture."),
    BuiltIn("Create", "extend", "Make a video go on, at its end or at its beginning."),
    BuiltIn("Train", "train", "Train a model on a table of clips."),
    BuiltIn("Train", "vae", "Encode, decode, reconstruct, measure and train video autoencoders."),
    BuiltIn("Data", "data", "Turn raw videos into captioned, scored, filtered training clips."),
    BuiltIn("Measure", "eval", "Measure models and clips: loss, benchmarks, metrics, ratings."),
    BuiltIn("Measure", "compare", "Compare clips with the first, in numbers, pictures and settings."),
    BuiltIn("Setup", "presets", "List and show presets: sizes, lengths, sampling defaults, launch tables."),
    BuiltIn("Setup", "plugins", "List and show models, schedulers and everything else that plugins add."),
    BuiltIn("Setup", "pull", "Download the weights of a model, for use without network."),
    BuiltIn("Setup", "show", "Print the settings stored in a video."),
    BuiltIn("Setup", "doctor", "Check this machine and this installation."),
    BuiltIn("Setup", "completion", "Print the script that completes sora commands in your shell."),
)
BUILT_IN_NAMES = frozenset(command.name for command in BUILT_IN)


def convert_only_given(parameters: list[Parameter]) -> list[Parameter]:
    """Leave values that were not given, and all values while completing, as they are.

    Typer converts values with pydantic, for which it builds a converter even for an option that is absent: with the
    options of `sora generate` that would be most of the time between Tab and its answer.
    """
    for parameter in parameters:
        if not isinstance(parameter.process_value, functools.partial):
            process = functools.partial(_process_value, parameter, parameter.process_value)
            parameter.process_value = process  # type: ignore[method-assign]
    return parameters


def _process_value(parameter: Any, convert: Callable[[Context, Any], Any], ctx: Context, value: Any) -> Any:
    if ctx.resilient_parsing:
        return value
    if value is None and not parameter.required:
        return parameter.callback(ctx, parameter, value) if parameter.callback else value
    return convert(ctx, value)


class LightCommand(TyperCommand):
    """A command whose absent options cost nothing to parse, see `convert_only_given`."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        """All parameters, with --help."""
        return convert_only_given(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands that answers a misspelt name with the closest one."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        """All parameters, with --help."""
        return convert_only_given(super().get_params(ctx))

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """The command that `args` starts with, ready to run; a UsageError with a suggestion when there is none."""
        name = args[0]
        if name.startswith("-") or ctx.resilient_parsing or name in self.list_commands(ctx):
            return super().resolve_command(ctx, args)
        raise unknown_name("command", name, self.list_commands(ctx), see=f"{ctx.command_path} --help")


class RootGroup(Group):
    """All commands of `sora`, in the order of their panels, each loaded when it is used."""

    def list_commands(self, ctx: Context) -> list[str]:
        """Our own commands in table order, then those of plugins by name."""
        return [*(command.name for command in BUILT_IN), *self._plugin_commands()]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        """What a list needs of a command (name, summary, panel), without importing it; see resolve_command."""
        for command in BUILT_IN:
            if command.name == cmd_name:
                return _listed(command.name, command.summary, command.panel)
        plugin_command = self._plugin_commands().get(cmd_name)
        return _listed(cmd_name, plugin_command.summary, PLUGIN_PANEL) if plugin_command else None

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """Import the command that `args` starts with."""
        if args[0] in BUILT_IN_NAMES:
            # Before anything else: a built-in command must not pay for the search for plugin commands.
            module = importlib.import_module(f"sora_cli.commands.{args[0]}")
            return args[0], _command_of(module.app, args[0]), args[1:]
        plugin_command = self._plugin_commands().get(args[0])
        if plugin_command is not None:
            whose = f" of {plugin_command.package}"
            return args[0], _command_of(plugin_command.load(), args[0], whose), args[1:]
        return super().resolve_command(ctx, args)

    def _plugin_commands(self) -> Mapping[str, PluginCommand]:
        from .plugin.commands import find_plugin_commands

        return find_plugin_commands(built_in=BUILT_IN_NAMES).commands


def _listed(name: str, summary: str, panel: str) -> TyperCommand:
    return TyperCommand(name, help=summary, rich_help_panel=panel)


def _command_of(app: Any, name: str, whose: str = "") -> Command:
    try:
        command = get_command(app)
    except (RuntimeError, AttributeError, TypeError) as reason:
        raise UsageError(f"the command {name!r}{whose} is not a Typer app with commands", hint=str(reason)) from reason
    command.name = name
    return command
