"""`sora generate --dry-run --json` with every preset, through the real command and the installed plugins."""

from __future__ import annotations

import json

import pytest

from sora_cli.plugin.manager import get_plugins
from sora_cli.presets import list_presets, load_preset

OURS = list_presets()


def settings_of(finished):
    return {row["key"]: row for row in json.loads(finished.out)["settings"]}


@pytest.mark.parametrize("name", [info.name for info in OURS if info.kind == "generate"])
def test_a_preset_of_settings(sora, name):
    preset = load_preset("generate", name)
    model = () if "name" in preset.get("model", {}) else ("-m", "nano")
    finished = sora("generate", "a waterfall", *model, "--preset", name, "--dry-run", "--json")
    assert finished.code == 0, finished.err
    settings = settings_of(finished)
    for section, content in preset.items():
        for key, value in content.items():
            parts = {f".{part}": each for part, each in value.items()} if isinstance(value, dict) else {"": value}
            for part, each in parts.items():
                row = settings[f"{section}.{key}{part}"]
                assert (row["value"], row["origin"]) == (each, f"preset {name}")


@pytest.mark.parametrize("name", [info.name for info in OURS if info.kind == "models"])
def test_a_model_preset(sora, name):
    finished = sora("generate", "7", "-m", name, "--dry-run", "--json")  # also the number of a class
    if name in get_plugins().specs("model"):
        assert finished.code == 0, finished.err
        assert settings_of(finished)["sampling.steps"]["origin"] == f"model preset {name}"
    else:
        assert (finished.code, finished.out) == (3, "")
        assert f"there are presets for the model '{name}', but no installed plugin provides it" in finished.err
