"""`sora data score`: how clips look, move and fit their captions."""

from __future__ import annotations

from typing import Annotated, Any

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


@o.with_options_of(d.of_every_step, without=())
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
    gpus: d.Gpus = 0,
    **shared: Any,
) -> None:
    """Add scores to a table of clips, each as a column.

    Every clip is decoded once for all scores. A clip that cannot be scored keeps its row, with the reason in the column
    score_reason and in a list beside the table. An interrupted run goes on with the same command.
    """
    from sora_cli.console import command_output

    with command_output(json=shared["as_json"], quiet=shared["quiet"]):
        from sora_cli.config.layers import option_pairs
        from sora_cli.data.run import open_rows
        from sora_cli.data.scoring import choose_scorers, run_score

        pairs = option_pairs(scorer_options or (), example="camera.threshold=0.3")
        chosen = choose_scorers(scores, pairs, weights or ())
        run_score(open_rows(tables, shared["root"]), chosen, d.step_options(ctx))
