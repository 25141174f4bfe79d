"""`sora data filter`: operations on tables of clips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from sora_cli import data_options as d
from sora_cli import options as o

Output = Annotated[
    str | None,
    typer.Option(
        "-o", "--output", help="table to write: .csv, .csv.gz or .parquet", metavar="FILE", rich_help_panel="Output"
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="of --shuffle and --score-to-text", rich_help_panel="Captions")]


def _option(panel: str, flag: str, help: str, metavar: str | None = None) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(flag, help=help, rich_help_panel=panel, metavar=metavar)
    return option


EPILOG = o.examples(
    "sora data filter clips.csv -o good.csv --fmin 16 --aesmin 4.5 --remove-empty-caption",
    "sora data filter 'parts/*.parquet' -o clips.parquet --remove-path-duplication --shuffle",
    'sora data filter clips.csv --lang en --where "flow BETWEEN 0.5 AND 20" --dry-run',
)
FILES, CAPTIONS, NUMBERS, ROWS, OTHERS = "Files", "Captions", "Numbers", "Rows and columns", "Other tables"


def filter_(
    ctx: typer.Context,
    tables: d.Tables,
    output: Output = None,
    reference_name: Annotated[
        bool,
        typer.Option(
            "--reference-name",
            help="name it after inputs and options as Open-Sora's tool does, e.g. clips_aesmin5.0.csv",
            rich_help_panel="Output",
        ),
    ] = False,
    format: Annotated[
        Literal["csv", "parquet"],
        typer.Option("--format", help="kind of table with --reference-name", rich_help_panel="Output"),
    ] = "csv",
    overwrite: d.Overwrite = False,
    no_header: d.NoHeader = False,
    difference: Annotated[
        str | None, _option(OTHERS, "--difference", "drop rows that are in this table", "TABLE")
    ] = None,
    intersection: Annotated[
        str | None,
        _option(OTHERS, "--intersection", "keep rows that are in this table, and add its other columns", "TABLE"),
    ] = None,
    keep_in: Annotated[
        str | None, _option(OTHERS, "--keep-in", "keep rows that are in this table, and add nothing", "TABLE")
    ] = None,
    join: Annotated[
        str | None, _option(OTHERS, "--join", "keep all rows, and add the other columns of this table", "TABLE")
    ] = None,
    update_text: Annotated[
        str | None, _option(OTHERS, "--update-text", "take captions from this table where it has one", "TABLE")
    ] = None,
    on: Annotated[
        str,
        _option(
            OTHERS, "--on", "column by which rows are the same: path, id, text ..., or COLUMN=ITS_COLUMN", "COLUMN"
        ),
    ] = "path",
    clean_keys: Annotated[
        bool, _option(OTHERS, "--clean-keys", "compare this column in both tables after caption cleaning")
    ] = False,
    root: d.Root = None,
    info: Annotated[
        bool,
        _option(FILES, "--info", "decode each file: num_frames, height, fps ...; 0 when broken"),
    ] = False,
    video_info: Annotated[
        bool, _option(FILES, "--video-info", "the same, pictures with the video decoder too")
    ] = False,
    ext: Annotated[bool, _option(FILES, "--ext", "keep rows whose file exists")] = False,
    filesize: Annotated[bool, _option(FILES, "--filesize", "add the column filesize, in MiB")] = False,
    relpath: Annotated[str | None, _option(FILES, "--relpath", "make paths relative to this folder", "FOLDER")] = None,
    abspath: Annotated[
        str | None, _option(FILES, "--abspath", "put this folder in front of relative paths", "FOLDER")
    ] = None,
    path_to_id: Annotated[bool, _option(FILES, "--path-to-id", "id = file name without suffix")] = False,
    path_subset: Annotated[
        str | None, _option(FILES, "--path-subset", "keep paths in which this regular expression is found", "REGEX")
    ] = None,
    remove_empty_path: Annotated[bool, _option(FILES, "--remove-empty-path", "drop rows without path")] = False,
    remove_path_duplication: Annotated[
        bool, _option(FILES, "--remove-path-duplication", "keep the first row of each path")
    ] = False,
    img_only: Annotated[bool, _option(FILES, "--img-only", "keep pictures, by suffix")] = False,
    vid_only: Annotated[bool, _option(FILES, "--vid-only", "drop pictures, by suffix")] = False,
    load_caption: Annotated[
        Literal["json", "txt"] | None,
        _option(CAPTIONS, "--load-caption", "read captions beside the files: clip.json (key caption) or clip.txt"),
    ] = None,
    remove_url: Annotated[bool, _option(CAPTIONS, "--remove-url", "drop captions with an address in them")] = False,
    lang: Annotated[
        str | None,
        _option(CAPTIONS, "--lang", "keep captions that may be in this language (en,de: or that one)", "CODE"),
    ] = None,
    remove_empty_caption: Annotated[
        bool, _option(CAPTIONS, "--remove-empty-caption", "drop rows without caption, also what later steps empty")
    ] = False,
    remove_text_duplication: Annotated[
        bool, _option(CAPTIONS, "--remove-text-duplication", "keep the first row of each final caption")
    ] = False,
    merge_cmotion: Annotated[
        bool, _option(CAPTIONS, "--merge-cmotion", 'append " Camera motion: pan left." from the column cmotion')
    ] = False,
    refine_llm_caption: Annotated[
        bool, _option(CAPTIONS, "--refine-llm-caption", 'take off stock openings like "The video shows"')
    ] = False,
    append_text: Annotated[str | None, _option(CAPTIONS, "--append-text", "append this to captions", "TEXT")] = None,
    score_to_text: Annotated[
        bool, _option(CAPTIONS, "--score-to-text", 'append " [aesthetic score: 5.4, motion score: 2.0]" by chance')
    ] = False,
    clean_caption: Annotated[
        bool, _option(CAPTIONS, "--clean-caption", "clean captions as T5 models were trained with")
    ] = False,
    count_num_token: Annotated[
        Path | None,
        _option(CAPTIONS, "--count-num-token", "text_len = tokens of the caption, with this T5 tokenizer", "FOLDER"),
    ] = None,
    seed: Seed = 42,
    fmin: Annotated[int | None, _option(NUMBERS, "--fmin", "frames, at least")] = None,
    fmax: Annotated[int | None, _option(NUMBERS, "--fmax", "frames, at most")] = None,
    fpsmin: Annotated[float | None, _option(NUMBERS, "--fpsmin", "rate, at least; pictures stay")] = None,
    fpsmax: Annotated[float | None, _option(NUMBERS, "--fpsmax", "rate, at most; pictures stay")] = None,
    hwmin: Annotated[int | None, _option(NUMBERS, "--hwmin", "height x width, at least")] = None,
    hwmax: Annotated[int | None, _option(NUMBERS, "--hwmax", "height x width, at most")] = None,
    fsmax: Annotated[int | None, _option(NUMBERS, "--fsmax", "file size in MiB, at most")] = None,
    aesmin: Annotated[float | None, _option(NUMBERS, "--aesmin", "aesthetic score, at least")] = None,
    aesmax: Annotated[float | None, _option(NUMBERS, "--aesmax", "aesthetic score, at most")] = None,
    matchmin: Annotated[float | None, _option(NUMBERS, "--matchmin", "matching score, at least")] = None,
    flowmin: Annotated[float | None, _option(NUMBERS, "--flowmin", "flow score, at least")] = None,
    flowmax: Annotated[float | None, _option(NUMBERS, "--flowmax", "flow score, at most")] = None,
    ocrmax: Annotated[float | None, _option(NUMBERS, "--ocrmax", "text regions, at most")] = None,
    cmotion: Annotated[
        str | None, _option(ROWS, "--cmotion", "keep rows with one of these camera motions: pan_left,static", "LABELS")
    ] = None,
    where: Annotated[
        str | None, _option(ROWS, "--where", "keep rows for which this SQL expression is true", "EXPRESSION")
    ] = None,
    sort: Annotated[str | None, _option(ROWS, "--sort", "largest first, missing last", "COLUMN")] = None,
    sort_ascending: Annotated[
        str | None, _option(ROWS, "--sort-ascending", "smallest first, missing last", "COLUMN")
    ] = None,
    shuffle: Annotated[bool, _option(ROWS, "--shuffle", "random order by --seed")] = False,
    head: Annotated[
        int | None, typer.Option("--head", min=0, help="keep the first rows", rich_help_panel=ROWS, metavar="N")
    ] = None,
    train_column: Annotated[bool, _option(ROWS, "--train-column", "keep the columns that training reads")] = False,
    shard: Annotated[
        int | None, typer.Option("--shard", min=1, help="write so many tables", rich_help_panel=ROWS, metavar="N")
    ] = None,
    workers: d.Workers = None,
    seconds: d.Seconds = 600.0,
    dry_run: d.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    debug: o.Debug = False,
) -> None:
    """Drop, change and order rows of tables, and print how many rows each step drops.

    Steps are done in the order of Open-Sora's tool, whatever the order of the options: other tables, captions beside
    the files, --info, --ext, --remove-url, --lang, empty and double paths, paths, captions, --update-text, sorting,
    limits on numbers, --where, double captions, kinds of files, --shuffle, --head, columns, shards.
    """
    from dataclasses import fields

    from sora_cli.console import command_output

    with command_output(json=as_json, quiet=quiet):
        from sora_cli.data.filtering import run_filter
        from sora_cli.data.operations import FilterOptions
        from sora_cli.data.run import available_cores

        options = FilterOptions(**{each.name: ctx.params[each.name] for each in fields(FilterOptions)})
        run_filter(
            tables,
            output,
            options,
            has_header=not no_header,
            reference_name=format if reference_name else None,
            overwrite=overwrite,
            dry_run=dry_run,
            workers=workers or available_cores(),
            seconds=seconds,
        )
