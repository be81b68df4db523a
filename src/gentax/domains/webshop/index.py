"""Search: BM25 with the parameters of the published shop's engine, equal scores in the order of the catalogue.

Left out: a stemmer. Words lose a plural s and no more.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np

HITS = 50  # of a search, at most
K1, B = 0.9, 0.4  # of Lucene as the published shop runs it
REMEMBERED = 4096  # searches
STEPS = 1024  # of one score; scores of different processors differ in their last bits, and ties must not
_WORD = re.compile(r"[a-z0-9]+")


class Index:
    """The words of every product."""

    def __init__(self, texts: Iterable[str]) -> None:
        import bm25s  # takes a third of a second to import, and not every command searches

        vocabulary: dict[str, int] = {}
        stems: dict[str, int] = {}  # word -> number of its stem
        ids = []
        for text in texts:
            row = []
            for word in _WORD.findall(text.lower()):
                number = stems.get(word)
                if number is None:
                    stem = _stem(word)
                    number = stems[word] = vocabulary.setdefault(stem, len(vocabulary))
                row.append(number)
            ids.append(row)
        self._known = vocabulary
        self._engine = bm25s.BM25(method="lucene", k1=K1, b=B)
        self._engine.index((ids, vocabulary), create_empty_token=False, show_progress=False)
        self._found: OrderedDict[str, tuple[int, ...]] = OrderedDict()

    def search(self, query: str) -> tuple[int, ...]:
        """Return the numbers of the products that match `query` best, best first; none when no word is known."""
        found = self._found.get(query)
        if found is None:
            found = self._found[query] = self._search(query)
            if len(self._found) > REMEMBERED:
                self._found.popitem(last=False)
        return found

    def forget(self) -> None:
        """Forget earlier answers; timing wants that."""
        self._found.clear()

    def _search(self, query: str) -> tuple[int, ...]:
        words = dict.fromkeys(_stem(word) for word in _WORD.findall(query.lower()))
        ids = [self._known[word] for word in words if word in self._known]
        if not ids:
            return ()
        scores = np.rint(self._engine.get_scores_from_ids(ids) * STEPS).astype(np.int64)
        least = np.partition(scores, len(scores) - HITS)[len(scores) - HITS] if len(scores) > HITS else 1
        hits = np.flatnonzero(scores >= max(1, least))
        return tuple(hits[np.lexsort((hits, -scores[hits]))][:HITS].tolist())


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
