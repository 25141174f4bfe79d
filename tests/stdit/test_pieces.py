"""Going through the blocks piece by piece, and keeping what does not change between steps: the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sora_plugins.stdit import network as shared
from sora_plugins.stdit.network import MAX_TABLES, SPATIAL, TEMPORAL, pieces
from sora_plugins.stdit.options import STDiTOptions
from sora_plugins.stdit.stdit3 import STDiT3

# Products over fewer rows may be summed in another order: a few float32 roundings of values of size 1 to 5.
ROUNDING = {"atol": 2e-5, "rtol": 1e-5}


def set_pieces(model: STDiT3, tokens_at_once: int) -> STDiT3:
    for block in model.blocks():
        block.tokens_at_once = tokens_at_once
    return model


@pytest.mark.parametrize("axis", [SPATIAL, TEMPORAL])
@pytest.mark.parametrize("tokens_at_once", [1, 7, 24, 50, 10**6])
def test_pieces_cover_every_token_once(axis, tokens_at_once):
    batch, frames, positions = 2, 5, 6
    count = torch.zeros(batch, frames, positions, dtype=torch.int64)
    length = positions if axis == SPATIAL else frames
    for piece in pieces(batch, frames, positions, axis=axis, tokens_at_once=tokens_at_once):
        count[piece] += 1
        size = count[piece].numel()
        assert size <= max(tokens_at_once, length)
        assert count[piece].shape[axis] == length, "whole along the axis of attention"
    assert bool((count == 1).all())


@pytest.mark.parametrize("tokens_at_once", [1, 20, 40])
@pytest.mark.parametrize("with_frame_mask", [False, True])
def test_pieces_change_nothing(network, inputs, tokens_at_once, with_frame_mask):
    model, given = network(), inputs(batch=3, size=(5, 6, 8))
    if with_frame_mask:
        given["x_mask"] = torch.tensor([[True, False, True, True, False]] * 2 + [[False, True, True, True, True]])
    with torch.no_grad():
        whole = set_pieces(model, 10**6)(**given)
        cut = set_pieces(model, tokens_at_once)(**given)
    torch.testing.assert_close(cut, whole, **ROUNDING)


def test_a_block_leaves_its_input_alone(network, inputs):
    model, given = set_pieces(network(), 10), inputs()
    before: list[Tensor] = []
    after: list[Tensor] = []
    for block in model.blocks():
        block.register_forward_pre_hook(lambda _block, args: before.append(args[0].clone()) or after.append(args[0]))
    with torch.no_grad():
        model(**given)
    assert len(before) == 4
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_final_layer_in_pieces(network, inputs, monkeypatch):
    model, given = network(), inputs(size=(4, 6, 8))
    given["x_mask"] = torch.tensor([[True, False, True, True], [False, True, True, True]])
    with torch.no_grad():
        whole = model(**given)
        monkeypatch.setattr(shared, "CPU_TOKENS_AT_ONCE", 8)
        torch.testing.assert_close(model(**given), whole, **ROUNDING)


def test_gradients_pass_through_whole_blocks(network, inputs, monkeypatch):
    """With gradients nothing is cut, whatever the size."""
    model, given = network().train(), inputs()
    monkeypatch.setattr(shared, "pieces", lambda *_args, **_more: pytest.fail("cut while gradients are recorded"))
    set_pieces(model, 1)(**{**given, "mask": None}).sum().backward()
    assert model.spatial_blocks[0].attn.qkv.weight.grad.abs().max() > 0


# --- the text ----------------------------------------------------------------------------------------------------


def count_calls(module: nn.Module) -> list[int]:
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("tokens_at_once", [10, 10**6])
def test_text_encoded_once_for_all_steps(network, inputs, tokens_at_once):
    model, given = set_pieces(network(), tokens_at_once), inputs()
    y, mask = given.pop("y"), given.pop("mask")
    with torch.no_grad():
        expected = [model(y=y, mask=mask, **{**given, "timestep": given["timestep"] * share}) for share in (1, 0.5)]
        layers = [model.y_embedder, *(block.cross_attn.kv_linear for block in model.blocks())]
        calls = [count_calls(layer) for layer in layers]
        text = model.encode_text(y, mask)
        actual = [model(y=text, **{**given, "timestep": given["timestep"] * share}) for share in (1, 0.5)]
    assert [len(found) for found in calls] == [1] * len(layers)
    for ours, theirs in zip(actual, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_text_of_one_call_is_projected_once_for_all_pieces(network, inputs):
    model, given = set_pieces(network(), 10), inputs()
    calls = [count_calls(block.cross_attn.kv_linear) for block in model.blocks()]
    with torch.no_grad():
        model(**given)
    assert [len(found) for found in calls] == [1] * 4


def test_kept_text_has_gradients_when_they_are_recorded(network, inputs):
    model, given = network(), inputs()
    y, mask = given.pop("y").requires_grad_(), given.pop("mask")
    text = model.encode_text(y, mask)
    for _ in range(2):
        model(y=text, **given).sum().backward(retain_graph=True)
    assert y.grad.abs().max() > 0


def test_text_is_cut_between_samples(network, inputs):
    given = inputs()
    text = network().pack_text(given["y"], given["mask"])
    assert text[0:2] is text
    assert (text[0:1].lengths, text[1:2].lengths) == ([4], [6])
    assert torch.equal(text[1:2].tokens, text.tokens[:, 4:])
    with pytest.raises(ValueError, match="second one"):
        text[::2]


@pytest.mark.parametrize("tokens_at_once", [10, 10**6])
def test_packed_and_masked_text_are_equal(network, inputs, tokens_at_once):
    given = inputs()
    assert not given["mask"].all(), "texts of different lengths"
    with torch.no_grad():
        packed, masked = (
            set_pieces(network(STDiTOptions(cross_attention=way)), tokens_at_once)(**given)
            for way in ("packed", "masked")
        )
    torch.testing.assert_close(masked, packed, **ROUNDING)


# --- tables ------------------------------------------------------------------------------------------------------


def test_tables_are_made_once_per_size_and_few_are_kept(network, inputs, monkeypatch):
    model, made = network(), []
    make = shared.position_table
    monkeypatch.setattr(shared, "position_table", lambda *args, **more: made.append(args) or make(*args, **more))
    with torch.no_grad():
        for _ in range(2):
            model(**inputs(size=(2, 4, 6)))
        assert len(made) == 1
        model(**inputs(size=(2, 4, 8)))
        again = model(**inputs(size=(2, 4, 6)))
        assert len(made) == 2
        for width in range(2, 30):
            model(**inputs(size=(1, 2, width)))
        assert len(model._tables) <= MAX_TABLES
        assert torch.equal(model(**inputs(size=(2, 4, 6))), again)
    assert not [name for name in model.state_dict() if "table" in name and "scale_shift" not in name]


def test_other_sizes_in_pixels_are_noticed(network, inputs):
    model, given = network(), inputs()
    larger = {**given, "height": given["height"] * 2}
    with torch.no_grad():
        first, other, again = model(**given), model(**larger), model(**given)
    assert (first - other).abs().max() > 1e-4
    assert torch.equal(first, again)


def test_blocks_are_in_the_order_in_which_they_run(network, inputs):
    model, ran = network(), []
    for block in model.blocks():
        block.register_forward_hook(lambda block, *_: ran.append(block))
    with torch.no_grad():
        model(**inputs())
    assert ran == model.blocks()
    assert [block.axis for block in ran] == [SPATIAL, TEMPORAL] * 2
