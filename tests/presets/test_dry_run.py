"""`sora generate --dry-run --json` with every preset, through the real command and the installed plugins."""

from __future__ import annotations

import json
from pathlib import Path

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


TABLE = "path,text,num_frames,height,width,fps\n" + "\n".join(f"{i}.mp4,a fox,400,720,1280,24" for i in range(40))
FEATURES = {"settings": {"vae": ["opensora-vae-v1.2"], "text_encoder": ["t5-v1.1-xxl"]}, "batches": [], "files": {}}


@pytest.mark.parametrize("name", [info.name for info in OURS if info.kind == "train"])
def test_a_recipe(sora, name):
    """Every recipe works out: its settings, buckets and starting weights, for as many GPUs as share a clip."""
    Path("clips.csv").write_text(TABLE)
    Path("features").mkdir()
    Path("features", "index.json").write_text(json.dumps(FEATURES))
    data = "features" if name.endswith("-features") else "clips.csv"
    sharing = str(load_preset("train", name).get("hardware", {}).get("sequence_parallel", 1))
    run = ("train", "--preset", name, "--data", data, "--device", "cpu", "--gpus", sharing, "--dry-run", "--json")
    finished = sora(*run)
    assert finished.code == 0, finished.err
    record = json.loads(finished.out)
    origins = {row["key"]: row["origin"] for row in record["settings"]}
    assert origins["model.name"] == f"preset {name}"
    assert name.partition("-")[0] == "nano" or record["memory"]["all_gib"] > 0  # nano has no plan of its memory
    weights = load_preset("train", name)["model"].get("weights")
    assert weights is None or f"{weights} (" in finished.err, "where they would be downloaded from"


def test_features_that_are_not_there(sora):
    """The preset of features says no sizes, so without a folder that does, the folder is what is missing."""
    finished = sora("train", "--preset", "v1.2-stage1-features", "--data", "features", "--device", "cpu", "--dry-run")
    assert finished.code == 2
    assert "no table at features" in finished.err


def test_all_weights_that_would_be_downloaded_are_named(sora):
    finished = sora("generate", "a waterfall", "-m", "opensora-v1.2", "--device", "cpu", "--dry-run")
    assert finished.code == 0
    for part in ("opensora-v1.2 (XL/2)", "opensora-vae-v1.2", "t5-v1.1-xxl"):
        assert f"the weights of {part} would be downloaded from " in finished.err


def test_a_recipe_needs_as_many_gpus_as_share_a_clip(sora):
    Path("clips.csv").write_text(TABLE)
    finished = sora("train", "--preset", "v1.0-360x512", "--data", "clips.csv", "--device", "cpu", "--dry-run")
    assert finished.code == 2
    assert "1 processes cannot be split into groups of 2" in finished.err


@pytest.mark.parametrize("info", OURS, ids=lambda info: f"{info.kind}-{info.name}")
def test_every_preset_is_shown_as_it_is(sora, info):
    finished = sora("presets", "show", info.name, "--kind", info.kind)
    assert (finished.code, finished.out.rstrip("\n")) == (0, info.path.read_text().rstrip("\n")), finished.err
