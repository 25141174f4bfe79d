"""Weights from a web server, which is one on this machine: checked, kept, gone on with."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub, serve

from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.plugin.specs import Weights
from sora_cli.weights import fetch_url
from sora_cli.weights.locate import LocatedWeights, locate_parts, locate_weights, weights_present

CONTENT = os.urandom(3 * 2**20)
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
OPTION = "--metric-weights net=FILE"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with serve() as running:
        running.publish("some/files", {NAME: CONTENT})
        yield running


def on_server(hub: Hub, name: str = NAME, **more: tuple[str, ...]) -> Weights:
    return Weights(url=f"{hub.url}/some/files/resolve/main", files=(name,), size_gib=0.5, **more)


def locate(weights: Weights, **more: bool) -> LocatedWeights:
    located = locate_weights(weights, what="a measure", option=OPTION, **more)
    assert located is not None
    return located


def test_a_file_is_downloaded_once(hub: Hub) -> None:
    weights = on_server(hub)
    assert not weights_present(weights)
    located = locate(weights)
    assert [path.read_bytes() for path in located.files] == [CONTENT]
    assert located.files[0].is_relative_to(Path(os.environ["HF_HOME"]) / "hub" / "sora-urls")
    assert not list(located.folder.glob("*.part"))
    assert weights_present(weights)
    hub.log.clear()
    assert locate(weights) == located
    assert not hub.log


def test_half_a_download_goes_on(hub: Hub) -> None:
    weights = on_server(hub)
    hub.cut_after = 2 * 2**20
    with pytest.raises(MissingError, match="cannot be downloaded") as caught:
        locate(weights)
    assert "goes on where it stopped" in str(caught.value.hint)
    assert locate(weights).files[0].read_bytes() == CONTENT
    assert [entry[2] for entry in hub.log] == [None, f"bytes={2 * 2**20}-"]


@pytest.mark.parametrize("left", [CONTENT[:100], b"x" * 100, CONTENT, CONTENT + b"more"], ids=len)
def test_whatever_was_left_over_is_checked(hub: Hub, left: bytes) -> None:
    weights = on_server(hub)
    part = fetch_url.cached_path(weights, NAME)
    part.parent.mkdir(parents=True)
    part.with_name(NAME + ".part").write_bytes(left)
    assert locate(weights).files[0].read_bytes() == CONTENT


def test_a_wrong_file_is_refused(hub: Hub) -> None:
    hub.publish("some/files", {"net-00000000.pth": CONTENT, "net.pth": CONTENT})
    digits = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(SoraError, match=f"SHA-256 starts with {digits[:8]}, not 00000000"):
        locate(on_server(hub, "net-00000000.pth"))
    assert not weights_present(on_server(hub, "net-00000000.pth"))
    assert locate(on_server(hub, "net.pth", sha256=(digits,))).files[0].read_bytes() == CONTENT
    with pytest.raises(ValueError, match=r"no SHA-256 is known for other\.pth"):
        locate(on_server(hub, "other.pth"))


def test_what_cannot_be_had(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingError, match="404"):
        locate(on_server(hub, "absent-12345678.pth"))
    weights = on_server(hub)
    with pytest.raises(MissingError, match=r"would be downloaded from http.*about 0\.5 GiB: net-"):
        locate(weights, download=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.log.clear()
    with pytest.raises(MissingError, match=f"a measure needs {NAME}, which is not here, and HF_HUB_OFFLINE") as caught:
        locate(weights)
    assert caught.value.exit_code == 3
    assert caught.value.hint == f"download {weights.url}/{NAME} yourself, and give it with {OPTION}"
    assert not hub.log


def test_a_full_disk(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = fetch_url.shutil.disk_usage(".")
    monkeypatch.setattr(fetch_url.shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    with pytest.raises(SoraError, match=r"has 0\.0 GiB left"):
        locate(on_server(hub))


def test_files_that_only_people_can_get() -> None:
    weights = Weights(files=("flow.pytorch",), by_hand="https://example.org/flow")
    assert not weights_present(weights)
    with pytest.raises(MissingError, match=r"a measure needs flow\.pytorch, which cannot be downloaded") as caught:
        locate(weights)
    assert caught.value.hint == f"get it from https://example.org/flow\nand give it with {OPTION}"


def test_parts_and_those_of_the_user(hub: Hub, tmp_path: Path) -> None:
    parts = {"net": on_server(hub), "flow": Weights(files=("flow.pytorch",), by_hand="https://example.org/flow")}
    own = tmp_path / "flow.pytorch"
    own.write_bytes(b"flow")
    overrides = {"flow": str(own), "other": "left alone"}
    found = locate_parts(parts, what="a measure", overrides=overrides, option="--metric-weights")
    assert {part: located.files[0].name for part, located in found.items()} == {"net": NAME, "flow": "flow.pytorch"}
    with pytest.raises(MissingError, match=r"a measure \(flow\)") as caught:
        locate_parts(parts, what="a measure", overrides={}, option="--metric-weights")
    assert "--metric-weights flow=FILE" in str(caught.value.hint)
    with pytest.raises(UsageError, match=r"no weights for a measure \(net\) at absent"):
        locate_parts(parts, what="a measure", overrides={"net": "absent.pth"}, option="--metric-weights")
