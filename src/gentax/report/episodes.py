"""The episodes behind a page, in files that it loads when somebody asks for one.

A page opened from a disk (`file://`) may load scripts but not data, so each file is a script that hands one string to
the page: gzipped JSON in base64. Nothing that an episode says can be markup or code in there, and the page puts it in
as text. `index.js` says what changed on each task; the episodes of a policy on a domain come in files of `CHUNK`.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gentax.core import Episode
from gentax.core.console import visible
from gentax.metrics.behaviour import CHANGES, ERROR, KINDS, LostEpisodes, TaskChange, lost_episodes, task_changes
from gentax.metrics.verdict import number
from gentax.report import EpisodeSet

CHUNK = 64  # episodes of a file: some tens of KB
SHOWN = 200  # tasks that the page offers at first, at most
LONGEST = 100_000  # characters of a text that are shown
ALL_CHANGES = (*CHANGES.values(), ERROR)


@dataclass(frozen=True)
class ShownPair:
    """A task that the page offers: the first of its domain, arm and kind of change, chosen by nobody."""

    number: int  # of the set
    place: int  # of the episode in it
    domain: str
    arm: str
    seed: int
    task: TaskChange


@dataclass(frozen=True)
class EpisodeIndex:
    """What a page says of the episodes behind it."""

    count: int = 0  # episodes, the base's among them
    shown: tuple[ShownPair, ...] = ()
    lost: tuple[tuple[str, str, LostEpisodes], ...] = ()  # arm, domain, over all seeds
    domains: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


def write_episodes(sets: Sequence[EpisodeSet], folder: Path) -> EpisodeIndex:
    """Write the files of `sets` to `folder`, made where there are any, and return what the page says of them.

    One set is in memory at a time, with the base's on the same domain.
    """
    index: list[dict[str, Any]] = []
    shown: dict[tuple[str, str, str], ShownPair] = {}
    lost: dict[tuple[str, str], LostEpisodes] = {}
    count = 0
    for domain in dict.fromkeys(one.domain for one in sets):
        base, *trained = sorted(
            (n for n, one in enumerate(sets) if one.domain == domain), key=lambda n: sets[n].arm != ""
        )
        before = sets[base].read()
        count += _write_set(folder, base, before)
        for n in trained:
            arm, seed = sets[n].arm, sets[n].seed
            after = sets[n].read()
            count += _write_set(folder, n, after)
            changes = list(task_changes(before, after))
            for place, task in enumerate(changes):
                shown.setdefault((domain, arm, task.change), ShownPair(n, place, domain, arm, seed, task))
            lost[arm, domain] = lost.get((arm, domain), LostEpisodes()) + lost_episodes(changes)
            index.append(
                {
                    "set": n, "base": base, "domain": visible(domain), "arm": visible(arm), "seed": seed,
                    "tasks": [task_name(task.after) for task in changes],
                    "changes": [ALL_CHANGES.index(task.change) for task in changes],
                    "kinds": [[kind for kind, name in enumerate(KINDS) if name in task.kinds] for task in changes],
                }
            )  # fmt: skip
    if sets:
        _write(folder, "index", {"changes": ALL_CHANGES, "kinds": list(KINDS), "chunk": CHUNK, "sets": index})
    order = list(dict.fromkeys(one.arm for one in sets if one.arm))
    pairs = sorted(shown.values(), key=lambda one: (order.index(one.arm), ALL_CHANGES.index(one.task.change)))
    seeds = sorted({one.seed for one in sets if one.arm})
    losses = sorted(((arm, domain, one) for (arm, domain), one in lost.items()), key=lambda row: order.index(row[0]))
    domains = tuple(dict.fromkeys(one.domain for one in sets))
    return EpisodeIndex(count, tuple(pairs[:SHOWN]), tuple(losses), domains, tuple(order), tuple(seeds))


def task_name(episode: Episode) -> str:
    """Name the task of an episode, and the sample where it is not the first."""
    return visible(episode.task.id) + (f", sample {episode.sample + 1}" if episode.sample else "")


def _write_set(folder: Path, number: int, episodes: Sequence[Episode]) -> int:
    for first in range(0, len(episodes), CHUNK):
        _write(folder, f"{number}-{first // CHUNK}", [_plain(one) for one in episodes[first : first + CHUNK]])
    return len(episodes)


def _write(folder: Path, name: str, value: Any) -> None:
    folder.mkdir(exist_ok=True)
    packed = b64encode(gzip.compress(json.dumps(value, separators=(",", ":")).encode(), 6, mtime=0)).decode()
    (folder / f"{name}.js").write_text(f'gentaxEpisodes("{name}","{packed}")\n', encoding="ascii")


def _plain(episode: Episode) -> dict[str, Any]:
    """Return what the page shows of an episode."""
    steps = [
        [_text(step.observation), _text(step.text), _text(step.action), number(step.reward, 2), step.valid]
        for step in episode.steps
    ]
    values = {name: _text(getattr(episode, name)) for name in ("goal", "final", "error")}
    facts = {"outcome": episode.outcome.value, "return": number(episode.ret, 2), "invalid": episode.invalid}
    return {**facts, **values, "steps": steps}


def _text(text: str) -> str:
    left_out = len(text) - LONGEST
    return visible(text) if left_out <= 0 else f"{visible(text[:LONGEST])}… ({left_out} more characters)"
