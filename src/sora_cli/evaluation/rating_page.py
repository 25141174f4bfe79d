"""A page on which people rate clips in pairs without knowing what made them, and the key that says it.

`page/index.html` and the clips under names without meaning are for raters; `key.json` beside that folder is not.
"""

from __future__ import annotations

import hashlib
import html
import json
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from sora_cli import version
from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.files import write_text
from sora_cli.video.io import write_failed
from sora_cli.video.settings import without_texts

from .provenance import provenance
from .votes import KEY_FILE

PAGE, CLIPS = "page", "clips"
TEMPLATE = Path(__file__).with_name("rating_page.html")
#: What raters are asked; a criterion of one's own is NAME=QUESTION.
QUESTIONS = {
    "overall": "Which one do you like better, all in all?",
    "quality": "Which one looks better: sharp, clean, without faults?",
    "motion": "Which one moves better: smoothly, naturally, enough?",
    "text": "Which one shows better what the text says?",
}
ONLY_VIDEOS, ONLY_WITH_TEXT = "motion", "text"
#: What browsers show; a GIF is shown like a picture.
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
VIDEOS = (".mp4", ".webm", ".m4v", ".mov")


def criteria_of(given: Sequence[str]) -> dict[str, str]:
    """Questions by name, of texts NAME or NAME=QUESTION; all of ours where none is given. Raises UsageError."""
    found = {}
    for text in given or QUESTIONS:
        name, _, question = text.partition("=")
        question = question.strip() or QUESTIONS.get(name, "")
        if not name or not question:
            raise UsageError(
                f"--criterion {text} has no question", hint=f"one of {', '.join(QUESTIONS)}, or NAME=QUESTION"
            )
        found[name] = question
    return found


def write_page(
    folders: Sequence[Path],
    output: Path,
    *,
    criteria: Mapping[str, str],
    prompts: Mapping[str, str],
    title: str,
    seed: int,
    limit: int | None = None,
) -> dict[str, Any]:
    """Write the page and its key into a new folder, and return the key.

    Clips with the same name in two folders are a pair; with more than two folders, each two of them. prompts: by name
    of a clip, where the file does not hold its own. seed: of the order and the sides. limit: pairs at most, drawn from
    all. The folder appears whole or not at all. Raises UsageError for folders without pairs, and an `output` with
    anything in it.
    """
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise UsageError(f"{output} is there already", hint="choose another --output, or remove it")
    clips = dict(zip(_labels(folders), map(clips_in, folders), strict=True))
    generator = random.Random(seed)
    pairs = _draw_pairs(clips, generator, limit)
    used = {label: sorted({name for name, *sides in pairs if label in sides}) for label in clips}
    known = {label: provenance([clips[label][name] for name in names]) for label, names in used.items()}
    texts = {**prompts, **_prompts(known, clips)}
    target = output.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        (partial / PAGE / CLIPS).mkdir(parents=True)
        files = {
            (label, name): _copy(clips[label][name], partial / PAGE, generator)
            for label in used
            for name in used[label]
        }
        shown, secret = [], {}
        for name, left, right in pairs:
            token = f"{generator.getrandbits(48):012x}"
            sides = {"A": files[left, name][0], "B": files[right, name][0]}
            is_image, prompt = _is_picture(name), texts.get(name, "")
            asked = _questions(criteria, name, prompt)
            shown.append({"id": token, "prompt": prompt, "is_image": is_image, "criteria": asked, **sides})
            secret[token] = {"name": name, "left": left, "right": right}
        hashes = {label: {name: files[label, name][1] for name in names} for label, names in used.items()}
        page = hashlib.sha256(json.dumps([hashes, secret, criteria], sort_keys=True).encode()).hexdigest()[:16]
        models = {
            label: {"folder": str(folder), "sha256": hashes[label], "provenance": known[label]}
            for label, folder in zip(clips, folders, strict=True)
        }
        key = {
            "page": page,
            "sora": version(),
            "seed": seed,
            "criteria": dict(criteria),
            "pairs": secret,
            "models": models,
        }
        write_text(partial / KEY_FILE, json.dumps(key, indent=1, ensure_ascii=False) + "\n")
        write_text(
            partial / PAGE / "index.html", page_text(title, {"page": page, "criteria": dict(criteria), "pairs": shown})
        )
        os.replace(partial, target)
    except OSError as error:
        raise write_failed(output, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return key


def _questions(criteria: Mapping[str, str], name: str, prompt: str) -> list[str]:
    """The criteria that a clip can be judged by. Raises UsageError for one with none."""
    senseless = {ONLY_VIDEOS: _is_picture(name), ONLY_WITH_TEXT: not prompt}
    asked = [criterion for criterion in criteria if not senseless.get(criterion)]
    if not asked:
        raise UsageError(f"nothing is left to ask about {name}", hint="add a --criterion, e.g. overall")
    return asked


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in PICTURES


def page_text(title: str, data: Mapping[str, Any]) -> str:
    """The HTML of a page. data: its id, criteria and pairs, as the script reads them."""
    # Inside a script element nothing but a "<" could end it.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    parts = {"title": html.escape(title), "data": text}
    pieces = TEMPLATE.read_text(encoding="utf-8").split("{{")
    filled = [f"{parts[name]}{rest}" for name, _, rest in (piece.partition("}}") for piece in pieces[1:])]
    return "".join([pieces[0], *filled])


def _labels(folders: Sequence[Path]) -> list[str]:
    """Names of folders, with as many of the folders around them as make them different."""
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < max(2, len(paths)):
        raise UsageError("a page needs two folders or more, each another one")
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        labels = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(labels)) == len(labels):
            return labels
    raise AssertionError("different paths have different parts")


def clips_in(folder: Path) -> dict[str, Path]:
    """Videos and pictures below a folder, hidden ones aside, by their path in it. Raises UsageError."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", hint="sora eval human sample makes one of clips")
    names = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path
        for name, path in names.items()
        if path.suffix.lower() in (*PICTURES, *VIDEOS) and not any(part.startswith(".") for part in name.parts)
    }


def _draw_pairs(
    clips: Mapping[str, Mapping[str, Path]], generator: random.Random, limit: int | None
) -> list[tuple[str, str, str]]:
    """Name of the clip, label on the left, label on the right, in the order of the page."""
    names = sorted({name for found in clips.values() for name in found})
    pairs = [
        (name, a, b) for name in names for a, b in combinations([label for label in clips if name in clips[label]], 2)
    ]
    single = sum(sum(name in found for found in clips.values()) == 1 for name in names)
    if pairs and single:
        get_console().note(f"{single} clips are in one of the folders only and left out")
    if not pairs:
        raise UsageError(
            f"no clip is in two of {', '.join(clips)} under the same name",
            hint=f"make them from the same plan, as files that browsers show: {', '.join((*VIDEOS, *PICTURES))}",
        )
    generator.shuffle(pairs)
    return [(name, a, b) if generator.random() < 0.5 else (name, b, a) for name, a, b in pairs[:limit]]


def _prompts(known: Mapping[str, Any], clips: Mapping[str, Mapping[str, Path]]) -> dict[str, str]:
    """What clips were made from, by their names; known: provenance by label. Says where two of a name differ."""
    texts: dict[str, str] = {}
    differ = []
    for label, found in known.items():
        for name, path in clips[label].items():
            own = found["clips"].get(str(path))
            prompt = None if own is None else {**found["shared"], **own}["prompt"]
            if prompt and texts.setdefault(name, prompt) != prompt:
                differ.append(name)
    if differ:
        get_console().warn(
            f"made from different prompts, of which the first is shown: {', '.join(sorted(set(differ)))}"
        )
    return texts


def _copy(path: Path, page: Path, generator: random.Random) -> tuple[str, str]:
    """Copy a clip under a name without meaning; its address on the page, and the SHA-256 of the original."""
    address = f"{CLIPS}/{generator.getrandbits(48):012x}{path.suffix.lower()}"
    (page / address).write_bytes(without_texts(path))
    return address, hashlib.sha256(path.read_bytes()).hexdigest()
