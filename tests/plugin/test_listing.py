from __future__ import annotations

import json
from pathlib import Path

import pytest

from sora_cli.errors import SoraError
from sora_cli.plugin.kinds import KINDS
from sora_cli.plugin.model_facts import readme_path
from sora_cli.plugin.specs import ModelSpec


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
    assert json.loads(sora("plugins", "list", "--kind", "presets", "--json").out) == []


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


def test_show_a_model_tells_what_it_is_sampled_with_and_where_its_parts_come_from(sora) -> None:
    [shown] = json.loads(sora("plugins", "show", "opensora-v1.0", "--json").out)
    assert shown["defaults"]["size"] == "512x512"
    assert (shown["defaults"]["steps"], shown["defaults"]["guidance"]) == (100, 7.0)
    assert shown["weights"]["64x512"] is None
    assert shown["weights"]["16x512-HQ"]["repo"] == "hpcai-tech/Open-Sora"
    assert shown["parts"]["vae"]["weights"]["licence"] == "MIT"
    assert shown["parts"]["text_encoder"]["name"] == "t5-v1.1-xxl-120"
    assert shown["more_presets"] == ["opensora-v1.0-16x256", "opensora-v1.0-64x512", "opensora-v1.0-rflow"]
    for place in ("preset", "readme"):
        assert Path(shown[place]).is_file()
    text = sora("plugins", "show", "opensora-v1.0").out
    assert "64x512  none were released: give your own with --weights" in text
    assert "trained_sizes     256 up to 16 frames, 512 up to 16 frames" in text
    assert "by_hand" not in text, "people see no empty fields"
    assert text.count("hidden_size") == 1, "further variants show what differs"


def test_show_lists_classes(sora) -> None:
    [model] = json.loads(sora("plugins", "show", "latte-ucf101", "--json").out)
    assert "one of 101 classes" in model["prompt"]
    assert "`sora plugins show ucf101-classes`" in model["prompt"]
    [shown] = json.loads(sora("plugins", "show", "ucf101-classes", "--json").out)
    assert len(shown["classes"]) == 101
    assert shown["classes"]["41"] == "HorseRiding"
    assert "41   HorseRiding" in sora("plugins", "show", "ucf101-classes").out
    [numbers] = json.loads(sora("plugins", "show", "class-ids", "--json").out)
    assert numbers["classes"] is None


def test_a_page_that_is_not_there_is_a_fault_of_the_plugin() -> None:
    spec = ModelSpec(
        name="x",
        summary="",
        tasks=(),
        target="",
        variants={},
        scheduler="",
        vae="",
        text_encoder="",
        readme="absent_:x.md",
    )
    with pytest.raises(SoraError, match=r"absent_:x\.md cannot be found"):
        readme_path(spec)


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
