from __future__ import annotations

import sys
from importlib.metadata import EntryPoint

import pytest

import sora_cli
from sora_cli.plugin.commands import collect_commands, first_docstring_line
from sora_cli.plugin.selection import owners

COMMAND = '''"""Wave from far away.

More about it.
"""
import typer

app = typer.Typer()

@app.command()
def wave(times: int = 1):
    print("wave " * times)
'''


def test_a_plugin_command_is_listed_without_being_imported(install_plugin, sora) -> None:
    module = install_plugin("waver", COMMAND, command="wave")
    shown = sora("--help")
    assert "Plugin commands" in shown.out
    assert "wave" in shown.out
    assert "Wave from far away." in shown.out
    assert module not in sys.modules


def test_a_plugin_command_runs_and_has_help(install_plugin, sora) -> None:
    install_plugin("waver", COMMAND, command="wave")
    assert sora("wave", "--times", "2").out == "wave wave \n"
    helped = sora("wave", "-h")
    assert helped.code == 0
    assert "--times" in helped.out
    wrong = sora("wave", "--timez", "2")
    assert wrong.code == 2
    assert "did you mean '--times'?" in wrong.err


def test_a_command_called_like_a_built_in_one_is_left_out_and_said(install_plugin, sora) -> None:
    install_plugin("rogue", COMMAND, command="doctor")
    shown = sora("--help")
    assert "warning: the command 'doctor' of sora-rogue is left out: sora has a built-in command 'doctor'" in shown.err
    assert "Wave" not in shown.out
    assert "Python" in sora("doctor").out


def test_two_plugins_with_one_command_both_lose_it(install_plugin, sora) -> None:
    install_plugin("one", COMMAND, command="wave")
    install_plugin("two", COMMAND, command="wave")
    finished = sora("wave")
    assert finished.code == 2
    assert "the command 'wave' is claimed by sora-one and sora-two" in finished.err
    assert "unknown command 'wave'" in finished.err


def test_a_command_that_does_not_import_says_whose_it_is(install_plugin, sora) -> None:
    install_plugin("bad", '"""Broken."""\nimport a_package_nobody_has', command="bad-one")
    assert "Broken." in sora("--help").out
    finished = sora("bad-one")
    assert finished.code == 1
    assert "error: the plugin command 'bad-one' of sora-bad 1.0 cannot be loaded: ModuleNotFoundError" in finished.err


def test_a_command_that_is_no_typer_app_is_an_error(install_plugin, sora) -> None:
    install_plugin("bad", '"""Broken."""\napp = 3', command="bad-one")
    finished = sora("bad-one")
    assert finished.code == 2
    assert "error: the command 'bad-one' of sora-bad 1.0 is not a Typer app with commands" in finished.err


@pytest.mark.parametrize(
    ("value", "is_there"), [("", False), ("single", False), ("waver", True), ("single,waver", True), (None, True)]
)
def test_sora_plugins_holds_for_commands_too(
    value: str | None, is_there: bool, install_plugin, sora, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin("waver", COMMAND, command="wave")
    if value is not None:
        monkeypatch.setenv("SORA_PLUGINS", value)
    assert ("Wave from far away." in sora("--help").out) == is_there
    assert sora("wave").code == (0 if is_there else 2)


def _plugin(name: str, module: str) -> EntryPoint:
    return EntryPoint(name, module, "sora")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("sora_plugins.nano.commands", {"nano"}),
        ("sora_plugins.other", {"nano", "stdit"}),  # equally close to both
        ("pack.cli", {"pack-hooks"}),
        ("elsewhere.cli", {"command"}),  # no plugin in that package: its own name
    ],
)
def test_which_plugin_a_command_belongs_to(module: str, expected: set[str]) -> None:
    plugins = [
        _plugin("nano", "sora_plugins.nano"),
        _plugin("stdit", "sora_plugins.stdit"),
        _plugin("pack-hooks", "pack.hooks"),
    ]
    assert owners(EntryPoint("command", f"{module}:app", "sora.commands"), plugins) == expected


def test_a_clash_with_a_plugin_that_is_off_does_not_count() -> None:
    points = [EntryPoint("go", "one.cli:app", "sora.commands"), EntryPoint("go", "two.cli:app", "sora.commands")]
    plugins = [_plugin("one", "one"), _plugin("two", "two")]
    assert collect_commands(points, plugins, (), frozenset({"one"})).commands["go"].point.value == "one.cli:app"
    assert collect_commands(points, plugins, (), None).commands == {}


def test_the_docstring_of_a_package_and_of_a_module_without_one(install_plugin) -> None:
    module = install_plugin("quiet", "app = 1", command="quiet")
    assert first_docstring_line(module) is None
    assert first_docstring_line("sora_cli") == sora_cli.__doc__.splitlines()[0]
    assert first_docstring_line("json.decoder") == "Implementation of JSONDecoder"
    assert first_docstring_line("no_such_package.module") is None
    assert first_docstring_line("sora_plugins.no_such_module") is None


def test_a_command_without_docstring_names_its_package(install_plugin, sora) -> None:
    install_plugin("quiet", "app = 1", command="quiet")
    assert "from sora-quiet" in sora("--help").out
