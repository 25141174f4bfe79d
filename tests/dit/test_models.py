"""The models of the plugin: their networks, their files, and what they are sampled with."""

from __future__ import annotations

import json

import pytest
import torch
from test_image_manifests import FILES, FOLDER, file_of

from sora_cli.plugin.manager import load_attribute
from sora_cli.presets import list_presets
from sora_cli.video import shapes
from sora_cli.weights.load import check_tensors
from sora_plugins.dit import VARIANT, sora_models

SPECS = {spec.name: spec for spec in sora_models()}
#: Latte's file has a name of its own in the manifests.
NAMES = {"ucf101.pt": "Latte-XL-2-256x256-ucf101.pt"}


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


def manifest_of(spec) -> dict:
    (file,) = spec.weights[VARIANT].files
    path = FOLDER / f"{NAMES.get(file, file)}.json"
    if not path.is_file():
        pytest.skip(f"golden manifest {path.name!r} is not in {FOLDER}")
    return json.loads(path.read_text())


def test_its_file_fits_its_network(spec):
    manifest = manifest_of(spec)
    build, load = (load_attribute(target, what=spec.name) for target in (spec.target, spec.load))
    with torch.device("meta"):
        network = build(spec.variants[VARIANT], None)
    check_tensors(network, load(file_of(manifest)), what=spec.name, source=FOLDER)
    wanted = {key: tuple(value) if isinstance(value, list) else value for key, value in manifest["model"].items()}
    have = {field: getattr(network.config, field) for field in wanted if hasattr(network.config, field)}
    assert have == {field: value for field, value in wanted.items() if field not in ("registry", "input_size")}


def test_its_file_is_where_it_was_released(spec):
    manifest, weights = manifest_of(spec), spec.weights[VARIANT]
    place = (
        f"https://huggingface.co/{weights.repo}/resolve/main/{weights.files[0]}" if weights.repo else weights.by_hand
    )
    assert place == manifest["url"]
    assert weights.size_gib == pytest.approx(manifest["elements"] * 4 / 2**30, abs=0.06)


def test_every_released_file_has_a_model_but_the_variation_of_one():
    taken = {NAMES.get(file, file) for spec in SPECS.values() for file in spec.weights[VARIANT].files}
    assert set(FILES) - taken == {"PixArt-XL-2-SAM-256x256.pth"}


def test_it_has_a_preset_of_a_size_it_was_trained_on(spec):
    presets = {info.name for info in list_presets() if info.kind == "models"}
    assert spec.name in presets
    (trained,) = spec.constraints.trained_sizes
    assert trained.resolution in shapes.resolutions()
    assert trained.max_frames == spec.constraints.max_frames
