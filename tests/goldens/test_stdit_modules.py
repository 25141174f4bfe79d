"""Golden topic `stdit_modules`: the single pieces of the STDiT networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from loader import cases, load_tensors
from torch import Tensor, nn

from sora_plugins.stdit import layers
from sora_plugins.stdit.adapt import adapt_tensors
from sora_plugins.stdit.config import STDiT2Config, STDiT3Config, STDiTConfig
from sora_plugins.stdit.stdit1 import STDiTBlock
from sora_plugins.stdit.stdit2 import STDiT2Block
from sora_plugins.stdit.stdit3 import SPATIAL, TEMPORAL, STDiT3Block

TOPIC = "stdit_modules"
DIM = 24
CPU = torch.device("cpu")
Case = dict[str, Any]
Tensors = dict[str, Tensor]
CHECKS: dict[str, Callable[[Case, Tensors], dict[str, Tensor]]] = {}


def check(*names: str) -> Callable:
    """Register a function (case, tensors) -> our values for the `out*` tensors of the cases called `names`."""

    def register(function: Callable[[Case, Tensors], dict[str, Tensor]]) -> Callable:
        CHECKS.update(dict.fromkeys(names, function))
        return function

    return register


@pytest.mark.parametrize("case", cases(TOPIC, "adapt"))
def test_starting_weights(case):
    tensors = load_tensors(TOPIC, case["file"])
    before = {name.removeprefix("in."): tensor for name, tensor in tensors.items() if name.startswith("in.")}
    after = {name.removeprefix("out."): tensor for name, tensor in tensors.items() if name.startswith("out.")}
    adapted = adapt_tensors(
        before, text_tokens=case["target_null_tokens"], has_spatial_blocks=case["target_class"] == "STDiT3"
    )
    assert adapted.keys() == after.keys() == case["out_keys"].keys()
    assert all(torch.equal(adapted[name], tensor) for name, tensor in after.items())


@pytest.mark.parametrize("case", cases(TOPIC, "index"))
def test_piece(case):
    tensors = load_tensors(TOPIC, case["file"])
    with torch.no_grad():
        actual = CHECKS[case["name"]](case, tensors)
    expected = {name: tensor for name, tensor in tensors.items() if name.split(".")[0] == "out"}
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        difference = (actual[name] - tensor).abs()
        allowed = case["tolerance"]["atol"] + case["tolerance"]["rtol"] * tensor.abs()
        assert (difference <= allowed).all(), f"{name} differs by {difference.max().item()}"


def loaded(module: nn.Module, tensors: Tensors) -> nn.Module:
    """The module with exactly the `w.*` tensors."""
    weights = {name.removeprefix("w."): tensor for name, tensor in tensors.items() if name.startswith("w.")}
    module.load_state_dict(weights, strict=True)
    return module.eval()


# --- embeddings and tables ---------------------------------------------------------------------------------------


@check("timestep_embedding")
def timestep_embedding(_case: Case, tensors: Tensors) -> Tensors:
    return {f"out.{width}": layers.sinusoid(tensors["in.t"], width) for width in (256, 9)}


@check("timestep_embedder")
def timestep_embedder(_case: Case, tensors: Tensors) -> Tensors:
    return {"out": loaded(layers.ScalarEmbedder(DIM), tensors)(tensors["in.t"])}


@check("size_embedder")
def size_embedder(_case: Case, tensors: Tensors) -> Tensors:
    embedder = loaded(layers.SizeEmbedder(DIM), tensors)
    return {"out.s1_b4": embedder(tensors["in.s1"], 4), "out.s2_b2": embedder(tensors["in.s2"], 2)}


@check("caption_embedder")
def caption_embedder(_case: Case, tensors: Tensors) -> Tensors:
    embedder = loaded(layers.CaptionEmbedder(20, DIM, max_tokens=6, drop_probability=0.1), tensors)
    caption, ids = tensors["in.caption"], tensors["in.force_drop_ids"]
    out = {"out.eval": embedder(caption), "out.forced": embedder(caption, ids)}
    return {**out, "out.train_forced": embedder.train()(caption, ids)}


@check("patch_embed")
def patch_embed(case: Case, tensors: Tensors) -> Tensors:
    embed = loaded(layers.PatchEmbed(tuple(case["patch_size"]), 3, DIM), tensors)
    return {"out": embed(tensors["in.x"]).flatten(1, 2)}


def table_of(params: dict[str, Any], **options: bool) -> Tensor:
    return layers.position_table(
        params["dim"], params["h"], params["w"], scale=params["scale"], base=params["base_size"], **options
    )


@check("pos_embed_2d")
def pos_embed_2d(case: Case, _tensors: Tensors) -> Tensors:
    out = {f"out.{index}": table_of(params) for index, params in enumerate(case["params"])}
    return {**out, "out.full_rows": table_of(case["full"])[0, case["full"]["rows"]]}


@check("pos_embed_2d_bf16")
def pos_embed_2d_bf16(case: Case, tensors: Tensors) -> Tensors:
    out = table_of(case["params"], reference_rounding=True).bfloat16().float()
    # The tolerance allows one rounding of the result; on average the exact table is farther away than this one.
    exact = table_of(case["params"]).bfloat16().float()
    expected = tensors["out"]
    assert (out - expected).abs().mean() < 0.2 * (exact - expected).abs().mean()
    return {"out": out}


# --- attention ---------------------------------------------------------------------------------------------------


def rotary(tensors: Tensors, q: Tensor, *, reference_rounding: bool) -> Tensor:
    rope = loaded(layers.RotaryEmbedding(q.shape[-1]), tensors)
    formula = rope.formula("cpu").bfloat16().float() if reference_rounding else rope.formula("cpu")
    torch.testing.assert_close(formula, tensors["w.freqs"], atol=0, rtol=1e-6)
    return layers.rotate(q, *rope.tables(q.shape[-2], CPU, reference_rounding=reference_rounding))


@check("rope")
def rope(_case: Case, tensors: Tensors) -> Tensors:
    return {"out": rotary(tensors, tensors["in.q"], reference_rounding=False)}


@check("rope_bf16")
def rope_bf16(_case: Case, tensors: Tensors) -> Tensors:
    return {"out": rotary(tensors, tensors["in.q"].bfloat16(), reference_rounding=True).float()}


@check("rms_norm")
def rms_norm(_case: Case, tensors: Tensors) -> Tensors:
    return {"out": loaded(layers.RMSNorm(12), tensors)(tensors["in.x"])}


@check("attn_plain", "attn_qknorm", "attn_rope", "attn_qknorm_rope", "attn_qknorm_rope_legacy")
def self_attention(case: Case, tensors: Tensors) -> Tensors:
    attention = layers.SelfAttention(DIM, case["num_heads"], qk_norm=case["qk_norm"], rope_first=case["qk_norm_legacy"])
    loaded(attention, tensors)
    x = tensors["in.x"]
    tables = layers.RotaryEmbedding(DIM // case["num_heads"]).tables(x.shape[1], CPU) if case["rope"] else None
    over_frames = attention(x[:, :, None], TEMPORAL, tables)[:, :, 0]
    over_positions = attention(x[:, None], SPATIAL, tables)[:, 0]
    torch.testing.assert_close(over_frames, over_positions, atol=1e-6, rtol=1e-6)
    return {"out": over_frames}


@check("cross_attn")
def cross_attention(case: Case, tensors: Tensors) -> Tensors:
    attention = loaded(layers.CrossAttention(DIM, case["num_heads"]), tensors)
    text = layers.PackedText(tensors["in.y_packed"], case["lengths"])
    return {"out": attention(tensors["in.x"][:, None], text)[:, 0]}


# --- the rest of a block -----------------------------------------------------------------------------------------


@check("mlp")
def mlp(_case: Case, tensors: Tensors) -> Tensors:
    return {"out": loaded(layers.Mlp(DIM, 4 * DIM), tensors)(tensors["in.x"])}


@check("final_layer")
def final_layer(case: Case, tensors: Tensors) -> Tensors:
    layer = loaded(layers.FinalLayer(DIM, 32), tensors)
    x = tensors["in.x"].view(2, case["T"], case["S"], DIM)
    plain = layer(x, tensors["in.t"])
    masked = layer(x, tensors["in.t"], tensors["in.x_mask"], tensors["in.t0"])
    return {"out.no_mask": plain.flatten(1, 2), "out.masked": masked.flatten(1, 2)}


@check("stdit3_block_spatial", "stdit3_block_temporal")
def stdit3_block(case: Case, tensors: Tensors) -> Tensors:
    axis = SPATIAL if case["name"].endswith("spatial") else TEMPORAL
    config = STDiT3Config(hidden_size=DIM, num_heads=case["num_heads"])
    block = loaded(STDiT3Block(config, axis=axis, drop_path=0.0), tensors)
    x = tensors["in.x"].view(2, 3, 2, DIM)
    text = layers.PackedText(tensors["in.y_packed"], case["lengths"])
    tables = layers.RotaryEmbedding(DIM // case["num_heads"]).tables(3, CPU)
    plain = block(x, text, tensors["in.t"], rope=tables)
    masked = block(x, text, tensors["in.t"], tensors["in.x_mask"], tensors["in.t0"], tables)
    return {"out.no_mask": plain.flatten(1, 2), "out.masked": masked.flatten(1, 2)}


@check("pos_embed_v1")
def pos_embed_v1(case: Case, _tensors: Tensors) -> Tensors:
    places, frames = case["params"]["spatial"], case["params"]["temporal"]
    return {
        "out.spatial": layers.position_table(places["dim"], places["h"], places["w"], scale=places["scale"], base=None),
        "out.temporal": layers.frame_table(frames["dim"], frames["length"], scale=frames["scale"]),
    }


@check("stdit1_block")
def stdit1_block(case: Case, tensors: Tensors) -> Tensors:
    block = loaded(STDiTBlock(STDiTConfig(hidden_size=DIM, num_heads=case["num_heads"]), drop_path=0.0), tensors)
    given = (
        tensors["in.x"].view(2, 3, 2, DIM),
        layers.PackedText(tensors["in.y_packed"], case["lengths"]),
        tensors["in.t"],
    )
    frames = tensors["in.tpe"][0][:, None]
    out = {
        "out.no_mask_no_tpe": block(*given),
        "out.tpe": block(*given, frames=frames),
        "out.masked_tpe": block(*given, tensors["in.x_mask"], tensors["in.t0"], frames),
    }
    return {name: value.flatten(1, 2) for name, value in out.items()}


@check("stdit2_block")
def stdit2_block(case: Case, tensors: Tensors) -> Tensors:
    config = STDiT2Config(hidden_size=DIM, num_heads=case["num_heads"], qk_norm=True)
    block = loaded(STDiT2Block(config, drop_path=0.0), tensors)
    x, text = tensors["in.x"].view(2, 3, 2, DIM), layers.PackedText(tensors["in.y_packed"], case["lengths"])
    c, c0 = (tensors["in.t"], tensors["in.t_tmp"]), (tensors["in.t0"], tensors["in.t0_tmp"])
    rope = layers.RotaryEmbedding(DIM // case["num_heads"]).tables(3, CPU)
    plain = block(x, text, c, rope=rope)
    masked = block(x, text, c, tensors["in.x_mask"], c0, rope)
    return {"out.no_mask": plain.flatten(1, 2), "out.masked": masked.flatten(1, 2)}
