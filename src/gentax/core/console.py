"""What is printed while something runs: progress in one line, and text that cannot change the terminal.

What takes a `progress` setting shows it by default where a person is watching, always when it is True, and never when
it is False.
"""

from __future__ import annotations

import shutil
import sys
import time
import unicodedata
from collections.abc import Callable
from typing import Any

from gentax.core.episode import Episode

# Control, format (bidirectional overrides, zero width, tags), lone surrogates, line and paragraph separators.
INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: str) -> str:
    """Return `text` with every character that shows nothing, reorders others or changes a terminal written out.

    Newlines and tabs stay. (Unicode has pictures of control characters, but few fonts do.)

    >>> visible("a\\x00b\\u202ec")
    'a⟨U+0000⟩b⟨U+202E⟩c'
    """
    return text.translate(_VISIBLE)


class _Visible(dict[int, int | str]):
    """A table for `str.translate` that is filled as characters are met."""

    def __missing__(self, code: int) -> int | str:
        shown = chr(code) in "\n\t" or unicodedata.category(chr(code)) not in INVISIBLE
        self[code] = code if shown else f"⟨U+{code:04X}⟩"
        return self[code]


_VISIBLE = _Visible()


def one_line(text: str, limit: int | None = None) -> str:
    """Return visible `text` on one line, of at most `limit` characters."""
    line = " ".join(visible(text).split())
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


REDRAW = 0.1  # seconds between two drawings of a count in a terminal, at least
REPEAT = 60.0  # seconds after which a pipe gets another line
SETTLED = 0.05  # share of the episodes after which the time left is estimated


def is_interactive() -> bool:
    """Return whether a person is watching standard output: a terminal or a notebook."""
    return sys.stdout.isatty() or _in_notebook()


def shows_progress(progress: bool | None) -> bool:
    """Return whether to show progress, for a `progress` setting: when None, where a person is watching."""
    return is_interactive() if progress is None else progress


class ProgressLine:
    """One line that is rewritten where a person is watching, and a line now and then elsewhere.

    Args:
        every: elsewhere, the number of steps between two lines; the first and the last are always printed.
    """

    _length = 0  # of the line behind which the cursor stands and which will be rewritten; several may share it
    _transient = False  # whether that line says nothing once something else is printed

    def __init__(self, every: int = 10) -> None:
        self.live = is_interactive()
        self.every = every

    def update(self, text: str, number: int, total: int) -> None:
        """Show `text`, which is about step `number` of `total`."""
        if self.live:
            _rewrite(text, last=number >= total)
        elif number == 1 or number >= total or number % self.every == 0:
            print(visible(text), flush=True)


def status(text: str) -> None:
    """Say what is being done that has no count, such as loading a model.

    In a terminal or a notebook the line goes when anything else is printed; a pipe or a file keeps it.
    """
    if is_interactive():
        _rewrite(text, transient=True)
    else:
        print(visible(text), flush=True)


def end_line() -> None:
    """Go to a line of its own for something else to print: a status or an unfinished count is removed first."""
    if ProgressLine._length:
        sys.stdout.write("\r" + " " * ProgressLine._length + "\r" if ProgressLine._transient else "\n")
        sys.stdout.flush()
    ProgressLine._length, ProgressLine._transient = 0, False


class EpisodeProgress:
    """Counts episodes and steps while they are played, and shows them with the speed and the time left.

    It never shows a running success rate: episodes that succeed are short and end first, so it would start near 100 %
    and fall, whoever plays.

    Args:
        total: how many episodes there will be, at most.
        label: what the line begins with, such as the name of the policy.
        progress: whether the count is shown; None for where a person is watching.
        on_episode: called with each episode.
        on_steps: called with each number of steps.
    """

    def __init__(
        self,
        total: int,
        label: str,
        progress: bool | None,
        on_episode: Callable[[Episode], Any] | None = None,
        on_steps: Callable[[int], Any] | None = None,
    ) -> None:
        self.total, self.label, self.on_episode, self.on_steps = total, label, on_episode, on_steps
        self.shown, self.live = shows_progress(progress), is_interactive()
        self.num_done = self.num_steps = 0  # episodes, steps
        self.now = ""  # what is being played
        self._began = self._drawn = time.monotonic()
        self._printed = -1  # the last count that a pipe got

    def begin(self, now: str = "") -> None:
        """Show the line before the first step: environments may take a while to start. `now` is what is played."""
        self.now = now
        if self.num_done >= self.total:  # what follows the last episode
            if self.shown and self.live:
                status(f"  {self.label}: {now}")
            return
        self._show(force=self.live or self._printed < 0)

    def steps(self, count: int) -> None:
        """Count steps that were taken, in all episodes together."""
        self.num_steps += count
        self._show()
        if self.on_steps is not None:
            self.on_steps(count)

    def __call__(self, episode: Episode) -> None:
        """Count an episode that has ended."""
        self.num_done += 1
        self._show(force=self.num_done == self.total)
        if self.on_episode is not None:
            self.on_episode(episode)

    def line(self) -> str:
        """Return the line as it is now."""
        elapsed = time.monotonic() - self._began
        head = f"  {self.label}: {self.num_done}/{self.total} episodes"
        if self.num_done >= self.total:
            return f"{head} in {format_duration(elapsed)}"
        parts = [head]
        if self.num_steps and elapsed > 0:
            parts.append(f"{self.num_steps / elapsed:.0f} steps/s")
        if self.num_done >= max(1.0, SETTLED * self.total):
            # Steps taken over episodes ended estimates the mean length with the unfinished ones allowed for
            # (the maximum-likelihood estimate under censoring, if lengths are exponential).
            parts.append(f"about {format_duration(elapsed * (self.total - self.num_done) / self.num_done)} left")
        if self.now:
            parts.append(self.now)
        return ", ".join(parts)

    def _show(self, force: bool = False) -> None:
        if not self.shown:
            return
        now = time.monotonic()
        if self.live:
            if force or now - self._drawn >= REDRAW:
                self._drawn = now
                _rewrite(self.line(), last=self.num_done >= self.total, transient=True)
            return
        quarter = 4 * self.num_done // max(1, self.total)
        if force or quarter > 4 * max(0, self._printed) // max(1, self.total) or now - self._drawn >= REPEAT:
            self._drawn, self._printed = now, self.num_done
            print(visible(self.line()), flush=True)


def format_duration(seconds: float) -> str:
    """Write a duration as minutes and seconds.

    >>> format_duration(7.6), format_duration(754)
    ('0:07', '12:34')
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _rewrite(text: str, last: bool = False, transient: bool = False) -> None:
    text = " ".join(visible(text).splitlines())
    if sys.stdout.isatty():  # a longer line cannot be rewritten; in a notebook it can
        text = text[: shutil.get_terminal_size().columns - 1]
    end = "\n" if last else ""
    sys.stdout.write("\r" + text.ljust(ProgressLine._length) + end)
    sys.stdout.flush()
    ProgressLine._length, ProgressLine._transient = 0 if end else len(text), transient


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None
