"""What DiT does beside the golden values: conditions, sizes, number formats and training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sora_cli.acceleration.attention import math, set_attention
from sora_cli.errors import SoraError
from sora_plugins.dit.dit import DiT, build
from sora_plugins.dit.weights import start_dit

SIZES = {"hidden_size": 24, "depth": 2, "num_heads": 4}
CLASSES, TEXT = 10, 12


def make(**changes) -> DiT:
    torch.manual_seed(0)
    network = build({**SIZES, "condition": f"label_{CLASSES}", **changes})
    with torch.no_grad():  # the initial weights make every block the identity
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network.eval()


def latents(*size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def test_width_and_height_count_apart():
    network = make()
    x, t, y = latents(1, 4, 1, 4, 8), torch.tensor([10.0]), torch.tensor([3])
    with torch.no_grad():
        wide, high = network(x, t, y), network(x.transpose(3, 4), t, y)
    assert wide.shape == (1, 8, 1, 4, 8)
    assert high.shape == (1, 8, 1, 8, 4)
    assert not torch.allclose(wide, high.transpose(3, 4))


def test_latents_are_whole_patches():
    with pytest.raises(ValueError, match=r"1 x 4 x 5 .* whole patches of 1 x 2 x 2"):
        make()(latents(1, 4, 1, 4, 5), torch.tensor([1.0]), torch.tensor([3]))


def test_frames_are_not_given():
    mask = torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="all frames anew"):
        make()(latents(1, 4, 1, 4, 4), torch.tensor([1.0]), torch.tensor([3]), x_mask=mask)


def test_sizes_and_rates_change_nothing():
    network, t, y = make(), torch.tensor([1.0]), torch.tensor([3])
    x, one = latents(1, 4, 1, 4, 4), torch.ones(1)
    with torch.no_grad():
        plain = network(x, t, y)
        assert torch.equal(plain, network(x, t, y, height=one, width=one, num_frames=one, fps=one, ar=one))
        with pytest.raises(TypeError, match="heigth"):
            network(x, t, y, heigth=one)


@pytest.mark.parametrize("shape", [(2,), (2, 1, 1, 1)])
def test_classes_in_every_shape(shape):
    network = make()
    x, t = latents(2, 4, 1, 4, 4), torch.full((2,), 500.0)
    with torch.no_grad():
        plain = network(x, t, torch.tensor([3, 10]))
        assert torch.equal(plain, network(x, t, torch.tensor([3.0, 10.0]).view(shape)))
        assert torch.equal(plain, network(x, t, network.encode_text(torch.tensor([3, 10]).view(shape))))


@pytest.mark.parametrize(
    ("labels", "message"),
    [([3, 11], "11 is no class: there are 0 to 9"), ([-1, 0], "-1 is no class"), ([0.5, 1], "0.5 is no class")],
)
def test_classes_that_there_are_not(labels, message):
    with pytest.raises(ValueError, match=message):
        make().encode_text(torch.tensor(labels))


def test_rounded_classes_are_refused():
    with pytest.raises(ValueError, match=r"rounded in torch\.bfloat16"):
        make().encode_text(torch.tensor([973.0]).bfloat16())


def test_no_class_is_the_last_row():
    network = make()
    assert network.null_text(2, 1).tolist() == [[[[CLASSES]]]] * 2
    with pytest.raises(ValueError, match="without guidance"):
        make(class_dropout_prob=0.0).null_text(1, 1)


@pytest.mark.parametrize("condition", [f"label_{CLASSES}", "text"])
def test_dropped_conditions_are_the_null(condition):
    network = make(condition=condition, caption_channels=TEXT)
    y = torch.tensor([1, 2]).view(2, 1, 1, 1) if condition != "text" else latents(2, 1, 1, TEXT)
    x, t = latents(2, 4, 2, 4, 4), torch.full((2,), 500.0)
    with torch.no_grad():
        dropped = network(x, t, y, drop_ids=torch.tensor([0, 1]))
        null = network(x, t, network.null_text(2, 1))
        assert torch.equal(dropped[1], null[1])
        assert torch.equal(dropped[0], network(x, t, y)[0])


@pytest.mark.parametrize("condition", [f"label_{CLASSES}", "text"])
def test_training_drops_conditions_by_the_seed(condition):
    network = make(condition=condition, caption_channels=TEXT, class_dropout_prob=0.5).train()
    y = torch.arange(8) if condition != "text" else latents(8, 1, 1, TEXT)
    x, t = latents(8, 4, 1, 4, 4), torch.full((8,), 500.0)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return network(x, t, y)

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
    run(0).square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_bfloat16_is_close_and_comes_back_in_float32():
    network, t, y = make(), torch.tensor([999.0]), torch.tensor([3])
    x = latents(1, 4, 1, 8, 8)
    with torch.no_grad():
        exact, rounded = network(x, t, y), network.bfloat16()(x, t, y)
    assert rounded.dtype == torch.float32
    error = ((rounded - exact).norm() / exact.norm()).item()
    assert 0 < error < 0.02


def test_attention_can_be_chosen_from_outside():
    network, t, y, x = make(), torch.tensor([9.0]), torch.tensor([3]), latents(1, 4, 2, 4, 4)
    calls = []

    def counted(*inputs: Tensor | None) -> Tensor:
        calls.append(inputs[0].shape)
        return math(*inputs)

    set_attention(network, counted)
    with torch.no_grad():
        network(x, t, y)
    assert calls == [(1, 4, 8, 6)] * 2, "both blocks, over the tokens of both frames"


def test_blocks_in_order():
    network = make()
    assert network.blocks() == [network.blocks[0], network.blocks[1]]
    assert "blocks.1.attn.qkv.weight" in network.state_dict()


def test_fresh_weights_give_nothing():
    """The output is zero, blocks are the identity, as the original starts (Peebles and Xie 2022)."""
    torch.manual_seed(0)
    network = build({**SIZES, "condition": "label_10"})
    with torch.no_grad():
        assert not network(latents(1, 4, 1, 4, 4), torch.tensor([1.0]), torch.tensor([3])).any()
    kept = []
    network.blocks[0].register_forward_hook(lambda _module, inputs, out: kept.append(torch.equal(inputs[0], out)))
    network(latents(1, 4, 1, 4, 4), torch.tensor([1.0]), torch.tensor([3]))
    assert kept == [True]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"condition": "label_x"}, "label_x"),
        ({"hidden_size": 25}, "divisible"),
        ({"depth": 0}, "above 0"),
        ({"patch_size": [2, 2]}, "three sizes"),
        ({"patch_size": 2}, "DiT"),
        ({"depth": "2"}, "DiT"),
    ],
)
def test_configurations_that_make_no_network(values, message):
    with pytest.raises(SoraError, match="no configuration of a DiT") as caught:
        build({**SIZES, **values})
    assert message in caught.value.message


def test_starting_weights_of_another_condition():
    """Text takes over all of a network of classes but the table of the classes."""
    classes = make().state_dict()
    start = start_dit(classes, {"condition": "text"})
    assert start.initial == ("y_embedder.",)
    assert set(start.tensors) == {name for name in classes if not name.startswith("y_embedder.")}
    assert start_dit(classes, {"condition": "label_10"}).initial == ()
    text = make(condition="text", caption_channels=TEXT).state_dict()
    assert set(start_dit(text, {"condition": "text"}).tensors) == set(text)
    assert start_dit(text, {"condition": "label_10"}).initial == ("y_embedder.",)
