"""Names of outputs, what to do with files that are already there, and how they are reported. Pure Python."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.redaction import without_secrets
from sora_cli.video.settings import HASH_KEY, find_settings, sidecar_path

if TYPE_CHECKING:
    from .plan import Clip

DEFAULT_FOLDER = Path("outputs")
MAX_SLUG = 60
VIDEO_SUFFIX, IMAGE_SUFFIX = ".mp4", ".png"
#: new: nothing there; done: there, made with the same settings; other: there, and not that.
OutputState = Literal["new", "done", "other"]


def slug(prompt: str) -> str:
    """A file name for a prompt: its words in ASCII lower case joined by "-", at most 60 characters.

    Where that loses something that tells prompts apart (letters without an ASCII form, words past the limit), six
    hex digits of the prompt's hash follow; "video" stands for a prompt of which nothing is left.
    """
    folded = unicodedata.normalize("NFKD", prompt)
    ascii_text = folded.encode("ascii", "ignore").decode().lower()
    words = "-".join(re.findall(r"[a-z0-9]+", ascii_text))
    lost = any(letter.isalnum() and not letter.isascii() for letter in folded)
    if len(words) > MAX_SLUG:
        lost = True
        words = words[: MAX_SLUG + 1].rpartition("-")[0] or words[:MAX_SLUG]
    if not words or lost:
        digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:6]
        return f"{words or 'video'}-{digest}" if lost else "video"
    return words


def check_not_read(path: Path, sources: Iterable[Path]) -> None:
    """Raise UsageError for an output, or a file on the way to it, that is one of the files it is made from."""
    from sora_cli.video.io import partial_path

    written = {each.resolve() for each in (path, partial_path(path), sidecar_path(path))}
    for source in sources:
        if source.resolve() in written:
            raise UsageError(f"{source} is what {path} is made from", hint="--output names another place")


def name_outputs(clips: Sequence[tuple[str, int]], output: Path | None, *, is_image: bool) -> list[Path]:
    """One path per clip, given as (prompt, seed), all different.

    output: a file (single clip), a folder, or None for `outputs/`. A path that ends in .mp4 or .png is a file, an
    existing folder or a path without any ending (a number like the .5 of "v1.5" is none) a folder. Two clips of one
    name get "-2", "-3" in order. Raises UsageError for a file name that does not fit.
    """
    suffix = IMAGE_SUFFIX if is_image else VIDEO_SUFFIX
    folder = DEFAULT_FOLDER
    if output is not None:
        if str(output) == "-":
            raise UsageError("clips are not written to standard output", hint="give a file or a folder with --output")
        # A path from a file or the environment has not been through a shell; "~" of nobody stays as it is.
        folder = Path(os.path.expanduser(output))
        if folder.suffix and not folder.suffix[1:].isdigit() and not folder.is_dir():
            return [_single_output(folder, len(clips), is_image=is_image)]
    names: dict[str, None] = {}  # in order, and quick to look up
    for prompt, seed in clips:
        base = name = f"{slug(prompt)}-{seed}"
        copy = 1
        while name in names:
            copy += 1
            name = f"{base}-{copy}"
        names[name] = None
    return [folder / f"{name}{suffix}" for name in names]


def check_suffix(output: Path, *, is_image: bool) -> Path:
    """`output`, if clips are written to files with its ending; raises UsageError otherwise."""
    suffix = IMAGE_SUFFIX if is_image else VIDEO_SUFFIX
    if output.suffix.lower() != suffix:
        made = "a single frame is written as .png" if suffix == IMAGE_SUFFIX else "videos are written as .mp4"
        raise UsageError(
            f"cannot write {output}: {made}",
            hint=f"use {output.with_suffix(suffix)}, or make the folder {output} first if it is one",
        )
    return output


def _single_output(output: Path, num_clips: int, *, is_image: bool) -> Path:
    check_suffix(output, is_image=is_image)
    if num_clips > 1:
        raise UsageError(
            f"{num_clips} clips do not fit into the one file {output}",
            hint=f"give a folder: -o {output.with_suffix('')}",
        )
    return output


def settings_hash(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings as canonical JSON (sorted keys, no blanks, None left out), in hex."""
    text = json.dumps(_without_none(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _without_none(value: Any) -> Any:
    # A setting that does not exist yet in this version and one that is not set are the same.
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def output_state(path: Path, wanted_hash: str) -> OutputState:
    """What is at `path`, compared with what would be written there. A sidecar alone counts when it is not ours."""
    if path.is_file():
        settings = find_settings(path)
        return "done" if settings is not None and settings.get(HASH_KEY) == wanted_hash else "other"
    sidecar = sidecar_path(path)
    if os.path.lexists(path) or (os.path.lexists(sidecar) and find_settings(sidecar) is None):
        return "other"
    return "new"


def check_outputs(states: Mapping[Path, OutputState], *, overwrite: bool) -> None:
    """Raise UsageError (exit 2) when a file would be replaced without `overwrite`, or a folder stands in the way."""
    folders = [str(path) for path in states if path.is_dir()]
    if folders:
        raise UsageError(f"a folder has the name of an output: {', '.join(folders)}", hint="choose another --output")
    others = [str(path) for path, state in states.items() if state == "other"]
    if others and not overwrite:
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        raise UsageError(
            f"already there, made with other settings: {', '.join(others[:10])}{more}",
            hint="choose another --output, or replace with --overwrite",
        )


def check_free(targets: Sequence[Path], sources: Sequence[str | Path], *, overwrite: bool) -> None:
    """Raise UsageError for files that are there already, and in any case for those that are read."""
    read = {Path(source).resolve() for source in sources}
    for target in targets:
        if target.resolve() in read:
            raise UsageError(f"{target} is what is read", hint="--output names another place")
        if target.exists() and not overwrite:
            raise UsageError(f"{target} is there already", hint="--overwrite replaces it; --output names another place")


def prepare_folders(paths: Iterable[Path]) -> None:
    """Make the folders of the outputs and check that they can be written to. Raises UsageError."""
    for folder in dict.fromkeys(path.parent for path in paths):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            in_the_way = next((place for place in (folder, *folder.parents) if place.is_file()), None)
            reason = error.strerror if in_the_way is None else f"{in_the_way} is a file, not a folder"
            raise UsageError(
                f"cannot write to the folder {folder}: {reason}", hint="choose another --output"
            ) from error


def report(clip: Clip, status: Literal["made", "resumed", "skipped"]) -> None:
    """Print the path of a finished clip; in JSON an object with its prompt, and what became of that, and its seed."""
    console = get_console()
    if status == "skipped":
        console.note(f"already there, made with the same settings: {clip.path}")
    record = {"path": str(clip.path), "status": status, "prompt": without_secrets(clip.prompt), "seed": clip.seed}
    if clip.refined is not None:
        record["refined"] = without_secrets(clip.refined)
    console.result(clip.path, record)
