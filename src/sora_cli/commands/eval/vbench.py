"""`sora eval vbench` and `sora eval vbench-i2v`: clips by the prompts of VBench, and their scores by its dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sora_cli import complete
from sora_cli import measure_options as m
from sora_cli import options as o
from sora_cli.root import LightCommand

from . import vbench_sample

if TYPE_CHECKING:
    from sora_cli.evaluation.vbench_suite import SuiteName

GROUPS: dict[SuiteName, str] = {"t2v": "vbench", "i2v": "vbench-i2v"}


def make_group(suite: SuiteName) -> typer.Typer:
    """The commands for one suite."""
    name = GROUPS[suite]
    kind = "videos from text" if suite == "t2v" else "videos from a picture"
    app = o.new_app(
        help=f"Measure a model by VBench: {kind}.",
        epilog=o.examples(f"sora eval {name} score clips --suite suite.json", f"sora eval {name} report clips_scores"),
    )
    vbench_sample.add_to(app, suite, name)
    app.command("score", cls=LightCommand, epilog=_SCORE_EXAMPLES[suite])(_score_command(suite))
    app.command("report", cls=LightCommand, epilog=_REPORT_EXAMPLES[suite])(_report_command(suite))
    return app


_SCORE_EXAMPLES = {
    "t2v": o.examples(
        "sora eval vbench score clips --dimension temporal_flickering",
        "sora eval vbench score clips --vbench-python env/bin/python --gpus 8",
        'sora eval vbench score clip.mp4 --mode custom --prompt "a cat"',
    ),
    "i2v": o.examples(
        "sora eval vbench-i2v score clips --suite i2v.json --dimension 9",
        "sora eval vbench-i2v score clips --images crops --vbench-python env/python",
    ),
}
_REPORT_EXAMPLES = {
    "t2v": o.examples(
        "sora eval vbench report clips_scores --compare",
        "sora eval vbench report results.zip -o report.md",
        "sora eval vbench report clips_scores --reference-files tables",
    ),
    "i2v": o.examples("sora eval vbench-i2v report clips_scores", "sora eval vbench-i2v report scores -o report.md"),
}


def _score_options(
    videos: Annotated[
        Path,
        typer.Argument(
            help="folder of the clips, PROMPT-0.mp4 to PROMPT-4.mp4; in custom mode also one clip", metavar="CLIPS"
        ),
    ],
    dimensions: Annotated[
        list[str] | None,
        typer.Option(
            "--dimension",
            help="dimension, repeatable: a name, its position in the reference's list, or a range 2:6  (default: all)",
            metavar="NAME",
        ),
    ] = None,
    suite_file: Annotated[
        Path | None,
        typer.Option(
            "--suite",
            help="JSON file of the prompts  (default, without pictures: that of the package vbench)",
            metavar="FILE",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="folder of the suite's pictures, with the crops 1-1, 8-5, 7-4, 16-9", metavar="FOLDER"),
    ] = None,
    crop: Annotated[
        Literal["1-1", "8-5", "7-4", "16-9"] | None,
        typer.Option(help="crop of the pictures, 1-1 in the reference  (default: the closest to the clips)"),
    ] = None,
    mode: Annotated[
        Literal["standard", "custom"],
        typer.Option(help="standard: clips of the suite; custom: any clips, for dimensions that need no suite"),
    ] = "standard",
    prompt: Annotated[
        str | None, typer.Option(help="of all clips in custom mode  (default: their names)", metavar="TEXT")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help=f"in custom mode {m.PROMPTS}  (default: their names)", metavar="FILE")
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="what scores  (default: vbench with --vbench-python, else native)",
            metavar="NAME",
            rich_help_panel="Scoring",
            autocompletion=complete.scoring_backends,
        ),
    ] = None,
    vbench_python: Annotated[
        Path | None,
        typer.Option(
            help="Python of an environment with the package vbench  (env: SORA_VBENCH_PYTHON)",
            metavar="PATH",
            rich_help_panel="Scoring",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="of the back end native, repeatable: clip-b32=FOLDER, clip-l14=FOLDER, head=FILE",
            metavar="PART=FILE",
            rich_help_panel="Scoring",
        ),
    ] = None,
    resize: Annotated[
        Literal["longer", "shorter", "shorter_centercrop", "None"],
        typer.Option(help="how frames are made smaller for imaging_quality", rich_help_panel="Scoring"),
    ] = "longer",
    device: Annotated[
        Literal["auto", "cuda", "mps", "cpu"],
        typer.Option(help="auto, cuda, mps or cpu", metavar="NAME", rich_help_panel="Hardware"),
    ] = "auto",
    gpus: Annotated[
        int,
        typer.Option(help="GPUs to spread dimensions over, of the back end vbench", min=1, rich_help_panel="Hardware"),
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="folder of results  (default: CLIPS_scores)",
            metavar="FOLDER",
            rich_help_panel="Output",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="score again what is scored", rich_help_panel="Output")
    ] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """All options of both suites."""


def _score_command(suite: SuiteName) -> Any:
    without = ("images", "crop") if suite == "t2v" else ("mode", "prompt", "prompts")

    @o.with_options_of(_score_options, without=without)
    def score(**options: Any) -> None:
        """Score clips by dimensions, and print the files of results, which are as VBench writes them.

        Dimensions that are scored are left as they are, and an interrupted one goes on. Exit code 3 when some need
        networks or packages that are not here.
        """
        from sora_cli.console import command_output

        with command_output(json=options["as_json"], quiet=options["quiet"]):
            from sora_cli.evaluation.vbench_scoring import ScoreRun, run_score
            from sora_cli.plugin.protocols import ScoringSettings
            from sora_cli.weights.locate import part_files

            settings = ScoringSettings(
                suite=suite,
                suite_file=options["suite_file"],
                mode=options.get("mode", "standard"),
                device=options["device"],
                gpus=options["gpus"],
                weights=part_files(options["weights"] or (), option="--weights", example="head=head.pth"),
                python=options["vbench_python"],
                images=options.get("images"),
                resize=options["resize"],
            )
            same = ("videos", "backend", "output", "prompt", "prompts", "crop", "overwrite")
            given = {name: options[name] for name in same if name in options}
            run_score(ScoreRun(settings=settings, dimensions=options["dimensions"] or (), **given))

    return score


def _report_options(
    results: Annotated[
        Path,
        typer.Argument(
            help="folder of *_eval_results.json with *_full_info.json, or a zip file for the leaderboard",
            metavar="RESULTS",
        ),
    ],
    compare: Annotated[bool, typer.Option("--compare", help="add published models beside it")] = False,
    videos: Annotated[
        Path | None, typer.Option(help="where the clips are, if not where they were scored", metavar="FOLDER")
    ] = None,
    reference_files: Annotated[
        Path | None,
        typer.Option(
            help="folder for all_results.json and scaled_results.json, exactly as the reference writes them",
            metavar="FOLDER",
            rich_help_panel="Output",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="file to write: .md or .json", metavar="FILE", rich_help_panel="Output"),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace files that are there", rich_help_panel="Output")
    ] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """All options of both suites."""


def _report_command(suite: SuiteName) -> Any:
    # The published rows that are known are of t2v.
    @o.with_options_of(_report_options, without=("compare",) if suite == "i2v" else ())
    def report(**options: Any) -> None:
        """Print scores, what they rest on and how the clips were made, as Markdown.

        Results of VBench itself do as well. Where dimensions are missing, the scores that need them are left out.
        """
        from sora_cli.console import command_output

        with command_output(json=options.pop("as_json"), quiet=options.pop("quiet")):
            from sora_cli.evaluation.vbench_report import run_report

            options.pop("debug")
            run_report(options.pop("results"), suite, **options)

    return report
