"""Weights from a plain web server: downloaded once, checked by their SHA-256, kept beside the hub's repositories.

A file lies in `<hub cache>/sora-urls/<server>/<path>`; under that name it is whole and was checked. Half a download is
kept beside it and goes on the next time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sora_cli.console import get_console
from sora_cli.errors import MissingError, SoraError

from .fetch import GIB, cache_folder

if TYPE_CHECKING:
    from sora_cli.console import Progress
    from sora_cli.plugin.specs import Weights

FOLDER = "sora-urls"
#: Where a name carries the first digits of the file's SHA-256, as torchvision's do.
DIGITS = re.compile(r"-([0-9a-f]{8,64})\.\w+\Z")
MIB = 2**20
TIMEOUT_SECONDS = 30
NO_SPACE = 28  # errno.ENOSPC


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids downloads; read as huggingface-hub does, without importing it."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def address(weights: Weights, name: str) -> str:
    """Where a file of weights on a web server is."""
    return f"{(weights.url or '').rstrip('/')}/{name}"


def cached_path(weights: Weights, name: str) -> Path:
    """Where a file is kept on this machine."""
    where = urlsplit(address(weights, name))
    # A port's colon cannot be in a file name everywhere.
    return cache_folder() / FOLDER / where.netloc.replace(":", "_") / where.path.lstrip("/")


def find_urls(weights: Weights) -> list[Path] | None:
    """The files if all of them are here."""
    paths = [cached_path(weights, name) for name in weights.files]
    return paths if all(path.is_file() for path in paths) else None


def fetch_urls(weights: Weights, *, what: str, option: str) -> list[Path]:
    """The files of a web server, downloaded if need be. option: how the user gives a file instead, for messages.

    Raises MissingError for no network and a file that is not there, SoraError for a wrong file or a full disk.
    """
    for name, digits in zip(weights.files, checksums(weights), strict=True):
        path = cached_path(weights, name)
        if path.is_file():
            continue
        url = address(weights, name)
        by_hand = f"download {url} yourself, and give it with {option}"
        if is_offline():
            raise MissingError(f"{what} needs {name}, which is not here, and HF_HUB_OFFLINE is set", hint=by_hand)
        terms = f", licence: {weights.licence}"
        get_console().note(f"downloading {what}: {url}{terms}, to {path.parent}")
        try:
            _download(url, path, digits)
        except OSError as error:
            if error.errno == NO_SPACE:
                hint = "make room, or set HF_HOME to a folder on a larger disk; the same command goes on from there"
                raise SoraError(f"no space left in {path.parent}", hint=hint) from error
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise MissingError(
                f"{what} needs {name}, which cannot be downloaded: {reason}",
                hint=f"check the connection and run the same command again: it goes on where it stopped\nor {by_hand}",
            ) from error
    return [cached_path(weights, name) for name in weights.files]


def checksums(weights: Weights) -> tuple[str, ...]:
    """The first digits of the SHA-256 of each file. Raises ValueError where neither spec nor name has them."""
    if weights.sha256:
        return weights.sha256
    matches = [DIGITS.search(name) for name in weights.files]
    if not all(matches):
        raise ValueError(f"no SHA-256 is known for {', '.join(weights.files)}")
    return tuple(match[1] for match in matches if match)


def _download(url: str, path: Path, digits: str) -> None:
    # Locks of huggingface-hub work on disks without locks too.
    from huggingface_hub.utils import WeakFileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with WeakFileLock(path.with_name(path.name + ".lock")):
        if path.is_file():  # another process was first
            return
        goes_on = part.is_file()
        found = _receive(url, part)
        if goes_on and not found.startswith(digits):  # what was there may have been the beginning of something else
            part.unlink()
            found = _receive(url, part)
        if not found.startswith(digits):
            part.unlink()
            raise SoraError(
                f"{url} is not the file it should be: its SHA-256 starts with {found[: len(digits)]}, not {digits}",
                hint="the server, or something on the way to it, gives another file; try again later",
            )
        os.replace(part, path)


def _receive(url: str, part: Path) -> str:
    """Download to `part`, going on where it ends; returns the SHA-256 of the whole. Raises OSError."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    have = part.stat().st_size if part.is_file() else 0
    request = Request(url, headers={"User-Agent": "sora-cli", **({"Range": f"bytes={have}-"} if have else {})})
    try:
        with urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            if response.status != 206:  # not the rest, but the file from its start
                have = 0
            total = have + int(response.headers.get("Content-Length") or 0)
            free = shutil.disk_usage(part.parent).free
            if total - have > free:
                raise SoraError(
                    f"{part.name} needs {(total - have) / GIB:.1f} GiB, {part.parent} has {free / GIB:.1f} GiB left",
                    hint="make room, or set HF_HOME to a folder on a larger disk",
                )
            with part.open("ab" if have else "wb") as file, _progress(part, total, have) as shown:
                while block := response.read(MIB):
                    file.write(block)
                    have += len(block)
                    shown.update(-(-have // MIB))
    except HTTPError as error:
        if error.code != 416 or not have:
            raise
        total = have  # the server has nothing after it: it is whole, or it is something else
    except HTTPException as error:
        raise OSError(str(error)) from error
    if have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes")
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


def _progress(part: Path, total: int, have: int) -> contextlib.AbstractContextManager[Progress]:
    return get_console().progress(f"{part.stem} in MiB", -(-total // MIB), have // MIB)
