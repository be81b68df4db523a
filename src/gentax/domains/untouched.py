"""Whether it can be claimed of a split that training did not see its tasks."""

from __future__ import annotations

from gentax.core.env import TextEnv


def why_not_untouched(env: TextEnv, split: str) -> str:
    """Say why nobody can claim that the tasks of a split are new to training; nothing where it can be claimed.

    It cannot where there is no such split, or where the environment does not say what its tasks are made of.
    """
    if split not in env.domain.splits or not env.size(split):
        return f"has no {split} split"
    if env.unwrapped.content_of(env.tasks(split, 1)[0]) is None:
        return f"does not say what its tasks are made of (`content`), so that its {split} tasks may be train tasks"
    return ""
