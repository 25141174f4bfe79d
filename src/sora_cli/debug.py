"""Whether tracebacks are shown: `--debug` or SORA_DEBUG."""

from __future__ import annotations

import os

_enabled = False


def enable_debug(enabled: bool = True) -> None:
    """Show tracebacks from now on; main() starts with this off."""
    global _enabled
    _enabled = enabled


def is_debug() -> bool:
    """True with `--debug`, or with SORA_DEBUG set to anything but empty or 0."""
    return _enabled or os.environ.get("SORA_DEBUG", "") not in ("", "0")
