"""How different domains are from one another, and how varied a mixture of them is.

Every measure is absolute: it says the same of two domains whichever others are in the list. 0 is alike.

Lexical measures count words, numbers and signs in lower case, and pairs of neighbours, in the bare observations. A task
is one document with each of its observations once, so that a policy that stands still does not make a word common.
Compare measures from the same number of tasks and the same horizon.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.special import stdtrit

from gentax.core import Episode, Task, UsageError, unknown
from gentax.core.results import Record, Tabular, TextTable, repr_as_str
from gentax.metrics.axes import Axes, Probe
from gentax.metrics.statistics import LEVEL, TASKS, Estimate


def fraction(value: float, without_A: np.ndarray, without_B: np.ndarray) -> Estimate:
    """Return `value`, which lies in [0, 1], with the jackknife's interval over tasks.

    The variance is the sum over both domains of (K - 1) / K Σ (θᵢ - mean θ)² (Efron & Stein 1981), since their tasks
    are drawn apart; Student's t has the degrees of freedom of the domain with fewer tasks.

    Args:
        value: from all tasks.
        without_A: the same without each task of the one domain, (K_A,), K_A at least 2.
        without_B: likewise of the other, (K_B,).
    """
    parts = [(len(theta) - 1) / len(theta) * ((theta - theta.mean()) ** 2).sum() for theta in (without_A, without_B)]
    fewest = min(len(without_A), len(without_B))
    half = float(stdtrit(fewest - 1, 0.5 + LEVEL / 2) * np.sqrt(sum(parts)))
    tasks = len(without_A) + len(without_B)
    return Estimate(value, max(value - half, 0.0), min(value + half, 1.0), TASKS, "fraction", tasks)


_WORD = re.compile(r"\w+|[^\w\s]")


def counts(domains: Mapping[str, Sequence[Episode]]) -> dict[str, csr_array]:
    """Return how often each n-gram occurs in each task of each domain: (tasks, n-grams), the columns the same for all.

    Raises:
        UsageError: a domain with fewer than 2 tasks, or whose observations hold no text.
    """
    from sklearn.feature_extraction.text import CountVectorizer  # takes a second to load

    documents = {name: _documents(episodes) for name, episodes in domains.items()}
    for name, texts in documents.items():
        if len(texts) < 2:
            raise UsageError(f"diversity needs episodes of at least 2 tasks of {name}, not {len(texts)}")
        if not any(_WORD.search(text) for observations in texts for text in observations):
            raise UsageError(f"diversity compares words, and the observations of {name} hold none")
    vectorizer = CountVectorizer(analyzer=_grams, dtype=np.float64)
    vectorizer.fit(observations for texts in documents.values() for observations in texts)
    return {name: csr_array(vectorizer.transform(texts)) for name, texts in documents.items()}


def unshared(a_KV: csr_array, b_KV: csr_array) -> Estimate:
    """Return 1 - |A ∩ B| / |A ∪ B| (Jaccard) of the n-grams that two domains show: 0 the same ones, 1 none shared."""
    return _of_shown(lambda both, a, b: 1 - both / (a + b - both), a_KV, b_KV)


def unseen(source_KV: csr_array, target_KV: csr_array) -> Estimate:
    """Return 1 - |S ∩ T| / |T|: the share of the target's n-grams that the source never shows. Not symmetric."""
    return _of_shown(lambda both, _, target: 1 - both / np.maximum(target, 1), source_KV, target_KV)


def _of_shown(measure: Callable[..., Any], a_KV: csr_array, b_KV: csr_array) -> Estimate:
    """Estimate a measure of how many n-grams two domains show: `measure(both, a, b)`, of numbers or arrays (K,)."""
    # Stays sparse: tasks of long texts have hundreds of thousands of n-grams, of which each shows few.
    a_KV, b_KV = ((x_KV > 0).astype(int) for x_KV in (a_KV, b_KV))
    tasks_a, tasks_b = (np.bincount(x_KV.indices, minlength=x_KV.shape[1]) for x_KV in (a_KV, b_KV))
    both_V = (tasks_a > 0) & (tasks_b > 0)
    both, a, b = both_V.sum(), (tasks_a > 0).sum(), (tasks_b > 0).sum()
    # What a domain no longer shows without a task: the n-grams that no other of its tasks has.
    sole_a, sole_b = tasks_a == 1, tasks_b == 1
    without_a = measure(both - a_KV @ (sole_a & both_V), a - a_KV @ sole_a, b)
    without_b = measure(both - b_KV @ (sole_b & both_V), a, b - b_KV @ sole_b)
    return fraction(float(measure(both, a, b)), without_a, without_b)


def tfidf(a_KV: csr_array, b_KV: csr_array) -> Estimate:
    """Return 1 - the cosine of the two domains' mean TF-IDF vectors.

    Of a task: (1 + ln count) x (1 + ln((1 + n) / (1 + tasks with it))), scaled to length 1 (scikit-learn's smoothed
    form), with n the tasks of these two domains alone, which makes the measure independent of any third. The interval
    holds the second factor fixed.
    """
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfTransformer

    rows = csr_array(TfidfTransformer(sublinear_tf=True).fit_transform(vstack([a_KV, b_KV])))
    a_KV, b_KV = rows[: a_KV.shape[0]], rows[a_KV.shape[0] :]
    sum_a, sum_b = (np.asarray(x.sum(0)).ravel() for x in (a_KV, b_KV))
    dot, size_a, size_b = sum_a @ sum_b, sum_a @ sum_a, sum_b @ sum_b

    def without(x_KV: csr_array, own: np.ndarray, size: float, other: np.ndarray, other_size: float) -> np.ndarray:
        left_K = size - 2 * (x_KV @ own) + np.asarray(x_KV.multiply(x_KV).sum(1)).ravel()
        return 1 - (dot - x_KV @ other) / np.sqrt(np.maximum(left_K, 1e-12) * other_size)

    value = float(1 - dot / np.sqrt(size_a * size_b))
    parts = without(a_KV, sum_a, size_a, sum_b, size_b), without(b_KV, sum_b, size_b, sum_a, size_a)
    return fraction(min(max(value, 0.0), 1.0), *parts)


def _documents(episodes: Sequence[Episode]) -> list[list[str]]:
    texts: dict[Task, dict[str, None]] = {}
    for episode in episodes:
        texts.setdefault(episode.task, {}).update(dict.fromkeys(step.observation for step in episode.steps))
    return [list(observations) for observations in texts.values()]


def _grams(observations: Sequence[str]) -> list[str]:
    """Return the n-grams of a task; none runs from one observation into the next."""
    grams = []
    for text in observations:
        words = _WORD.findall(text.lower())
        grams += words
        grams += [f"{first} {second}" for first, second in pairwise(words)]
    return grams


def structural(a: Axes, b: Axes) -> Estimate:
    """Return the distance of two domains on the axes: √(Δ log₁₀ richness² + (Δ planning / horizon)²).

    Richness is the mean characters of the bare observation. So 1 is ten times the text, or the whole way from domains
    solved at once to domains never solved. The interval takes the four means as independent (delta method).

    Raises:
        UsageError: axes counted to different horizons, or a domain that shows no text.
    """
    if a.horizon != b.horizon:
        raise UsageError(f"{a.domain} and {b.domain} were measured to the horizons {a.horizon} and {b.horizon}")
    for axes in (a, b):
        if axes.observation_characters.value <= 0:
            raise UsageError(f"diversity compares text, and the observations of {axes.domain} hold none")
    richness = (a.observation_characters, b.observation_characters)
    wide = math.log10(richness[0].value / richness[1].value)
    deep = (a.planning.value - b.planning.value) / a.horizon
    margin_wide = math.hypot(*(_half(mean) / mean.value / math.log(10) for mean in richness))
    margin_deep = math.hypot(*(_half(axes.planning) / a.horizon for axes in (a, b)))
    value = math.hypot(wide, deep)
    # Where the two lie at one place, no direction is singled out, and the larger margin holds.
    half = math.hypot(wide * margin_wide, deep * margin_deep) / value if value else max(margin_wide, margin_deep)
    tasks = a.planning.n + b.planning.n
    return Estimate(value, max(value - half, 0.0), value + half, TASKS, "distance", tasks)


def _half(estimate: Estimate) -> float:
    return (estimate.high - estimate.low) / 2


def rao(distance_DD: np.ndarray, weights_D: np.ndarray) -> float:
    """Return Rao's (1982) quadratic entropy Σ wᵢ wⱼ dᵢⱼ: the mean distance of two draws from the mixture.

    Weights are in any unit. Raises UsageError where they do not fit the domains, are negative or are all 0.
    """
    share_D = _shares(weights_D, distance_DD)
    return float(share_D @ distance_DD @ share_D)


def vendi(similarity_DD: np.ndarray, weights_D: np.ndarray) -> float:
    """Return the Vendi score, the effective number of domains: 1 when all are alike, D when none resembles another.

    exp of the Shannon entropy of the eigenvalues of √w K √w (Friedman & Dieng 2023, arXiv 2210.02410, the form that is
    weighted by probabilities). K must be positive semidefinite, as Jaccard similarity is. Raises as `rao`.
    """
    root_D = np.sqrt(_shares(weights_D, similarity_DD))
    values_D = np.linalg.eigvalsh(root_D[:, None] * similarity_DD * root_D)
    values_D = values_D[values_D > 1e-12]
    return float(np.exp(-(values_D * np.log(values_D)).sum()))


def _shares(weights_D: np.ndarray, matrix_DD: np.ndarray) -> np.ndarray:
    weights_D = np.asarray(weights_D, float)
    if matrix_DD.shape != (len(weights_D), len(weights_D)):
        raise UsageError(f"{len(weights_D)} weights do not fit a matrix of shape {matrix_DD.shape}")
    if not np.isfinite(weights_D).all() or (weights_D < 0).any() or not weights_D.sum() > 0:
        raise UsageError("the weights of a mixture must be at least 0, and one of them more")
    return weights_D / weights_D.sum()


MEASURES = {  # name -> what it says of two domains, in a line; 0 is alike
    "unshared": "words and word pairs that only one shows",
    "unseen": "the column's words and word pairs unseen in the row",
    "tfidf": "1 − cosine of mean TF-IDF vectors",
    "structural": "distance on the axes (1: ten times the text)",
}
Pairs = Mapping[str, Mapping[str, Estimate]]  # source -> target -> estimate


@dataclass(frozen=True)
class Diversity(Tabular, Record):
    """How different domains are. Of `unseen` the first name is the source; the other measures are symmetric."""

    names: tuple[str, ...]
    pairs: Mapping[str, Pairs]  # measure -> pairs of different domains
    policy: Mapping[str, Estimate] = field(default_factory=dict)  # target -> divergence of a tuned policy there

    def matrix(self, measure: str) -> np.ndarray:
        """Return the values of a measure, (D, D), source by target, 0 on the diagonal. Raises UsageError."""
        if measure not in self.pairs:
            raise unknown("measure of diversity", measure, self.pairs)
        pairs = self.pairs[measure]
        return np.array([[0.0 if s == t else pairs[s][t].value for t in self.names] for s in self.names])

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each measure of each ordered pair of domains, and for the KL of a tuned policy on each."""
        rows: list[dict[str, Any]] = [
            {"measure": measure, "source": source, "target": target, "difference": estimate}
            for measure, pairs in self.pairs.items()
            for source, of_source in pairs.items()
            for target, estimate in of_source.items()
        ]
        kl = [{"measure": "policy", "source": None, "target": t, "difference": e} for t, e in self.policy.items()]
        return rows + kl

    def tables(self) -> list[TextTable]:
        """Return a table for each measure, half the width of its interval after each number."""
        names = self.names
        return [
            TextTable(
                f"{measure}: {MEASURES.get(measure, '')}",
                ["", *names],
                [[s, *("" if s == t else half_width(pairs[s][t]) for t in names)] for s in names],
            )
            for measure, pairs in self.pairs.items()
        ]

    _repr_pretty_ = repr_as_str

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables()))

    def mixture(self, weights: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Return how varied a mixture is: Rao's entropy by each measure, and the Vendi score from what they share.

        Args:
            weights: name -> share, in any unit; those not named are not in it. All alike when None.

        Raises:
            UsageError: an unknown name, a negative weight, no weight above 0.
        """
        weights = dict.fromkeys(self.names, 1.0) if weights is None else dict(weights)
        for name in weights:
            if name not in self.names:
                raise unknown("domain of the mixture", name, self.names)
        weights_D = np.array([weights.get(name, 0.0) for name in self.names])
        result: dict[str, Any] = {"weights": weights, "rao": {m: rao(self.matrix(m), weights_D) for m in self.pairs}}
        if "unshared" in self.pairs:
            result["vendi"] = vendi(1 - self.matrix("unshared"), weights_D)
        return result


def diversity(probes: Iterable[Probe], policy: Mapping[str, Estimate] | None = None) -> Diversity:
    """Measure how different the domains of `probes` are, every two of them.

    Deterministic. Probes that were read back from JSON have no episodes: with such a one, words are not compared, and
    only `structural` is measured.

    Args:
        probes: at least 2, of different names.
        policy: divergence of a tuned policy from its start on the states of a target, by name of the target.

    Raises:
        UsageError: fewer than 2 domains, two of one name, different horizons, a domain without text.
    """
    probes = list(probes)
    names = [probe.name for probe in probes]
    if len(set(names)) != len(names) or len(names) < 2:
        raise UsageError(f"diversity is of 2 or more different domains, not of {', '.join(names) or 'none'}")
    axes = {probe.name: probe.axes for probe in probes}
    pairs: dict[str, Pairs] = {}
    if all(probe.episodes for probe in probes):
        words = counts({probe.name: probe.episodes for probe in probes})
        pairs["unshared"] = _symmetric(names, lambda a, b: unshared(words[a], words[b]))
        pairs["unseen"] = {s: {t: unseen(words[s], words[t]) for t in names if t != s} for s in names}
        pairs["tfidf"] = _symmetric(names, lambda a, b: tfidf(words[a], words[b]))
    pairs["structural"] = _symmetric(names, lambda a, b: structural(axes[a], axes[b]))
    return Diversity(tuple(names), pairs, dict(policy or {}))


def _symmetric(names: Sequence[str], measure: Callable[[str, str], Estimate]) -> Pairs:
    once = {(a, b): measure(a, b) for i, a in enumerate(names) for b in names[i + 1 :]}
    return {a: {b: once[a, b] if (a, b) in once else once[b, a] for b in names if b != a} for a in names}


def half_width(value: Estimate) -> str:
    """Write an estimate with half the width of its interval, such as `0.52 ±0.03`."""
    return f"{value.value:.2f} ±{(value.high - value.low) / 2:.2f}"
