"""Which prefixes several prompts share and are worth computing once, before the prompts themselves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gentax.core.prefix import common

WORTH = 128  # tokens that a shared prefix must save: a forward pass of its own costs time too


@dataclass(frozen=True, slots=True)
class Prefix:
    """Tokens that several prompts begin with."""

    ids: np.ndarray
    parent: int | None  # the prefix of this one that is computed before it
    depth: int  # prefixes above it


def shared_prefixes(
    prompts: Sequence[np.ndarray], kept: Sequence[int], worth: int = WORTH
) -> tuple[list[Prefix], list[int | None]]:
    """Find the branching points of distinct prompts where computing what is shared once saves enough.

    Args:
        prompts: distinct token ids, sorted so that those that begin alike are neighbours.
        kept: how many tokens at the start of each are computed already.
        worth: tokens that a prefix must save.

    Returns:
        The prefixes, parents first, and for each prompt the longest that it begins with. The last token of a prompt is
        never part of a prefix: what follows it must be computed.
    """
    same = [0, *(common(a, b) for a, b in itertools.pairwise(prompts))]
    found: list[Prefix] = []
    below: list[int | None] = [None] * len(prompts)
    open_ranges: list[tuple[int, int, int | None]] = [(0, len(prompts), None)]
    while open_ranges:
        first, last, parent = open_ranges.pop()
        if last - first < 2:
            below[first:last] = [parent] * (last - first)
            continue
        branch = min(same[first + 1 : last])
        shared = min(branch, *(len(prompt) - 1 for prompt in prompts[first:last]))
        depth = 0 if parent is None else len(found[parent].ids)
        each = [max(shared - max(have, depth), 0) for have in kept[first:last]]
        if sum(each) - max(each) >= worth:
            found.append(Prefix(prompts[first][:shared], parent, 0 if parent is None else found[parent].depth + 1))
            parent = len(found) - 1
        cuts = [first, *(n for n in range(first + 1, last) if same[n] == branch), last]
        open_ranges += [(a, b, parent) for a, b in itertools.pairwise(cuts)]
    return found, below
