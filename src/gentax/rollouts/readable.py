"""Whether a policy's replies can be read at all: a run whose replies hold no action measures its settings, not the policy.

The usual causes are a reply budget that ends within the thought, another action format than the model was trained on,
and a server that removes the tags.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gentax.core import UsageError
from gentax.policies.protocol import Reply
from gentax.rollouts.prompt import Play

REPLIES, EPISODES = 16, 4  # how many are read, at least, before a run is stopped
SHARE = 0.5  # of replies without an action; more than that stops a run
_SHOWN = 240  # characters of a reply that are shown


@dataclass
class ReadableCheck:
    """Reads the first replies of a run. Once `REPLIES` of them, of `EPISODES` episodes, are known, the check is over.

    Args:
        policy: its name.
        play: how episodes are played.
        episodes: how many there are in all; where there are fewer than `EPISODES`, those have to do.
    """

    policy: str
    play: Play
    episodes: int
    over: bool = False
    _seen: set[int] = field(default_factory=set)
    _replies: int = 0
    _unreadable: list[Reply] = field(default_factory=list)

    def see(self, episode: int, reply: Reply, action: str) -> None:
        """Count a reply, out of which `action` was read; "" where there is none."""
        self._seen.add(episode)
        self._replies += 1
        if not action:
            self._unreadable.append(reply)

    def check(self) -> None:
        """Raise UsageError when most replies cannot be read; call it after each batch."""
        if self.over or self._replies < REPLIES or len(self._seen) < min(EPISODES, self.episodes):
            return
        self.over = True
        if len(self._unreadable) > SHARE * self._replies:
            raise UsageError(unreadable(self.policy, self.play, self._replies, self._unreadable))


def unreadable(policy: str, play: Play, replies: int, bad: list[Reply]) -> str:
    """Return one line: how many replies hold no action, one of them, and the settings that would change it."""
    example = " ".join("".join(c if c.isprintable() else " " for c in bad[0].text).split())
    example = example if len(example) <= _SHOWN else example[:_SHOWN] + "…"
    budget = play.sampling.max_new_tokens
    cut = sum(reply.written is not None and reply.written >= budget for reply in bad)
    hints = []
    if cut:
        hints.append(f"--max-new-tokens ({cut} of these replies were cut off at {budget})")
    hints.append("--no-thinking" if play.thinking else "--thinking")
    if any(reply.tokens is None for reply in bad):
        hints.append("for a server, one that keeps special tokens in its text (skip_special_tokens)")
    return (
        f"{len(bad)} of the first {replies} replies of {policy} hold no action that can be read, such as {example!r}. "
        f"What would change it: {'; '.join(hints)}"
    )
