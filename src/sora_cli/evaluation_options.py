"""Options that commands of `sora eval` share; conventions are those of `options`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PlanOutput = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="JSON file for the plan", metavar="FILE", rich_help_panel="Output"),
]
ReplacePlan = Annotated[bool, typer.Option("--overwrite", help="replace another plan", rich_help_panel="Output")]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="the part of one machine of several: 1/2 and 2/2 of two",
        metavar="K/N",
        rich_help_panel="Hardware",
    ),
]
