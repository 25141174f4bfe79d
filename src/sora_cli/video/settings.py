"""The settings stored in a finished file: in the MP4's comment, in a PNG text chunk, and in a JSON file beside it.

Pure Python, so that showing settings and deciding what to skip need no video library.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from sora_cli.errors import SoraError, UsageError

#: The key that marks settings as ours.
HASH_KEY = "settings_hash"
PNG_KEYWORD = "sora"
#: x264's constant quality: 17 is about where compression stops being visible.
CRF = 17
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"eXIf")


def sidecar_path(path: Path) -> Path:
    """The JSON file beside an output: `clip.mp4` -> `clip.mp4.json`."""
    return path.with_name(path.name + ".json")


def dump_settings(settings: Mapping[str, Any]) -> str:
    """Settings as one line of ASCII JSON, as stored in the file (PNG text chunks hold Latin-1 only)."""
    return json.dumps(settings, sort_keys=True)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a finished file, or of a sidecar given itself.

    Raises UsageError when there is no such file, SoraError when it holds no settings.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="give one of the files in it")
    if not path.is_file():
        raise UsageError(f"no file {path}")
    settings = find_settings(path)
    if settings is None:
        raise SoraError(
            f"{path} holds no settings",
            hint="what `sora generate` makes has them, in the file or in a .json beside it",
        )
    return settings


def read_generate_settings(path: Path) -> dict[str, Any]:
    """The configuration in a file that `sora generate` made; it makes the same file again.

    Raises UsageError when there is no such file or another command made it, SoraError when it holds no settings.
    """
    config = read_settings(path).get("config")
    if not isinstance(config, dict):
        raise UsageError(
            f"{path} was not made by `sora generate`, so it holds no settings to start from",
            hint=f"`sora show {path}` prints what it holds",
        )
    return config


def find_settings(path: Path) -> dict[str, Any] | None:
    """Like `read_settings`, but None for a file that is absent, foreign or damaged."""
    for read, source in ((_from_mp4, path), (_from_png, path), (_from_json, path), (_from_json, sidecar_path(path))):
        try:
            text = read(source)
            settings = json.loads(text) if text else None
        except (OSError, ValueError, struct.error):
            continue
        if isinstance(settings, dict) and HASH_KEY in settings:
            return settings
    return None


def _from_json(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.suffix == ".json" else None


def without_texts(path: Path) -> bytes:
    """The bytes of an MP4 with its comment blanked, of a PNG without texts; of any other file as they are.

    What is shown is the same, and the file does not say how it was made.
    """
    data = path.read_bytes()
    with io.BytesIO(data) as file:
        place = _mp4_comment(file)
    if place is not None:
        start, end = place
        return data[:start] + b" " * (end - start) + data[end:]
    if not data.startswith(_PNG_SIGNATURE):
        return data
    kept = [_PNG_SIGNATURE]
    start = len(_PNG_SIGNATURE)
    while start + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[start : start + 8])
        if kind not in _PNG_TEXTS:
            kept.append(data[start : start + length + 12])
        start += length + 12  # with the checksum
    return b"".join(kept)


def _from_mp4(path: Path) -> str | None:
    with path.open("rb") as file:
        place = _mp4_comment(file)
        if place is None:
            return None
        file.seek(place[0])
        return file.read(place[1] - place[0]).decode("utf-8")


def _mp4_comment(file: BinaryIO) -> tuple[int, int] | None:
    """Where the text of moov/udta/meta/ilst/©cmt/data (the iTunes comment, where ffmpeg writes `comment`) is."""
    end = file.seek(0, 2)
    file.seek(4)
    if file.read(4) != b"ftyp":
        return None
    start = 0
    for name in (b"moov", b"udta", b"meta", b"ilst", b"\xa9cmt", b"data"):
        box = _find_box(file, name, start, end)
        if box is None:
            return None
        start, end = box
        start += 4 if name == b"meta" else 8 if name == b"data" else 0  # version and flags; type and locale
    return start, end


def _find_box(file: BinaryIO, name: bytes, start: int, end: int) -> tuple[int, int] | None:
    """Where the content of the first box `name` between two offsets begins and ends (ISO/IEC 14496-12, 4.2)."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        header = 8
        if size == 1:  # a 64-bit size follows
            (size,) = struct.unpack(">Q", file.read(8))
            header = 16
        if size == 0:  # up to the end
            size = end - start
        if size < header:
            return None
        if kind == name:
            return start + header, min(start + size, end)
        start += size
    return None


def _from_png(path: Path) -> str | None:
    """The tEXt chunk with our keyword (PNG specification, 11.3.4)."""
    with path.open("rb") as file:
        if file.read(8) != _PNG_SIGNATURE:
            return None
        while True:
            header = file.read(8)
            if len(header) < 8:
                return None
            length, kind = struct.unpack(">I4s", header)
            if kind == b"tEXt":
                keyword, _, text = file.read(length).partition(b"\0")
                if keyword == PNG_KEYWORD.encode():
                    return text.decode("latin-1")
                file.seek(4, 1)
            else:
                file.seek(length + 4, 1)
