"""The validation losses that the reference logs, as a table."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path

from sora_cli.errors import SoraError, UsageError

#: Of pictures by shard, of videos by resolution.
LOGS = (
    *(f"img_{shard}.log" for shard in range(3)),
    *(f"{name}_vid.log" for name in ["144p", "240p", "360p", "480p", "720p"]),
)
MARK = "losses:"
Table = dict[str, dict[int, str]]


def tabulate(folder: Path) -> Table:
    """{resolution: {frames: loss with four decimals}} from the last lines of the eight logs, in order.

    Raises UsageError for a log that is missing, SoraError for one that does not end with losses.
    """
    if missing := [name for name in LOGS if not (folder / name).is_file()]:
        raise UsageError(f"{folder} lacks {', '.join(missing)}", hint=f"there must be {', '.join(LOGS)}")
    table: Table = {}
    for name in LOGS:
        for (resolution, frames), loss in _losses(folder / name).items():
            table.setdefault(resolution, {})[frames] = f"{loss:.4f}"
    return {resolution: dict(sorted(table[resolution].items())) for resolution in sorted(table)}


def table_text(table: Table) -> str:
    """The table as the reference writes it."""
    return json.dumps(table, indent=4)


def _losses(path: Path) -> Mapping[tuple[str, int], float]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    try:
        found = ast.literal_eval(lines[-1].partition(MARK)[2].strip())
        return {(str(resolution), int(frames)): float(loss) for (resolution, frames), loss in found.items()}
    except (ValueError, SyntaxError, TypeError, AttributeError) as error:
        raise SoraError(
            f"the last line of {path} has no losses", hint=f"it must end with {MARK} {{('144p', 1): 0.5}}"
        ) from error
