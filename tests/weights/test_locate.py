"""Finding weights and telling them apart."""

import json
import sys
from pathlib import Path

import pytest

from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.plugin.specs import Weights
from sora_cli.weights import locate
from sora_cli.weights.locate import fingerprint, locate_weights


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "weights_of_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "model.safetensors").write_bytes(b"model")
    (folder / "table.safetensors").write_bytes(b"table")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop(folder.name, None)
    return folder.name


def test_inside_a_package(package: str) -> None:
    weights = Weights(package=package, files=("table.safetensors", "model.safetensors"))
    located = locate_weights(weights, what="tiny")
    assert located is not None
    assert [path.read_bytes() for path in located.files] == [b"table", b"model"]
    assert located.folder == located.files[0].parent
    assert len(located.fingerprint) == 16


def test_nothing_to_find() -> None:
    assert locate_weights(None, what="tiny") is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (Weights(package="no_such_package_here", files=("a",)), "not installed"),
        (Weights(package="sora_cli", files=("absent.safetensors",)), "missing from sora_cli: absent.safetensors"),
        (Weights(repo="someone/model", files=("a",), size_gib=2.5), "downloaded from someone/model, about 2.5 GiB"),
    ],
)
def test_missing(weights: Weights, message: str) -> None:
    with pytest.raises(MissingError, match=message) as caught:
        locate_weights(weights, what="tiny", download=False)
    assert caught.value.exit_code == 3


def test_override_by_file_or_folder(tmp_path: Path) -> None:
    parts = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for name in (*reversed(parts), "c.pt", "notes.txt"):
        (tmp_path / name).write_bytes(name.encode())
    by_folder = locate_weights(None, what="tiny", override=str(tmp_path))
    by_file = locate_weights(None, what="tiny", override=str(tmp_path / "c.pt"))
    assert by_folder is not None
    assert by_file is not None
    assert [path.name for path in by_folder.files] == parts
    assert [path.name for path in by_file.files] == ["c.pt"]


def test_a_whole_checkpoint_is_taken_before_other_files(tmp_path: Path) -> None:
    for name in ("model.safetensors", "other.safetensors", "optimizer.pt"):
        (tmp_path / name).write_bytes(name.encode())
    located = locate_weights(None, what="tiny", override=str(tmp_path))
    assert located is not None
    assert [path.name for path in located.files] == ["model.safetensors"]
    (tmp_path / "model.safetensors").rename(tmp_path / "first.safetensors")
    with pytest.raises(UsageError, match=r"several weights files: first\.safetensors, other\.safetensors"):
        locate_weights(None, what="tiny", override=str(tmp_path))


def test_shards_are_those_of_the_index(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "x-1.bin", "b": "x-2.bin", "c": "x-1.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (tmp_path / "x-1.bin").write_bytes(b"1")
    (tmp_path / "stray.bin").write_bytes(b"3")
    with pytest.raises(UsageError, match=r"lacks parts of the checkpoint: x-2\.bin"):
        locate_weights(None, what="tiny", override=str(tmp_path))
    (tmp_path / "x-2.bin").write_bytes(b"2")
    located = locate_weights(None, what="tiny", override=str(tmp_path))
    assert located is not None
    assert [path.name for path in located.files] == ["x-1.bin", "x-2.bin"]


def test_the_configuration_beside_the_weights_counts(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"model")
    without = locate_weights(None, what="tiny", override=str(tmp_path))
    (tmp_path / "config.json").write_text('{"depth": 2}')
    located = locate_weights(None, what="tiny", override=str(tmp_path))
    assert without is not None
    assert located is not None
    assert located.fingerprint != without.fingerprint
    assert located.config() == {"depth": 2}
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SoraError, match="cannot read"):
        located.config()


@pytest.mark.parametrize(
    ("name", "message"), [("absent", "no weights for tiny at"), ("notes.txt", "is no weights file")]
)
def test_wrong_override(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UsageError, match=message):
        locate_weights(None, what="tiny", override=str(tmp_path / name))


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no weights"):
        locate_weights(None, what="tiny", override=str(tmp_path))


@pytest.mark.parametrize("limit", [2**28, 100], ids=["whole", "sampled"])
def test_fingerprint_sees_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(locate, "WHOLE_HASH_BYTES", limit)
    path = tmp_path / "w.safetensors"
    path.write_bytes(bytes(200_000))
    before = fingerprint([path])
    assert fingerprint([path]) == before
    path.write_bytes(bytes(199_999) + b"x")
    assert fingerprint([path]) != before


def test_a_folder_that_is_not_there_may_have_been_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """`outputs/run` could be a repository of the hub too."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingError) as caught:
        locate_weights(None, what="tiny", override="outputs/run", download=False)
    assert "no file or folder here is called outputs/run" in caught.value.hint
    assert "sora pull" in caught.value.hint
