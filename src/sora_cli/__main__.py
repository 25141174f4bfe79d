"""Entry point of `sora` and of `python -m sora_cli`: run the app, turn every failure into one message and a code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .errors import EXIT_FAILED, EXIT_INTERRUPTED, SoraError, UsageError, closest
from .redaction import redact

if TYPE_CHECKING:
    from typer._click.exceptions import ClickException


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sora` with `argv` (default: the process arguments) and return its exit code.

    0 done, 1 it failed, 2 it was called wrongly, 3 a package or weights are missing, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    word = os.environ.pop("_SORA_COMPLETE", None)
    if word is not None:
        from .complete import print_completions

        return print_completions(arguments, word)
    from .debug import enable_debug, is_debug

    enable_debug(False)
    # Idle worker threads that spin make a machine that is busy with other work ten times slower; sleeping ones cost an
    # idle machine little. Read once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _open_closed_streams()
    from .launch.parent import terminated_as_interrupted

    try:
        with terminated_as_interrupted():
            code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the pipe has gone, e.g. `sora presets list | head -1`. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        if is_debug():
            import traceback

            print(redact(traceback.format_exc()), end="", file=sys.stderr)
        if not isinstance(error, SoraError):
            error = _unexpected(error, is_debug())
        _show(error)
        return error.exit_code
    if code == EXIT_INTERRUPTED:
        print("interrupted", file=sys.stderr)
    return code


def _unexpected(error: Exception, is_debug: bool) -> SoraError:
    """An error that nobody expected, in words, with the plugins of other people that may be at fault."""
    from .plugin.blame import hint_of, in_words

    return SoraError(in_words(error), hint="\n".join(hint_of(error, is_debug)) or None)


def _open_closed_streams() -> None:
    """Where the caller closed stdout or stderr (`>&-`), Python has None in its place; nobody reads it, so drop it."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (open until the end)


def _run(arguments: list[str]) -> int:
    """Run the app; Typer's own errors become ours."""
    from typer import Abort
    from typer._click.exceptions import ClickException
    from typer.main import get_command

    from .app import app

    try:
        result: Any = get_command(app).main(arguments, prog_name="sora", standalone_mode=False)
    except ClickException as error:
        raise _usage_error(error) from error
    except (Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    # Outside standalone mode Typer returns the code of typer.Exit, and 130 for Ctrl-C, as the result.
    return result if isinstance(result, int) else 0


def _usage_error(error: ClickException) -> SoraError:
    from typer._click.exceptions import NoSuchOption

    context = getattr(error, "ctx", None)
    see = f"run `{context.command_path} --help` to see how it is used" if context is not None else None
    message = error.format_message()
    suggestion = None
    if isinstance(error, NoSuchOption) and context is not None:
        message = f"no such option {error.option_name}"
        # Without the dashes, which all have in common; and a flag like --lr by the longer name of what it sets.
        known = {}
        for parameter in context.command.get_params(context):
            known.update({name.lstrip("-"): name for name in parameter.opts})
            if parameter.opts[0].startswith("-"):
                known.setdefault((parameter.name or "").replace("_", "-"), parameter.opts[-1])
        close = closest(error.option_name.lstrip("-"), known)
        suggestion = f"did you mean {known[close]!r}?" if close else None
    # Typer words some messages by Click's habits and some by pydantic's; one style for both.
    message = _with_value(message, error.__cause__)
    message = message[:1].lower() + message[1:].rstrip(".").replace("\n\t", " ").replace(": Value error, ", ": ")
    return UsageError(message, hint="\n".join(line for line in (suggestion, see) if line) or None)


def _with_value(message: str, cause: Any) -> str:
    """Pydantic's "Input should be a valid integer, unable to parse ..." as "'x' must be a valid integer"."""
    before, found, after = message.partition("Input should be")
    if not found:
        return message
    wrong = cause.errors()[0]["input"]
    return f"{before}{wrong!r} must be{after.partition(', unable to')[0]}"


def _show(error: SoraError) -> None:
    from .console import get_console

    get_console().error(error)


if __name__ == "__main__":
    sys.exit(main())
