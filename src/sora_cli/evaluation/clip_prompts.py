"""What `--prompts FILE` may be: the prompts of clips that do not say their own, by name or in order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from sora_cli.errors import UsageError
from sora_cli.text.prompts import parse_prompt, read_prompts

#: Keys of an object for a clip and for its prompt.
CLIP_KEYS, PROMPT_KEYS = ("path", "name", "video"), ("text", "prompt")
FORMS = (
    'a table with the columns path and text; JSON {"clip.mp4": "a cat"}, ["a cat", ...] or '
    '[{"path": "clip.mp4", "text": "a cat"}, ...]; a plan of samples; or text with a prompt a line'
)


def read_clip_prompts(file: Path, names: Sequence[str]) -> dict[str, str]:
    """The prompts in a file of the clips with these names, by name; those without one are left out.

    names: in order, as paths; a prompt is of the clip with that whole name, else of those with the same last part where
    only one prompt is. Prompts without names are in the order of the clips. Raises UsageError for a file that is
    nothing of `FORMS`, and for another number of prompts than clips.
    """
    found = _read(file)
    if not isinstance(found, dict):
        if len(found) != len(names):
            raise UsageError(
                f"{file} has {len(found)} prompts without names, and there are {len(names)} clips",
                hint="give one for each clip, in the order of their names, or say which is whose",
            )
        return {name: prompt for name, prompt in zip(names, found, strict=True) if prompt}
    by_last: dict[str, set[str]] = {}
    for name, prompt in found.items():
        by_last.setdefault(PurePath(name).name, set()).add(prompt)
    single = {last: next(iter(prompts)) for last, prompts in by_last.items() if len(prompts) == 1}
    chosen = {name: found.get(name) or single.get(PurePath(name).name) for name in names}
    return {name: prompt for name, prompt in chosen.items() if prompt}


def _read(file: Path) -> dict[str, str] | list[str]:
    """Prompts by name, or in order. Paths of tables are absolute, others as they are written."""
    from sora_cli.data.tables import is_table

    if is_table(file.name) or file.is_dir():
        return _of_table(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the prompts in {file}: {error}", hint=f"give {FORMS}") from error
    except ValueError as error:
        if file.suffix.lower() == ".json":
            raise UsageError(f"cannot read the prompts in {file}: {error}", hint=f"give {FORMS}") from error
        return [parse_prompt(line).text for line in read_prompts((), str(file))]
    try:
        return _of_json(content)
    except (TypeError, KeyError, ValueError) as error:
        raise UsageError(f"cannot read the prompts in {file}: {error}", hint=f"give {FORMS}") from error


def _of_table(file: Path) -> dict[str, str]:
    from sora_cli.data.run import open_rows

    frame = open_rows([str(file)])
    if "text" not in frame.columns:
        raise UsageError(f"{file} has no column text", hint=f"its columns: {', '.join(frame.columns)}")
    return {path: text for path, text in frame.select("path", "text").iter_rows() if text}


def _of_json(content: Any) -> dict[str, str] | list[str]:
    """Raises TypeError, KeyError or ValueError for anything else."""
    if isinstance(content, dict) and isinstance(content.get("samples"), list):
        return {name: parse_prompt(prompt).text for name, prompt in _of_objects(content["samples"])}
    if isinstance(content, dict):
        return dict(_text(name, prompt) for name, prompt in content.items())
    if not isinstance(content, list) or not content:
        raise ValueError("it holds neither names nor a list of prompts")
    if all(isinstance(each, str) for each in content):
        return [each.strip() for each in content]
    return dict(_of_objects(content))


def _of_objects(entries: Sequence[Any]) -> Iterator[tuple[str, str]]:
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping):
            raise TypeError(f"entry {number} is not an object")
        names, prompts = ([entry[key] for key in keys if key in entry] for keys in (CLIP_KEYS, PROMPT_KEYS))
        if not names or not prompts:
            wanted = " and ".join(" or ".join(keys) for keys in (CLIP_KEYS, PROMPT_KEYS))
            raise ValueError(f"entry {number} needs {wanted}")
        yield _text(names[0], prompts[0])


def _text(name: Any, prompt: Any) -> tuple[str, str]:
    if not isinstance(name, str) or not isinstance(prompt, str):
        raise TypeError(f"{name!r}: {prompt!r} is not text")
    return name, prompt
