"""`sora eval human`: clips for people to look at, a page to rate them on, and what their votes say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sora_cli import complete
from sora_cli import evaluation_options as e
from sora_cli import measure_options as m
from sora_cli import options as o
from sora_cli.commands.generate import generate, make, resolved_run, sources_of
from sora_cli.root import LightCommand

if TYPE_CHECKING:
    from sora_cli.console import Console
    from sora_cli.evaluation.human_plan import Part
    from sora_cli.evaluation.samples import Sample

SUMMARY = "Let people judge: clips from a plan, a page to rate them blindly, and ratings from the votes."

app = o.new_app(help=SUMMARY, epilog=o.examples("sora eval human sample -m nano -o nano/"))
#: Options of `sora generate` that the plan has, and those that are for one clip.
NOT_HERE = (
    *("prompts", "prompt_file", "start_index", "end_index", "output", "seed", "num_samples", "dry_run", "from_video"),
    *("first_picture", "last_picture", "keyframes", "extend", "backward", "connect", "edit", "strength"),
    *("references", "mask_strategy"),
)

Plan = Annotated[
    str,
    typer.Argument(
        help="a preset of `sora presets list --kind human`, or a YAML file",
        metavar="[NAME|FILE]",
        autocompletion=complete.human_plans,
    ),
]
Tasks = Annotated[
    list[str] | None, typer.Option("--task", help="task of the plan, repeatable  (default: all)", metavar="NAME")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "-i",
        "--input",
        help="file that the plan needs, or folder where files are called by the names of inputs, repeatable",
        metavar="NAME=FILE|FOLDER",
    ),
]
Base = Annotated[
    str | None, typer.Option("--base", help="resolution that the plan's others are steps of", metavar="NAME")
]
Seed = Annotated[int | None, typer.Option("--seed", help="of every clip  (default: the plan's)", metavar="S", min=0)]


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora eval human plan",
        "sora eval human plan opensora --task 2a -i texts/ -o plan.json",
        "sora eval human plan opensora --task 2h -i texts/ -i refs/",
    ),
)
def plan(
    plan: Plan = "basic",
    tasks: Tasks = None,
    inputs: Inputs = None,
    base: Base = None,
    seed: Seed = None,
    output: e.PlanOutput = None,
    replace: e.ReplacePlan = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Show the clips of a plan, or write name, prompt, seed and settings of each, for `sample` and other programs."""
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet) as console:
        from sora_cli.evaluation.samples import write_plan
        from sora_cli.tasks.output import check_free

        if output is not None:
            check_free([output], (), overwrite=replace)
        parts = _parts(plan, tasks or (), inputs or (), base, seed)
        if output is not None:
            samples = [sample for part in parts for sample in part.samples]
            write_plan(output, samples, {"plan": plan, "tasks": list(dict.fromkeys(part.task for part in parts))})
            return
        rows = []
        for part in parts:
            values = {name: value for own in part.samples[0].settings.values() for name, value in own.items()}
            said = ", ".join(f"{name} {value}" for name, value in values.items())
            rows.append({"name": part.name, "task": part.task, "clips": len(part.samples), "settings": said})
        console.table(rows, ["task", "name", "clips", "settings"])


def _parts(plan: str, tasks: Sequence[str], inputs: Sequence[str], base: str | None, seed: int | None) -> list[Part]:
    from sora_cli.evaluation.human_plan import choose_tasks, find_inputs, make_parts, read_human_plan

    found = read_human_plan(plan)
    chosen = choose_tasks(found, tasks)
    return make_parts(found, chosen, find_inputs(inputs, found, chosen), base=base, seed=seed)


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora eval human sample -m nano -o nano/",
        "sora eval human sample opensora --task 2a -i texts/ -m opensora-v1.2",
        "sora eval human sample plan.json --weights outputs/train-nano",
    ),
)
@o.with_options_of(generate, without=NOT_HERE)
def sample(
    ctx: typer.Context,
    plan: Annotated[
        str,
        typer.Argument(
            help="a preset of `sora presets list --kind human`, a YAML file, or a file that `plan` wrote",
            metavar="[NAME|FILE]",
            autocompletion=complete.human_plans,
        ),
    ] = "basic",
    tasks: Tasks = None,
    inputs: Inputs = None,
    base: Base = None,
    seed: Seed = None,
    shard: e.Shard = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="folder of the clips  (default: outputs/samples_MODEL_WEIGHTS)",
            metavar="FOLDER",
            rich_help_panel="Output",
        ),
    ] = None,
    **options: Any,
) -> None:
    """Make the clips of a plan, under the plan's names.

    Settings given here win over those of the plan, but pictures stay pictures. Clips that are there are kept, and an
    interrupted run goes on.
    """
    from sora_cli.console import command_output

    with command_output(json=options["as_json"], quiet=options["quiet"]):
        from sora_cli.evaluation.human_plan import folder_name
        from sora_cli.evaluation.samples import part_of, sample_runs

        samples = part_of(_samples(plan, tasks or (), inputs or (), base, seed), shard)
        given = o.given_settings({name: value for name, value in ctx.params.items() if name in options}, None)
        others = {**dict.fromkeys(NOT_HERE), **options, "dry_run": False}
        folder = output
        if folder is None:
            model = resolved_run(given, others, sources_of(others)).config.model
            folder = Path("outputs") / folder_name(model.name, model.weights)
        for run in sample_runs(samples, folder, given):
            make(run, others)


def _samples(
    plan: str, tasks: Sequence[str], inputs: Sequence[str], base: str | None, seed: int | None
) -> list[Sample]:
    from sora_cli.errors import UsageError
    from sora_cli.evaluation.samples import read_plan

    if not plan.endswith(".json"):
        return [sample for part in _parts(plan, tasks, inputs, base, seed) for sample in part.samples]
    if tasks or inputs or base is not None or seed is not None:
        raise UsageError(
            f"tasks, inputs, base and seed are settled in {plan}", hint="give them to `sora eval human plan`"
        )
    return read_plan(Path(plan))[0]


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora eval human page nano/ quick/ -o rating",
        'sora eval human page a/ b/ c/ -o rating --criterion "faces=Better faces?"',
    ),
)
def page(
    folders: Annotated[
        list[Path], typer.Argument(help="clips of a model each, under the same names", metavar="FOLDER...")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="new folder for the page and its key", metavar="FOLDER")
    ],
    criteria: Annotated[
        list[str] | None,
        typer.Option(
            "--criterion",
            help="overall, quality, motion, text, or one of your own, repeatable  (default: those four)",
            metavar="NAME|NAME=QUESTION",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help=f"where clips do not say theirs, {m.PROMPTS}", metavar="FILE"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="pairs at most, drawn from all", metavar="N", min=1)
    ] = None,
    title: Annotated[str, typer.Option("--title", help="of the page", metavar="TEXT")] = "Which clip is better?",
    seed: Annotated[int, typer.Option("--seed", help="of the order of pairs and sides", metavar="S", min=0)] = 42,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Write a page on which people rate clips in pairs, without knowing what made them.

    Raters need the folder FOLDER/page, which works without a server; key.json beside it tells which clip is whose.
    """
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet) as console:
        from sora_cli.evaluation.clip_prompts import read_clip_prompts
        from sora_cli.evaluation.rating_page import PAGE, clips_in, criteria_of, write_page

        names = sorted({name for folder in folders for name in clips_in(folder)})
        texts = read_clip_prompts(prompts, names) if prompts else {}
        key = write_page(
            folders, output, criteria=criteria_of(criteria or ()), prompts=texts, title=title, seed=seed, limit=limit
        )
        console.note(f"{len(key['pairs'])} pairs; give raters {output / PAGE} and keep {output / 'key.json'}")
        index = output / PAGE / "index.html"
        console.result(index, {"path": str(index), "page": key["page"], "pairs": len(key["pairs"])})


@app.command(
    cls=LightCommand,
    epilog=o.examples(
        "sora eval human votes rating votes-*.json", "sora eval human votes rating votes-ann.csv --json > ratings.json"
    ),
)
def votes(
    folder: Annotated[Path, typer.Argument(help="folder that `page` wrote, with key.json", metavar="FOLDER")],
    files: Annotated[list[Path], typer.Argument(help="files that raters saved", metavar="VOTES...")],
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", help="samples that intervals are made from; 0 for none", metavar="N", min=0)
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="of these samples", metavar="S", min=0)] = 42,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Sum up votes: wins and ties, ratings of a Bradley-Terry model on the Elo scale with 95 % intervals, agreement."""
    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet) as console:
        from sora_cli.evaluation.votes import last_votes, read_key, read_votes, summary

        key = read_key(folder)
        said, changed = last_votes([vote for file in files for vote in read_votes(file, key)])
        if changed:
            console.warn(f"{changed} votes were changed later by the same rater; the last one counts")
        found = summary(said, key, samples=bootstrap, seed=seed)
        if console.mode == "json":
            console.record(found)
        else:
            _show(found, console)


def _show(found: Mapping[str, Any], console: Console) -> None:
    """The summary for people; where only names are wanted, the models from best to worst by each criterion."""
    from sora_cli.evaluation.provenance import distinct

    for name, criterion in found["criteria"].items():
        columns = ["model", "elo", "low", "high", "score", "votes", "group"]
        agreement = criterion["agreement"]
        agreed = "" if agreement is None else f", agreement of raters (alpha) {agreement}"
        console.table(criterion["models"], columns, title=f"{name}, {criterion['clips']} clips{agreed}")
        if console.mode == "quiet":
            continue
        console.table(criterion["pairs"], ["a", "b", "a_better", "b_better", "tie", "bad"])
        for note in criterion["notes"]:
            console.note(f"{name}: {note}")
    if console.mode == "quiet":
        return
    console.table(found["raters"], ["rater", "votes", "agreement", "left"], title="raters")
    for label, model in found["models"].items():
        console.record(distinct(model["provenance"]), title=f"clips of {label}")
