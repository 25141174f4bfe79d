"""Whether the installed entry points are those of the checkout this code runs from.

Entry points are frozen when a package is installed: after a plugin was added to pyproject.toml an editable
installation does not know it until `pip install -e .` has run again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

REINSTALL = "run `pip install -e .` again in the checkout"

_SECTION = re.compile(r'^\[project\.entry-points\.(?:"([^"]+)"|([\w-]+))\]$')
_ENTRY = re.compile(r'^"?([\w.-]+)"?\s*=\s*"([^"]+)"$')


def checkout_folder() -> Path | None:
    """The checkout this code runs from, or None when it runs from an installed wheel."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "src" / "sora_cli").is_dir() else None


def stale_entry_points(folder: Path | None = None) -> list[str]:
    """Entry points that differ between pyproject.toml and the installation, as "group: name"; [] when in order.

    folder: the checkout; found by itself when None. Without a checkout nothing can be stale.
    """
    folder = checkout_folder() if folder is None else folder
    if folder is None:
        return []
    wanted = set(_declared(folder / "pyproject.toml"))
    try:
        installed = {
            (point.group, point.name, point.value)
            for point in distribution("sora-cli").entry_points
            if point.group != "console_scripts"
        }
    except PackageNotFoundError:
        installed = set()
    return sorted({f"{group}: {name}" for group, name, _ in wanted ^ installed})


def _declared(pyproject: Path) -> Iterator[tuple[str, str, str]]:
    # Read line by line because Python 3.10 has no TOML parser; our tables hold `name = "module:attr"` only.
    group = None
    for line in pyproject.read_text(encoding="utf-8").splitlines():
        line = line.strip()
        if line.startswith("["):
            section = _SECTION.match(line)
            group = (section[1] or section[2]) if section else None
        elif group and (entry := _ENTRY.match(line)):
            yield group, entry[1], entry[2]
