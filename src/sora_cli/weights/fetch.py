"""Weights from the Hugging Face hub: downloaded once, kept at one commit, found again without network.

The commit that a revision meant at the first download is written to a lock file beside the repository's folder in the
hub's cache; later runs use that commit until `sora pull --update` looks again. huggingface-hub itself resumes half a
file, honours HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE, and is imported only where a repository is involved.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sora_cli.console import get_console
from sora_cli.errors import MissingError, SoraError

GIB = 2**30
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?\Z")
#: Files of an unknown repository that are worth having, best kind of weights first.
CONFIGURATION = ("config.json", "*tokenizer*", "spiece.model", "special_tokens_map.json")
#: How long the hub may take to say whether it has something.
HURRY_SECONDS = 5.0
WEIGHT_KINDS = ("*.safetensors", "*.bin", "*.pt", "*.pth")


@dataclass(frozen=True)
class HubFiles:
    """Files of a repository at one commit, on this machine. paths: in the order in which they were asked for."""

    repo: str
    commit: str
    folder: Path
    paths: tuple[Path, ...]


def cache_folder() -> Path:
    """The hub's cache, found as huggingface-hub finds it but without importing it."""
    explicit = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if explicit:
        return Path(os.path.expanduser(explicit))
    home = os.environ.get("HF_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"), "huggingface"
    )
    return Path(os.path.expanduser(home)) / "hub"


def repository_folder(repo: str) -> Path:
    """Where the cache keeps a repository."""
    return cache_folder() / f"models--{repo.replace('/', '--')}"


def lock_path(repo: str) -> Path:
    """The file with the commits that are used of a repository."""
    return cache_folder() / f"models--{repo.replace('/', '--')}.sora-lock.json"


def read_lock(repo: str) -> dict[str, str]:
    """Revision -> commit; empty without a lock file or with a damaged one, which is written again."""
    try:
        content = json.loads(lock_path(repo).read_text(encoding="utf-8"))
        return {str(revision): str(commit) for revision, commit in content["commits"].items()}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}


def write_lock(repo: str, revision: str, commit: str) -> None:
    """Note which commit a revision means; the file is the old one or the new one, never half of one."""
    path = lock_path(repo)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    content = {"repository": repo, "commits": {**read_lock(repo), revision: commit}}
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def find_cached(repo: str, revision: str, patterns: Sequence[str]) -> HubFiles | None:
    """The files if all of them are here at the locked commit; asks no network and imports nothing."""
    commit = read_lock(repo).get(revision)
    if commit is None:
        return None
    folder = repository_folder(repo) / "snapshots" / commit
    paths: list[Path] = []
    for pattern in patterns:
        matches = sorted(path for path in folder.glob(pattern) if path.is_file())
        if not matches:
            return None
        paths += [path for path in matches if path not in paths]
    return HubFiles(repo, commit, folder, tuple(paths))


def fetch(
    repo: str,
    revision: str,
    patterns: Sequence[str],
    *,
    what: str,
    licence: str | None = None,
    update: bool = False,
    option: str = "--weights FILE",
) -> HubFiles:
    """The files of a repository, downloaded if need be. update: ask the hub which commit the revision means now.

    patterns: names or patterns of files; empty takes what an unknown repository has of configuration and weights.
    option: how the user gives files of his own, for messages.
    Raises MissingError for no network, an unknown repository, revision or file, and a repository that needs a token;
    SoraError for a full disk.
    """
    if patterns and not update:
        found = find_cached(repo, revision, patterns)
        if found is not None:
            return found
    with _hub_errors(repo, revision, what, option):
        return _download(repo, revision, patterns, what=what, licence=licence, update=update)


def is_offered(repo: str, revision: str) -> bool:
    """Whether the hub can be reached and has the revision for this user; asks once, and waits a few seconds at most."""
    from huggingface_hub import HfApi

    try:
        with _hub_errors(repo, revision, repo, "--weights FILE"):
            HfApi().model_info(repo, revision=revision, timeout=HURRY_SECONDS)
    except SoraError:
        return False
    return True


def free_gib() -> float:
    """Room for downloads on the disk of the cache."""
    folder = cache_folder().absolute()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / GIB


def _download(
    repo: str, revision: str, patterns: Sequence[str], *, what: str, licence: str | None, update: bool
) -> HubFiles:
    from huggingface_hub import HfApi, hf_hub_download

    asked = revision if update else read_lock(repo).get(revision, revision)
    info = HfApi().model_info(repo, revision=asked, files_metadata=True, timeout=30)
    commit = str(info.sha)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or []}
    names = wanted_files(list(sizes), patterns, what=what, repo=repo)
    folder = repository_folder(repo) / "snapshots" / commit
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        _announce(repo, commit, {name: sizes[name] for name in absent}, what=what, licence=licence)
    for index, name in enumerate(absent, start=1):
        get_console().note(f"{name} ({index} of {len(absent)}, {sizes[name] / GIB:.2f} GiB)")
        # It shows its own progress with time left on stderr, and goes on where an earlier download stopped.
        hf_hub_download(repo, name, revision=commit)
    write_lock(repo, revision, commit)
    return HubFiles(repo, commit, folder, tuple(folder / name for name in names))


def wanted_files(names: Sequence[str], patterns: Sequence[str], *, what: str, repo: str) -> list[str]:
    """The files of a repository to download. Raises MissingError when a pattern matches none."""
    if patterns:
        chosen: list[str] = []
        for pattern in patterns:
            matches = sorted(name for name in names if fnmatch.fnmatchcase(name, pattern))
            if not matches:
                raise MissingError(f"{repo} has no file {pattern}, which {what} needs")
            chosen += [name for name in matches if name not in chosen]
        return chosen
    top = [name for name in names if "/" not in name]
    configuration = [name for name in top if any(fnmatch.fnmatchcase(name, one) for one in CONFIGURATION)]
    for kind in WEIGHT_KINDS:
        weights = [name for name in top if fnmatch.fnmatchcase(name, kind)]
        if weights:
            index = [name for name in top if name.endswith(f"{kind[1:]}.index.json")]
            return sorted({*configuration, *weights, *index})
    raise MissingError(f"{repo} holds no weights at its top level", hint="give a folder or a file with --weights")


def _announce(repo: str, commit: str, sizes: dict[str, int], *, what: str, licence: str | None) -> None:
    """Say what is downloaded, and refuse when the disk has no room for it."""
    folder, needed = cache_folder(), sum(sizes.values())
    terms = f", licence: {licence}" if licence else ""
    get_console().note(f"downloading {what}: {needed / GIB:.1f} GiB from {repo} ({commit[:8]}{terms}) to {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SoraError(
            f"{what} needs {needed / GIB:.1f} GiB, and {folder} has {free / GIB:.1f} GiB left",
            hint="make room, or set HF_HOME to a folder on a larger disk",
        )


@contextlib.contextmanager
def _hub_errors(repo: str, revision: str, what: str, option: str) -> Iterator[None]:
    """Turn the errors of huggingface-hub and of the network into one message each."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        hint = f"ask for access at https://huggingface.co/{repo}, then `hf auth login` or set HF_TOKEN"
        raise MissingError(f"{repo} is only open to people who asked for access", hint=hint) from error
    except errors.RevisionNotFoundError as error:
        raise MissingError(f"{repo} has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        hint = "check the name; a private repository needs a token (`hf auth login`, or HF_TOKEN)"
        raise MissingError(f"there is no repository {repo!r} on the hub, or it is private", hint=hint) from error
    except errors.EntryNotFoundError as error:
        raise MissingError(f"{repo} lacks a file that {what} needs: {error}") from error
    except errors.OfflineModeIsEnabled as error:
        raise _not_here(repo, what, "HF_HUB_OFFLINE is set", option) from error
    except SoraError:
        raise
    except OSError as error:
        if error.errno == 28:
            hint = "make room, or set HF_HOME to a folder on a larger disk; the same command goes on from there"
            raise SoraError(f"no space left in {cache_folder()}", hint=hint) from error
        raise _not_here(repo, what, _reason(error), option) from error
    except Exception as error:
        # The network library below differs between versions of huggingface-hub; its errors share no class.
        if type(error).__module__.split(".")[0] not in (
            "httpx",
            "httpx2",
            "httpcore",
            "requests",
            "urllib3",
            "huggingface_hub",
        ):
            raise
        raise _not_here(repo, what, _reason(error), option) from error


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _not_here(repo: str, what: str, reason: str, option: str) -> MissingError:
    return MissingError(
        f"the weights of {what} ({repo}) are not all on this machine and cannot be downloaded: {reason}",
        hint="check the connection and run the same command again: it goes on where it stopped\n"
        f"or `sora pull` them on a machine with network and copy its cache, or give your own with {option}",
    )


def split_hub_id(text: str) -> tuple[str, str] | None:
    """Repository and revision of `org/name` or `org/name@revision`; None when the text is none."""
    match = HUB_ID.match(text)
    return (match["repo"], match["revision"] or "main") if match else None
