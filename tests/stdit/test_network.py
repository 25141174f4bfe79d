"""Properties of STDiT3 that hold for any weights; the exact numbers are in tests/goldens."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from sora_cli.errors import SoraError
from sora_plugins.stdit.config import STDiT3Config
from sora_plugins.stdit.options import STDiTOptions
from sora_plugins.stdit.stdit3 import build

# Sums in another order differ by a few float32 roundings of values of size 1 to 5.
ROUNDING = {"atol": 2e-5, "rtol": 1e-5}


def record(module: torch.nn.Module) -> list[torch.Tensor]:
    """A list that gets the output of every later call of the module."""
    outputs: list[torch.Tensor] = []
    module.register_forward_hook(lambda _module, _args, out: outputs.append(out))
    return outputs


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 6, 8), (4, 5, 7), (3, 3, 10), (2, 1, 9)])
def test_any_size(network, inputs, size):
    with torch.no_grad():
        out = network()(**inputs(size=size))
    assert out.shape == (2, 8, *size)
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert out.std() > 0.1


def test_odd_sides_are_padded_with_zeros_and_cut(network, inputs):
    model, given = network(), inputs(size=(3, 5, 7))
    padded = {**given, "x": F.pad(given["x"], (0, 1, 0, 1))}
    with torch.no_grad():
        torch.testing.assert_close(model(**given), model(**padded)[..., :5, :7], rtol=0, atol=0)


def test_time_is_padded_to_whole_patches(network, inputs):
    model, given = network(patch_size=(2, 2, 2)), inputs(size=(3, 4, 6))
    padded = {**given, "x": F.pad(given["x"], (0, 0, 0, 0, 0, 1))}
    with torch.no_grad():
        torch.testing.assert_close(model(**given), model(**padded)[:, :, :3], rtol=0, atol=0)


def test_order_of_frames_and_positions_matters(network, inputs):
    """Without position codes a transformer commutes with permutations; here flipping an axis changes the result."""
    model, given = network(), inputs()
    with torch.no_grad():
        out = model(**given)
        for axis in (2, 3, 4):
            flipped = model(**{**given, "x": given["x"].flip(axis)}).flip(axis)
            assert (flipped - out).abs().max() > 0.01


# --- batches -----------------------------------------------------------------------------------------------------


def test_batch_of_two_equals_two_singles(network, inputs):
    model, given = network(), inputs()
    with torch.no_grad():
        together = model(**given)
        alone = torch.cat([model(**{name: value[i : i + 1] for name, value in given.items()}) for i in range(2)])
    torch.testing.assert_close(together, alone, **ROUNDING)


def test_scalars_and_text_mask_tile_in_blocks(network, inputs):
    """n rows of mask and fps for 2n rows of x are repeated as 0, 1, 0, 1: guidance stacks text and no text."""
    model, given = network(), inputs()
    given["fps"] = torch.tensor([8.0, 30.0])
    doubled = {name: torch.cat([given[name], given[name].flip(0)]) for name in ("x", "timestep", "y")}
    short = {**given, **doubled}
    long = {name: torch.cat([value, value]) for name, value in given.items()} | doubled
    with torch.no_grad():
        torch.testing.assert_close(model(**short), model(**long), rtol=0, atol=0)
        swapped = model(**{**short, "fps": given["fps"].flip(0)})
    assert (swapped - model(**short)).abs().max() > 1e-3


# --- frames given as condition -----------------------------------------------------------------------------------


def test_nothing_given_equals_no_frame_mask(network, inputs):
    model, given = network(), inputs()
    with torch.no_grad():
        torch.testing.assert_close(
            model(**given, x_mask=torch.ones(2, 3, dtype=torch.bool)), model(**given), rtol=0, atol=0
        )


def test_given_frames_pass_the_blocks_as_timestep_zero(network, inputs):
    model, given = network(), inputs()
    last = record(model.temporal_blocks[-1])
    with torch.no_grad():
        model(**given, x_mask=torch.zeros(2, 3, dtype=torch.bool))
        model(**{**given, "timestep": torch.zeros(2)})
        model(**given)
    torch.testing.assert_close(last[0], last[1], rtol=0, atol=0)
    assert (last[2] - last[1]).abs().max() > 0.01


def test_frame_mask_acts_per_frame(network, inputs):
    """A spatial block does not mix frames, so each frame is that of a run with one timestep everywhere."""
    model, given = network(), inputs()
    first = record(model.spatial_blocks[0])
    x_mask = torch.tensor([[False, True, True], [True, True, False]])
    with torch.no_grad():
        model(**given, x_mask=x_mask)
        model(**given)
        model(**{**given, "timestep": torch.zeros(2)})
    mixed, generated, clean = first
    assert torch.equal(mixed[x_mask], generated[x_mask])
    assert torch.equal(mixed[~x_mask], clean[~x_mask])


# --- text --------------------------------------------------------------------------------------------------------


def test_only_tokens_of_the_mask_are_seen(network, inputs):
    model, given = network(), inputs()
    given["mask"] = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1]])
    changed = {**given, "y": torch.where(given["mask"][:, None, :, None] == 0, given["y"] + 5, given["y"])}
    with torch.no_grad():
        out = model(**given)
        torch.testing.assert_close(model(**changed), out, rtol=0, atol=0)
        assert (model(**{**given, "mask": None}) - out).abs().max() > 1e-3


def test_text_encoded_once_gives_the_same_video(network, inputs):
    model, packed_model, given = network(), network(skip_y_embedder=True), inputs()
    with torch.no_grad():
        text = model.pack_text(given["y"], given["mask"])
        packed = {**given, "y": text.tokens, "mask": torch.tensor(text.lengths)}
        torch.testing.assert_close(packed_model(**packed), model(**given), rtol=0, atol=0)
    assert text.lengths == [4, 6]
    assert text.tokens.shape == (1, 10, 48)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": torch.ones(3, 6, dtype=torch.long)}, "3 rows"),
        ({"mask": torch.zeros(2, 6, dtype=torch.long)}, "at least one token"),
        ({"y": torch.zeros(1, 1, 6, 20), "mask": None}, "1 captions for a batch of 2"),
        ({"fps": torch.ones(3)}, "3 size rows"),
        ({"drop_ids": torch.ones(2), "y": torch.zeros(2, 1, 5, 20), "mask": None}, "captions of 5 tokens"),
    ],
)
def test_rows_that_do_not_fit_are_refused(network, inputs, changes, message):
    with pytest.raises(ValueError, match=message), torch.no_grad():
        network()(**{**inputs(), **changes})


def test_packed_text_needs_lengths(network, inputs):
    model = network(skip_y_embedder=True)
    with pytest.raises(ValueError, match="lengths"):
        model(**{**inputs(), "y": torch.zeros(1, 10, 48), "mask": None})
    with pytest.raises(ValueError, match="10 packed tokens but lengths add up to 9"):
        model(**{**inputs(), "y": torch.zeros(1, 10, 48), "mask": torch.tensor([4, 5])})


# --- training ----------------------------------------------------------------------------------------------------


def test_captions_are_dropped_in_training_only(network, inputs):
    model, given = network(class_dropout_prob=1.0), inputs()
    with torch.no_grad():
        kept = model(**given)
        null = model(**{**given, "y": model.null_text(2, 6)})
        dropped = model.train()(**given)
        text = model.encode_text(given["y"], given["mask"])
        torch.testing.assert_close(model(**{**given, "y": text, "mask": None}), kept, msg="text made before is kept")
    torch.testing.assert_close(dropped, null, rtol=0, atol=0)
    assert (dropped - kept).abs().max() > 0.01


def test_caption_drop_rate(network):
    embedder = network(class_dropout_prob=0.1).y_embedder
    assert embedder.draw_drop_ids(4) is None
    embedder.train()
    torch.manual_seed(0)
    y = torch.full((2000, 1, 6, 20), 7.0)
    rate = (embedder.drop(y, embedder.draw_drop_ids(len(y))) != 7.0).flatten(1).all(dim=1).float().mean().item()
    # standard deviation of the mean: sqrt(0.1 * 0.9 / 2000) = 0.0067
    assert abs(rate - 0.1) < 0.027


def test_drop_path_keeps_the_mean(network):
    drop = network(drop_path=0.5).spatial_blocks[1].drop_path.train()
    torch.manual_seed(0)
    out = drop(torch.ones(4000, 2, 3))
    values = out.flatten(1)
    assert torch.equal(values, values[:, :1].expand(-1, 6)), "a sample is dropped whole"
    assert sorted(values[:, 0].unique().tolist()) == [0.0, 2.0]
    assert abs(values.mean().item() - 1) < 0.064  # four standard deviations of 1 / sqrt(4000)
    assert torch.equal(drop.eval()(torch.ones(3, 2)), torch.ones(3, 2))


def test_drop_path_rates_grow_linearly(network):
    model = network(depth=5, drop_path=0.2)
    for blocks in (model.spatial_blocks, model.temporal_blocks):
        assert [block.drop_path.rate for block in blocks] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert network(depth=1, drop_path=0.2).spatial_blocks[0].drop_path.rate == 0


# --- number formats ----------------------------------------------------------------------------------------------


def test_rotary_angles_do_not_depend_on_the_number_format(network):
    model = network()
    exact = model.rope.tables(120, torch.device("cpu"))
    cast = model.bfloat16().rope.tables(120, torch.device("cpu"))
    assert all(table.dtype == torch.float32 for table in cast)
    assert torch.equal(exact[0], cast[0])
    assert torch.equal(exact[1], cast[1])


@pytest.mark.parametrize(("reference_rounding", "same"), [(False, False), (True, True)])
def test_timesteps_are_rounded_on_request_only(network, inputs, reference_rounding, same):
    """998 and 1000 are neighbours less than one bfloat16 spacing (4) apart."""
    model = network(STDiTOptions(reference_rounding=reference_rounding)).bfloat16()
    given = inputs()
    embeddings = record(model.t_embedder)
    with torch.no_grad():
        for time in (999.0, 1000.0):
            model(**{**given, "timestep": torch.full((2,), time)})
    assert torch.equal(embeddings[0], embeddings[1]) is same


def test_reference_rounding_changes_positions(network, inputs):
    """Times, sizes and frame rate are exact in bfloat16 here, so only the position codes differ."""
    given = inputs(size=(4, 6, 8))
    given |= {"timestep": torch.tensor([500.0, 128.0]), "height": torch.full((2,), 480.0)}
    given["width"] = torch.full((2,), 848.0)
    plain, rounded = network(), network(STDiTOptions(reference_rounding=True))
    with torch.no_grad():
        difference = (plain(**given) - rounded(**given)).abs().max()
    assert 1e-3 < difference < 0.2


# --- configuration -----------------------------------------------------------------------------------------------


def test_released_config_json_is_read():
    """The keys of the published v1.2 file, among them some that describe software (spec stdit.md 1.2)."""
    released = {
        "architectures": ["STDiT3"],
        "caption_channels": 4096,
        "class_dropout_prob": 0.1,
        "depth": 28,
        "drop_path": 0.0,
        "enable_flash_attn": False,
        "enable_layernorm_kernel": False,
        "enable_sequence_parallelism": False,
        "freeze_y_embedder": True,
        "hidden_size": 1152,
        "in_channels": 4,
        "input_size": [None, None, None],
        "input_sq_size": 512,
        "mlp_ratio": 4.0,
        "model_max_length": 300,
        "model_type": "STDiT3",
        "num_heads": 16,
        "only_train_temporal": False,
        "patch_size": [1, 2, 2],
        "pred_sigma": True,
        "qk_norm": True,
        "skip_y_embedder": False,
        "torch_dtype": "float32",
        "transformers_version": "4.38.2",
    }
    assert STDiT3Config.from_mapping(released) == STDiT3Config()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 50}, "divisible by num_heads"),
        ({"hidden_size": 12, "num_heads": 4}, "head width 3"),
        ({"depth": "28"}, "depth '28'"),
        ({"depth": 0, "qk_norm": 1}, "depth 0, qk_norm 1"),
        ({"patch_size": [2, 2]}, r"patch_size \(2, 2\)"),
        ({"mlp_ratio": None}, "mlp_ratio None"),
        ({"model_type": "STDiT2"}, "a network called 'STDiT2', not of STDiT3"),
    ],
)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(SoraError, match=message) as caught:
        build(changes)
    assert "config.json" in caught.value.hint


def test_unknown_option_is_refused():
    with pytest.raises(ValueError, match="reference_roundin"):
        STDiTOptions(**{"reference_roundin": True})
