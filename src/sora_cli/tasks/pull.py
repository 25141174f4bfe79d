"""`sora pull`: find out what the named parts need from the hub, and download it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from sora_cli.console import get_console
from sora_cli.errors import UsageError, unknown_name
from sora_cli.plugin.specs import ModelSpec, Weights
from sora_cli.weights.fetch import HubFiles, fetch, find_cached, split_hub_id

if TYPE_CHECKING:
    from sora_cli.plugin.manager import Plugins

KINDS = ("model", "vae", "text-encoder")


class Need(NamedTuple):
    """Weights that lie on the hub. files: empty for a hub id whose files nobody has named."""

    what: str
    repo: str
    revision: str
    files: tuple[str, ...]
    licence: str | None
    size_gib: float | None


def run(names: Sequence[str], plugins: Plugins, *, variant: str | None, update: bool, dry_run: bool) -> None:
    """Download what the names need, and print the folders. Raises SoraError; see `weights.fetch.fetch`."""
    console = get_console()
    needs: list[Need] = []
    for name in names:
        found = needs_of(name, plugins, variant)
        if not found:
            console.note(f"{name} needs no download: its weights are in the package")
        needs += [need for need in found if need not in needs]
    for need in needs:
        here = find_cached(need.repo, need.revision, need.files) if need.files else None
        if dry_run:
            state = f"here, commit {here.commit[:8]}" if here else "would be downloaded"
            size = f", about {need.size_gib:.1f} GiB" if need.size_gib and not here else ""
            _report(need, here, f"{need.what}: {need.repo}, {state}{size}")
            continue
        files = fetch(need.repo, need.revision, need.files, what=need.what, licence=need.licence, update=update)
        _report(need, files, str(files.folder))


def _report(need: Need, files: HubFiles | None, line: str) -> None:
    record = {
        "what": need.what,
        "repository": need.repo,
        "revision": need.revision,
        "commit": files.commit if files else None,
        "folder": str(files.folder) if files else None,
        "paths": [str(path) for path in files.paths] if files else [],
    }
    get_console().result(line, record)


def needs_of(name: str, plugins: Plugins, variant: str | None) -> list[Need]:
    """The weights of a model with its parts, of a single part, or of a hub id. Raises UsageError for other names."""
    for kind in KINDS:
        spec = next((one for one in plugins.specs(kind).values() if name in (one.name, *one.aliases)), None)
        if isinstance(spec, ModelSpec):
            parts = [plugins.get("vae", spec.vae), plugins.get("text-encoder", spec.text_encoder)]
            of_model = _need(_variant_name(spec, variant), _variant_weights(spec, variant))
            return [*of_model, *(need for part in parts for need in _need(part.name, part.weights))]  # type: ignore[attr-defined]
        if spec is not None:
            return _need(spec.name, spec.weights)  # type: ignore[attr-defined]
    hub_id = split_hub_id(name)
    if hub_id is None:
        raise unknown_name("model", name, [key for kind in KINDS for key in plugins.specs(kind)])
    return [Need(name, *hub_id, (), None, None)]


def _variant_name(spec: ModelSpec, variant: str | None) -> str:
    return f"{spec.name} ({variant or next(iter(spec.variants))})"


def _variant_weights(spec: ModelSpec, variant: str | None) -> Weights | None:
    chosen = variant or next(iter(spec.variants))
    if chosen not in spec.variants:
        raise unknown_name(f"variant of {spec.name}", chosen, spec.variants)
    if chosen not in spec.weights:
        raise UsageError(f"no weights were released for {spec.name} ({chosen})", hint="use your own with --weights")
    return spec.weights[chosen]


def _need(what: str, weights: Weights | None) -> list[Need]:
    if weights is None or weights.repo is None:
        return []
    return [Need(what, weights.repo, weights.revision, weights.files, weights.licence, weights.size_gib)]
