"""The one error type a user ever sees, and the exit codes."""

from __future__ import annotations

from collections.abc import Iterable

from .redaction import redact

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_MISSING = 3
EXIT_INTERRUPTED = 130


class SoraError(Exception):
    """A mistake or a failure that the user can act on; shown without a traceback.

    message: what is wrong, with the value. hint: what to do next (one line, or several for several ways).
    exit_code: 1 it failed, 2 it was called wrongly, 3 a package or weights are missing.
    """

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int = EXIT_FAILED) -> None:
        message = redact(message)
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is None else redact(hint)
        self.exit_code = exit_code


class UsageError(SoraError):
    """The command or its configuration is wrong (exit code 2)."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, exit_code=EXIT_USAGE)


class UnknownNameError(UsageError):
    """A name that nobody provides (exit code 2)."""


class MissingError(SoraError):
    """An optional package or a weights file is missing (exit code 3)."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint, exit_code=EXIT_MISSING)


class StopError(SoraError):
    """Nothing can be done for any row of a table, so that there is no use in trying the next."""


class NotEnoughMemoryError(SoraError):
    """The device has no memory for what was asked."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like another, or None when nothing is close."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The line "did you mean 'x'?" for the closest known word, or None when nothing is close."""
    close = closest(word, known)
    return f"did you mean {close!r}?" if close else None


def unknown_name(kind: str, word: str, known: Iterable[str], *, see: str | None = None) -> UnknownNameError:
    """The error for a name that is not known, with the closest one and where to see them all.

    kind: "model", "preset", ...; see: a command that lists the names.
    """
    names = sorted(set(known))
    lines = [line for line in (did_you_mean(word, names),) if line]
    lines.append(f"run `{see}` to see them all" if see else f"known: {', '.join(names)}")
    return UnknownNameError(f"unknown {kind} {word!r}", hint="\n".join(lines))
