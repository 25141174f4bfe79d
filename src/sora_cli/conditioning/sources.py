"""Where pictures and videos that clips are given come from: files, web addresses, and standard input.

What is fetched or read from standard input is kept by its content in `<hub cache>/sora-references`, and a file is then
like any other; for each web address it is written down there what it gave and which version that was.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from sora_cli.console import get_console
from sora_cli.errors import SoraError, UsageError
from sora_cli.redaction import redact
from sora_cli.training.run_folder import describe
from sora_cli.weights.fetch import cache_folder

if TYPE_CHECKING:
    from sora_cli.config.schema import ConditioningSection

    from .web import Limits

FOLDER = "sora-references"
STANDARD_INPUT = "-"
DIGEST_LETTERS = 16
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://|(data):", re.IGNORECASE)


class Source(NamedTuple):
    """A reference. said: what stands for it in stored settings, without credentials; digest: 16 hex digits."""

    path: Path
    digest: str
    said: str


class Sources:
    """References by the text that they are given as; each is looked at, fetched and hashed once in a run."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        expected: Mapping[str, str] | None = None,
        known: Mapping[str, Iterable[str]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """allow_private: also from addresses that are not on the open internet. limits: of what is read.

        expected: what is said -> digest, of a clip that is made again. known: `record` of another process.
        """
        self._allow_private, self._expected, self._limits = allow_private, dict(expected or {}), limits
        self._known = {text: Source(Path(path), *rest) for text, (path, *rest) in (known or {}).items()}

    def __call__(self, text: str) -> Source:
        """The file of a reference. Raises UsageError, SoraError."""
        if text not in self._known:
            self._known[text] = source = self._find(text)
            if self._expected.get(source.said, source.digest) != source.digest:
                get_console().warn(f"{source.said} is not what it was when the clip was made, so the new one differs")
        return self._known[text]

    def said(self, text: str) -> str:
        """What stands for a reference in stored settings."""
        if text in self._known:
            return self._known[text].said
        return redact(text) if text == STANDARD_INPUT or _SCHEME.match(text) else _absolute(text)

    def name(self, path: Path) -> str:
        """What a file is called in messages: as it was given, an address without its secrets."""
        text = next((text for text, source in self._known.items() if source.path == path), str(path))
        return "standard input" if text == STANDARD_INPUT else redact(text) if _SCHEME.match(text) else str(path)

    def conditioning_as_said(self, section: ConditioningSection) -> dict[str, Any]:
        """Those settings of one clip that name a single reference, as they are stored."""
        names = ("first", "last", "extend", "edit")
        said: dict[str, Any] = {name: self.said(text) for name in names if (text := getattr(section, name)) is not None}
        frames = [text.rpartition("@") for text in section.keyframes]
        if section.connect is not None:
            said["connect"] = tuple(map(self.said, section.connect))
        return {**said, "keyframes": tuple(f"{self.said(path)}@{moment}" for path, _, moment in frames)}

    def digests(self, paths: Collection[Path]) -> dict[str, str]:
        """What is said -> digest, of some of the files."""
        return {source.said: source.digest for source in self._known.values() if source.path in paths}

    def record(self) -> dict[str, list[str]]:
        """All that is known so far, for the other processes of a run; JSON-safe."""
        return {text: [str(path), digest, said] for text, (path, digest, said) in self._known.items()}

    def _find(self, text: str) -> Source:
        if text == STANDARD_INPUT:
            path = _read_standard_input(self._limits)
            return Source(path, digest(path), str(path))
        scheme = _SCHEME.match(text)
        if scheme is None:
            path = Path(text).expanduser()
            if not path.is_file():
                raise UsageError(f"there is no picture or video {path}")
            return Source(path, digest(path), _absolute(text))
        name = (scheme[1] or scheme[2]).lower()
        if name not in ("http", "https"):
            raise UsageError(
                f"pictures and videos cannot be given as {name} addresses",
                hint="http and https addresses can, files, and - for standard input",
            )
        path = _fetched(text, allow_private=self._allow_private, limits=self._limits)
        return Source(path, digest(path), redact(text))


def _absolute(text: str) -> str:
    """A path that is found from any folder."""
    return str(Path(text).expanduser().absolute())


def digest(path: Path) -> str:
    """16 hex digits of a file's content."""
    return str(describe(path)["blake2b"])[:DIGEST_LETTERS]


def check_standard_input(
    conditioning: ConditioningSection, prompt_file: str | None, of_prompts: Iterable[str] = ()
) -> None:
    """Raise UsageError when standard input is wanted twice. of_prompts: references in the JSON of prompts."""
    frames = (text.rpartition("@")[0] for text in conditioning.keyframes)
    several = (*conditioning.references, *of_prompts)
    texts = [
        *(prompt_file, conditioning.first, conditioning.last, conditioning.extend, conditioning.edit, *frames),
        *(conditioning.connect or ()),
        *(text for entry in several for text in entry.split(";")),
    ]
    if texts.count(STANDARD_INPUT) > 1:
        what = "the prompts and a reference" if prompt_file == STANDARD_INPUT else "two references"
        raise UsageError(f"standard input can be read once, and {what} want it", hint="give one of them as a file")


def _read_standard_input(limits: Limits | None) -> Path:
    from .web import BLOCK_BYTES, Limits

    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "the picture or video - is standard input, and that is a terminal",
            hint='pipe one into it, for example: sora i2v - "a waterfall" < photo.png',
        )
    most, done = (limits or Limits()).num_bytes, 0
    with _new_file() as (file, path):
        while block := sys.stdin.buffer.read(BLOCK_BYTES):
            done += len(block)
            if done > most:
                raise SoraError(f"standard input is larger than {most / 2**20:.0f} MiB", hint="give it as a file")
            file.write(block)
        file.close()
        kept = _keep(path, "standard input")
    get_console().note(f"standard input is kept as {kept}")
    return kept


def _fetched(url: str, *, allow_private: bool, limits: Limits | None) -> Path:
    """The kept file of a web address, fetched unless the server says that it is still the same."""
    from .web import fetch

    shown = redact(url)
    # Of the whole address: it tells pictures apart, and cannot be read back.
    entry = (
        cache_folder() / FOLDER / f"{hashlib.blake2b(url.encode(errors='replace'), digest_size=16).hexdigest()}.json"
    )
    kept, validators = _read_entry(entry)
    get_console().note(f"fetching {shown}")
    with _new_file() as (file, path):
        found = fetch(url, file, known=validators, allow_private=allow_private, limits=limits)
        if found is None:
            assert kept is not None  # only then there were validators
            return kept
        file.close()
        kept = _keep(path, shown)
        path.write_text(json.dumps({"file": kept.name, "validators": found}), encoding="utf-8")
        os.replace(path, entry)
    return kept


def _read_entry(entry: Path) -> tuple[Path | None, dict[str, str]]:
    """The file that an address gave and its version; nothing of one that is absent or damaged."""
    from .web import VALIDATORS

    try:
        content = json.loads(entry.read_text(encoding="utf-8"))
        path = entry.with_name(content["file"])
        if describe(path)["blake2b"] == path.stem:
            return path, {name: value for name, value in content["validators"].items() if name in VALIDATORS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None, {}


@contextlib.contextmanager
def _new_file() -> Iterator[tuple[BinaryIO, Path]]:
    """A file beside the kept ones, which is gone afterwards if it is still there. Raises SoraError."""
    folder = cache_folder() / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as file:
            path = Path(file.name)
            try:
                yield file, path  # type: ignore[misc]  # a wrapper that is one
            finally:
                path.unlink(missing_ok=True)
    except OSError as error:
        why = "there is no space left" if error.errno == errno.ENOSPC else str(error.strerror or error)
        raise SoraError(
            f"pictures and videos cannot be kept in {folder}: {why}", hint="HF_HOME names another place"
        ) from error


def _keep(path: Path, shown: str) -> Path:
    """Check a file that was written and give it the name of its content. shown: where it is from, for messages."""
    from sora_cli.video.pictures import UnreadableError, check_content

    try:
        suffix = check_content(path)
    except UnreadableError as error:
        raise SoraError(f"{shown}: {error}", hint="give a picture or a video that can be played") from error
    kept = path.with_name(f"{describe(path)['blake2b']}{suffix}")
    os.replace(path, kept)
    return kept
