"""The ways things go wrong: the user asked for what is not there, an environment broke, a policy cannot be asked.

Everything a user can mend is a `UsageError`: one line that names the thing and the nearest valid one. The command
line prints it and exits with code 2. Everything an environment does wrong is an `EnvironmentFault`: the engine
restarts the environment, replays the episode and, if that fails too, records the episode as an error. A request that a
server fails on makes its episode an error, too. A policy that cannot be asked any more is a `PolicyFault`, which ends
what is being done: it must never pass for a low score.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What a command of `gentax` ends with; documented in docs/reference/exit-codes.md."""

    OK = 0
    FAILED = 1
    """Something broke, or a check that the command was to make failed."""
    USAGE = 2
    """What a user can mend: a `UsageError`, an unknown command or option."""
    GATE_FAIL = 3
    GATE_INCONCLUSIVE = 4
    INTERRUPTED = 130
    """Ctrl-C: 128 and the signal's number, as shells have it."""


class UsageError(ValueError):
    """A request that cannot be met as it stands. `str(error)` is one line meant for a person."""


class EnvironmentFault(RuntimeError):
    """An environment broke (its process died, its answer made no sense). Never a failure of the policy."""


class PolicyFault(RuntimeError):
    """A policy cannot answer: its server is out of reach or refuses for good. `str(error)` is one line for a person."""


class NonFiniteLoss(RuntimeError):
    """The loss or a gradient stopped being a number; the last checkpoint is intact."""


class StudyIncomplete(RuntimeError):
    """Stages of a study could not be done; `str(error)` is one line that names the first. The others are done."""


def type_and_message(error: BaseException, limit: int) -> str:
    """Write an exception of somebody else's code on one line, of at most `limit` characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:limit]


def nearest(name: object, valid: Iterable[object]) -> str | None:
    """Return the member of `valid` that is spelled most like `name`, or None when none is close."""
    found = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.5)
    return found[0] if found else None


def unknown(kind: str, name: object, valid: Iterable[object]) -> UsageError:
    """Build the error for a name that does not exist: what it is, what was probably meant, what there is.

    >>> str(unknown("domain", "sokobn", ["sokoban", "sciworld"]))
    "unknown domain 'sokobn'; did you mean 'sokoban'? Known: sciworld, sokoban"
    """
    names = sorted(str(v) for v in valid)
    close = nearest(name, names)
    hint = f"; did you mean '{close}'?" if close else ";"
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return UsageError(f"unknown {kind} {str(name)[:80]!r}{hint} Known: {shown or 'none'}")
