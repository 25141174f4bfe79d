"""`sora eval vbench plan|sample`, and the same of vbench-i2v: which clips are wanted, and making them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sora_cli import evaluation_options as e
from sora_cli import options as o
from sora_cli.commands.generate import generate, make, resolved_run, sources_of
from sora_cli.errors import UsageError
from sora_cli.root import LightCommand

if TYPE_CHECKING:
    from sora_cli.evaluation.samples import Sample
    from sora_cli.evaluation.vbench_suite import SuiteName

_PLAN = "Plan"
Dimensions = Annotated[
    list[str] | None,
    typer.Option(
        "--dimension",
        help="dimension, repeatable: a name, its position in the reference's list, or a range 2:6  (default: all)",
        metavar="NAME",
        rich_help_panel=_PLAN,
    ),
]
First = Annotated[
    int | None,
    typer.Option(
        "--start-index",
        help="first prompt to use, counted from 0  (default: 0)",
        min=0,
        metavar="N",
        rich_help_panel=_PLAN,
    ),
]
Last = Annotated[
    int | None,
    typer.Option(
        "--end-index",
        help="prompt to stop before  (default: the last)",
        min=0,
        metavar="N",
        rich_help_panel=_PLAN,
    ),
]
PerPrompt = Annotated[
    int | None,
    typer.Option(
        "--samples", help="clips of each prompt  (default: 5)", min=1, max=1000, metavar="N", rich_help_panel=_PLAN
    ),
]
SuiteFile = Annotated[
    Path | None,
    typer.Option(
        "--suite",
        help="JSON file of the prompts  (default, without pictures: that of the package vbench)",
        metavar="FILE",
        rich_help_panel=_PLAN,
    ),
]
PromptList = Annotated[
    str | None,
    typer.Option(
        "--prompt-file",
        help="prompts of your own, one a line, instead of a suite; - reads standard input",
        metavar="FILE",
        rich_help_panel=_PLAN,
    ),
]
StaticCandidates = Annotated[
    int | None,
    typer.Option(
        "--static-candidates",
        help="clips of each prompt of temporal_flickering; VBench asks for 25, of which `vbench static_filter` picks  "
        "(default: --samples)",
        min=1,
        max=1000,
        metavar="N",
        rich_help_panel=_PLAN,
    ),
]
BaseSeed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        help="clip k of the prompt at position i has this seed + 1000 i + k  (default: 42)",
        min=0,
        metavar="S",
        rich_help_panel=_PLAN,
    ),
]
FixedSeed = Annotated[
    bool,
    typer.Option(
        "--fixed-seed",
        help="all clips have the seed 1024, as in the reference, so that those of a prompt are equal",
        rich_help_panel=_PLAN,
    ),
]
PlanFile = Annotated[
    Path | None, typer.Argument(help="a plan that `plan` wrote, instead of the options that make one", metavar="PLAN")
]
Folder = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="folder of the clips  (default: outputs/vbench, outputs/vbench-i2v)",
        metavar="FOLDER",
        rich_help_panel="Output",
    ),
]
Images = Annotated[
    Path,
    typer.Option(
        "--images",
        help="folder with the pictures of VBench in folders 1-1, 8-5, 7-4, 16-9; the one closest to the clips is taken",
        metavar="FOLDER",
        rich_help_panel="Conditioning",
    ),
]

#: Parameter -> flag: what makes a plan, and cannot be said beside one.
PLANNED = {
    "dimensions": "--dimension",
    "first": "--start-index",
    "last": "--end-index",
    "per_prompt": "--samples",
    "suite_file": "--suite",
    "prompt_list": "--prompt-file",
    "static_candidates": "--static-candidates",
    "base_seed": "--seed",
    "fixed_seed": "--fixed-seed",
}
#: Of `plan`, what `sample` has from `sora generate`.
SHARED = ("plan_output", "replace", "as_json", "quiet", "debug")
#: Of `sora generate`, what the plan says, and what would make other clips than the prompts ask for.
NOT_HERE = (
    *("prompts", "prompt_file", "start_index", "end_index", "output", "seed", "num_samples", "from_video"),
    *("first_picture", "last_picture", "keyframes", "extend", "backward", "connect", "seamless", "edit", "strength"),
    *("references", "mask_strategy"),
)


def plan(
    ctx: typer.Context,
    dimensions: Dimensions = None,
    first: First = None,
    last: Last = None,
    per_prompt: PerPrompt = None,
    suite_file: SuiteFile = None,
    prompt_list: PromptList = None,
    static_candidates: StaticCandidates = None,
    base_seed: BaseSeed = None,
    fixed_seed: FixedSeed = False,
    plan_output: e.PlanOutput = None,
    replace: e.ReplacePlan = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Show how many clips VBench wants, or write which: prompts, names of files and seeds.

    The prompts are those of the installed package `vbench`, of --suite, or of --prompt-file.
    """
    _show("t2v", ctx.params)


@o.with_options_of(plan, without=("prompt_list", "static_candidates"))
def plan_i2v(ctx: typer.Context, **options: Any) -> None:
    """Show how many clips VBench-I2V wants, or write which: prompts, pictures, names of files and seeds."""
    _show("i2v", options)


@o.with_options_of(generate, without=NOT_HERE)
@o.with_options_of(plan, without=SHARED)
def sample(
    ctx: typer.Context, plan_file: PlanFile = None, folder: Folder = None, shard: e.Shard = None, **options: Any
) -> None:
    """Make the clips that VBench wants, each in a file `PROMPT-K.mp4`, and print the paths.

    Clips that are there are kept, and an interrupted run goes on. Size, length and steps are those of the model.
    """
    _make("t2v", ctx.params)


@o.with_options_of(generate, without=NOT_HERE)
@o.with_options_of(plan, without=(*SHARED, "prompt_list", "static_candidates"))
def sample_i2v(
    ctx: typer.Context,
    images: Images,
    plan_file: PlanFile = None,
    folder: Folder = None,
    shard: e.Shard = None,
    **options: Any,
) -> None:
    """Make the clips that VBench-I2V wants, each starting with its picture, in files `PROMPT-K.mp4`.

    Clips that are there are kept, and an interrupted run goes on. Size, length and steps are those of the model.
    """
    _make("i2v", ctx.params)


def add_to(app: typer.Typer, suite: SuiteName, group: str) -> None:
    """Add `plan` and `sample` to the group of a suite. group: its name."""
    given = " --images crops" if suite == "i2v" else ""
    plan_examples = o.examples(
        f"sora eval {group} plan -o plan.json", f"sora eval {group} plan --suite suite.json --dimension 5"
    )
    sample_examples = o.examples(
        f"sora eval {group} sample plan.json{given} --gpus 8",
        f"sora eval {group} sample{given} --shard 1/2",
    )
    app.command("plan", cls=LightCommand, epilog=plan_examples)(plan_i2v if suite == "i2v" else plan)
    app.command("sample", cls=LightCommand, epilog=sample_examples)(sample_i2v if suite == "i2v" else sample)


def _show(name: SuiteName, options: Mapping[str, Any]) -> None:
    from sora_cli.console import command_output
    from sora_cli.evaluation.samples import write_plan
    from sora_cli.tasks.output import check_free

    with command_output(json=options["as_json"], quiet=options["quiet"]) as console:
        path: Path | None = options["plan_output"]
        if path is not None:
            check_free([path], (), overwrite=options["replace"])
        samples, rows, about = _planned(name, options)
        if path is not None:
            write_plan(path, samples, about)
            return
        prompts = len({sample.prompt for sample in samples})
        rows = [*rows, {"dimension": "all", "prompts": prompts, "videos": len(samples)}]
        console.table(rows, ("dimension", "prompts", "videos"))


def _planned(name: SuiteName, options: Mapping[str, Any]) -> tuple[list[Sample], list[dict[str, Any]], dict[str, Any]]:
    """The clips of the options, prompts and videos of each dimension, and what they were planned from."""
    from sora_cli.evaluation import vbench_plan, vbench_suite
    from sora_cli.text.prompts import read_prompts

    choice = vbench_plan.Choice(
        (options["first"], options["last"]),
        options["per_prompt"] or vbench_suite.SAMPLES,
        options.get("static_candidates"),
        42 if options["base_seed"] is None else options["base_seed"],
        options["fixed_seed"],
    )
    file = options.get("prompt_list")
    if file is not None:
        for parameter in ("dimensions", "suite_file", "static_candidates"):
            if options[parameter]:
                raise UsageError(f"{PLANNED[parameter]} is for a suite, and --prompt-file is none")
        samples = vbench_plan.list_samples(read_prompts((), file), choice)
        return samples, [], {"suite": None, "file": file, **choice.record()}
    suite = vbench_suite.load_suite(name, options["suite_file"])
    dimensions = vbench_suite.choose_dimensions(name, options["dimensions"] or ())
    if choice.candidates is not None and vbench_plan.STATIC_DIMENSION not in dimensions:
        raise UsageError(f"--static-candidates is for {vbench_plan.STATIC_DIMENSION}, which is not chosen")
    samples = vbench_plan.suite_samples(suite, dimensions, choice)
    about = {"suite": name, "file": suite.path.name, "dimensions": dimensions, **choice.record()}
    return samples, vbench_plan.suite_counts(suite, dimensions, choice), about


def _make(name: SuiteName, options: Mapping[str, Any]) -> None:
    from sora_cli.console import command_output
    from sora_cli.evaluation.samples import part_of, sample_runs
    from sora_cli.tasks.output import DEFAULT_FOLDER

    with command_output(json=options["as_json"], quiet=options["quiet"]) as console:
        group = "vbench-i2v" if name == "i2v" else "vbench"
        all_samples = _samples_of(name, options)
        samples = part_of(all_samples, options["shard"])
        if options["shard"]:
            console.note(f"{len(samples)} of {len(all_samples)} clips fall to this machine")
        given = o.given_settings(options, None)
        # VBench takes the ending of the first file in the folder as that of all clips.
        given.setdefault("output", {})["sidecar"] = False
        of_run = {**options, "from_video": None}
        if name == "i2v":
            samples = _with_pictures(samples, given, of_run)
        folder = (options["folder"] or DEFAULT_FOLDER / group).expanduser()
        runs = list(sample_runs(samples, folder, given))
        if options["dry_run"] and len(runs) > 1:
            raise UsageError(f"--dry-run shows one run, and this plan has settings for {len(runs)}")
        for settings in runs:
            make(settings, of_run)


def _samples_of(name: SuiteName, options: Mapping[str, Any]) -> list[Sample]:
    """The clips of a plan, or of the options that make one. Raises UsageError for both, and another suite's plan."""
    from sora_cli.evaluation.samples import read_plan

    path: Path | None = options["plan_file"]
    if path is None:
        return _planned(name, options)[0]
    for parameter, flag in PLANNED.items():
        said = options.get(parameter)
        if said is not None and said is not False:
            raise UsageError(f"{flag} makes a plan, and {path} is one", hint="leave out one of them")
    samples, about = read_plan(path)
    if (about.get("suite") == "i2v") != (name == "i2v"):
        other = "vbench" if name == "i2v" else "vbench-i2v"
        raise UsageError(f"{path} is a plan of another suite", hint=f"sora eval {other} sample makes its clips")
    return samples


def _with_pictures(
    samples: list[Sample], given: Mapping[str, Mapping[str, Any]], options: Mapping[str, Any]
) -> list[Sample]:
    """The samples with pictures of the shape that is closest to that of the clips."""
    from sora_cli.console import get_console
    from sora_cli.evaluation.vbench_plan import with_pictures
    from sora_cli.evaluation.vbench_suite import closest_crop
    from sora_cli.plugin.manager import get_plugins
    from sora_cli.tasks.chosen import find_components
    from sora_cli.tasks.plan import sampled_shape

    config = resolved_run(given, options, sources_of(options)).config
    height, width = sampled_shape(config, find_components(config, get_plugins())).written
    crop = closest_crop(width, height)
    get_console().note(f"pictures of {crop}, for clips of {height}x{width}")
    return with_pictures(samples, options["images"].expanduser() / crop)
