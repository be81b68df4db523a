"""Whether a policy's replies can be read at all. Where most hold no action, success says nothing of what it can do.

The usual causes are a reply budget that ends within the thought, another action format than the model was trained on,
and a server that removes the tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gentax.core import Step, UsageError
from gentax.rollouts.prompt import RolloutConfig

REPLIES, EPISODES = 16, 4  # how many are read, at least, before a run is stopped
SHARE = 0.5  # of replies without an action; more than that stops a run
_SHOWN = 240  # characters of a reply that are shown


class UnreadableReplies(UsageError):
    """Most of a policy's first replies hold no action."""


@dataclass
class ReadableCheck:
    """Reads the first replies of a run; once `REPLIES` of them, out of `EPISODES` episodes, are there, it is over.

    Args:
        policy: its name.
        play: how episodes are played.
        episodes: how many there are in all; where there are fewer than `EPISODES`, those have to do.
    """

    policy: str
    play: RolloutConfig
    episodes: int
    over: bool = False
    _seen: set[int] = field(default_factory=set)
    _steps: list[Step] = field(default_factory=list)

    def see(self, episode: int, step: Step) -> None:
        """Take in a step of an episode."""
        self._seen.add(episode)
        self._steps.append(step)

    def check(self) -> None:
        """Raise UnreadableReplies when most replies cannot be read; call it after each batch."""
        if self.over or len(self._steps) < REPLIES or len(self._seen) < min(EPISODES, self.episodes):
            return
        self.over = True
        said = unreadable_steps(self.policy, self.play, self._steps)
        if said is not None:
            raise UnreadableReplies(f"stopped: {said}. To play on all the same: --allow-unreadable")
        self._steps.clear()


def unreadable_steps(policy: str, play: RolloutConfig, steps: Sequence[Step]) -> str | None:
    """Say on one line that most replies hold no action, with one of them and the settings that would change it.

    Returns None when that is not so.
    """
    bad = [step for step in steps if not step.action]
    if len(bad) <= SHARE * len(steps):
        return None
    example = " ".join("".join(c if c.isprintable() else " " for c in bad[0].text).split())
    example = example if len(example) <= _SHOWN else example[:_SHOWN] + "…"
    budget = play.sampling.max_new_tokens
    cut = sum(step.truncated for step in bad)
    hints = [f"--max-new-tokens ({cut} of these were cut off at {budget} tokens)"] if cut else []
    hints.append(f"--action-format (now {play.action_format})")
    hints.append(f"--thinking (now {'on' if play.thinking else 'off'})")
    if any(step.tokens is None for step in bad):
        hints.append("if it is a server, one that keeps special tokens in its text (skip_special_tokens: false)")
    return (
        f"{len(bad)} of the first {len(steps)} replies of {policy} hold no action that can be read, such as "
        f"{example!r}. What may change it: {'; '.join(hints)}"
    )
