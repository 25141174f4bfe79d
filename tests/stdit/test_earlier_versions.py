"""The networks of Open-Sora 1.0 and 1.1: released files, sizes, pieces, initial and starting weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sora_cli.errors import SoraError
from sora_cli.plugin.manager import get_plugins, load_attribute
from sora_cli.weights.load import check_tensors
from sora_plugins.stdit import stdit1, stdit2
from sora_plugins.stdit.adapt import start_stdit1, start_stdit2
from sora_plugins.stdit.memory import network_memory, parameters
from sora_plugins.stdit.network import Network
from sora_plugins.stdit.options import STDiT1Options, STDiT2Options

FOLDER = Path(os.environ.get("GOLDENS_DIR") or Path(__file__).parents[1] / "goldens").resolve() / "manifests"
SMALL = {"hidden_size": 48, "depth": 2, "num_heads": 4, "caption_channels": 20, "model_max_length": 6}
#: What is released: manifest, model, variant.
RELEASED = [
    ("stdit-xl-2_16x256x256", "opensora-v1.0", "16x256"),
    ("stdit-xl-2_16x256x256", "opensora-v1.0", "16x256-HQ"),
    ("stdit-xl-2_16x512x512", "opensora-v1.0", "16x512-HQ"),
    ("stdit2-xl-2", "opensora-v1.1", "stage3"),
    ("stdit2-xl-2", "opensora-v1.1", "stage2"),
]
MODULES = {"opensora-v1.0": stdit1, "opensora-v1.1": stdit2}
MODELS = list(MODULES)
#: Parts of names that pictures have no use for.
NEW = ("attn_temp.", "_temporal", "t_block_temp.", "fl_embedder.", "fps_embedder.", "q_norm.", "k_norm.", "rope.freqs")


def read_manifest(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"golden manifest {path.name!r} is not in {FOLDER}")
    return json.loads(path.read_text())


def file_of(manifest: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of the checkpoint, without their values."""
    return {name: torch.empty(entry["shape"], device="meta") for name, entry in manifest["tensors"].items()}


def network_of(model: str, variant: str) -> Network:
    """What `-m MODEL --variant VARIANT` builds."""
    spec = get_plugins().get("model", model)
    with torch.device("meta"):
        return load_attribute(spec.target, what=spec.name)(spec.variants[variant], None)


def accept(network: Network, model: str, tensors: dict[str, Tensor]) -> None:
    """What `load_network` does before it takes the tensors."""
    spec = get_plugins().get("model", model)
    check_tensors(network, load_attribute(spec.load, what=spec.name)(tensors), what=model, source=Path("released"))


@pytest.mark.parametrize(("name", "model", "variant"), RELEASED)
def test_the_spec_accepts_the_released_file(name: str, model: str, variant: str) -> None:
    manifest, network = read_manifest(name), network_of(model, variant)
    tensors = file_of(manifest)
    accept(network, model, tensors)
    computed = {"pos_embed", "pos_embed_temporal", "rope.freqs"}
    accept(network, model, {name: tensor for name, tensor in tensors.items() if name not in computed})
    with pytest.raises(SoraError) as caught:
        accept(
            network, model, {**tensors, "blocks.3.attn_temp.qkv.weight": torch.empty(1), "head.weight": torch.empty(1)}
        )
    assert "blocks.3.attn_temp.qkv.weight" in caught.value.hint
    assert "head.weight" in caught.value.hint


@pytest.mark.parametrize(("name", "model", "variant"), RELEASED)
def test_parameters_of_the_released_file(name: str, model: str, variant: str) -> None:
    """In its order, by which checkpoints of ColossalAI number the optimizer's state; sizes and counts are its own."""
    manifest, network = read_manifest(name), network_of(model, variant)
    ours = {key: list(parameter.shape) for key, parameter in network.named_parameters()}
    listed = {key: about["shape"] for key, about in manifest["tensors"].items() if about["kind"] == "parameter"}
    assert list(ours.items()) == list(listed.items())
    assert sum(p.numel() for p in network.parameters()) == manifest["parameters"]
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == manifest["trainable_parameters"]
    spec = get_plugins().get("model", model)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in manifest["config"].items()}
    values.pop("input_size", None)
    assert {key: spec.variants[variant][key] for key in values} == values
    weights = spec.weights[variant]
    assert any(
        (weights.repo in place and place.endswith(weights.files[-1])) or place == weights.repo
        for place in manifest["published_as"]
    )
    assert weights.size_gib == pytest.approx(manifest["state_dict_elements"] * 4 / 2**30, abs=0.06)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("changes", [{}, {"mlp_ratio": 3.0, "pred_sigma": False, "qk_norm": False}])
def test_memory_knows_the_parameters(model: str, changes: dict[str, Any]) -> None:
    spec = get_plugins().get("model", model)
    config = {**next(iter(spec.variants.values())), **changes}
    with torch.device("meta"):
        network = MODULES[model].build(config)
    count, block, rest = parameters(config)
    assert len(network.blocks()) == count == 28
    assert {sum(p.numel() for p in one.parameters()) for one in network.blocks()} == {block}
    assert sum(p.numel() for p in network.parameters()) == count * block + rest
    estimate = network_memory(config, latent_shape=(4, 1, 8, 8), rows=1, text_tokens=1, dtype_bytes=2)
    table = network.y_embedder.y_embedding.numel() * 4
    assert estimate.weights == 2 * (count * block + rest) + table


# --- small networks ----------------------------------------------------------------------------------------------


def fresh(model: str, options: Any = None, **changes: Any) -> Network:
    torch.manual_seed(0)
    return MODULES[model].build({**SMALL, **changes}, options).eval()


def noisy(model: str, options: Any = None, **changes: Any) -> Network:
    """With noise on all weights, so that every part counts."""
    network = fresh(model, options, **changes)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.fixture
def given(inputs) -> Any:
    """Makes arguments of both networks."""

    def make(**sizes: Any) -> dict[str, Tensor]:
        made = inputs(**sizes)
        rows = len(made["x"])
        return {**made, "num_frames": torch.full((rows,), 3.0), "ar": made["height"] / made["width"]}

    return make


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("with_frame_mask", [False, True])
def test_pieces_change_nothing(model: str, given: Any, with_frame_mask: bool) -> None:
    network, arguments = noisy(model), given(batch=2, size=(5, 6, 8))
    if with_frame_mask:
        arguments["x_mask"] = torch.tensor([[True, False, True, True, False], [False, True, True, True, True]])
    seen: list[tuple[Tensor, Tensor]] = []
    for block in network.blocks():
        block.register_forward_pre_hook(lambda _block, args: seen.append((args[0], args[0].clone())))
    results = []
    with torch.no_grad():
        for tokens in (10**6, 20, 1):
            for block in network.blocks():
                block.tokens_at_once = tokens
            results.append(network(**arguments))
    assert all(torch.equal(one, before) for one, before in seen), "a block leaves its input alone"
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_text_given_once_and_texts_of_two_lengths(model: str, given: Any) -> None:
    network, arguments = noisy(model), given()
    with torch.no_grad():
        whole = network(**arguments)
        y, mask = arguments.pop("y"), arguments.pop("mask")
        assert torch.equal(network(y=network.encode_text(y, mask), **arguments), whole)
        assert network.null_text(3, 9).shape == (3, 1, 9, 20)
        text, one = network.encode_text(y, mask), {name: tensor[:1] for name, tensor in arguments.items()}
        with pytest.raises(ValueError, match="2 captions for a batch of 1"):
            network(y=text, **one)


@pytest.mark.parametrize("model", MODELS)
def test_odd_sizes_are_padded_and_cut(model: str, given: Any) -> None:
    with torch.no_grad():
        assert noisy(model)(**given(size=(2, 5, 7))).shape == (2, 8, 2, 5, 7)


@pytest.mark.parametrize("model", MODELS)
def test_initial_weights(model: str, given: Any) -> None:
    """The prediction is zero, and attention over frames and to the text adds nothing."""
    network = fresh(model)
    outputs: list[Tensor] = []
    for block in network.blocks():
        for name in ("attn_temp", "cross_attn"):
            block.get_submodule(name).register_forward_hook(lambda _module, _args, out: outputs.append(out))
    with torch.no_grad():
        out = network(**given())
    assert not out.any()
    assert len(outputs) == 4
    assert not any(one.any() for one in outputs)
    assert network.blocks()[0].attn.proj.weight.any()
    bound = (6 / (48 + 16)) ** 0.5  # Xavier for 16 inputs to 48 features
    assert 0.9 * bound < network.x_embedder.proj.weight.abs().max() <= bound
    assert network.t_block[1].weight.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("model", MODELS)
def test_another_network_is_refused(model: str) -> None:
    with pytest.raises(SoraError, match="a network called 'STDiT3', not of STDiT"):
        MODULES[model].build({"model_type": "STDiT3"})


def test_scales_are_options() -> None:
    network = fresh("opensora-v1.0", STDiT1Options(time_scale=0.5), space_scale=0.5)
    assert (network.config.space_scale, network.config.time_scale) == (0.5, 0.5)
    with pytest.raises(SoraError, match="must be above 0"):
        fresh("opensora-v1.0", time_scale=0.0)


def test_the_order_of_norm_and_rotation(given: Any) -> None:
    """That of the released weights, whose config.json lacks the key, unless something says otherwise."""
    released, arguments = {"model_type": "STDiT2", "qk_norm": True}, given()
    networks = [
        noisy("opensora-v1.1", None, **released),
        noisy("opensora-v1.1", None, **released, qk_norm_legacy=True),
        noisy("opensora-v1.1", None, **released, qk_norm_legacy=False),
        noisy("opensora-v1.1", STDiT2Options(qk_norm_legacy=False), **released, qk_norm_legacy=True),
    ]
    with torch.no_grad():
        first, legacy, modern, chosen = (network(**arguments) for network in networks)
    assert torch.equal(first, legacy)
    assert torch.equal(modern, chosen)
    assert (legacy - modern).abs().max() > 1e-3


def test_pictures_of_two_sizes_are_told_apart(given: Any) -> None:
    network, arguments = noisy("opensora-v1.1"), given()
    with torch.no_grad():
        first = network(**arguments)
        for name in ("num_frames", "height", "width", "ar", "fps"):
            other = {**arguments, name: arguments[name].clone()}
            other[name][1] *= 2
            out = network(**other)
            assert torch.equal(out[0], first[0])
            assert (out[1] - first[1]).abs().max() > 1e-4, name


@pytest.mark.parametrize(("model", "start"), [("opensora-v1.0", start_stdit1), ("opensora-v1.1", start_stdit2)])
def test_starting_from_a_picture_model(model: str, start: Any) -> None:
    network = noisy(model, qk_norm=True)
    wanted = network.state_dict()
    new = [name for name in wanted if any(part in name for part in NEW)]
    picture = {name: tensor for name, tensor in wanted.items() if name not in new}
    picture |= {"pos_embed": torch.zeros(1, 4, 48)}
    if model == "opensora-v1.0":
        picture["csize_embedder.mlp.0.weight"] = torch.zeros(2, 2)
    picture["x_embedder.proj.weight"] = picture["x_embedder.proj.weight"][:, :, 0]
    started = start(picture, {**SMALL, "model_max_length": 8})
    assert set(wanted) - set(started.tensors) == set(new)
    assert not set(started.tensors) - set(wanted)
    assert all(any(part in f".{name}" for part in started.initial) for name in new)
    assert started.tensors["x_embedder.proj.weight"].shape == (48, 4, 1, 2, 2)
    assert started.tensors["y_embedder.y_embedding"].shape == (8, 20)
    assert start(wanted, SMALL).initial == ()
