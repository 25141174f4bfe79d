from __future__ import annotations

import re

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from sora_cli.root import BUILT_IN, BUILT_IN_NAMES, PLUGIN_PANEL, RootGroup


def _all_commands() -> list[tuple[str, ...]]:
    """Every command and subcommand, as the words after `sora`."""
    import importlib

    found: list[tuple[str, ...]] = []

    def add(words: tuple[str, ...], command: object) -> None:
        found.append(words)
        if isinstance(command, TyperGroup):
            for name, part in command.commands.items():
                add((*words, name), part)

    for built_in in BUILT_IN:
        add((built_in.name,), get_command(importlib.import_module(f"sora_cli.commands.{built_in.name}").app))
    return found


COMMANDS = _all_commands()
# Groups show the examples of their subcommands.
LEAVES = [words for words in COMMANDS if not any(other[: len(words)] == words and other != words for other in COMMANDS)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_by_both_names(words: tuple[str, ...], sora) -> None:
    long, short = sora(*words, "--help"), sora(*words, "-h")
    assert long.code == short.code == 0
    assert long.out == short.out
    assert f"Usage: sora {' '.join(words)}" in long.out


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_command_has_an_example_that_parses(words: tuple[str, ...], sora) -> None:
    import shlex

    shown = sora(*words, "--help").out
    examples = [line.strip() for line in shown.partition("Examples:")[2].splitlines() if "sora " in line]
    assert any(" ".join(words) in line for line in examples)
    for line in examples:
        command = re.sub(r"^source <\((.*)\)$", r"\1", line).split(" >")[0]
        name, *arguments = shlex.split(command)
        assert name == "sora"
        # With --help at the end all options before it are parsed, and nothing runs.
        finished = sora(*arguments, "--help")
        assert finished.code == 0, finished.err


def test_the_examples_of_the_root_help_work(sora) -> None:
    lines = [line.strip() for line in sora("--help").out.partition("Examples:")[2].splitlines()]
    assert 'sora generate "a waterfall"' in lines


def test_the_first_line_of_help_is_the_summary_in_the_list(sora) -> None:
    for command in BUILT_IN:
        assert command.summary in sora(command.name, "--help").out, command.name


def test_panels_are_in_the_order_of_the_table_with_plugins_last(fake_plugin, sora) -> None:
    shown = sora("--help").out
    panels = [*dict.fromkeys(command.panel for command in BUILT_IN), PLUGIN_PANEL]
    places = [shown.index(f"─ {panel} ─") for panel in panels]
    assert places == sorted(places)
    assert "fake-greeting" in shown


def test_every_command_module_is_in_the_table() -> None:
    from pathlib import Path

    import sora_cli.commands

    places = Path(sora_cli.commands.__file__).parent.iterdir()
    modules = {path.stem for path in places if path.is_dir() or path.suffix == ".py"} - {"__init__", "__pycache__"}
    assert modules == BUILT_IN_NAMES
    assert len(BUILT_IN) == len(BUILT_IN_NAMES)


def test_sora_alone_shows_the_help(sora) -> None:
    alone = sora()
    assert alone.code == 0
    assert alone.out == sora("--help").out


def test_help_without_rich(sora_process) -> None:
    finished = sora_process("--help", env={"TYPER_USE_RICH": "0"})
    assert finished.code == 0
    assert "  generate" in finished.out


def test_listed_commands_are_stand_ins_and_resolved_ones_are_real(fake_plugin) -> None:
    from sora_cli.app import app

    group = get_command(app)
    assert isinstance(group, RootGroup)
    with group.make_context("sora", ["show", "x"]) as context:
        listed = group.get_command(context, "show")
        resolved = group.resolve_command(context, ["show", "x"])[1]
    assert listed is not None
    assert listed.params == []
    assert resolved is not None
    assert "file" in {parameter.name for parameter in resolved.params}


def test_version(sora) -> None:
    from importlib.metadata import version

    assert sora("--version").out == f"sora {version('sora-cli')}\n"


def test_python_m_sora_cli(sora_process) -> None:
    assert sora_process("--version").out.startswith("sora ")
