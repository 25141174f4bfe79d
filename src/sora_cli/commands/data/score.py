"""`sora data score`: how clips look, move and fit their captions."""

from __future__ import annotations

from typing import Annotated

import typer

from sora_cli import complete
from sora_cli import data_options as d
from sora_cli import options as o

EPILOG = o.examples(
    "sora data score clips.csv -o scored.csv --score flow --score quality",
    "sora data score clips.csv -o scored.parquet --score aes --score match --gpus 8",
    "sora data score clips.csv -o out.csv --score aes --weights head=head.pth",
    "sora plugins list --kind scorer",
)


def score(
    ctx: typer.Context,
    tables: d.Tables,
    output: d.Output,
    scores: Annotated[
        list[str],
        typer.Option("--score", help="scorer, repeatable", metavar="NAME", autocompletion=complete.scorers),
    ],
    scorer_options: Annotated[
        list[str] | None,
        typer.Option("-O", help="option of a scorer, repeatable: SCORER.KEY=VALUE", metavar="KEY=VALUE"),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="weights of a scorer, repeatable: SCORER.PART=FILE", metavar="PART=FILE"),
    ] = None,
    root: d.Root = None,
    workers: d.Workers = None,
    gpus: d.Gpus = 0,
    seconds: d.Seconds = 600.0,
    engine: d.Engine = "local",
    address: d.Address = None,
    restart: d.Restart = False,
    restart_changed: d.RestartChanged = False,
    keep_log: d.KeepLog = False,
    overwrite: d.Overwrite = False,
    dry_run: d.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Add scores to a table of clips, each as a column.

    Every clip is decoded once for all scores. A clip that cannot be scored keeps its row, with the reason in the column
    score_reason and in a list beside the table. An interrupted run goes on with the same command.
    """
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.config.layers import option_pairs
        from sora_cli.data.run import open_rows
        from sora_cli.data.scoring import choose_scorers, run_score

        pairs = option_pairs(scorer_options or (), example="flow.size=320x576")
        chosen = choose_scorers(scores, pairs, weights or ())
        run_score(open_rows(tables, root), chosen, d.step_options(ctx))
