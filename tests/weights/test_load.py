"""Weights into a network built on the meta device."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sora_cli.errors import SoraError
from sora_cli.weights.load import load_network, read_tensors
from sora_cli.weights.locate import LocatedWeights


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("table", torch.arange(4.0))


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> LocatedWeights:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return LocatedWeights(path.parent, (path,), "0" * 16)


def load(weights: LocatedWeights, **changes: object) -> nn.Module:
    arguments = {"what": "tiny", "device": torch.device("cpu"), "dtype": torch.float32, **changes}
    return load_network(Net, weights, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_values_arrive(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    source = Net()
    network = load(saved(tmp_path / name, source.state_dict()))
    for key, tensor in source.state_dict().items():
        assert torch.equal(network.state_dict()[key], tensor)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_parameters_get_the_dtype_and_buffers_keep_theirs(tmp_path: Path) -> None:
    network = load(saved(tmp_path / "w.safetensors", Net().state_dict()), dtype=torch.bfloat16)
    assert network.linear.weight.dtype == torch.bfloat16
    assert network.table.dtype == torch.float32


def test_a_tensor_with_two_names_stays_one(tmp_path: Path) -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right, self.other = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 2)

    weights = saved(tmp_path / "w.safetensors", Twins().state_dict())

    def map_keys(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {**tensors, "right.weight": tensors["left.weight"].view(2, 3)}

    network = load_network(
        Twins, weights, what="twins", device=torch.device("cpu"), dtype=torch.bfloat16, map_keys=map_keys
    )
    assert network.left.weight.data_ptr() == network.right.weight.data_ptr() != network.other.weight.data_ptr()


def test_keys_are_mapped(tmp_path: Path) -> None:
    released = {f"module.{key}": tensor for key, tensor in Net().state_dict().items()}
    weights = saved(tmp_path / "w.safetensors", released)
    network = load(
        weights, map_keys=lambda tensors: {key.removeprefix("module."): value for key, value in tensors.items()}
    )
    assert torch.equal(network.linear.weight, released["module.linear.weight"])


def test_report_of_what_does_not_fit(tmp_path: Path) -> None:
    tensors = {
        "linear.weight": torch.zeros(2, 4),
        "table": torch.zeros(4),
        **{f"x{i:02}": torch.zeros(1) for i in range(12)},
    }
    with pytest.raises(SoraError, match="do not fit tiny") as caught:
        load(saved(tmp_path / "w.safetensors", tensors))
    lines = (caught.value.hint or "").splitlines()
    assert lines[0] == "1 missing: linear.bias"
    assert lines[1] == "12 unexpected: " + ", ".join(f"x{i:02}" for i in range(10)) + " and 2 more"
    assert lines[2] == "1 of another shape: linear.weight is (2, 4), wanted (2, 3)"


def test_buffer_outside_the_state_dict_is_a_fault_of_the_network(tmp_path: Path) -> None:
    class Forgetful(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("angles", torch.zeros(2), persistent=False)

    weights = saved(tmp_path / "w.safetensors", Net().state_dict())
    with pytest.raises(TypeError, match="angles"):
        load_network(Forgetful, weights, what="tiny", device=torch.device("cpu"), dtype=torch.float32)


def test_shards_are_joined_and_must_not_overlap(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "1.safetensors")
    save_file({"b": torch.ones(1)}, tmp_path / "2.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "3.safetensors")
    files = [tmp_path / f"{i}.safetensors" for i in (1, 2, 3)]
    assert sorted(read_tensors(files[:2])) == ["a", "b"]
    with pytest.raises(SoraError, match="a is in more than one"):
        read_tensors(files)


class Payload:
    pass


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_damaged_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for content in (b"", b"hello\n", b"no weights, but a text of some length" * 100, b"\x80\x02]q\x00."):
        path.write_bytes(content)
        with pytest.raises(SoraError, match=f"{name}(:| is not a table)"):
            read_tensors([path])


def test_objects_in_a_pickle_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"a": Payload()}, path)
    with pytest.raises(SoraError, match=r"holds more than tensors and is not loaded: [\w.]*Payload$"):
        read_tensors([path])


def test_nested_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save({"epoch": 3, "model": {"a": torch.zeros(1)}}, path)
    with pytest.raises(SoraError, match=r"not a table of tensors \(it holds: epoch, model\)"):
        read_tensors([path])
