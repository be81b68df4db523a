"""The axes of a domain: how rich its states are, and how far its goals.

**State richness** is measured on the bare observation and, where prompts are given, on the whole prompt, which is what
arXiv 2601.18217 prints. Characters count templates and repetition too, so compressed bytes, tokens and the share that
is template are reported as well.

**Planning complexity** is the paper's mean trajectory length with failures counted at the horizon. That mixes success
and length given success, so both are reported separately, with pass@k, the expert's plan and the branching factor where
they are known. Episodes that ended in an error are left out and counted.

**Template text** is what a domain shows in nearly every task: rules, menus, "Nothing happens.". A phrase is four words
in a row, the usual shingle for near-duplicate pages (Manning, Raghavan & Schütze 2008, section 19.6), and counts as
template when it occurs in at least nine tasks of ten (Bar-Yossef & Rajagopalan 2002). Compare shares from the same
number of tasks and the same horizon: fewer show fewer phrases.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, partial
from typing import Any

import numpy as np

from gentax.core import Episode, Outcome, Task, UsageError
from gentax.core.results import Record, Tabular, TextTable, repr_as_str
from gentax.metrics.statistics import Estimate, bounded_mean, cluster_mean, success_rate
from gentax.metrics.statistics.scores import check_scores


def pass_at_k(scores_NK: np.ndarray, k: int) -> Estimate:
    """Estimate the share of tasks, percent, that at least one of `k` samples solves. The interval covers tasks.

    Unbiased for any n >= k samples of each task (Chen et al. 2021, arXiv 2107.03374, eq. 1).

    Args:
        scores_NK: 1 where a sample solved its task and 0 where not, (N,) samples by (K,) tasks.
        k: samples, from 1 to N.

    Raises:
        UsageError: `k` outside 1 to N, scores other than 0 and 1, fewer than 2 tasks.
    """
    scores_NK = check_scores(np.asarray(scores_NK, float), "pass@k")
    n = len(scores_NK)
    if not 1 <= k <= n:
        raise UsageError(f"pass@k of {n} samples a task is for k from 1 to {n}, not {k}")
    if not np.isin(scores_NK, (0.0, 1.0)).all():
        raise UsageError("pass@k needs one score of 0 or 1 for each sample, not means")
    failed_K = n - scores_NK.sum(0)
    # C(f, k) / C(n, k) as a product of k ratios: binomials themselves overflow.
    ratios_kK = [np.maximum(failed_K - i, 0) / (n - i) for i in range(k)]
    return success_rate(1 - np.prod(ratios_kK, axis=0))


WORDS = 4  # in a phrase; a shorter text is one phrase
TASK_SHARE = 0.9  # of the tasks, in which a phrase must occur to be template

_WORD = re.compile(r"\S+")


def template_share(states: Mapping[Task, Sequence[str]]) -> Estimate | None:
    """Return the share of the characters of all states that lie in template phrases, percent, with its interval.

    The gaps between the words of a phrase count as part of it. None with text in states of fewer than 2 tasks.

    Args:
        states: the texts that the agent read in each task.
    """
    tasks = Counter(phrase for texts in states.values() for phrase in {p for t in set(texts) for p in _phrases(t)})
    template = {phrase for phrase, count in tasks.items() if count >= TASK_SHARE * len(states)}
    covered = cache(partial(_covered, template=template))  # a policy that stands still reads one text many times
    sizes = [(sum(map(covered, texts)), sum(map(len, texts))) for texts in states.values()]
    sizes = [(share, characters) for share, characters in sizes if characters]
    if len(sizes) < 2:
        return None
    covered_K, characters_K = np.array(sizes, float).T
    share = cluster_mean(100 * covered_K, characters_K, "percent")
    return Estimate(share.value, max(share.low, 0.0), min(share.high, 100.0), share.covers, share.unit, share.n)


def _phrases(text: str) -> Iterator[tuple[str, ...]]:
    words = _WORD.findall(text)
    size = min(WORDS, len(words))
    return zip(*(words[n : len(words) - size + n + 1] for n in range(size)), strict=True)


def _covered(text: str, template: set[tuple[str, ...]]) -> int:
    """Return how many characters of a text lie in template phrases."""
    phrase_P = np.fromiter(map(template.__contains__, _phrases(text)), bool)
    if not phrase_P.any():
        return 0
    word_W = np.array(list(map(len, _WORD.findall(text))))
    gap_G = np.array(list(map(len, _WORD.split(text)[1:-1])), int)  # between one word and the next
    size = min(WORDS, len(word_W))
    in_phrase_W = np.convolve(phrase_P, np.ones(size, int)) > 0
    in_phrase_G = np.convolve(phrase_P, np.ones(size - 1, int)) > 0 if size > 1 else gap_G > 0
    return int(word_W[in_phrase_W].sum() + gap_G[in_phrase_G].sum())


@dataclass(frozen=True)
class Axes(Record):
    """The axes of one domain under one policy. Intervals cover tasks. None is what was not given or has no value."""

    domain: str
    horizon: int  # steps at which failures are counted
    episodes: int  # that entered
    errors: int  # left out
    observation_characters: Estimate  # mean over states; likewise the next four
    observation_compressed: Estimate  # bytes after zlib, level 9, each state by itself
    observation_tokens: Estimate | None
    prompt_characters: Estimate | None
    prompt_tokens: Estimate | None
    planning: Estimate  # steps: mean trajectory length, failures counted at the horizon
    success: Estimate  # percent: goal reachability
    length_given_success: Estimate | None  # steps; None with successes on fewer than 2 tasks
    expert_length: Estimate | None  # steps of the expert's plan
    observation_template: Estimate | None = None  # percent of the characters (see `template_share`)
    prompt_template: Estimate | None = None  # likewise
    branching: Estimate | None = None  # admissible actions of a state
    pass_at: Mapping[int, Estimate] = field(default_factory=dict)  # k -> percent; k = 1, 2, 4, … and all samples


def axes(
    domain: str,
    episodes: Sequence[Episode],
    horizon: int,
    prompts: Callable[[Episode], Sequence[str]] | None = None,
    encode: Callable[[str], Sequence[int]] | None = None,
    expert_lengths: Sequence[float] | None = None,
    choices: Iterable[tuple[Task, int]] | None = None,
) -> Axes:
    """Measure state richness and planning complexity of `domain` from `episodes` of the base policy.

    Args:
        episodes: of at least 2 tasks, any number of samples each. States are the observations before each action.
        horizon: steps at which a failure is counted, at least the longest episode.
        prompts: the whole prompt of each step of an episode; without it prompts are not measured.
        encode: text to token ids; without it tokens are not counted.
        expert_lengths: steps of the expert's plan, one for each task it solves.
        choices: how many actions were admissible in each state met, with the state's task.

    Raises:
        UsageError: fewer than 2 tasks, episodes of another domain, an episode longer than the horizon.
    """
    complete = [e for e in episodes if e.outcome is not Outcome.ERROR]
    foreign = sorted({e.task.domain for e in episodes} - {domain})
    if foreign:
        raise UsageError(f"the axes of {domain} were requested, but there are episodes of {', '.join(foreign)}")
    if len({e.task for e in complete}) < 2:
        raise UsageError(f"the axes of {domain} need episodes of at least 2 tasks that did not end in an error")
    longest = max(e.length for e in complete)
    if longest > horizon:
        raise UsageError(f"an episode of {domain} has {longest} steps, more than the horizon of {horizon}")

    def texts_of(states: Callable[[Episode], Sequence[str]]) -> dict[Task, list[str]]:
        texts: dict[Task, list[str]] = {}
        for episode in complete:
            texts.setdefault(episode.task, []).extend(states(episode))
        return texts

    def richness(texts: Mapping[Task, Sequence[str]], size: Callable[[str], int], unit: str) -> Estimate:
        return _pooled(((task, size(text)) for task, of_task in texts.items() for text in of_task), unit)

    seen = texts_of(lambda episode: [step.observation for step in episode.steps])
    read = texts_of(prompts) if prompts else None
    tokens = (lambda text: len(encode(text))) if encode else None
    steps = [(e.task, e.length if e.success else horizon) for e in complete]
    won = [(e.task, e.length) for e in complete if e.success]
    return Axes(
        domain=domain,
        horizon=horizon,
        episodes=len(complete),
        errors=len(episodes) - len(complete),
        observation_characters=richness(seen, len, "characters"),
        observation_compressed=richness(seen, _compressed, "bytes"),
        observation_tokens=richness(seen, tokens, "tokens") if tokens else None,
        prompt_characters=richness(read, len, "characters") if read else None,
        prompt_tokens=richness(read, tokens, "tokens") if read and tokens else None,
        planning=bounded_mean(np.divide(*_by_task(steps)), float(horizon), "steps"),
        success=success_rate(np.divide(*_by_task((e.task, e.success) for e in complete))),
        length_given_success=_pooled(won, "steps") if len({task for task, _ in won}) >= 2 else None,
        expert_length=None if expert_lengths is None else _pooled(enumerate(expert_lengths), "steps"),
        observation_template=template_share(seen),
        prompt_template=template_share(read) if read else None,
        branching=_pooled(choices, "actions") if choices is not None else None,
        pass_at=_pass_at(episodes),
    )


def _pass_at(episodes: Sequence[Episode]) -> dict[int, Estimate]:
    """Return pass@k over the tasks of which every sample was played to its end."""
    outcomes: dict[Task, list[Outcome]] = {}
    for episode in episodes:
        outcomes.setdefault(episode.task, []).append(episode.outcome)
    most = max(map(len, outcomes.values()))
    complete = [of for of in outcomes.values() if len(of) == most and Outcome.ERROR not in of]
    if len(complete) < 2:
        return {}
    scores_NK = np.array([[outcome is Outcome.SUCCESS for outcome in of] for of in complete], float).T
    powers_of_two = {1 << bit for bit in range(most.bit_length())}
    return {k: pass_at_k(scores_NK, k) for k in sorted(powers_of_two | {most})}


def _compressed(text: str) -> int:
    return len(zlib.compress(text.encode("utf-8", "surrogatepass"), 9))


def _by_task(pairs: Iterable[tuple[Hashable, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of each task's values: samples of one task are no independent evidence."""
    groups: dict[Hashable, list[float]] = {}
    for task, value in pairs:
        groups.setdefault(task, []).append(float(value))
    return np.array([sum(of) for of in groups.values()]), np.array([len(of) for of in groups.values()])


def _pooled(pairs: Iterable[tuple[Hashable, float]], unit: str) -> Estimate:
    """Return the mean over all values, with the interval over the tasks they come in."""
    return cluster_mean(*_by_task(pairs), unit)


@dataclass(frozen=True)
class Probe(Tabular, Record):
    """The axes of one domain at one level in one set of wrappers, under one policy."""

    domain: str  # as registered, or `module:factory`
    level: str
    wrap: tuple[str, ...]  # wrappers, the first innermost
    policy: str
    tokenizer: str  # whose tokens were counted
    seed: int
    axes: Axes
    name: str  # of its row: the domain, with the level where one was asked for, and what it was wrapped in
    plain: str | None = None  # the name of the row without the wrappers, where there is one
    runtime: Mapping[str, str] | None = None  # device and dtype of a policy with weights on this machine
    episodes: tuple[Episode, ...] = field(default=(), repr=False, compare=False)  # not written to JSON

    def rows(self) -> list[dict[str, Any]]:
        """Return one row: what was probed and how, and every axis."""
        axes = {one.name: getattr(self.axes, one.name) for one in fields(self.axes)}
        pass_at = {f"pass_at_{k}": estimate for k, estimate in axes.pop("pass_at").items()}
        probed = {"name": self.name, "level": self.level, "wrap": self.wrap, "policy": self.policy, "seed": self.seed}
        return [probed | axes | pass_at | {"domain": self.domain}]

    _repr_pretty_ = repr_as_str

    def __str__(self) -> str:
        axes = self.axes
        measures: dict[str, Estimate | None] = {
            "state richness, characters of the observation": axes.observation_characters,
            "of the whole prompt": axes.prompt_characters,
            f"planning complexity, steps (failures: {axes.horizon})": axes.planning,
            "success %": axes.success,
            "steps if solved": axes.length_given_success,
            "steps of the expert": axes.expert_length,
        }
        rows = [[what, value] for what, value in measures.items() if value is not None]
        return str(TextTable(f"{self.name}, played by {self.policy}", ["", "mean"], rows))
