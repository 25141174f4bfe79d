from __future__ import annotations

import json

import pytest

from sora_cli.plugin.kinds import KINDS


def test_the_list_has_a_row_for_everything(fake_plugin, sora) -> None:
    rows = json.loads(sora("plugins", "list", "--json").out)
    assert {"kind": "command", "name": "fake-greeting", "summary": "Greet from the fake plugin."}.items() <= next(
        row for row in rows if row["name"] == "fake-greeting"
    ).items()
    fake = next(row for row in rows if row["kind"] == "model" and row["name"] == "fake")
    assert fake == {
        "kind": "model",
        "name": "fake",
        "summary": "a tiny model for tests",
        "plugin": "fakes",
        "status": "ready",
        "aliases": ["fake-alias"],
    }
    assert next(row for row in rows if row["name"] == "fake-parallel")["status"] == "missing a_package_nobody_has"


def test_one_kind(fake_plugin, sora) -> None:
    assert set(sora("plugins", "list", "--kind", "vae", "-q").out.split()) >= {"fake"}
    kinds = {row["kind"] for row in json.loads(sora("plugins", "list", "--kind", "scheduler", "--json").out)}
    assert kinds == {"scheduler"}
    plugins = json.loads(sora("plugins", "list", "--kind", "plugin", "--json").out)
    assert {"fakes": "sora_fakes from sora-fakes"}.items() <= {row["name"]: row["summary"] for row in plugins}.items()


def test_an_empty_kind_is_an_empty_list(sora) -> None:
    assert json.loads(sora("plugins", "list", "--kind", "captioner", "--json").out) == []


def test_an_unknown_kind_gets_a_suggestion(sora) -> None:
    finished = sora("plugins", "list", "--kind", "modle")
    assert finished.code == 2
    assert "error: unknown plugin kind 'modle'\n  did you mean 'model'?" in finished.err


def test_show_tells_all_fields_and_options(fake_plugin, sora) -> None:
    [shown] = json.loads(sora("plugins", "show", "fake-alias", "--json").out)
    assert shown["plugin"] == "fakes"
    assert shown["package"] == "sora-fakes 1.0"
    assert shown["name"] == "fake"
    assert shown["constraints"]["min_side"] == 16
    assert shown["options"] == {"brightness": "added to every velocity (default: 0.0)"}
    assert "added to every velocity" in sora("plugins", "show", "fake", "--kind", "model").out


def test_show_finds_a_name_in_several_kinds(fake_plugin, sora) -> None:
    shown = json.loads(sora("plugins", "show", "fake", "--json").out)
    assert [each["kind"] for each in shown] == ["model", "vae", "text-encoder", "scheduler"]
    assert "model fake" in sora("plugins", "show", "fake").out


def test_show_a_plugin_and_a_command(fake_plugin, sora) -> None:
    shown = json.loads(sora("plugins", "show", "fakes", "--json").out)
    plugin = next(each for each in shown if each["kind"] == "plugin")
    assert plugin["module"] == "sora_fakes"
    assert plugin["provides"]["model"] == ["fake"]
    [command] = json.loads(sora("plugins", "show", "fake-greeting", "--json").out)
    assert command["target"] == "sora_fakes.commands:app"


def test_show_an_unknown_name(fake_plugin, sora) -> None:
    finished = sora("plugins", "show", "fakke")
    assert finished.code == 2
    assert "did you mean 'fake'?" in finished.err


def test_a_broken_plugin_can_be_shown(install_plugin, sora) -> None:
    install_plugin("bad", "1/0")
    [shown] = json.loads(sora("plugins", "show", "bad", "--json").out)
    assert shown["status"] == "broken: does not import: ZeroDivisionError: division by zero"


@pytest.mark.parametrize("kind", KINDS)
def test_every_spec_of_every_plugin_can_be_shown(kind: str, fake_plugin, sora) -> None:
    for row in json.loads(sora("plugins", "list", "--kind", kind, "--json").out):
        finished = sora("plugins", "show", row["name"], "--kind", kind, "--json")
        assert finished.code == 0
        assert row["name"] in {each["name"] for each in json.loads(finished.out)}
