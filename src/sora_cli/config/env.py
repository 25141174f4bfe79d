"""Environment variables: `SORA_SAMPLING__STEPS=30` is the setting `sampling.steps`.

pydantic-settings ignores names it does not know and cannot say which variable gave a value, so the few lines that map
names are here. Nothing heavy is imported: `sora --help` names the variables too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PREFIX = "SORA_"
SEPARATOR = "__"

OTHER_VARIABLES: Mapping[str, str] = {
    "SORA_PLUGINS": "plugins to use, comma separated; empty switches all off",
    "SORA_DEBUG": "1 shows tracebacks",
    "SORA_VBENCH_PYTHON": "Python of an environment with the package vbench, for `sora eval vbench score`",
}
"""Variables that are no settings of a task; every other `SORA_...` name must be a setting."""


def variable_name(dotted: str) -> str:
    """The variable of a setting: "sampling.steps" -> "SORA_SAMPLING__STEPS"."""
    return PREFIX + dotted.replace(".", SEPARATOR).upper()


def setting_variables(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Settings in the environment: dotted key -> (variable, text).

    Empty variables count as not set. Keys are not checked here; options of a model keep their case except that
    variables are upper case by custom, so names are lowered.
    """
    found = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or variable in OTHER_VARIABLES or not text:
            continue
        dotted = variable[len(PREFIX) :].lower().replace(SEPARATOR, ".")
        found[dotted] = (variable, text)
    return found


def known_variables(keys: Iterable[str]) -> list[str]:
    """All variable names that have a meaning, for suggestions. keys: the dotted settings."""
    return [*OTHER_VARIABLES, *(variable_name(key) for key in keys)]
