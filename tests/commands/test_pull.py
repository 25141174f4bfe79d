"""`sora pull` and downloads, from a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import Hub, serve

REPO = "someone/weights"
FILES = {"config.json": b"{}", "model.safetensors": os.urandom(300_000), "README.md": b"hello", "training.pt": b"x"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as running:
        yield running


@pytest.fixture
def pull(hub: Hub, sora_process: Callable[..., Any]) -> Callable[..., Any]:
    """Run `sora pull` as a process that talks to the hub."""

    def run(*arguments: str, **environment: str) -> Any:
        settings = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", **environment}
        return sora_process("pull", *arguments, env=settings)

    return run


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_repository_is_downloaded_once(hub: Hub, pull: Callable[..., Any]) -> None:
    commit = hub.publish(REPO, FILES)
    done = pull(REPO)
    assert done.code == 0, done.err
    folder = Path(done.out.strip())
    assert files_below(folder) == {name: FILES[name] for name in ("config.json", "model.safetensors")}
    assert f"from {REPO} ({commit[:8]}" in done.err
    lock = json.loads((folder.parents[2] / "models--someone--weights.sora-lock.json").read_text())
    assert lock == {"repository": REPO, "commits": {"main": commit}}
    hub.log.clear()
    again = pull(REPO, "--json")
    assert json.loads(again.out)[0]["commit"] == commit
    assert not [entry for entry in hub.log if "/resolve/" in entry[1]], "nothing is downloaded twice"


def test_the_commit_stays_until_an_update(hub: Hub, pull: Callable[..., Any]) -> None:
    first = hub.publish(REPO, FILES)
    pull(REPO)
    second = hub.publish(REPO, {**FILES, "config.json": b'{"new": 1}'})
    assert json.loads(pull(REPO, "--json").out)[0]["commit"] == first
    updated = json.loads(pull(REPO, "--update", "--json").out)[0]
    assert updated["commit"] == second
    assert files_below(Path(updated["folder"]))["config.json"] == b'{"new": 1}'
    assert json.loads(pull(REPO, "--json").out)[0]["commit"] == second


def test_half_a_download_goes_on(hub: Hub, pull: Callable[..., Any]) -> None:
    large = bytes(24 * 2**20)  # huggingface-hub writes pieces of 10 MiB
    hub.publish(REPO, {**FILES, "model.safetensors": large})
    hub.cut_after = 15 * 2**20
    done = pull(REPO)
    if done.code != 0:  # where huggingface-hub does not go on by itself
        assert "the same command again" in done.err
        done = pull(REPO)
    assert done.code == 0, done.err
    assert files_below(Path(done.out.strip()))["model.safetensors"] == large
    ranges = [entry[2] for entry in hub.log if entry[1].endswith("model.safetensors") and entry[0] == "GET"]
    assert any(given and given == f"bytes={10 * 2**20}-" for given in ranges), ranges


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("someone/else", "there is no repository 'someone/else' on the hub, or it is private"),
        (f"{REPO}@no-such-branch", f"{REPO} has no revision 'no-such-branch'"),
        ("someone/gated", "someone/gated is only open to people who asked for access"),
        ("someone/empty", "someone/empty holds no weights at its top level"),
    ],
)
def test_what_cannot_be_had(hub: Hub, pull: Callable[..., Any], name: str, message: str) -> None:
    hub.publish(REPO, FILES)
    hub.publish("someone/gated", FILES)
    hub.publish("someone/empty", {"README.md": b""})
    hub.gated.add("someone/gated")
    done = pull(name)
    assert done.code == 3, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_no_network_and_offline(hub: Hub, pull: Callable[..., Any]) -> None:
    hub.publish(REPO, FILES)
    nowhere = pull(REPO, HF_ENDPOINT="http://127.0.0.1:9")
    assert nowhere.code == 3, nowhere.err
    assert "cannot be downloaded" in nowhere.err
    assert "Traceback" not in nowhere.err
    offline = pull(REPO, HF_HUB_OFFLINE="1")
    assert offline.code == 3
    assert "HF_HUB_OFFLINE is set" in offline.err


def test_a_model_and_its_parts(sora: Callable[..., Any]) -> None:
    rows = json.loads(sora("pull", "opensora-v1.2", "--dry-run", "--json").out)
    assert [row["repository"] for row in rows] == [
        "hpcai-tech/OpenSora-STDiT-v3",
        "hpcai-tech/OpenSora-VAE-v1.2",
        "DeepFloyd/t5-v1_1-xxl",
    ]
    assert "would be downloaded, about 4.5 GiB" in sora("pull", "opensora-v1.2", "--dry-run").out
    done = sora("pull", "nano")
    assert (done.code, done.out) == (0, "")
    assert "nano needs no download" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("opensora-v1.3",), "did you mean"),
        (("opensora-v1.2", "--variant", "4B/2"), "unknown variant"),
        (("opensora-v1.2", "--variant", "3B/2"), "no weights were released"),
    ],
)
def test_wrong_names(sora: Callable[..., Any], arguments: tuple[str, ...], message: str) -> None:
    done = sora("pull", *arguments)
    assert done.code == 2, done.err
    assert message in done.err


def test_a_name_that_several_parts_have_is_listed_once(sora: Callable[..., Any]) -> None:
    """`nano` is a model, an autoencoder and a text encoder."""
    [known] = [line for line in sora("pull", "nothing").err.splitlines() if line.startswith("  known: ")]
    assert known.replace(":", ",").split(", ").count("nano") == 1


def test_generate_finds_what_was_pulled(hub: Hub, pull: Callable[..., Any], sora: Callable[..., Any]) -> None:
    """A run finds its weights at the locked commit without asking anybody."""
    from sora_cli.plugin.specs import Weights
    from sora_cli.weights.locate import locate_weights, weights_present

    weights = Weights(repo=REPO, files=("config.json", "*.safetensors"))
    commit = hub.publish(REPO, FILES)
    assert not weights_present(weights)
    pull(REPO)
    hub.log.clear()
    assert weights_present(weights)
    located = locate_weights(weights, what="a model")
    assert located is not None
    assert located.commit == commit
    assert [path.name for path in located.files] == ["model.safetensors"]
    assert not hub.log


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "True False"),
        ({"HF_HUB_OFFLINE": "1"}, "False False"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "False False"),
    ],
)
def test_whether_weights_can_be_downloaded(hub: Hub, environment: dict[str, str], expected: str) -> None:
    hub.publish(REPO, FILES)
    script = f"from sora_cli.weights.fetch import is_offered as o; print(o({REPO!r}, 'main'), o('no/such', 'main'))"
    settings = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", **environment}
    done = subprocess.run([sys.executable, "-c", script], env=settings, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected
    assert not any(path.endswith("model.safetensors") for _, path, _ in hub.log), "nothing is downloaded"
