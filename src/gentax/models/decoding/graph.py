"""A step as a recorded CUDA graph: one launch instead of a dozen for each layer, which on a small model take longer
than the arithmetic.

A graph has fixed shapes and addresses, so the rows are padded to a multiple of `cache.ROWS` and the keys looked at to
one of `KEYS`, and a graph is recorded for each pair that comes up. It reads the weights where they were then: training
must update them in place. Without a CUDA device the same padded step is run unrecorded, which is how it is tested.

It has not been timed on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from gentax.models.decoding.cache import ROWS, Rows
from gentax.models.decoding.step import Step, step
from gentax.models.decoding.weights import Weights
from gentax.models.sampling import Filters

KEYS = 256
Drawn = tuple[torch.Tensor, torch.Tensor]


class Recorder:
    """Runs `step` with fixed shapes, on the first rows of a cache."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._recorded: dict[tuple[int, int, bool], tuple[Step, Callable[[], Drawn]]] = {}
        self._rows: Rows | None = None  # that the graphs were recorded on

    def __call__(self, rows: Rows, now: Step, end: int) -> Drawn:
        """Do what `step` does.

        Args:
            rows: the whole cache; it has a multiple of `ROWS` rows, in which the last place is nobody's: there rows
                that pad write.
            now: for the first rows.
            end: see `step`.
        """
        if rows is not self._rows:
            self._recorded.clear()
            self._rows = rows
        count = len(now.id_B)
        B, end = -(-count // ROWS) * ROWS, min(-(-end // KEYS) * KEYS, rows.length)
        shape = (B, end, now.filters is not None)
        if shape not in self._recorded:
            self._recorded[shape] = self._record(rows.first(B), now, end)
        held, run = self._recorded[shape]
        held.position_B.fill_(rows.length - 1)
        for mine, given in zip(_tensors(held), _tensors(now), strict=True):
            mine[:count].copy_(given)
        token_B, logp_B = run()
        return token_B[:count], logp_B[:count]

    def _record(self, rows: Rows, like: Step, end: int) -> tuple[Step, Callable[[], Drawn]]:
        held = _like(like, rows.count)
        held.position_B.fill_(rows.length - 1)
        if self.weights.device.type != "cuda":
            return held, lambda: step(self.weights, rows, held, end)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set themselves up in a first run, which cannot be recorded
            for _ in range(2):
                step(self.weights, rows, held, end)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            drawn = step(self.weights, rows, held, end)

        def run() -> Drawn:
            graph.replay()
            return drawn

        return held, run


def _tensors(step: Step) -> list[torch.Tensor]:
    return [*step[:-1], *(step.filters or ())]


def _like(step: Step, count: int) -> Step:
    """Return a step of zeros for `count` rows."""
    zeros = [given.new_zeros(count) for given in _tensors(step)]
    return Step(*zeros[:4], None if step.filters is None else Filters(*zeros[4:]))
