"""How much of what an agent reads is template: phrases that the domain shows in nearly every task.

Such text makes states longer and says nothing about the task at hand, so characters alone flatter a domain that repeats
its rules, its menus and "Nothing happens." with every step. A phrase is four words in a row, the usual shingle for
finding web pages that are nearly alike (Manning, Raghavan & Schütze 2008, section 19.6), and it is template when it
occurs in at least nine tasks of ten; counting what recurs over the pages of a site is how web templates are found
(Bar-Yossef & Rajagopalan 2002; Gibson, Punera & Tomkins 2005, who also measure their share of the text).

Tasks are counted and not states, because a domain has pages of several kinds: a phrase of result pages is template
though no other page shows it. Episodes on few tasks, or cut off early, show fewer phrases, so compare shares from the
same number of tasks and the same horizon. Left out: phrases with a slot ("a red box 2 ahead"), whose fixed words count
only where four of them stand in a row.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from gentax.core import Task
from gentax.metrics.statistics import Estimate, cluster_mean

WORDS = 4  # in a phrase; a shorter text is one phrase
TASK_SHARE = 0.9  # of the tasks, in which a phrase must occur to be template

_WORD = re.compile(r"\S+")


def template_share(states: Mapping[Task, Sequence[str]]) -> Estimate | None:
    """Return the share of the characters of all states that lie in template phrases, percent, with its interval.

    The gaps between the words of a phrase count as part of it. None with text in states of fewer than 2 tasks.

    Args:
        states: the texts that the agent read in each task.
    """
    phrases = Counter(phrase for texts in states.values() for phrase in {p for t in texts for p, _ in _phrases(t)})
    needed = TASK_SHARE * len(states)
    template = {phrase for phrase, tasks in phrases.items() if tasks >= needed}
    sizes = [(sum(_covered(t, template) for t in texts), sum(map(len, texts))) for texts in states.values()]
    sizes = [(covered, characters) for covered, characters in sizes if characters]
    if len(sizes) < 2:
        return None
    covered_K, characters_K = np.array(sizes, float).T
    share = cluster_mean(100 * covered_K, characters_K, "percent")
    return Estimate(share.value, max(share.low, 0.0), min(share.high, 100.0), share.covers, share.unit, share.n)


def _phrases(text: str) -> Iterable[tuple[tuple[str, ...], tuple[int, int]]]:
    """Yield every phrase of a text and where it begins and ends."""
    words = [(match.group(), match.start(), match.end()) for match in _WORD.finditer(text)]
    for first in range(max(1, len(words) - WORDS + 1) if words else 0):
        run = words[first : first + WORDS]
        yield tuple(word for word, _, _ in run), (run[0][1], run[-1][2])


def _covered(text: str, template: set[tuple[str, ...]]) -> int:
    """Return how many characters of a text lie in template phrases."""
    total = reached = 0
    for phrase, (start, end) in _phrases(text):
        if phrase in template:
            total += end - max(start, reached)
            reached = end
    return total
