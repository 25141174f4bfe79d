"""plugins/README.md is right: its example is built, installed and used, its table is complete."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sora_cli.plugin import hooks
from sora_cli.plugin.kinds import KINDS
from sora_cli.plugin.specs import Spec

README = Path(__file__).parents[2] / "plugins" / "README.md"


def _example_files() -> dict[str, str]:
    """File name -> content of the blocks that follow a line with just the name."""
    text = README.read_text(encoding="utf-8")
    return dict(re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture
def example_site(tmp_path: Path, build_wheel, fresh_environment) -> Path:
    """The Python of a fresh environment into which the example was built and installed."""
    source = tmp_path / "sora-straight"
    source.mkdir()
    files = _example_files()
    assert set(files) == {"pyproject.toml", "sora_straight.py"}
    for name, content in files.items():
        (source / name).write_text(content)
    return fresh_environment(build_wheel(source))


def _run(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run([str(python), "-m", "sora_cli", *arguments], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return finished


def test_the_example_works_once_installed(example_site: Path, fake_plugin) -> None:
    listed = _run(example_site, "plugins", "list", "--json")
    rows = json.loads(listed.stdout)
    assert {(row["kind"], row["plugin"]) for row in rows if row["name"] == "straight"} == {
        ("scheduler", "straight"),
        ("command", "straight"),
    }
    assert "skipped" not in listed.stderr
    assert "Show the times of the straight scheduler." in _run(example_site, "--help").stdout
    assert _run(example_site, "straight", "--steps", "2").stdout == "[1000.0, 500.0]\n"
    made = _run(example_site, "generate", "x", "-m", "fake", "--scheduler", "straight", "-o", "x.mp4", "--threads", "1")
    assert made.stdout == "x.mp4\n"


def test_the_example_is_short() -> None:
    files = _example_files()
    assert len(files["pyproject.toml"].splitlines()) <= 20
    assert len(files["sora_straight.py"].splitlines()) <= 40


def test_the_example_scheduler_agrees_with_ours_without_guidance(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One model, one noise: the example's equal steps are those of rectified flow without a time shift."""
    torch = pytest.importorskip("torch")
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.plugin.protocols import SampleRequest, TextEmbedding

    (tmp_path / "sora_straight.py").write_text(_example_files()["sora_straight.py"])
    monkeypatch.syspath_prepend(str(tmp_path))
    import sora_straight

    def model(x, t, y, **conditioning):
        return torch.tanh(x * 0.3 + t[:, None, None, None, None] / 1000)

    noise = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    text = TextEmbedding(torch.zeros(2, 1, 4, 4), torch.ones(2, 4, dtype=torch.int64))
    request = SampleRequest(noise, text, None, 32, 32, 2, 2, 8.0)
    plugins = get_plugins()
    ours = plugins.load_target(plugins.get("scheduler", "rectified_flow"))(None)
    expected = ours.sample(model, request, steps=5, guidance=1.0)
    found = sora_straight.Straight().sample(model, request, steps=5, guidance=1.0)
    # Both are float32 Euler steps; step lengths are rounded at another place.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    sys.modules.pop("sora_straight")


def test_every_hook_and_every_field_is_in_the_table() -> None:
    text = README.read_text(encoding="utf-8")
    common = {field.name for field in dataclasses.fields(Spec)}
    for name in common:
        assert f"`{name}`" in text
    for kind in KINDS.values():
        [row] = [line for line in text.splitlines() if line.startswith(f"| `{kind.hook}()`")]
        assert f"`{kind.spec.__name__}`" in row
        for field in dataclasses.fields(kind.spec):
            if field.name not in common:
                assert f"`{field.name}`" in row, (kind.hook, field.name)


def test_every_hook_has_a_kind_and_a_sentence() -> None:
    specified = {name: hook for name, hook in vars(hooks).items() if hasattr(hook, f"{hooks.PROJECT}_spec")}
    assert set(specified) == {kind.hook for kind in KINDS.values()}
    assert all(hook.__doc__ for hook in specified.values())
