"""Sampling for many conversations at once: bring the prompts into the cache, then write token by token.

One token for every row: what answers are written with.

A step as a recorded CUDA graph: one launch instead of a dozen for each layer, which on a small model take longer
than the arithmetic.

A graph has fixed shapes and addresses, so the rows are padded to a multiple of `cache.ROWS` and the keys looked at to
one of `KEYS`, and a graph is recorded for each pair that comes up. It reads the weights where they were then: training
must update them in place. Without a CUDA device the same padded step is run unrecorded, which is how it is tested.

It has not been timed on a GPU yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from gentax.models.decoding.llama_model import ROW_MULTIPLE, KVCache, LlamaModel, SlotCache, attention, causal_mask
from gentax.models.decoding.prefill import plan_prefill, prefill
from gentax.models.decoding.sampling import (
    ActiveRequest,
    SamplingFilters,
    StopCondition,
    batch_filters,
    check_lengths,
    sample_tokens,
)
from gentax.models.requests import Sample, SamplingRequest

LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")  # necessary, not sufficient: see `choose`
CHUNK, LARGE_CHUNK = 1024, 8192  # tokens of prompts in one pass: what fits a processor's caches, and elsewhere


@dataclass(slots=True)
class _Row(ActiveRequest):
    """A request while it is answered, in this decoder's cache."""

    place: int = 0  # its row of the cache
    kind: int = 0  # the same for rows whose tokens, prompt included, are the same but for the last
    moved: int | None = None  # from which token on its keys and values are in a copy of its row


class LlamaDecoder:
    """Samples continuations for many rows at once.

    Args:
        model: a Hugging Face causal model of a type in `LLAMA_LIKE`; see `LlamaModel` for what is done to it.
    """

    def __init__(self, model: Any) -> None:
        self.weights = w = LlamaModel(model)
        self.max_length = w.positions
        self.cache = self._empty()
        self.recorder = CudaGraphStep(w) if w.device.type == "cuda" else None

    def clear_cache(self) -> None:
        """Drop what is cached: the weights changed."""
        self.cache.clear()

    def free_cache(self) -> None:
        """Drop what is cached, and the memory it was in."""
        self.cache.rows.layers.clear()  # recorded graphs refer to these rows until others are played on
        self.cache = self._empty()

    def _empty(self) -> SlotCache:
        w = self.weights
        like = torch.zeros(0, w.groups, 0, w.head, device=w.device, dtype=w.dtype)
        return SlotCache(len(w.layers), like, w.positions)

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes of cache that a token of a row takes."""
        w = self.weights
        return 2 * len(w.layers) * w.groups * w.head * w.dtype.itemsize

    @property
    def reserved_bytes(self) -> int:
        """Bytes of memory that it has for rows to come, whatever they hold now."""
        return self.cache.rows.bytes

    @torch.inference_mode()
    def sample(self, requests: Sequence[SamplingRequest], stop: StopCondition) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up.

        Raises:
            ValueError: a prompt that with its continuation is longer than the model's positions.
        """
        longest = check_lengths(requests, self.max_length)
        places = self.cache.seat([request.slot for request in requests], longest)
        rows = [_Row(request, place=place) for request, place in zip(requests, places, strict=True)]
        in_order = sorted(rows, key=lambda row: row.place)
        self._write(in_order, self._read(in_order), stop)
        samples = [row.sample() for row in rows]
        for request, sample in zip(requests, samples, strict=True):
            self.cache.holds(request.slot, np.concatenate([request.prompt, sample.ids[:-1]]))
        return samples

    def _read(self, at: Sequence[_Row]) -> torch.Tensor:
        """Bring the prompt of row n into place n of the cache; return the logits after each, (rows, vocabulary)."""
        kept = [self.cache.kept(row.request.slot, row.request.prompt) for row in at]
        chunk = CHUNK if self.weights.device.type == "cpu" else LARGE_CHUNK
        work = plan_prefill([row.request.prompt for row in at], range(len(at)), kept, chunk)
        for source, target, start, end in work.copies:
            self.cache.rows.put(target, start, end, self.cache.rows, source)
        for row, last in zip(at, work.last_B.tolist(), strict=True):
            row.kind = last
        ends = [prefill(self.weights, self.cache.rows, part) for part in work.passes]
        return self.weights.logits(torch.cat(ends)).index_select(0, self._tensor(work.last_B))

    def _write(self, at: list[_Row], logits: torch.Tensor, stop: StopCondition) -> None:
        """Write replies token by token, row n in place n. One that is over keeps its place, idly, until half are."""
        cached = self.cache.rows.first(len(at))
        now = self._now(at)
        token_B, logp_B = sample_tokens(logits, now.temperature_B, now.uniform_B, now.filters)
        while True:
            for row, token, logp in zip(at, token_B.tolist(), logp_B.tolist(), strict=True):
                if not row.over:
                    row.write(token, logp, stop)
            live = sum(not row.over for row in at)
            if not live:
                break
            if self.recorder is None and live <= len(at) // 2:
                at, cached = self._narrowed(at, cached)
            now = self._now(at)
            end = max(row.position for row in at) + 1
            if self.recorder is not None:
                token_B, logp_B = self.recorder(self.cache.rows, now, end)
            else:
                token_B, logp_B = decode_step(self.weights, cached, now, end, self._alike(at))
        self._settle(at, cached)

    def _narrowed(self, at: list[_Row], cached: KVCache) -> tuple[list[_Row], KVCache]:
        """Return the rows that are not over, and a copy of what is cached of them, without gaps."""
        self._settle(at, cached)
        going = [b for b, row in enumerate(at) if not row.over]
        live = [at[b] for b in going]
        for row in live:
            row.moved = row.position if row.moved is None else row.moved
        return live, cached.taken(going, max(len(row.request.prompt) + len(row.request.uniforms) for row in live))

    def _settle(self, at: Sequence[_Row], cached: KVCache) -> None:
        """Take what rows that are over computed in copies of their places back into the cache."""
        for b, row in enumerate(at):
            if row.over and row.moved is not None:
                self.cache.rows.put(row.place, row.moved, row.position, cached, b)

    def _alike(self, at: Sequence[_Row]) -> DuplicateRows | None:
        """Tell which rows are the same, if any are."""
        numbers: dict[tuple[int, int, int], int] = {}
        for row in at:
            row.kind = numbers.setdefault((row.kind, len(row.ids), row.ids[-1]), len(numbers))
        if len(numbers) == len(at):
            return None
        _, first_D, kind_B = np.unique([row.kind for row in at], return_index=True, return_inverse=True)
        return DuplicateRows(self._tensor(first_D), self._tensor(kind_B))

    def _now(self, at: Sequence[_Row]) -> DecodeInputs:
        last = [row.ids[-1] if row.ids else 0 for row in at]  # the first token follows from the prompt alone
        params = [row.request.params for row in at]
        columns = (
            np.array(last),
            np.array([row.position for row in at]),
            np.array([p.temperature for p in params], np.float32),
            np.array([row.uniform for row in at]),
        )
        return DecodeInputs(*map(self._tensor, columns), batch_filters(params, self.weights.device))

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.weights.device)


class DecodeInputs(NamedTuple):
    """What goes into a step, for B rows."""

    id_B: torch.Tensor  # int64: the last token
    position_B: torch.Tensor  # int64: where it stands
    temperature_B: torch.Tensor  # float32
    uniform_B: torch.Tensor  # float64: what to sample the next with
    filters: SamplingFilters | None = None  # None where all are off


class DuplicateRows(NamedTuple):
    """Rows with the same tokens so far, of which all but attention is computed once: D different ones."""

    first_D: torch.Tensor  # int64: a row of each kind
    kind_B: torch.Tensor  # int64


def decode_step(
    weights: LlamaModel, rows: KVCache, now: DecodeInputs, end: int, alike: DuplicateRows | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run one token of each of the rows, and sample the next; return tokens and log-probabilities.

    Args:
        rows: the cached tokens before it; its own keys and values are added.
        end: keys that attention looks at, from the first; more than the largest position.
        alike: which rows are the same; none when left out.
    """

    def each(x_B: torch.Tensor) -> torch.Tensor:
        return x_B if alike is None else x_B.index_select(0, alike.first_D)

    def all_of(x_D: torch.Tensor) -> torch.Tensor:
        return x_D if alike is None else x_D.index_select(0, alike.kind_B)

    at_B = torch.arange(len(now.id_B), device=now.id_B.device)
    id_D, position_D = each(now.id_B), each(now.position_B)
    x_D = weights.embed.index_select(0, id_D)
    cos_D, sin_D = weights.cos.index_select(0, position_D), weights.sin.index_select(0, position_D)
    mask = causal_mask(now.position_B[:, None], end, weights.heads // weights.groups, weights.dtype)
    for layer, (keys, values) in zip(weights.layers, rows.layers, strict=True):
        q, k, v = layer.project(x_D, cos_D, sin_D)
        keys[at_B, :, now.position_B] = all_of(k)
        values[at_B, :, now.position_B] = all_of(v)
        mixed_B = attention(all_of(q)[:, None], keys[:, :, :end], values[:, :, :end], mask)
        x_D = layer.finish(x_D, each(mixed_B))
    return sample_tokens(all_of(weights.logits(x_D)), now.temperature_B, now.uniform_B, now.filters)


KEYS = 256
Drawn = tuple[torch.Tensor, torch.Tensor]


class CudaGraphStep:
    """Runs `decode_step` with fixed shapes, on the first rows of a cache."""

    def __init__(self, weights: LlamaModel) -> None:
        self.weights = weights
        self._recorded: dict[tuple[int, int, bool], tuple[DecodeInputs, Callable[[], Drawn]]] = {}
        self._rows: KVCache | None = None  # that the graphs were recorded on

    def __call__(self, rows: KVCache, now: DecodeInputs, end: int) -> Drawn:
        """Do what `decode_step` does.

        Args:
            rows: the whole cache; it has a multiple of `ROW_MULTIPLE` rows, in which the last place is nobody's:
                padding rows write there.
            now: for the first rows.
            end: see `decode_step`.
        """
        if rows is not self._rows:
            self._recorded.clear()
            self._rows = rows
        count = len(now.id_B)
        B, end = -(-count // ROW_MULTIPLE) * ROW_MULTIPLE, min(-(-end // KEYS) * KEYS, rows.length)
        shape = (B, end, now.filters is not None)
        if shape not in self._recorded:
            self._recorded[shape] = self._record(rows.first(B), now, end)
        held, run = self._recorded[shape]
        held.position_B.fill_(rows.length - 1)
        for mine, given in zip(_tensors(held), _tensors(now), strict=True):
            mine[:count].copy_(given)
        token_B, logp_B = run()
        return token_B[:count], logp_B[:count]

    def _record(self, rows: KVCache, like: DecodeInputs, end: int) -> tuple[DecodeInputs, Callable[[], Drawn]]:
        held = _like(like, rows.count)
        held.position_B.fill_(rows.length - 1)
        if self.weights.device.type != "cuda":
            return held, lambda: decode_step(self.weights, rows, held, end)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set themselves up in a first run, which cannot be recorded
            for _ in range(2):
                decode_step(self.weights, rows, held, end)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            drawn = decode_step(self.weights, rows, held, end)

        def run() -> Drawn:
            graph.replay()
            return drawn

        return held, run


def _tensors(step: DecodeInputs) -> list[torch.Tensor]:
    return [*step[:-1], *(step.filters or ())]


def _like(step: DecodeInputs, count: int) -> DecodeInputs:
    """Return a step of zeros for `count` rows."""
    zeros = [given.new_zeros(count) for given in _tensors(step)]
    return DecodeInputs(*zeros[:4], None if step.filters is None else SamplingFilters(*zeros[4:]))
