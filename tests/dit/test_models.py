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
from sora_plugins.dit import sora_models

SPECS = {spec.name: spec for spec in sora_models()}
#: Released files, by model and variant.
RELEASED = [(name, variant) for name, spec in SPECS.items() for variant in spec.weights]
#: Latte's file has a name of its own in the manifests.
NAMES = {"ucf101.pt": "Latte-XL-2-256x256-ucf101.pt"}


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


@pytest.fixture(params=RELEASED, ids="-".join)
def released(request):
    name, variant = request.param
    return SPECS[name], variant


def manifest_of(weights) -> dict:
    (file,) = weights.files
    path = FOLDER / f"{NAMES.get(file, file)}.json"
    if not path.is_file():
        pytest.skip(f"golden manifest {path.name!r} is not in {FOLDER}")
    return json.loads(path.read_text())


def test_its_file_fits_its_network(released):
    spec, variant = released
    manifest = manifest_of(spec.weights[variant])
    build, load = (load_attribute(target, what=spec.name) for target in (spec.target, spec.load))
    with torch.device("meta"):
        network = build(spec.variants[variant], None)
    check_tensors(network, load(file_of(manifest)), what=spec.name, source=FOLDER)
    wanted = {key: tuple(value) if isinstance(value, list) else value for key, value in manifest["model"].items()}
    have = {field: getattr(network.config, field) for field in wanted if hasattr(network.config, field)}
    assert have == {field: value for field, value in wanted.items() if field not in ("registry", "input_size")}


def test_its_file_is_where_it_was_released(released):
    spec, variant = released
    weights = spec.weights[variant]
    manifest = manifest_of(weights)
    place = (
        f"https://huggingface.co/{weights.repo}/resolve/main/{weights.files[0]}" if weights.repo else weights.by_hand
    )
    assert place == manifest["url"]
    assert weights.size_gib == pytest.approx(manifest["elements"] * 4 / 2**30, abs=0.06)


def test_every_released_file_has_a_model():
    files = [file for name, variant in RELEASED for file in SPECS[name].weights[variant].files]
    assert sorted(NAMES.get(file, file) for file in files) == sorted(FILES)


def test_it_has_a_preset_of_a_size_it_was_trained_on(spec):
    presets = {info.name for info in list_presets() if info.kind == "models"}
    assert spec.name in presets
    if not spec.weights:
        assert spec.constraints.trained_sizes == ()
        return
    (trained,) = spec.constraints.trained_sizes
    assert trained.resolution in shapes.resolutions()
    assert trained.max_frames == spec.constraints.max_frames
