"""Diversity of the words that two domains show.

Counted in the bare observations: single words, numbers and signs, in lower case, and pairs of neighbours. A task is
one document, with each of its observations once, so that a policy that stands still does not make a word common.
What a policy never reached is not counted, so compare measures from the same number of tasks and the same horizon.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_array

from gentax.core import Episode, Task, UsageError
from gentax.metrics.diversity.jackknife import fraction
from gentax.metrics.statistics import Estimate

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
    inter, only_a, only_b = _shared(a_KV, b_KV)

    def apart(inter: np.ndarray, union: np.ndarray) -> np.ndarray:
        return 1 - inter / union

    union = inter + only_a + only_b
    lost_a, lost_b = _lost(a_KV, b_KV), _lost(b_KV, a_KV)
    without = [apart(inter - shared, union - own) for shared, own in (lost_a, lost_b)]
    return fraction(float(apart(inter, union)), *without)


def unseen(source_KV: csr_array, target_KV: csr_array) -> Estimate:
    """Return 1 - |S ∩ T| / |T|: the share of the target's n-grams that the source never shows. Not symmetric."""
    inter, _, only_target = _shared(source_KV, target_KV)
    size = inter + only_target
    shared_s, _ = _lost(source_KV, target_KV)
    shared_t, own_t = _lost(target_KV, source_KV)
    # Without a task of the target its n-grams go; without one of the source they stay and are unseen.
    left_T = np.maximum(size - shared_t - own_t, 1)
    return fraction(float(1 - inter / size), 1 - (inter - shared_s) / size, 1 - (inter - shared_t) / left_T)


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
    found = []
    for text in observations:
        words = _WORD.findall(text.lower())
        found += words
        found += [f"{first} {second}" for first, second in pairwise(words)]
    return found


def _shown(x_KV: csr_array) -> np.ndarray:
    """Return in how many tasks each n-gram occurs, (V,)."""
    return np.bincount(x_KV.indices, minlength=x_KV.shape[1])


def _shared(a_KV: csr_array, b_KV: csr_array) -> tuple[int, int, int]:
    """Return how many n-grams both show, only the first, only the second."""
    in_a, in_b = _shown(a_KV) > 0, _shown(b_KV) > 0
    return int((in_a & in_b).sum()), int((in_a & ~in_b).sum()), int((in_b & ~in_a).sum())


def _lost(x_KV: csr_array, other_KV: csr_array) -> tuple[np.ndarray, np.ndarray]:
    """Return what goes with each task of `x`, (K,) each: n-grams shared with the other domain, and those not shared."""
    sole, shared = _shown(x_KV) == 1, _shown(other_KV) > 0
    present = csr_array((np.ones_like(x_KV.data), x_KV.indices, x_KV.indptr), shape=x_KV.shape)
    return present @ (sole & shared).astype(float), present @ (sole & ~shared).astype(float)
