"""Progress in one line: rewritten in a terminal or a notebook, printed now and then into a file.

What takes a `progress` setting shows it by default where a person is watching, always when it is True, and never when
it is False.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any

from gentax.core.episode import Episode
from gentax.core.text_table import printable


def is_interactive() -> bool:
    """Return whether a person is watching standard output: a terminal or a notebook."""
    return sys.stdout.isatty() or _in_notebook()


def is_shown(progress: bool | None) -> bool:
    """Return whether to show progress, for a `progress` setting: when None, where a person is watching."""
    return is_interactive() if progress is None else progress


class Progress:
    """One line that is rewritten where a person is watching, and a line now and then elsewhere.

    Args:
        every: elsewhere, the number of steps between two lines; the first and the last are always printed.
    """

    _length = 0  # of the line behind which the cursor stands and which will be rewritten; several may share it

    def __init__(self, every: int = 10) -> None:
        self.live = is_interactive()
        self.every = every

    def say(self, text: str, number: int, of: int) -> None:
        """Show `text`, which is about step `number` of `of`."""
        text = printable(text)
        if self.live:
            if sys.stdout.isatty():  # a longer line cannot be rewritten; in a notebook it can
                text = text[: shutil.get_terminal_size().columns - 1]
            end = "\n" if number >= of else ""
            sys.stdout.write("\r" + text.ljust(Progress._length) + end)
            sys.stdout.flush()
            Progress._length = 0 if end else len(text)
        elif number == 1 or number >= of or number % self.every == 0:
            print(text, flush=True)


def end_line() -> None:
    """Leave a line of progress as it is, and go to the next one; for whoever has something else to print."""
    if Progress._length:
        Progress._length = 0
        sys.stdout.write("\n")
        sys.stdout.flush()


def count_episodes(
    of: int, what: str, progress: bool | None, also: Callable[[Episode], Any] | None = None
) -> Callable[[Episode], None]:
    """Return a callback for episodes as they end: it counts them and calls `also`.

    Args:
        of: how many there will be.
        what: who plays.
        progress: whether the count is shown; None for where a person is watching.
        also: called with each episode.
    """
    shown = Progress(every=max(1, of // 4)) if is_shown(progress) else None
    done, won = 0, 0

    def count(episode: Episode) -> None:
        nonlocal done, won
        done, won = done + 1, won + episode.success
        if shown is not None:
            shown.say(f"  {what}: {done}/{of} episodes, {won / done:.0%} solved", done, of)
        if also is not None:
            also(episode)

    return count


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
