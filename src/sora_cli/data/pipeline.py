"""`sora data run`: a plan of steps, each the command of its name, from folders of videos to one table for training.

A plan is a list of steps, each `name: {option: value}` with the options of `sora data NAME` by the names they have in
its help, without dashes or with underscores. Every step writes its table into a folder; a step whose settings and
predecessors are those of an earlier run is not run again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sora_cli.config.files import Document, read_yaml
from sora_cli.console import get_console
from sora_cli.errors import SoraError, UsageError, did_you_mean
from sora_cli.launch.parent import TerminatedError, ask_to_end_with_parent
from sora_cli.plugin.manager import get_plugins
from sora_cli.presets import find_preset

from .clip_folder import ClipFolder
from .run import bad_path

TABLES, RESULT = "tables", "clips.csv"
#: Steps that write files, and the folders for them.
FILES = {"cut": "clips", "interpolate": "interpolated"}
#: Steps that a plan may have, and options that are not for plans: the run gives them.
STEPS = ("index", "cut", "score", "caption", "tag", "filter", "dedup", "interpolate")
OF_THE_RUN = frozenset(
    {
        "tables",
        "places",
        "output",
        "clips",
        "overwrite",
        "restart",
        "restart_changed",
        "keep_log",
        "dry_run",
        "as_json",
        "quiet",
    }
)


@dataclass(frozen=True)
class Step:
    """One step. arguments: as typed; table: that it writes; key: changes with anything its table depends on; can_go_on:
    whether it keeps a log of results.
    """

    number: int
    name: str
    arguments: tuple[str, ...]
    table: Path
    key: str
    can_go_on: bool

    @property
    def record(self) -> Path:
        """The file that says what made the table."""
        return self.table.with_suffix(".json")

    @property
    def is_done(self) -> bool:
        """Whether its table is there, made by the same steps."""
        try:
            content = json.loads(self.record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return self.table.exists() and isinstance(content, dict) and content.get("key") == self.key

    @property
    def flags(self) -> list[str]:
        """How to go on: rows whose results are known are not done again, unless they were made with other settings."""
        return ["--overwrite", *(["--keep-log", "--restart-changed"] if self.can_go_on else [])]


def read_plan(plan: str) -> Document:
    """A plan file, or a preset of kind data. Raises UsageError."""
    path = Path(plan).expanduser()
    return read_yaml(path if path.suffix in (".yaml", ".yml") else find_preset("data", plan, get_plugins()).path)


def make_steps(
    document: Document, sources: Sequence[str], folder: Path, shared: Mapping[str, Any], *, clips: str | None = None
) -> list[Step]:
    """The steps of a plan. shared: options for every step that has them, None for those not given; clips: folder or
    address for files, None for the folder of the run.

    Raises UsageError that names all places of a plan that are wrong.
    """
    from sora_cli.config.layers import Problem, raise_problems

    if not isinstance(document.data, list) or not document.data:
        raise UsageError(f"{document.path}: a plan is a list of steps, for example `- index:`")
    commands, logging = _commands()
    place = ClipFolder.at(clips) if clips else None
    steps: list[Step] = []
    problems: list[Problem] = []
    key = hashlib.sha256(json.dumps(_listing(sources)).encode()).hexdigest()
    before: list[str] = list(sources)
    for number, entry in enumerate(document.data):
        name, options = _entry(entry)
        where = document.where(str(number))
        if name not in commands:
            problems.append(Problem(where, f"unknown step {name!r}", did_you_mean(name, commands)))
            continue
        if (name == "index") != (number == 0):
            problems.append(Problem(where, "a plan begins with index, and has it once"))
        arguments, wrong = _arguments(commands[name], options)
        problems += [Problem(document.where(f"{number}.{name}.{option}"), text, hint) for option, text, hint in wrong]
        own = {name: value for name, value in shared.items() if value is not None and name not in options}
        extra, _ = _arguments(commands[name], {option: own[option] for option in own if option in commands[name]})
        files = ["--clips", (place or ClipFolder(str(folder))).path(FILES[name])] if name in FILES else []
        made_by = [key, name, arguments, *(files if place else ())]
        key = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:32]
        table = folder / TABLES / f"{number + 1:02}-{name}.parquet"
        typed = (*before, *arguments, *extra, *files)
        steps.append(Step(number + 1, name, typed, table, key, name in logging))
        before = [str(table)]
    raise_problems(problems)
    return steps


def run_plan(steps: Sequence[Step], folder: Path, *, retry_failed: bool = False) -> Path:
    """Run what is not done, one command after the other, and write the last table as `clips.csv`; its path.

    A step whose own run was interrupted goes on. retry_failed: steps in which rows failed are not done. Raises
    SoraError when a step fails; what was done stays.
    """
    console = get_console()
    (folder / TABLES).mkdir(parents=True, exist_ok=True)
    is_same = True
    for step in steps:
        title = f"step {step.number} of {len(steps)}: {step.name}"
        is_same = is_same and step.is_done and not (retry_failed and bad_path(step.table).exists())
        if is_same:
            console.note(f"{title} is done")
            continue
        console.note(title)
        command = [sys.executable, "-m", "sora_cli", "data", step.name, *step.arguments, "-o", str(step.table)]
        command += step.flags
        # Before it runs, so that an interrupted run is known to be of these settings; the old table is not theirs.
        step.table.unlink(missing_ok=True)
        step.record.write_text(json.dumps({"key": step.key}), encoding="utf-8")
        code = _run(command)
        if code:
            raise SoraError(
                f"{title} failed", hint="the same command goes on there; the reason is above", exit_code=code
            )
    return _write_result(steps[-1].table, folder / RESULT)


def _run(command: Sequence[str]) -> int:
    """The exit code of a command, which is not killed at Ctrl-C: it got that too, and keeps what is under way."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=ask_to_end_with_parent)
    try:
        return process.wait()
    except KeyboardInterrupt as stop:
        if isinstance(stop, TerminatedError):
            process.terminate()
        process.wait()
        raise


def _listing(sources: Sequence[str]) -> list[tuple[str, ...]]:
    """All files with their stamps, so that new and changed ones are noticed."""
    from .index import STAMP, find_files

    return find_files(sources, "all").select("path", STAMP).rows()


def _write_result(table: Path, result: Path) -> Path:
    """The last table as CSV. An older one, made by the run, is replaced; each that was edited is kept beside."""
    from .tables import scan_tables, write_table

    mark = result.with_name(f".{result.name}.made")
    if result.exists():
        before = mark.read_text(encoding="utf-8") if mark.exists() else ""
        if hashlib.sha256(result.read_bytes()).hexdigest() != before:
            names = (f"{result.stem}.before{number or ''}{result.suffix}" for number in itertools.count())
            kept = next(path for path in map(result.with_name, names) if not path.exists())
            shutil.copy2(result, kept)
            get_console().warn(f"{result} was changed since it was made; it is kept as {kept}")
    write_table(scan_tables([str(table)]), result, overwrite=True)
    mark.write_text(hashlib.sha256(result.read_bytes()).hexdigest(), encoding="utf-8")
    return result


def _entry(entry: Any) -> tuple[str, Mapping[str, Any]]:
    """Name and options of a step: `- name`, `- name:` or `- name: {...}`."""
    if isinstance(entry, str):
        return entry, {}
    if isinstance(entry, Mapping) and len(entry) == 1:
        name, options = next(iter(entry.items()))
        if options is None:
            return str(name), {}
        if isinstance(options, Mapping):
            return str(name), options
    raise UsageError(f"a step is `name: {{option: value}}`, not {entry!r}")


def _commands() -> tuple[dict[str, dict[str, Any]], set[str]]:
    """Command -> option -> its parameter; and the commands that keep a log."""
    from typer.main import get_command

    from sora_cli.commands.data import app

    commands: Any = getattr(get_command(app), "commands", {})
    known = {name: commands[name].params for name in STEPS if name in commands}
    options = {
        name: {option.name: option for option in parameters if option.name not in OF_THE_RUN}
        for name, parameters in known.items()
    }
    return options, {name for name, parameters in known.items() if any(each.name == "keep_log" for each in parameters)}


def _arguments(
    known: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[list[str], list[tuple[str, str, str | None]]]:
    """Options as typed on a command line; and what is wrong: (option, text, hint)."""
    typed: list[str] = []
    wrong: list[tuple[str, str, str | None]] = []
    for name, value in options.items():
        parameter = known.get(str(name).replace("-", "_")) or next(
            (each for each in known.values() if f"--{str(name).replace('_', '-')}" in each.opts), None
        )
        if parameter is None:
            wrong.append((name, f"unknown option {name!r}", did_you_mean(name, known)))
        elif value is None:
            continue
        elif parameter.is_flag:
            if not isinstance(value, bool):
                wrong.append((name, f"{name}: {value!r} is neither true nor false", None))
            elif value or parameter.secondary_opts:
                typed.append((parameter.opts if value else parameter.secondary_opts)[-1])
        elif isinstance(value, Mapping):
            typed += [word for key, each in value.items() for word in (parameter.opts[-1], f"{key}={_text(each)}")]
        else:
            values = value if isinstance(value, list) else [value]
            typed += [word for each in values for word in (parameter.opts[-1], _text(each))]
    return typed, wrong


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
