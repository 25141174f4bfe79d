"""`sora eval vbench report`: scores of a folder of results, what they rest on, and published ones beside them.

Pure Python: it runs where nothing else of an evaluation is installed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from sora_cli.console import get_console
from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.files import write_text
from sora_cli.plugin.manager import get_plugins
from sora_cli.plugin.specs import ScoringBackendSpec
from sora_cli.tasks.output import check_free

from .provenance import provenance
from .vbench_results import DimensionResult, read_results
from .vbench_scores import GROUPS, LEADERBOARD, RANGES, REFERENCE, WAYS, aggregates, normalised, reference_tables
from .vbench_suite import SAMPLES, SuiteName

#: Names of missing clips that people are shown, of each dimension; JSON has all.
MOST_SHOWN = 3
#: Of the settings of clips those that are shown as one line each; seeds and prompts have lines of their own.
SHOWN = (
    *("model", "vae", "text_encoder", "height", "width", "num_frames", "fps", "save_fps", "scheduler", "steps"),
    *("guidance", "negative_prompt", "weights", "commits", "sora"),
)
NOT_KEPT = "not kept"
#: Files that the reference writes.
REFERENCE_FILES = ("all_results", "scaled_results")


def run_report(
    source: Path,
    suite: SuiteName,
    *,
    videos: Path | None = None,
    reference_files: Path | None = None,
    compare: bool = False,
    output: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Print the report of a folder or zip file of results, or write it to `output` (.md or .json).

    videos: where the clips are now, when they are not where the results say. reference_files: a folder for
    all_results.json and scaled_results.json as the reference writes them, which takes all dimensions. compare: with
    published rows. Errors as `read_results`; SoraError for incomplete results with `reference_files`; UsageError for
    files that are there, unless they are to be overwritten.
    """
    if output is not None and output.suffix not in (".md", ".json"):
        raise UsageError(f"a report is .md or .json, not {output.name}")
    tables = [] if reference_files is None else [reference_files / f"{name}.json" for name in REFERENCE_FILES]
    check_free([*tables, *([output] if output is not None else ())], [source], overwrite=overwrite)
    results = read_results(source, suite, is_strict=reference_files is not None)
    if reference_files is not None:
        _write_reference(suite, results, reference_files)
    document = report_document(source, suite, results, videos=videos)
    if compare:
        document["published"] = published_rows(suite)
    text = markdown(document)
    if output is None:
        get_console().text(text, document)
        return
    is_json = output.suffix == ".json"
    write_text(output, (json.dumps(document, indent=2, ensure_ascii=False) if is_json else text) + "\n")
    get_console().result(output, {"path": str(output)})


def report_document(
    source: Path, suite: SuiteName, results: Mapping[str, DimensionResult], *, videos: Path | None = None
) -> dict[str, Any]:
    """Everything that a report says, JSON-safe."""
    raw = {dimension: result.value for dimension, result in results.items()}
    paths = list(dict.fromkeys(video for result in results.values() for video in result.videos))
    return {
        "suite": suite,
        "source": str(source),
        "dimensions": [_dimension(suite, name, results[name]) for name in results],
        "missing_dimensions": [name for name in RANGES[suite] if name not in results],
        "scores": {way: aggregates(suite, raw, way) for way in WAYS},
        "clips": _clips(paths, source, videos),
    }


def published_rows(suite: SuiteName) -> list[dict[str, Any]]:
    """Rows that plugins know: name and raw values. Raises MissingError when there is none for the suite."""
    found = []
    for spec in get_plugins().specs("scoring-backend").values():
        assert isinstance(spec, ScoringBackendSpec)  # the plugin manager checked it
        if spec.published is not None:
            package, _, name = spec.published.partition(":")
            rows = json.loads((files(package) / name).read_text(encoding="utf-8")).get(suite, [])
            found += [{**row, "scores": _published_scores(suite, row)} for row in rows]
    if not found:
        raise MissingError(f"no published scores of {suite} are known", hint="leave --compare out")
    return found


def _published_scores(suite: SuiteName, row: Mapping[str, Any]) -> dict[str, float | None]:
    """As they were published: made again from raw values in percent with two decimals they can differ by 0.01."""
    made = aggregates(suite, row["raw"], LEADERBOARD)
    return {name: row["percent"][name] / 100 if "percent" in row else value for name, value in made.items()}


def markdown(document: Mapping[str, Any]) -> str:
    """The report as text whose tables are Markdown."""
    suite: SuiteName = document["suite"]
    parts = [
        f"# VBench {suite}: {document['source']}",
        _dimension_table(document["dimensions"]),
        _score_table(document),
    ]
    if absent := document["missing_dimensions"]:
        parts.append(f"Not scored: {', '.join(absent)}. Scores that need them are left out.")
    parts += [_missing_clips(document["dimensions"]), _how_scored(document["dimensions"]), _how_made(document["clips"])]
    if "published" in document:
        parts.append(_comparison(document))
    return "\n\n".join(part for part in parts if part)


def _dimension(suite: SuiteName, name: str, result: DimensionResult) -> dict[str, Any]:
    row = RANGES[suite][name]
    is_custom = result.scored_by.get("mode") == "custom"
    groups = {way: next((group for group, names in GROUPS[suite][way].items() if name in names), None) for way in WAYS}
    samples = result.samples
    return {
        "dimension": name,
        "raw": result.value,
        "normalised": normalised(suite, name, result.value),
        "weight": row.weight,
        "groups": groups,
        "videos": len(result.videos),
        "expected_videos": None if is_custom else SAMPLES * row.prompts,
        "scored_videos": len(result.details),
        "prompts": None if samples is None else len(samples),
        "expected_prompts": None if is_custom else row.prompts,
        "samples_per_prompt": {str(clips): count for clips, count in sorted(Counter((samples or {}).values()).items())},
        "missing_videos": result.missing,
        "file": result.file,
        "scored_by": dict(result.scored_by) or None,
    }


def _write_reference(suite: SuiteName, results: Mapping[str, DimensionResult], folder: Path) -> None:
    absent = [name for name in RANGES[suite] if name not in results]
    if absent:
        raise SoraError(
            f"the reference's files need all dimensions; not there: {', '.join(absent)}",
            hint="leave --reference-files out for a report of what there is",
        )
    tables = reference_tables(suite, {name: result.value for name, result in results.items()})
    for name, table in zip(REFERENCE_FILES, tables, strict=True):
        write_text(folder / f"{name}.json", json.dumps(table, indent=4, sort_keys=True))


def _clips(paths: Sequence[str], source: Path, videos: Path | None) -> dict[str, Any]:
    """How the clips were made: what they share, and seeds and prompts of each, by the name of its file."""
    found, absent = [], []
    for text in paths:
        name = Path(text.replace("\\", "/")).name
        places = [videos / name] if videos is not None else [Path(text), source.parent / text]
        place = next((place for place in places if place.is_file()), None)
        if place is None:
            absent.append(text)
        else:
            found.append(place)
    made = provenance(found)
    # Of a single clip everything is its own.
    shared = made["shared"] or (next(iter(made["clips"].values()), {}) if len(made["clips"]) == 1 else {})
    return {"count": len(paths), "absent": absent, **made, "shared": shared}


# -- text ----------------------------------------------------------------------------------------------------------


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table, padded so that it is readable as it is; numbers are at the right."""
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(column), *(len(row[i]) for row in cells)) for i, column in enumerate(columns)]

    def line(row: Sequence[str]) -> str:
        padded = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([line(columns), rule, *(line(row) for row in cells)])


def _of(count: int | None, expected: int | None) -> str | None:
    if count is None:
        return None
    return str(count) if expected is None else f"{count} of {expected}"


def _samples(counts: Mapping[str, int]) -> str | None:
    """Of prompts that have any: "5", or "1 to 5"."""
    numbers = sorted(map(int, counts))
    return None if not numbers else str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _dimension_table(dimensions: Sequence[Mapping[str, Any]]) -> str:
    columns = ("dimension", "raw", "normalised", "weight", "group", "videos", "prompts", "samples")
    return _table(
        columns,
        [
            (
                each["dimension"],
                f"{each['raw']:.4f}",
                _percent(each["normalised"]),
                f"{each['weight']:g}",
                _group(each["groups"]),
                _of(each["videos"], each["expected_videos"]),
                _of(each["prompts"], each["expected_prompts"]),
                _samples(each["samples_per_prompt"]),
            )
            for each in dimensions
        ],
    )


def _group(groups: Mapping[str, str | None]) -> str:
    """The group, with the way of adding up that it belongs to where the other one leaves the dimension out."""
    if groups[REFERENCE] == groups[LEADERBOARD]:
        return str(groups[REFERENCE])
    return next(f"{group} ({way} only)" for way, group in groups.items() if group is not None)


def _score_table(document: Mapping[str, Any]) -> str:
    scores = document["scores"]
    names = [f"{REFERENCE} (4 decimals)", f"{LEADERBOARD} (unrounded)"]
    table = _table(
        ["score", *names], [(name, *(_percent(scores[way][name]) for way in WAYS)) for name in scores[REFERENCE]]
    )
    if document["suite"] == "t2v":
        return table
    return f"{table}\n\nThe two columns count different dimensions and cannot be compared with each other."


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.2f}%"


def _missing_clips(dimensions: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for each in dimensions:
        names = each["missing_videos"]
        if names:
            more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
            lines.append(f"- {each['dimension']}: {', '.join(names[:MOST_SHOWN])}{more}")
        if each["scored_videos"] and each["scored_videos"] < each["videos"]:
            lines.append(
                f"- {each['dimension']}: {each['videos'] - each['scored_videos']} clips have no value of their own"
            )
        if unreadable := (each["scored_by"] or {}).get("unreadable"):
            lines.append(f"- {each['dimension']}: unreadable: {', '.join(Path(path).name for path in unreadable)}")
    return "\n".join(["Missing clips:", *lines]) if lines else ""


def _how_scored(dimensions: Sequence[Mapping[str, Any]]) -> str:
    """One line for all dimensions that were scored in the same way."""
    ways: dict[str, list[str]] = {}
    for each in dimensions:
        kept = each["scored_by"]
        text = NOT_KEPT if kept is None else ", ".join(_scored_words(kept))
        ways.setdefault(text, []).append(each["dimension"])
    lines = [f"- {text}: {'all' if len(ways) == 1 else ', '.join(names)}" for text, names in ways.items()]
    return "\n".join(["Scored by (back end and version, mode, aggregation):", *lines])


def _scored_words(kept: Mapping[str, Any]) -> list[str]:
    words = [f"{kept.get('back_end')} {kept.get('version')}", f"{kept.get('mode')} mode", str(kept.get("aggregation"))]
    return words + [f"{name} {digits}" for name, digits in (kept.get("weights") or {}).items()]


def _how_made(clips: Mapping[str, Any]) -> str:
    """What the settings stored in the clips say."""
    own = [dict(each) for each in clips["clips"].values()]
    shared = dict(clips["shared"])
    records = [{**shared, **each} for each in own]
    lines = [f"Clips: {clips['count']}, of them {len(own)} with settings of sora"]
    if clips["absent"]:
        lines.append(f"- {len(clips['absent'])} are not here (--videos says where they are)")
    for key in SHOWN:
        if words := _words(shared.get(key)):
            lines.append(f"- {key}: {words}")
        elif any(_words(each.get(key)) for each in own):
            lines.append(f"- {key}: {_several(each.get(key) for each in records)}")
    if records:
        seeds = [each["seed"] for each in records if each.get("seed") is not None]
        if seeds:
            lines.append(
                f"- seeds: {min(seeds)} to {max(seeds)}, {len(set(seeds))} different ones in {len(seeds)} clips"
            )
        refined = sum(1 for each in records if each.get("refined"))
        lines.append(f"- prompts rewritten by a language model: {refined or 'none'}")
        lines.append(f"- added to prompts: {_several(_suffix(each) for each in records)}")
    return "\n".join(lines)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in value.items() if each is not None)
    return "" if value is None else str(value)


def _several(values: Iterable[Any]) -> str:
    """Different values with how many clips have each."""
    counts = Counter(_words(value) or "nothing" for value in values)
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({count} clips)" for value, count in counts.most_common(MOST_SHOWN)) + (
        f"; {len(counts) - MOST_SHOWN} more" if len(counts) > MOST_SHOWN else ""
    )


def _suffix(record: Mapping[str, Any]) -> str | None:
    """What was sent behind the prompt, such as score text."""
    prompt, sent = str(record.get("refined") or record.get("prompt") or ""), record.get("sent") or [None]
    text = str(sent[0] or "")
    if text == prompt or not text:
        return None
    return repr(text[len(prompt) :].strip()) if text.startswith(prompt) else "another text was sent"


def _comparison(document: Mapping[str, Any]) -> str:
    """Raw values in percent as on the leaderboard, one model a column."""
    suite: SuiteName = document["suite"]
    own = {each["dimension"]: each["raw"] for each in document["dimensions"]}
    models = [("this", document["scores"][LEADERBOARD], own)]
    models += [(row["name"], row["scores"], row["raw"]) for row in document["published"]]
    rows = [(f"{name} score", *(_percent(scores[name]) for _, scores, _ in models)) for name in models[0][1]]
    rows += [(name, *(_percent(raw.get(name)) for _, _, raw in models)) for name in RANGES[suite]]
    title = "Beside published rows (raw values x 100; scores in the leaderboard's way):"
    return f"{title}\n\n{_table(['', *(name for name, _, _ in models)], rows)}"
