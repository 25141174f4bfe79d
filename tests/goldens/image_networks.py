"""What the golden topics of the image-family networks have in common: their cases, and how a case is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from loader import cases, goldens_dir, load_tensors, read
from torch import Tensor, nn

from sora_cli.plugin.protocols import SampleRequest, TextEmbedding
from sora_cli.weights.load import read_tensors
from sora_plugins.dit.layers import frame_table, plane_table
from sora_plugins.iddpm.iddpm import Iddpm
from sora_plugins.stdit.layers import sinusoid

Case = dict[str, Any]
Build = Callable[[Case], nn.Module]
CPU = torch.device("cpu")


def of_topic(topic: str, *operations: str) -> list[Any]:
    """The cases of all files of a topic with these operations, with the name of their file as "group"."""
    files = sorted((goldens_dir() / topic).glob("*.json"))
    if not files:
        return cases(topic, "convert")  # says that it is absent
    parameters = [(file.stem, parameter) for file in files for parameter in cases(topic, file.stem)]
    return [
        pytest.param({**parameter.values[0], "group": group}, id=parameter.id, marks=parameter.marks)
        for group, parameter in parameters
        if parameter.values[0]["op"] in operations
    ]


def tensors_of(topic: str, case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and expected values of a case."""
    tensors = load_tensors(topic, read(topic, case["group"])["tensors"])
    return tuple({name: tensors[key] for name, key in case[part].items()} for part in ("inputs", "expected"))


def load_network(topic: str, case: Case, build: Build) -> nn.Module:
    """The network of a case, strictly with its tensors, in evaluation mode."""
    about = read(topic, case["group"])
    torch.manual_seed(0)
    network = build(about["config"])
    expected = {key: shape for key, shape in about["state_dict"].items() if key not in about["computed_buffers"]}
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == expected
    network.load_state_dict(load_tensors(topic, about["weights"]), strict=True)
    return network.eval()


def close(case: Case, actual: Tensor, expected: Tensor, what: str = "") -> None:
    torch.testing.assert_close(
        actual, expected, atol=case["atol"], rtol=case["rtol"], msg=lambda message: f"{what}: {message}"
    )


def arguments(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inputs of a case as arguments of a network here."""
    renamed = {"timestep" if name == "t" else name: tensor for name, tensor in given.items()}
    if "hw" in renamed:
        renamed["height"], renamed["width"] = renamed.pop("hw").unbind(1)
        renamed["ar"] = renamed["ar"][:, 0]
    return renamed


def flat(name: str, value: Tensor, frames_apart: int | None) -> Tensor:
    """Our (B, T, S, D) in the layout of the golden. frames_apart: the axis that a block of Latte attends along."""
    if value.dim() != 4 or name == "y_embedder":
        return value
    if frames_apart is not None:
        return (value if frames_apart == 2 else value.transpose(1, 2)).flatten(0, 1)
    return value.flatten(1, 2)


def check_forward(topic: str, case: Case, build: Build, axes: Callable[[int], int] | None = None) -> None:
    """The output, and the outputs of the modules inside. axes: index of a block -> axis that it attends along."""
    given, expected = tensors_of(topic, case)
    network = load_network(topic, case, build)
    seen: dict[str, Tensor] = {}
    modules = dict(network.named_modules())
    for name in {key.removeprefix("inter/") for key in expected} - {"output"}:
        inner = modules[name.replace("block", "blocks.") if name.startswith("block") else name]
        inner.register_forward_hook(lambda _module, _inputs, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        out = network(**arguments(given))
    close(case, out, expected.pop("output"), "output")
    for key, value in expected.items():
        name = key.removeprefix("inter/")
        axis = axes(int(name.removeprefix("block"))) if axes and name.startswith("block") else None
        close(case, flat(name, seen[name], axis).reshape(value.shape), value, name)


class WithSizes:
    """A network that sees the picture sizes of a case, one per sample, where a sampler gives one for all."""

    def __init__(self, network: nn.Module, given: dict[str, Tensor]) -> None:
        self.network = network
        self.encode_text = network.encode_text
        self.sizes = {name: value for name, value in arguments(given).items() if name in ("height", "width", "ar")}

    def __call__(self, *inputs: Tensor, **info: Any) -> Tensor:
        return self.network(*inputs, **{**info, **self.sizes})


def check_guidance(topic: str, case: Case, build: Build) -> None:
    """Guided as the sampler does it: the text and "no text" in one call."""
    given, expected = tensors_of(topic, case)
    network = load_network(topic, case, build)
    count = len(given["y_cond"])
    mask = given.get("mask", torch.ones(count, given["y_cond"].shape[2] if given["y_cond"].dim() == 4 else 1))
    request = SampleRequest(
        noise=given["x"][:count],
        text=TextEmbedding(given["y_cond"], mask),
        null_embeddings=given["y_null"],
        num_frames=1,
        latent_frames=1,
        height=64,
        width=64,
        fps=24,
    )
    options = {"cfg_channel": case["params"].get("cfg_channel")}
    guided = Iddpm(options)._guided(WithSizes(network, given), request, case["params"]["cfg_scale"])
    with torch.no_grad():
        out = guided(request.noise, given["t"][:1], None)
    if case["op"] == "guidance_dpm":
        close(case, out.chunk(2, dim=1)[0], expected["guided"])
        return
    first, second = expected["output"].chunk(2)
    close(case, out, first)
    channels = case["params"].get("cfg_channel") or network.config.in_channels
    close(case, out[:, :channels], second[:, :channels])  # the reference has them twice


def check_positions(topic: str, case: Case, build: Build) -> None:
    """The tables that the reference keeps in its buffers."""
    about, (_, expected) = read(topic, case["group"]), tensors_of(topic, case)
    config = build(about["config"]).config
    size = zip(about["config"]["input_size"], config.patch_size, strict=True)
    frames, rows, columns = (extent // side for extent, side in size)
    plane, over_time = expected.keys()
    scale = getattr(config, "space_scale", 1.0)
    base = config.base(rows, columns) if hasattr(config, "base") else None
    close(
        case, plane_table(config.hidden_size, rows, columns, scale=scale, base=base, device=CPU)[None], expected[plane]
    )
    scale = getattr(config, "time_scale", 1.0)
    close(case, frame_table(config.hidden_size, frames, scale=scale, device=CPU)[None], expected[over_time])


def check_timesteps(topic: str, case: Case) -> None:
    given, expected = tensors_of(topic, case)
    close(case, sinusoid(given["t"], case["params"]["dim"]), expected["embedding"])


def check_null(topic: str, case: Case, build: Build) -> None:
    _, expected = tensors_of(topic, case)
    network = load_network(topic, case, build)
    null = network.null_text(case["params"]["n"], expected["y_null"].shape[2])
    assert torch.equal(null, expected["y_null"])


def check_convert(
    topic: str, case: Case, convert: Callable[[dict[str, Tensor], int], dict[str, Tensor]], folder: Path
) -> None:
    """A file with these tensors is read and comes out as the reference makes it, whatever it is called."""
    given, expected = tensors_of(topic, case)
    container = case["params"]["container"]
    torch.save({container: given} if container else given, folder / "renamed.pt")
    rows = case["params"].get("y_rows_model", 5)
    converted = convert(read_tensors([folder / "renamed.pt"]), rows)
    expected.pop("pos_embed_spatial", None)  # which the case allows to be left out
    assert converted.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(converted[name], tensor), name
