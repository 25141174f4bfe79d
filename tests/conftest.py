"""Every test gets its own home, caches, working folder and environment, and its own plugin manager."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from sora_cli.installation import REINSTALL, stale_entry_points

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run beside each other; several threads of each would wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

FAKES = Path(__file__).parent / "fakes"
# The only variables of the outside that tests see: where programs and libraries are, and the limits of the machine.
KEPT = (
    "PATH",
    "LD_LIBRARY_PATH",
    "SYSTEMROOT",
    "TMPDIR",
    "VIRTUAL_ENV",
    "GOLDENS_DIR",
    "OMP_NUM_THREADS",
    "PYTHONPATH",
)


@dataclass(frozen=True)
class Finished:
    """What a command did."""

    code: int
    out: str
    err: str


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background by a shell; the commands under test would ignore Ctrl-C as well.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    stale = stale_entry_points()
    if stale:
        raise pytest.UsageError(f"the installed plugins differ from pyproject.toml ({', '.join(stale)}): {REINSTALL}")


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    for name in list(os.environ):
        # Pytest's own variables change while a test runs.
        if name not in kept and not name.startswith("PYTEST_"):
            monkeypatch.delenv(name)
    settings = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_DATA_HOME": str(home / "data"),
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "COLUMNS": "100",
        "TERMINAL_WIDTH": "100",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(work)
    forget_plugins()
    yield
    forget_plugins()


def forget_plugins() -> None:
    """Let the next call look for plugins again, with a fresh console."""
    from sora_cli.console import set_console
    from sora_cli.plugin.commands import find_plugin_commands
    from sora_cli.plugin.manager import get_plugins

    get_plugins.cache_clear()
    find_plugin_commands.cache_clear()
    set_console()


@pytest.fixture
def sora(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """Run `sora` in this process: sora("plugins", "list") -> Finished."""
    from sora_cli.__main__ import main

    def run(*arguments: str, stdin: str = "") -> Finished:
        import io

        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        forget_plugins()
        capsys.readouterr()
        code = main(list(arguments))
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return run


@pytest.fixture
def sora_process() -> Callable[..., Finished]:
    """Run `sora` as a process of its own, in the environment of the test."""

    def run(*arguments: str, stdin: str = "", env: Mapping[str, str] | None = None, timeout: float = 120) -> Finished:
        finished = subprocess.run(
            [sys.executable, "-m", "sora_cli", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, **(env or {})},
            timeout=timeout,
        )
        return Finished(finished.returncode, finished.stdout, finished.stderr)

    return run


@pytest.fixture
def add_site(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Make a folder of packages visible here and in processes started from here, as if installed."""

    def add(folder: Path) -> None:
        monkeypatch.syspath_prepend(str(folder))
        paths = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
        forget_plugins()

    return add


@pytest.fixture
def fake_plugin(add_site: Callable[[Path], None]) -> None:
    """The plugin in tests/fakes: a tiny model, autoencoder, text encoder and scheduler, all called "fake"."""
    add_site(FAKES)


@pytest.fixture
def install_plugin(tmp_path: Path, add_site: Callable[[Path], None]) -> Iterator[Callable[..., str]]:
    """Install a one-module plugin: install_plugin("name", source) -> module name. command: a subcommand's name."""
    site = tmp_path / "site"
    modules: list[str] = []

    def install(name: str, source: str, *, command: str | None = None, package: str | None = None) -> str:
        package = package or f"sora-{name}"
        module = package.replace("-", "_") + "_module"
        site.mkdir(exist_ok=True)
        (site / f"{module}.py").write_text(source)
        metadata = site / f"{package.replace('-', '_')}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        entries = f"[sora]\n{name} = {module}\n"
        if command:
            entries += f"[sora.commands]\n{command} = {module}:app\n"
        (metadata / "entry_points.txt").write_text(entries)
        if not modules:
            add_site(site)
        modules.append(module)
        forget_plugins()
        return module

    yield install
    for module in modules:
        sys.modules.pop(module, None)
    shutil.rmtree(site, ignore_errors=True)


@pytest.fixture
def build_wheel(tmp_path: Path) -> Callable[[Path], Path]:
    """Build a project folder into a wheel with the tools installed here, without network."""

    def build(source: Path) -> Path:
        out = tmp_path / "wheels"
        command = [
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--skip-dependency-check",
            "--wheel",
            "-o",
            str(out),
        ]
        built = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=120)
        assert built.returncode == 0, built.stdout + built.stderr
        [wheel] = out.glob("*.whl")
        return wheel

    return build


@pytest.fixture
def fresh_environment(tmp_path: Path) -> Callable[[Path], Path]:
    """Install a wheel into a new virtual environment that sees this one's packages behind its own; gives its Python."""

    def create(wheel: Path) -> Path:
        environment = tmp_path / "environment"
        venv.create(environment, symlinks=True, with_pip=False)
        python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        scheme = "nt" if os.name == "nt" else "posix_prefix"
        site = Path(sysconfig.get_path("purelib", scheme, {"base": str(environment), "platbase": str(environment)}))
        (site / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index"]
        installed = subprocess.run([*install, str(wheel)], capture_output=True, text=True, timeout=120)
        assert installed.returncode == 0, installed.stdout + installed.stderr
        return python

    return create
