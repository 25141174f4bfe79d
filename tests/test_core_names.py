"""The core knows no model, and nothing of the first-party plugins but what any plugin can do."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import sora_cli
from sora_cli.plugin.manager import get_plugins

CORE = Path(sora_cli.__file__).parent
FILES = sorted(path for path in CORE.rglob("*.py"))


def _strings(tree: ast.AST) -> list[str]:
    """All string literals but docstrings."""
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    ]


def _is_example(text: str) -> bool:
    """Help texts and examples may show a name; code that compares with one may not."""
    return text.startswith(("sora ", "Examples")) or " " in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_core_never_imports_first_party_plugins(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(name.name.split(".")[0] == "sora_plugins" for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != "sora_plugins"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CORE)))
def test_core_names_no_model(path: Path) -> None:
    plugins = get_plugins()
    names = {name for kind in ("model", "vae", "text-encoder") for name in plugins.specs(kind)}
    names |= {"stdit", "opensora", "latte", "pixart", "dit-xl", "sora_plugins"}
    assert "nano" in names
    pattern = re.compile("|".join(rf"(?<![\w-]){re.escape(name)}" for name in sorted(names)))
    named = [text for text in _strings(ast.parse(path.read_text(encoding="utf-8"))) if pattern.search(text)]
    assert [text for text in named if not _is_example(text)] == []


def test_heavy_work_is_not_done_in_hook_modules() -> None:
    """Importing all installed plugins costs no heavy package (in a process of its own, see test_startup)."""
    import subprocess
    import sys

    code = (
        "import sys; from sora_cli.plugin.manager import get_plugins; p = get_plugins(); "
        "from sora_cli.plugin.kinds import KINDS; [p.specs(k) for k in KINDS]; "
        "assert not p.broken, p.broken; "
        "print(sorted({'torch', 'numpy', 'transformers', 'pydantic', 'av'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert finished.stdout == "[]\n", finished.stderr
