"""What replies and prompts lost for want of tokens, apart from what a policy did wrong.

A truncated reply had used up its budget before it was over, so it often holds no action. That says something of
`max_new_tokens` and little of the policy: such steps are not among the invalid ones. A prompt that was cut, or that
lost earlier exchanges, did not fit the model's context.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from gentax.core import Episode, Outcome

MANY = 0.05  # a share from which a warning is due


@dataclass(frozen=True)
class Truncation:
    """Shares of the steps of some episodes."""

    truncated: float = 0.0
    """Replies that were cut off at `max_new_tokens`."""
    cut_prompts: float = 0.0
    """Prompts that lost part of a message, or earlier exchanges."""
    dropped_exchanges: int = 0
    """How many exchanges were lost in all."""

    @classmethod
    def of(cls, episodes: Iterable[Episode]) -> Truncation:
        """Count in episodes; those that ended in an error are left out."""
        steps = [step for e in episodes if e.outcome is not Outcome.ERROR for step in e.steps]
        count = max(1, len(steps))
        return cls(
            sum(step.truncated for step in steps) / count,
            sum(step.prompt_cut or step.dropped > 0 for step in steps) / count,
            sum(step.dropped for step in steps),
        )

    def __bool__(self) -> bool:
        return self != Truncation()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def sentences(self, who: str) -> list[str]:
        """Say what was lost, and from 5 % on what to do about it; nothing where nothing was."""
        said = []
        if self.truncated:
            more = "; give more with --max-new-tokens" if self.truncated > MANY else ""
            said.append(
                f"{_warned(self.truncated)}{self.truncated:.1%} of the replies of {who} were cut off before they were "
                f"over; they are not counted as invalid{more}."
            )
        if self.cut_prompts:
            lost = f", {self.dropped_exchanges} exchanges in all" if self.dropped_exchanges else ""
            more = "; try --context 'window(4)'" if self.cut_prompts > MANY and self.dropped_exchanges else ""
            said.append(
                f"{_warned(self.cut_prompts)}{self.cut_prompts:.1%} of the prompts of {who} lost text that its context "
                f"cannot hold{lost}{more}."
            )
        return said


def _warned(share: float) -> str:
    return "Warning: " if share > MANY else ""
