"""The wheel holds the core, the plugins, the presets and nano's weights, and its `sora` works outside the checkout."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WEIGHTS_LIMIT = 30_000_000  # bytes


@pytest.fixture
def wheel(build_wheel) -> Path:
    return build_wheel(ROOT)


def test_the_wheel_is_complete_and_works(wheel: Path, fresh_environment) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    for source, inside in (("src/sora_cli", "sora_cli"), ("plugins/sora_plugins", "sora_plugins")):
        files = [path for path in (ROOT / source).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        missing = [path for path in files if f"{inside}/{path.relative_to(ROOT / source)}" not in sizes]
        assert not missing
    presets = list((ROOT / "presets").rglob("*.yaml"))
    assert presets
    assert all(f"sora_cli/_presets/{path.relative_to(ROOT / 'presets')}" in sizes for path in presets)
    assert not [name for name in sizes if name.startswith("tests/")]
    weights = {name: size for name, size in sizes.items() if name.startswith("sora_plugins/nano/weights/")}
    assert sum(weights.values()) <= WEIGHTS_LIMIT

    python = fresh_environment(wheel)
    where = subprocess.run(
        [str(python), "-c", "import sora_cli, sora_plugins; print(sora_cli.__file__, sora_plugins.__file__)"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert where.stdout.count("environment") == 2, where
    script = python.parent / "sora"
    shown = subprocess.run([str(script), "presets", "list", "--json"], capture_output=True, text=True, timeout=60)
    assert {"nano", "fast"} <= {row["name"] for row in json.loads(shown.stdout)}, shown.stderr
    made = subprocess.run(
        [str(script), "generate", "a waterfall", "--frames", "1", "--steps", "1", "--threads", "1", "-o", "w.png"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (made.returncode, made.stdout) == (0, "w.png\n"), made.stderr
    assert Path("w.png").stat().st_size > 1000


def test_every_extra_that_an_error_advises_exists() -> None:
    from importlib.metadata import metadata

    from sora_cli.acceleration.attention import _NEEDS
    from sora_cli.plugin.kinds import KINDS
    from sora_cli.plugin.manager import get_plugins

    declared = set(metadata("sora-cli").get_all("Provides-Extra") or ())
    specs = [spec for kind in KINDS for spec in get_plugins().specs(kind).values()]
    advised = {extra for _, extra in _NEEDS.values()} | {spec.extra for spec in specs if spec.extra}
    assert {"flash", "xformers"} <= advised <= declared
