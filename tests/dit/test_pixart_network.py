"""What PixArt does beside the golden values: texts, sizes, number formats and training."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sora_cli.errors import SoraError
from sora_plugins.dit.options import PixArtOptions
from sora_plugins.dit.pixart import PixArt, build
from sora_plugins.dit.weights import start_pixart

ROWS, TEXT = 6, 12
SIZES = {"hidden_size": 24, "depth": 2, "num_heads": 4, "caption_channels": TEXT, "model_max_length": ROWS}


def noise(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def make(options: PixArtOptions | None = None, **changes) -> PixArt:
    torch.manual_seed(0)
    network = build({**SIZES, **changes}, options)
    with torch.no_grad():  # the initial weights give zero
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network.eval()


def given(batch: int = 2) -> dict[str, Tensor]:
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0]])[:batch]
    return {
        "x": noise(batch, 4, 1, 4, 6),
        "timestep": torch.full((batch,), 700.0),
        "y": noise(batch, 1, ROWS, TEXT, seed=2),
        "mask": mask,
    }


def run(network: PixArt, **values) -> Tensor:
    with torch.no_grad():
        return network(**values)


def test_text_projected_once_gives_the_same():
    network, values = make(), given()
    text = network.encode_text(values["y"], values["mask"])
    assert torch.equal(run(network, **values), run(network, **{**values, "y": text, "mask": None}))


def test_packed_and_masked_texts_give_the_same():
    masked = make(PixArtOptions(cross_attention="masked"))
    torch.testing.assert_close(run(make(), **given()), run(masked, **given()))


def test_samples_do_not_see_each_other():
    values = given()
    alone = {name: tensor[:1] for name, tensor in values.items()}
    torch.testing.assert_close(run(make(), **values)[:1], run(make(), **alone))


def test_one_mask_serves_all_samples():
    values = given()
    both = {**values, "mask": values["mask"][:1].repeat(2, 1)}
    assert torch.equal(run(make(), **{**values, "mask": values["mask"][:1]}), run(make(), **both))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": torch.ones(3, ROWS)}, "3 rows does not tile to a batch of 2"),
        ({"mask": torch.tensor([[1, 0, 0, 0, 0, 0], [0] * 6])}, "at least one token"),
        ({"y": noise(1, 1, ROWS, TEXT), "mask": None}, "1 captions for a batch of 2"),
        ({"x": noise(2, 4, 1, 4, 5)}, "whole patches"),
        ({"x_mask": torch.ones(2, 1, dtype=torch.bool)}, "all frames anew"),
    ],
)
def test_inputs_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        run(make(), **{**given(), **changes})


def test_no_text_repeats_its_last_row():
    network = make()
    table, null = network.y_embedder.y_embedding, network.null_text(2, ROWS + 2)
    assert null.shape == (2, 1, ROWS + 2, TEXT)
    assert torch.equal(null[1, 0, :ROWS], table)
    assert torch.equal(null[1, 0, ROWS:], table[-1:].expand(2, -1))
    assert torch.equal(network.null_text(1, 2)[0, 0], table[:2])


def test_sizes_count_where_the_network_is_told_them():
    network, values = make(has_size_conditions=True), given()
    height, width = torch.tensor([64.0]), torch.tensor([96.0])
    out = run(network, **values, height=height, width=width)
    assert torch.equal(out, run(network, **values, height=height, width=width, ar=height / width))
    assert torch.equal(out, run(network, **values, height=height.repeat(2), width=width.repeat(2)))
    assert not torch.allclose(out, run(network, **values, height=width, width=height))
    with pytest.raises(ValueError, match="height and width"):
        run(network, **values)
    plain = make()
    assert torch.equal(run(plain, **values), run(plain, **values, height=height, width=width))


def test_base_of_positions():
    assert build(SIZES).config.base(120, 32) == 61
    assert build({**SIZES, "base_size": 128}).config.base(120, 32) == 64


def test_timesteps_are_exact_in_bfloat16_unless_asked():
    exact, rounded = make().bfloat16(), make(PixArtOptions(reference_rounding=True)).bfloat16()
    at = {time: {**given(), "timestep": torch.full((2,), time)} for time in (999.0, 1000.0)}
    assert not torch.equal(run(exact, **at[999.0]), run(exact, **at[1000.0]))
    assert torch.equal(run(rounded, **at[999.0]), run(rounded, **at[1000.0]))
    assert run(exact, **at[999.0]).dtype == torch.float32
    error = (run(exact, **given()) - run(make(), **given())).norm() / run(make(), **given()).norm()
    assert 0 < error < 0.02


def test_training_drops_captions_and_reaches_every_weight():
    network = make(class_dropout_prob=1.0).train()
    values = given()
    torch.manual_seed(0)
    dropped = network(**values)
    torch.testing.assert_close(dropped, run(network.eval(), **{**values, "y": network.null_text(2, ROWS)}))
    dropped.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_branches_are_dropped_in_training_alone():
    network, values = make(drop_path=0.5, class_dropout_prob=0.0), given()
    torch.testing.assert_close(run(network, **values), run(make(), **values))
    torch.manual_seed(0)
    first = network.train()(**values)
    assert any(not torch.equal(first, network(**values)) for _ in range(8))


def test_fresh_weights_ignore_the_text_and_give_nothing():
    torch.manual_seed(0)
    network = build(SIZES)
    assert not run(network.eval(), **given()).any()
    assert not any(block.cross_attn.proj.weight.any() for block in network.blocks())


def test_configurations_that_make_no_network():
    with pytest.raises(SoraError, match=r"no configuration of a PixArt: .*divisible by 3"):
        build({**SIZES, "hidden_size": 16, "has_size_conditions": True})


def test_starting_weights():
    with_sizes = make(has_size_conditions=True).state_dict()
    start = start_pixart(with_sizes, {"model_max_length": ROWS + 3})
    assert set(start.tensors) == set(make().state_dict())
    table, given_table = start.tensors["y_embedder.y_embedding"], with_sizes["y_embedder.y_embedding"]
    assert torch.equal(table[:ROWS], given_table)
    assert torch.equal(table[ROWS:], given_table[-1:].expand(3, -1))
    without = start_pixart(make().state_dict(), {"model_max_length": ROWS, "has_size_conditions": True})
    missing = with_sizes.keys() - without.tensors.keys()
    assert missing
    assert all(name.startswith(without.initial) for name in missing)


# --- fewer keys and values, normed queries and keys (PixArt-Sigma) -------------------------------------------------


def compressed(sampling: str | None, **changes) -> PixArt:
    compress = {"sampling": sampling, "scale_factor": 2, "kv_compress_layer": [1], **changes}
    return make(kv_compress_config=compress, qk_norm=True)


def test_compression_is_for_pictures():
    values = {**given(), "x": noise(2, 4, 2, 4, 6)}
    with pytest.raises(ValueError, match="not in clips of 2 latent frames"):
        run(compressed("uniform"), **values)


@pytest.mark.parametrize(("sampling", "keys"), [("conv", 2), ("uniform", 6), ("ave", 2), ("uniform_every", 8)])
def test_fewer_keys_in_the_listed_blocks(sampling, keys):
    network, counts = compressed(sampling), []
    for block in network.blocks():
        attend = block.attn.attend
        block.attn.attend = lambda q, k, v, mask, attend=attend: counts.append(k.shape[2]) or attend(q, k, v, mask)
    run(network, **{**given(), "x": noise(2, 4, 1, 6, 10)})  # 3 x 5 tokens
    assert counts == [15, keys]


def test_compression_starts_as_the_mean_of_its_tokens():
    torch.manual_seed(0)
    compress = {"sampling": "conv", "scale_factor": 2, "kv_compress_layer": [0]}
    attention = build({**SIZES, "kv_compress_config": compress}).blocks[0].attn
    tokens = noise(1, 8, 24)
    mean = tokens.view(1, 2, 2, 2, 24).mean(dim=(1, 3))  # 2 x 4 tokens: squares of four
    torch.testing.assert_close(attention.reduce(tokens, (1, 2, 4)), attention.norm(mean))


def test_compression_needs_to_know_how():
    with pytest.raises(SoraError, match="needs as sampling one of conv"):
        compressed(None)
    assert compressed(None, scale_factor=1).state_dict().keys() == make(qk_norm=True).state_dict().keys()


def test_norms_and_compression_start_anew():
    wanted = compressed("conv").state_dict()
    start = start_pixart(make().state_dict(), {"model_max_length": ROWS})
    missing = wanted.keys() - start.tensors.keys()
    assert len(missing) == 8
    assert all(any(f".{part}" in name for part in start.initial) for name in missing)
