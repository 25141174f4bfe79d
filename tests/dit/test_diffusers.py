"""PixArt and DiT against the classes of diffusers: the same weights give the same output, there and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sora_cli.errors import SoraError
from sora_cli.weights.load import check_tensors, read_tensors
from sora_plugins.dit import dit, pixart
from sora_plugins.dit.diffusers_layout import DIT_COPIES, DIT_MODULES, MODULES, TENSORS, read_config, write_pixart
from sora_plugins.dit.weights import map_tensors, start_dit, start_pixart
from sora_plugins.stdit import adapt, stdit3

diffusers = pytest.importorskip("diffusers")

NULL_TEXT = "caption_projection.y_embedding"
ROWS, TEXT = 12, 20
TINY = {
    "hidden_size": 48,
    "depth": 3,
    "num_heads": 4,
    "caption_channels": TEXT,
    "model_max_length": ROWS,
    "no_temporal_pos_emb": True,
}
#: A tiny PixArt of each kind, by what makes it one; sides are in latent pixels.
KINDS = {
    "alpha": {"input_size": (1, 8, 8)},
    "alpha-ms": {"space_scale": 2.0, "base_size": 8, "has_size_conditions": True},
    "sigma": {"space_scale": 0.5, "base_size": 8},
    "no variance": {"space_scale": 1.0, "base_size": 12, "pred_sigma": False},
}
#: Of outputs of about 1; both sum in another order.
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def noise(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def shaken(network: nn.Module) -> nn.Module:
    """With noise in every weight: the initial ones give zero."""
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.1)
    return network.eval().requires_grad_(False)


@pytest.fixture(params=KINDS)
def config(request) -> dict:
    return {**TINY, **KINDS[request.param]}


def in_diffusers(network: nn.Module, config: dict) -> nn.Module:
    values, tensors = write_pixart(network.state_dict(), config)
    theirs = diffusers.PixArtTransformer2DModel.from_config(values)
    del tensors[NULL_TEXT]  # kept in files, and not used
    theirs.load_state_dict(tensors, strict=True)
    return theirs.eval()


def ask_both(ours: nn.Module, theirs: nn.Module, size: tuple[int, int], tokens: int) -> tuple[Tensor, Tensor]:
    """Outputs for two samples; of the text the first has all tokens, the second some with a gap."""
    x, y, t = noise(2, 4, *size), noise(2, tokens, TEXT, seed=2), torch.tensor([17.0, 981.0])
    mask = torch.ones(2, tokens)
    mask[1, (tokens + 1) // 2 :] = mask[1, 1 : tokens // 4] = 0
    pixels = torch.tensor([[8.0 * side for side in size], [512.0, 640.0]])
    ratio = pixels[:, :1] / pixels[:, 1:]
    given = theirs(
        x,
        encoder_hidden_states=y,
        timestep=t,
        encoder_attention_mask=mask,
        added_cond_kwargs={"resolution": pixels, "aspect_ratio": ratio},
    ).sample
    return ours(x[:, :, None], t, y[:, None], mask, height=pixels[:, 0], width=pixels[:, 1])[:, :, 0], given


@pytest.mark.parametrize("tokens", [1, ROWS, 2 * ROWS])
def test_pixart_gives_what_diffusers_gives(config: dict, tokens: int):
    ours = shaken(pixart.build(config))
    mine, given = ask_both(ours, in_diffusers(ours, config), (8, 8), tokens)
    assert given.std() > 0.5
    torch.testing.assert_close(mine, given, **CLOSE)


@pytest.mark.parametrize("size", [(4, 12), (10, 6), (16, 16)])
def test_pixart_in_other_sizes(config: dict, size: tuple[int, int]):
    ours = shaken(pixart.build(config))
    theirs = in_diffusers(ours, config)
    back = pixart.build({**config, **read_config(theirs.config)})
    back.load_state_dict(ours.state_dict())
    mine, given = ask_both(back.eval(), theirs, size, ROWS)
    torch.testing.assert_close(mine, given, **CLOSE)
    if "base_size" not in config:  # follows the picture here, and is fixed there
        assert (ask_both(ours, theirs, size, ROWS)[0] - given).abs().max() > 0.01


def test_there_and_back(config: dict):
    tensors = shaken(pixart.build(config)).state_dict()
    values, written = write_pixart(tensors, config)
    again = map_tensors(written)
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in again)
    wanted = {**{"base_size": config.get("input_size", (None,))[-1], "pred_sigma": True}, **config}
    read = read_config(json.loads(json.dumps(values)))
    assert read == {"patch_size": [1, 2, 2], "in_channels": 4, "mlp_ratio": 4.0, **_known(wanted, read)}
    start = start_pixart(written, config)
    assert start.tensors.keys() == again.keys()
    del written[NULL_TEXT]  # as in the published files of PixArt-Sigma
    assert tensors.keys() - start_pixart(written, config).tensors.keys() == {"y_embedder.y_embedding"}
    assert "y_embedder.y_embedding" in start.initial
    assert "y_embedder.y_embedding" not in start_pixart(tensors, config).initial


def _known(config: dict, read: dict) -> dict:
    defaults = {"space_scale": 1.0, "has_size_conditions": False}
    return {name: {**defaults, **config}[name] for name in read if name in {**defaults, **config}}


def test_diffusers_saves_what_is_read(config: dict, tmp_path: Path):
    ours = shaken(pixart.build(config))
    in_diffusers(ours, config).save_pretrained(tmp_path)
    values = read_config(json.loads((tmp_path / "config.json").read_text()))
    back = pixart.build({**TINY, **values})
    tensors = map_tensors(read_tensors([tmp_path / "diffusion_pytorch_model.safetensors"]))
    tensors["y_embedder.y_embedding"] = ours.y_embedder.y_embedding
    check_tensors(back, tensors, what="it", source=tmp_path)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in ours.state_dict().items())


def test_every_module_has_a_place():
    names = [*MODULES.values(), *TENSORS.values(), *DIT_MODULES, *DIT_COPIES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"no_temporal_pos_emb": False}, "PixArt of clips"),
        ({"patch_size": (2, 2, 2)}, "patches of 2 x 2 x 2"),
        ({"mlp_ratio": 2.0}, "mlp_ratio of 2"),
        ({"qk_norm": True}, "normed queries"),
        ({"kv_compress_config": {"sampling": "uniform", "scale_factor": 2, "kv_compress_layer": [1]}}, "fewer keys"),
        ({"base_size": None}, "base_size or input_size"),
    ],
)
def test_networks_that_diffusers_has_not(changes: dict, message: str):
    config = {**TINY, "base_size": 8, **changes}
    with pytest.raises(SoraError, match=message):
        write_pixart(pixart.build(config).state_dict(), config)


# --- configurations --------------------------------------------------------------------------------------------------

PUBLISHED = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 28,
    "patch_size": 2,
    "caption_channels": 4096,
    "num_embeds_ada_norm": 1000,
}


def test_configurations_as_published():
    """Early ones name the class Transformer2DModel, and leave out what the size of pictures says."""
    old = {"_class_name": "Transformer2DModel", "norm_type": "ada_norm_single", **PUBLISHED}
    small, large = (read_config({**old, "sample_size": side}) for side in (32, 128))
    assert (small["base_size"], small["space_scale"], small["has_size_conditions"]) == (32, 1.0, False)
    assert (large["base_size"], large["space_scale"], large["has_size_conditions"]) == (128, 2.0, True)
    given = {"interpolation_scale": 0.5, "use_additional_conditions": False}
    new = read_config({"_class_name": "PixArtTransformer2DModel", **PUBLISHED, "sample_size": 128, **given})
    assert (new["space_scale"], new["has_size_conditions"], new["hidden_size"]) == (0.5, False, 1152)
    classes = read_config({"_class_name": "Transformer2DModel", "norm_type": "ada_norm_zero", **PUBLISHED})
    assert (classes["condition"], classes["learn_sigma"]) == ("label_1000", True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**PUBLISHED, "_class_name": "LatteTransformer3DModel"}, "LatteTransformer3DModel.*neither PixArt nor DiT"),
        ({"_class_name": "PixArtTransformer2DModel"}, "incomplete: 'num_attention_heads'"),
    ],
)
def test_configurations_of_others(values: dict, message: str):
    with pytest.raises(SoraError, match=message):
        read_config(values)


# --- DiT -------------------------------------------------------------------------------------------------------------


def their_dit(**changes) -> nn.Module:
    sizes = {"num_attention_heads": 4, "attention_head_dim": 12, "num_layers": 2, "sample_size": 8}
    config = {**sizes, "in_channels": 4, "out_channels": 8, "num_embeds_ada_norm": 10, **changes}
    network = shaken(diffusers.DiTTransformer2DModel(**config))
    first = network.transformer_blocks[0].norm1.emb
    for block in network.transformer_blocks[1:]:  # copies in released files
        block.norm1.emb.load_state_dict(first.state_dict())
    return network


def our_dit(theirs: nn.Module) -> nn.Module:
    ours = dit.build({**read_config(theirs.config), "no_temporal_pos_emb": True})
    tensors = map_tensors(theirs.state_dict())
    check_tensors(ours, tensors, what="it", source=Path("diffusers"))
    ours.load_state_dict(tensors)
    assert start_dit(theirs.state_dict(), {"condition": "label_10"}).tensors.keys() == tensors.keys()
    return ours.eval()


def dit_outputs(ours: nn.Module, theirs: nn.Module, time: float) -> tuple[Tensor, Tensor]:
    x, t, y = noise(2, 4, 8, 8), torch.full((2,), time), torch.tensor([3, 9])
    with torch.no_grad():
        return ours(x[:, :, None], t, y)[:, :, 0], theirs(x, t, y).sample


def test_dit_gives_what_diffusers_gives_with_the_original_frequencies():
    theirs = their_dit(norm_eps=1e-6)
    ours = our_dit(theirs)
    for block in theirs.transformer_blocks:
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    for time in (0.0, 17.0, 999.0):
        mine, given = dit_outputs(ours, theirs, time)
        torch.testing.assert_close(mine, given, **CLOSE)


def test_dit_is_not_written_since_diffusers_gives_something_else():
    theirs = their_dit()
    mine, given = dit_outputs(our_dit(theirs), theirs, 999.0)
    assert (mine - given).abs().max() > 0.1


def test_a_dit_whose_blocks_differ_is_refused():
    theirs = their_dit()
    theirs.transformer_blocks[1].norm1.emb.timestep_embedder.linear_1.bias.add_(1.0)
    with pytest.raises(SoraError, match=r"different t_embedder.mlp.0.bias"):
        map_tensors(theirs.state_dict())


# --- STDiT -----------------------------------------------------------------------------------------------------------


def test_an_stdit_starts_from_pixart_of_diffusers():
    config = {**TINY, "base_size": 8}
    ours = shaken(pixart.build(config)).state_dict()
    _, written = write_pixart(ours, config)
    wanted, start = (adapt.start_stdit3(tensors, TINY) for tensors in (ours, written))
    assert wanted.tensors.keys() == start.tensors.keys()
    assert all(torch.equal(tensor, wanted.tensors[name]) for name, tensor in start.tensors.items())
    del written[NULL_TEXT]
    start = adapt.start_stdit3(written, TINY)
    network = stdit3.build({**TINY, "qk_norm": True})
    missing = network.state_dict().keys() - start.tensors.keys()
    assert "y_embedder.y_embedding" in missing
    assert all(any(f".{part}" in f".{name}." for part in start.initial) for name in missing)
