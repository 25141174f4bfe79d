"""Where clips are written: a folder of this machine, or of an object store."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from sora_cli.errors import UsageError
from sora_cli.files import claimed
from sora_cli.video.io import partial_path

from .addresses import check_store, find_objects, is_address, upload


@dataclass(frozen=True)
class ClipFolder:
    """Files appear in it whole or not at all. place: an absolute path, or an address."""

    place: str

    @classmethod
    def at(cls, place: str) -> ClipFolder:
        """As a user gave it. Raises UsageError for addresses that are not of object stores."""
        if not is_address(place):
            return cls(str(Path(place).expanduser().resolve()))
        check_store(place)
        if place.lower().startswith("memory:"):
            raise UsageError(f"{place} would end with the process that writes it", hint="name a folder or a store")
        return cls(place.rstrip("/"))

    def path(self, name: str) -> str:
        """The path of a file, or its address."""
        return f"{self.place}/{name}" if is_address(self.place) else os.path.join(self.place, name)

    @contextlib.contextmanager
    def new_file(self, name: str) -> Iterator[Path]:
        """A path on this machine to write at: what is there in the end becomes the file, and nothing after an error."""
        with contextlib.ExitStack() as stack:
            if is_address(self.place):
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sora-")))
                partial = folder / PurePath(name).name
            else:
                partial = _partial(Path(self.path(name)))
                partial.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(claimed(partial))
                stack.callback(_remove, partial)
            yield partial
            if partial.exists():
                if is_address(self.place):
                    upload(partial, self.path(name))
                else:
                    os.replace(partial, self.path(name))

    def files_like(self, names: Sequence[str], ending: str = "") -> Iterator[str]:
        """The files that have one of these names, or one of them with this regular expression before the suffix."""
        for parent, stems in _by_folder(names).items():
            for file in self._files(parent):
                found = re.fullmatch(rf"(.*?){ending}\.mp4", PurePath(file).name, re.DOTALL)
                if found and found[1] in stems:
                    yield file

    def remove_partials(self, names: Sequence[str], ending: str = "") -> None:
        """Remove what a run that was ended left half written of files as in `files_like`; stores never have any."""
        if is_address(self.place):
            return
        hidden = [str(PurePath(name).with_name(f".{PurePath(name).name}")) for name in names]
        for file in self.files_like(hidden, rf"{ending}(?:\.partial)+"):
            with contextlib.suppress(OSError), claimed(Path(file)):  # not those that another process is writing
                _remove(Path(file))

    def _files(self, parent: str) -> list[str]:
        """What lies in one of its folders, sorted."""
        if is_address(self.place):
            return find_objects(self.path(parent).removesuffix("/."))
        folder = Path(self.place, parent)
        return [str(path) for path in sorted(folder.iterdir())] if folder.is_dir() else []


def _partial(path: Path) -> Path:
    hidden = partial_path(path)
    return hidden.with_name(f".{hidden.name}")


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def _by_folder(names: Sequence[str]) -> dict[str, set[str]]:
    """Folder -> stems of the names in it."""
    stems: dict[str, set[str]] = defaultdict(set)
    for name in names:
        path = PurePath(name)
        stems[str(path.parent)].add(path.name.removesuffix(path.suffix))
    return stems
