"""Tables and files in object stores (s3://, gs://, memory:// ...), through fsspec."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from sora_cli.errors import MissingError, SoraError, UsageError

Result = TypeVar("Result")
#: Object stores that tables may name files in.
STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory", "file")


def is_address(place: str) -> bool:
    """Whether it is an address, scheme://..., and not a file of this machine."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", place) is not None


def find_objects(place: str) -> list[str]:
    """The objects that an address names, sorted: one, those of a folder, or those that a pattern fits."""

    def find(files: Any, path: str) -> list[str]:
        if files.isdir(path):
            found = files.ls(path, detail=False)
        elif any(mark in path for mark in "*?["):
            found = files.glob(path)
        else:
            found = [path] if files.exists(path) else []
        return sorted(files.unstrip_protocol(each) for each in found)

    return _with_files(place, find)


def objects_below(address: str) -> list[tuple[str, str]]:
    """(address, stamp) of an object, or of all objects below a folder, sorted. The stamp changes with the content."""

    def find(files: Any, path: str) -> list[tuple[str, str]]:
        found = files.find(path, detail=True)
        marks = ("ETag", "etag", "mtime", "LastModified", "updated", "created")
        return sorted(
            (files.unstrip_protocol(name), f"{about['size']}-{next((about[key] for key in marks if key in about), '')}")
            for name, about in found.items()
        )

    return _with_files(address, find)


def object_exists(address: str) -> bool:
    """Whether there is an object of this address."""
    return _with_files(address, lambda files, path: bool(files.exists(path)))


def object_size(address: str) -> int:
    """Bytes of an object."""
    return _with_files(address, lambda files, path: int(files.size(path)))


def local_copy(address: str) -> Path:
    """A copy of an object in a temporary folder, which goes when the program ends."""
    fsspec = _fsspec(address)
    return Path(_explained(address, lambda: fsspec.open_local(f"simplecache::{address}")))


@contextlib.contextmanager
def at_hand(place: str) -> Iterator[str]:
    """A file of this machine: the place itself, or a copy of an object that is removed afterwards."""
    if not is_address(place):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="sora-") as folder:
        copy = os.path.join(folder, place.rstrip("/").rsplit("/", 1)[-1] or "object")
        _with_files(place, lambda files, path: files.get_file(path, copy))
        yield copy


def is_store(address: str) -> bool:
    """Whether an address is one of an object store, which alone are looked at where a table names them.

    Whoever wrote a table must not choose which web servers, of whose network, this machine calls.
    """
    return address.partition("://")[0].lower() in STORES


def check_store(address: str) -> None:
    """Raise UsageError for an address in a table that is not one of an object store."""
    if not is_store(address):
        scheme = address.partition("://")[0]
        raise UsageError(
            f"{address}: files named in tables are not fetched over {scheme}", hint=f"stores: {', '.join(STORES)}"
        )


def upload(source: Path, address: str) -> None:
    """Write a file as an object; stores show objects only once they are complete."""

    def put(files: Any, path: str) -> None:
        if not getattr(files, "local_file", False):
            files.put_file(str(source), path)
            return
        # The one for file:// makes no folders, and shows files while they are written.
        partial = f"{path}.partial"
        files.makedirs(os.path.dirname(path), exist_ok=True)
        files.put_file(str(source), partial)
        os.replace(partial, path)

    _with_files(address, put)


def _with_files(address: str, use: Callable[[Any, str], Result]) -> Result:
    """use(file system, path in it)."""
    fsspec = _fsspec(address)
    return _explained(address, lambda: use(*fsspec.core.url_to_fs(address)))


def _explained(address: str, act: Callable[[], Result]) -> Result:
    try:
        return act()
    except ImportError as error:  # fsspec knows the scheme, and its package is not there
        raise _missing(address, str(error)) from error
    except FileNotFoundError as error:
        raise UsageError(f"there is no {address}") from error
    except ValueError as error:
        raise UsageError(f"{address} cannot be opened: {error}") from error
    except Exception as error:  # every store has errors of its own
        raise SoraError(f"{address} cannot be reached: {type(error).__name__}: {error}") from error


def _fsspec(address: str) -> Any:
    try:
        import fsspec
    except ImportError as error:
        raise _missing(address, "fsspec is not installed") from error
    return fsspec


def _missing(address: str, reason: str) -> MissingError:
    return MissingError(f"{address} needs a package: {reason}", hint="pip install 'sora-cli[cloud]'")
