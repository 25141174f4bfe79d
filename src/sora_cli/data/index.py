"""A table of the videos and pictures in folders: which there are, who they are, and what they are like."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.console import get_console
from sora_cli.errors import UsageError, unknown_name
from sora_cli.video.media import is_image, is_video

from .addresses import is_address, objects_below
from .work import Made, Row, RowFunction, Work

if TYPE_CHECKING:
    import polars as pl

#: What `probe.probe` says of a file.
PROBED = {
    "num_frames": "int",
    "height": "int",
    "width": "int",
    "aspect_ratio": "float",
    "fps": "float",
    "resolution": "int",
    "duration": "float",
    "codec": "str",
    "rotation": "int",
}
#: Bytes and time of change of a file: what was made of it is made anew when they change.
STAMP = "stamp"
#: Files that say what the names of an ImageNet copy's folders mean, one line each: the name, then its words.
SYNSETS = ("LOC_synset_mapping.txt", "synset_words.txt")


def file_stamp(path: str) -> str:
    """The stamp of a file. Raises OSError."""
    found = os.stat(path)
    return f"{found.st_size:x}-{found.st_mtime_ns:x}"


def made_stamp(row: Row, *how: Any) -> str:
    """The stamp of a file that is made of a row's: it changes with that one and with how it is made.

    Not with the time when it is made, so that a run that was interrupted gives the table of one that was not. how:
    JSON-safe. Raises OSError.
    """
    path = row["path"]
    source = (path, row.get(STAMP)) if is_address(path) else file_stamp(path)
    text = json.dumps([source, *how], default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def probe_work(*, seconds: float, fast: bool = False, as_video: bool = False) -> Work:
    """Look into each file. seconds: a file may take; fast, as_video: see `probe.probe`."""
    options = {"fast": fast, **({"as_video": True} if as_video else {})}
    return Work("index", f"{__name__}:make_probe", options, ("path", STAMP), PROBED, rows_at_once=4, seconds=seconds)


def make_probe(options: Mapping[str, Any], device: str) -> RowFunction:
    """`Work.target` of `probe_work`."""
    from .probe import probe

    def look(row: Row) -> Made:
        found = probe(row["path"], **options)
        return Made([{name: found[name] for name in PROBED}], found["error"])

    return lambda rows: [look(row) for row in rows]


def find_files(places: Sequence[str], kind: str, *, split: str = "train", info: str | None = None) -> pl.DataFrame:
    """The table of files before anything is known of them: id, path (absolute), relpath, stamp, text if there is one.

    places: folders, files and patterns, folders of object stores, and tables, whose rows come last, as they are, with
    what they lack of these columns; a file that a table has is not taken from a folder too. kind: one of `KINDS`.
    split: the part of a set that has parts. info: a table that belongs to the set. Other rows are sorted by path and no
    file is there twice. Raises UsageError when a place does not exist or nothing is found.
    """
    import polars as pl

    from .tables import is_table

    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    tables = [place for place in places if kind in WANTED and is_table(place)]
    listed = _rows_of(tables, kind) if tables else pl.DataFrame()
    places = [place for place in places if place not in tables]
    rows: dict[str, dict[str, Any]] = {}
    for place in places:
        if is_address(place):
            for address, stamp in objects_below(place):
                if kind in WANTED and WANTED[kind](address):
                    relpath = address.removeprefix(place.rstrip("/")).lstrip("/") or address.rsplit("/", 1)[-1]
                    rows.setdefault(address, {"path": address, "relpath": relpath, STAMP: stamp, "text": None})
            continue
        for path, root, text in KINDS[kind](place, split, info):
            absolute = os.path.abspath(path)
            relpath = os.path.relpath(path, root)
            rows.setdefault(absolute, {"path": absolute, "relpath": relpath, STAMP: file_stamp(path), "text": text})
    _leave_out_unwritable(rows)
    if not rows and not listed.height:
        what = "no video and no picture" if kind == "all" else f"nothing of kind {kind!r}"
        raise UsageError(f"there is {what} in {', '.join([*places, *tables])}")
    known = set(listed["path"]) if listed.height else set()
    ordered = [rows[path] for path in sorted(rows) if path not in known]
    names = unique_names([row["relpath"] for row in ordered])
    frame = pl.DataFrame(
        [{"id": name, **row} for name, row in zip(names, ordered, strict=True)],
        schema=dict.fromkeys(("id", "path", "relpath", STAMP, "text"), pl.String),
    )
    frame = frame if frame["text"].is_not_null().any() else frame.drop("text")
    return pl.concat([frame, listed], how="diagonal_relaxed") if listed.height else frame


def _leave_out_unwritable(rows: dict[str, dict[str, Any]]) -> None:
    """Take files out, and say so, whose names are no UTF-8 text, which tables hold. rows: by path."""
    odd = [path for path in rows if any("\udc80" <= letter <= "\udcff" for letter in path)]
    for path in odd:
        del rows[path]
    if odd:
        shown = os.fsencode(odd[0]).decode("utf-8", "backslashreplace")
        get_console().warn(
            f"files whose names are no UTF-8 text are left out, rename them: {len(odd)}, such as {shown}"
        )


def _rows_of(tables: Sequence[str], kind: str) -> pl.DataFrame:
    """The rows of tables, with id, relpath and stamp, which is missing where the file is."""
    import polars as pl

    from .run import open_rows

    frame = open_rows(tables)
    if kind != "all":
        frame = frame.filter(
            pl.Series([is_image(path) == (kind == "image") for path in frame["path"]], dtype=pl.Boolean)
        )
    paths = frame["path"].to_list()
    here = [os.path.dirname(path) for path in paths if not is_address(path)]
    folder = os.path.commonpath(here) if here else ""
    relpaths = [path.partition("://")[2] if is_address(path) else os.path.relpath(path, folder) for path in paths]
    before = frame[STAMP].to_list() if STAMP in frame.columns else [None] * len(paths)
    stamps = [old if is_address(path) else _stamp_of(path) for path, old in zip(paths, before, strict=True)]
    made = {"id": unique_names(relpaths), "relpath": relpaths}
    lacking = [pl.Series(name, made[name], pl.String) for name in made if name not in frame.columns]
    return frame.with_columns(*lacking, pl.Series(STAMP, stamps, pl.String))


def _stamp_of(path: str) -> str | None:
    try:
        return file_stamp(path)
    except OSError:
        return None


def unique_names(relpaths: Sequence[str]) -> list[str]:
    """A name for each file: its stem, with a part of a hash of its place behind it where several have the same stem."""
    stems = [Path(path).stem for path in relpaths]
    counts = Counter(stem.lower() for stem in stems)
    return [
        stem if counts[stem.lower()] == 1 else f"{stem}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"
        for stem, path in zip(stems, relpaths, strict=True)
    ]


Found = tuple[str, str, str | None]


def _media(place: str, is_wanted: Callable[[str], bool]) -> Iterator[Found]:
    """(path, root, no text) of the files of a folder, a file or a pattern."""
    expanded = os.path.expanduser(place)
    if os.path.isdir(expanded):
        yield from ((path, expanded, None) for path in _walk(expanded) if is_wanted(path))
        return
    found = [expanded] if os.path.exists(expanded) else sorted(glob.glob(expanded, recursive=True))
    if not found:
        raise UsageError(f"{place} does not exist")
    for path in found:
        if os.path.isdir(path):
            yield from ((below, path, None) for below in _walk(path) if is_wanted(below))
        elif is_wanted(path):
            yield path, os.path.dirname(path) or ".", None


def _walk(folder: str) -> Iterator[str]:
    """All files below a folder. Links to folders are followed, but no folder is entered twice."""
    seen = {os.path.realpath(folder)}
    for here, folders, files in os.walk(folder, followlinks=True):
        real = {name: os.path.realpath(os.path.join(here, name)) for name in sorted(folders)}
        folders[:] = [name for name, path in real.items() if path not in seen]
        seen.update(real.values())
        yield from (os.path.join(here, name) for name in sorted(files) if not name.startswith("."))


def _split_folder(place: str, split: str) -> str:
    folder = os.path.join(os.path.expanduser(place), split)
    if not os.path.isdir(folder):
        raise UsageError(f"{folder} is no folder", hint="name the part of the set with --split")
    return folder


def _is_media(path: str) -> bool:
    return is_image(path) or is_video(path)


def _ucf101(place: str, split: str, info: str | None) -> Iterator[Found]:
    """Folders named after actions: "BoxingPunchingBag" is the text "Boxing Punching Bag"."""
    root = _split_folder(place, split)
    for path in _walk(root):
        if _is_media(path):
            name = os.path.basename(os.path.dirname(path))
            yield path, root, "".join(f" {c}" if c.isupper() and i else c for i, c in enumerate(name))


def _imagenet(place: str, split: str, info: str | None) -> Iterator[Found]:
    """Folders named after WordNet synsets, whose words a file in the root has; the text is the first of them."""
    top = os.path.expanduser(place)
    files = [info] if info else [os.path.join(top, name) for name in SYNSETS]
    listed = next((name for name in files if os.path.isfile(name)), None)
    if listed is None:
        raise UsageError(
            f"there is no list of what the folders of {place} mean",
            hint=f"put {SYNSETS[0]} there or name it with --info: lines such as `n01440764 tench, Tinca tinca`",
        )
    lines = Path(listed).read_text(encoding="utf-8").splitlines()
    words = {name: text.split(",")[0].strip() for name, _, text in (line.partition(" ") for line in lines)}
    root = _split_folder(place, split)
    for path in _walk(root):
        if is_image(path):
            name = os.path.basename(os.path.dirname(path))
            if name not in words:
                raise UsageError(f"{listed} does not say what {name} means")
            yield path, root, words[name]


def _vidprom(place: str, split: str, info: str | None) -> Iterator[Found]:
    """Videos pika-UUID.mp4 with a table of columns uuid and prompt."""
    if info is None:
        raise UsageError("vidprom has its prompts in a table", hint="name it with --info")
    from .tables import scan_tables

    root = os.path.expanduser(place)
    for row in scan_tables([info]).select("uuid", "prompt").collect().iter_rows(named=True):
        path = os.path.join(root, f"pika-{row['uuid']}.mp4")
        if os.path.basename(path) == f"pika-{row['uuid']}.mp4" and os.path.isfile(path):
            yield path, root, row["prompt"]


#: Kinds that files are of by their names alone.
WANTED: Mapping[str, Callable[[str], bool]] = {"all": _is_media, "video": is_video, "image": is_image}
KINDS: Mapping[str, Callable[[str, str, str | None], Iterator[Found]]] = {
    "all": lambda place, split, info: _media(place, WANTED["all"]),
    "video": lambda place, split, info: _media(place, WANTED["video"]),
    "image": lambda place, split, info: _media(place, WANTED["image"]),
    "ucf101": _ucf101,
    "imagenet": _imagenet,
    "vidprom": _vidprom,
}
