"""`sora data cut`: scenes of videos, and clips of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from sora_cli import complete
from sora_cli import data_options as d
from sora_cli import options as o

EPILOG = o.examples(
    "sora data cut videos.csv --clips clips/ -o clips.csv",
    "sora data cut videos.csv --clips clips/ -o clips.csv --shorter-size 720",
    "sora data cut videos.csv -o scenes.csv --detector transnetv2 -O threshold=0.4",
    "sora data cut videos.csv -o scenes.csv --detector adaptive,transnetv2",
    "sora data cut scenes.csv --clips clips/ -o clips.csv --detector table",
)
TABLE_SCENES = "table"
_SCENES, _CLIPS = "Scenes", "Clips"


@o.with_options_of(d.of_every_step, without=())
def cut(
    ctx: typer.Context,
    tables: d.Tables,
    output: d.Output,
    clips: Annotated[
        str | None,
        typer.Option(
            help="folder, or address of one in a store, to write clips to; without it the table gets the scenes",
            metavar="FOLDER",
        ),
    ] = None,
    detector: Annotated[
        str,
        typer.Option(
            help="scene detector, or several: NAME,NAME; table: the table's column timestamp, whole videos without one",
            metavar="NAME",
            autocompletion=complete.cutters,
            rich_help_panel=_SCENES,
        ),
    ] = "fast",
    detector_options: Annotated[
        list[str] | None,
        typer.Option(
            "-O",
            help="option of the detector, repeatable; of several: NAME.KEY=VALUE",
            metavar="KEY=VALUE",
            rich_help_panel=_SCENES,
        ),
    ] = None,
    agree: Annotated[
        Literal["either", "both"],
        typer.Option(help="of several detectors: cut where any or only where all do", rich_help_panel=_SCENES),
    ] = "either",
    min_seconds: Annotated[
        float | None, typer.Option(help="leave out shorter scenes", min=0, rich_help_panel=_CLIPS)
    ] = 2.0,
    max_seconds: Annotated[
        float | None, typer.Option(help="keep so much of longer scenes", min=0.1, rich_help_panel=_CLIPS)
    ] = 15.0,
    split_long: Annotated[
        bool, typer.Option("--split-long", help="cut longer scenes into several clips", rich_help_panel=_CLIPS)
    ] = False,
    fps: Annotated[int | None, typer.Option(help="frame rate of the clips", min=1, rich_help_panel=_CLIPS)] = None,
    shorter_size: Annotated[
        int | None, typer.Option(help="shorter side of larger clips, in pixels", min=16, rich_help_panel=_CLIPS)
    ] = None,
    audio: Annotated[bool, typer.Option("--audio/--no-audio", help="keep the sound", rich_help_panel=_CLIPS)] = False,
    crf: Annotated[
        int, typer.Option(help="quality of encoded clips, 0 is lossless", min=0, max=51, rich_help_panel=_CLIPS)
    ] = 18,
    copy: Annotated[
        bool,
        typer.Option("--copy/--encode", help="copy clips unchanged where that is exact", rich_help_panel=_CLIPS),
    ] = True,
    seconds: d.Seconds = 3600.0,
    **shared: Any,
) -> None:
    """Find the scenes of videos and write them as clips with a table, or only say where they are.

    Each clip's row has the columns of its video, with path, id, source, scene, start and size of the clip. An
    interrupted run goes on with the same command.
    """
    from sora_cli.console import command_output

    with command_output(json=shared["as_json"], quiet=shared["quiet"]):
        from sora_cli.data.cutting import CutOptions, run_cut
        from sora_cli.data.run import open_rows
        from sora_cli.data.timestamps import SceneRules

        step = d.step_options(ctx)
        form = {"fps": fps, "shorter_size": shorter_size, "crf": crf, "keeps_audio": audio, "copies": copy}
        options = CutOptions.checked(
            None if detector == TABLE_SCENES else detector,
            detector_options or (),
            agree=agree,
            clips=clips,
            rules=SceneRules(min_seconds, max_seconds, split_long),
            form=form,
        )
        run_cut(open_rows(tables, shared["root"]), options, step)
