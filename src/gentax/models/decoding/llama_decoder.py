"""Decoder for Llama-like models: prefill the prompts into the KV cache, then decode one token per row and step.

Prefill computes every distinct (prefix, token) of a batch of prompts once, and nothing that is cached. Sorted, prompts
with a common prefix are neighbours. Each computes what follows the prefix it shares with its predecessor; keys and
values of the prefix are written to its row as well, layer by layer, by whoever computes them.

On a CUDA device a decoding step is a recorded graph: one launch instead of a dozen per layer, which take longer than
the arithmetic of a small model. (It has not been timed on a GPU yet.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from gentax.core.episode import common_prefix_length, prefix_order
from gentax.models.decoding.llama_model import ROW_MULTIPLE, KVCache, LlamaModel, SlotCache, attention, causal_mask
from gentax.models.decoding.sampling import (
    ActiveRequest,
    SamplingFilters,
    StopCondition,
    check_lengths,
    sample_tokens,
    sampling_inputs,
)
from gentax.models.options import Sample, SamplingRequest

LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")  # necessary, not sufficient: see `select_decoder`
CHUNK, LARGE_CHUNK = 1024, 8192  # prompt tokens in one pass: what fits the caches of a CPU, and on a GPU


@dataclass(slots=True)
class _Row(ActiveRequest):
    """A request and its place in the KV cache."""

    place: int = 0  # its row of the cache
    kind: int = 0  # equal for rows with equal tokens, prompt included, up to the last
    moved: int | None = None  # its keys and values from this position on are in a narrowed cache


class LlamaDecoder:
    """Samples continuations of many prompts at once.

    Args:
        model: a Hugging Face causal model of a type in `LLAMA_LIKE`; `LlamaModel` says what is done to it.
    """

    def __init__(self, model: Any) -> None:
        self.weights = w = LlamaModel(model)
        self.max_length = w.positions
        like = torch.zeros(0, w.groups, 0, w.head, device=w.device, dtype=w.dtype)
        self.cache = SlotCache(len(w.layers), like, w.positions)
        self.recorder = CudaGraphStep(w) if w.device.type == "cuda" else None

    def clear_cache(self) -> None:
        """Forget the cached tokens, since the weights changed."""
        self.cache.clear()

    def free_cache(self) -> None:
        """Forget the cached tokens and free their memory."""
        self.cache.free()

    def cache_bytes(self, tokens: int) -> int:
        """Return the bytes of KV cache for a row of `tokens` tokens."""
        w = self.weights
        return 2 * len(w.layers) * w.groups * w.head * w.dtype.itemsize * tokens

    @property
    def reserved_bytes(self) -> int:
        """Bytes allocated for the cache, used or not."""
        return self.cache.rows.bytes

    @torch.inference_mode()
    def sample(self, requests: Sequence[SamplingRequest], stop: StopCondition) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up.

        Raises:
            ValueError: a prompt and its continuation exceed the model's positions.
        """
        longest = check_lengths(requests, self.max_length)
        places = self.cache.assign_rows([request.slot for request in requests], longest)
        self.weights.reserve_positions(self.cache.rows.length)  # recorded graphs end with the rows, before these move
        rows = [_Row(request, place=place) for request, place in zip(requests, places, strict=True)]
        in_order = sorted(rows, key=lambda row: row.place)
        self._decode(in_order, self._prefill(in_order), stop)
        samples = [row.sample() for row in rows]
        for request, sample in zip(requests, samples, strict=True):
            self.cache.set_tokens(request.slot, np.concatenate([request.prompt, sample.ids[:-1]]))
        return samples

    def _prefill(self, at: Sequence[_Row]) -> torch.Tensor:
        """Prefill the prompt of row n into place n of the cache; return the logits after each, (rows, vocabulary)."""
        kept = [self.cache.cached_length(row.request.slot, row.request.prompt) for row in at]
        chunk = CHUNK if self.weights.device.type == "cpu" else LARGE_CHUNK
        work = plan_prefill([row.request.prompt for row in at], kept, chunk)
        for source, target, start, end in work.copies:
            self.cache.rows.copy_from(target, start, end, self.cache.rows, source)
        for row, last in zip(at, work.last_B.tolist(), strict=True):
            row.kind = last
        ends = [prefill(self.weights, self.cache.rows, part) for part in work.passes]
        return self.weights.logits(torch.cat(ends)).index_select(0, self._tensor(work.last_B))

    def _decode(self, at: list[_Row], logits: torch.Tensor, stop: StopCondition) -> None:
        """Decode row n in place n. A finished row stays, idle, until half of the rows are finished."""
        cached = self.cache.rows.first(len(at))
        now = self._inputs(at)
        token_B, logp_B = sample_tokens(logits, now.temperature_B, now.uniform_B, now.filters)
        while True:
            for row, token, logp in zip(at, token_B.tolist(), logp_B.tolist(), strict=True):
                if not row.finished:
                    row.append(token, logp, stop)
            live = sum(not row.finished for row in at)
            if not live:
                break
            if self.recorder is None and live <= len(at) // 2:
                at, cached = self._drop_finished(at, cached)
            now = self._inputs(at)
            end = max(row.position for row in at) + 1
            if self.recorder is not None:
                token_B, logp_B = self.recorder(self.cache.rows, now, end)
            else:
                token_B, logp_B = decode_step(self.weights, cached, now, end, self._duplicates(at))
        self._copy_back(at, cached)

    def _drop_finished(self, at: list[_Row], cached: KVCache) -> tuple[list[_Row], KVCache]:
        """Return the unfinished rows and a copy of their cache without gaps."""
        self._copy_back(at, cached)
        going = [b for b, row in enumerate(at) if not row.finished]
        live = [at[b] for b in going]
        for row in live:
            row.moved = row.position if row.moved is None else row.moved
        return live, cached.select_rows(going, max(len(row.request.prompt) + len(row.request.uniforms) for row in live))

    def _copy_back(self, at: Sequence[_Row], cached: KVCache) -> None:
        """Copy what finished rows computed in a narrowed cache back into the main one."""
        for b, row in enumerate(at):
            if row.finished and row.moved is not None:
                self.cache.rows.copy_from(row.place, row.moved, row.position, cached, b)

    def _duplicates(self, at: Sequence[_Row]) -> DuplicateRows | None:
        """Find rows with identical tokens; None where all differ."""
        numbers: dict[tuple[int, int, int], int] = {}
        for row in at:
            row.kind = numbers.setdefault((row.kind, len(row.ids), row.ids[-1]), len(numbers))
        if len(numbers) == len(at):
            return None
        _, first_D, kind_B = np.unique([row.kind for row in at], return_index=True, return_inverse=True)
        return DuplicateRows(self._tensor(first_D), self._tensor(kind_B))

    def _inputs(self, at: Sequence[_Row]) -> DecodeInputs:
        last = [row.ids[-1] if row.ids else 0 for row in at]  # the first token follows from the prompt alone
        device = self.weights.device
        ids_B, position_B = (torch.tensor(x, device=device) for x in (last, [row.position for row in at]))
        return DecodeInputs(ids_B, position_B, *sampling_inputs(at, device))

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.weights.device)


class DecodeInputs(NamedTuple):
    """The inputs of one decoding step, for B rows."""

    id_B: torch.Tensor  # int64: the last token
    position_B: torch.Tensor  # int64: its position
    temperature_B: torch.Tensor  # float32
    uniform_B: torch.Tensor  # float64: to sample the next token with
    filters: SamplingFilters | None = None  # None where all are off


class DuplicateRows(NamedTuple):
    """Rows with identical tokens so far: everything but attention is computed once, for D distinct rows."""

    first_D: torch.Tensor  # int64: one row of each kind
    kind_B: torch.Tensor  # int64


def decode_step(
    weights: LlamaModel, rows: KVCache, now: DecodeInputs, end: int, duplicates: DuplicateRows | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode one token per row; return the sampled tokens and their log-probabilities.

    Args:
        rows: the cache, to which the keys and values of this token are added.
        end: attention covers the first `end` keys; more than the largest position.
        duplicates: rows that are identical, if any.
    """

    def each(x_B: torch.Tensor) -> torch.Tensor:
        return x_B if duplicates is None else x_B.index_select(0, duplicates.first_D)

    def all_of(x_D: torch.Tensor) -> torch.Tensor:
        return x_D if duplicates is None else x_D.index_select(0, duplicates.kind_B)

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
Sampled = tuple[torch.Tensor, torch.Tensor]


class CudaGraphStep:
    """`decode_step` with fixed shapes, recorded as a CUDA graph for each shape.

    Rows are padded to a multiple of `ROW_MULTIPLE` and keys to one of `KEYS`. A graph reads the weights where they were
    when it was recorded, so training must update them in place. Without CUDA the padded step runs unrecorded, which is
    how it is tested.
    """

    def __init__(self, weights: LlamaModel) -> None:
        self.weights = weights
        self._recorded: dict[tuple[int, int, bool], tuple[DecodeInputs, Callable[[], Sampled]]] = {}
        self._rows: KVCache | None = None  # the cache the graphs were recorded on

    def __call__(self, rows: KVCache, now: DecodeInputs, end: int) -> Sampled:
        """Run `decode_step` for the first rows.

        Args:
            rows: the whole cache, with a multiple of `ROW_MULTIPLE` rows. Padding rows write to its last position,
                which no request uses.
        """
        if rows is not self._rows:
            self._recorded.clear()
            self._rows = rows
        count = len(now.id_B)
        B, end = -(-count // ROW_MULTIPLE) * ROW_MULTIPLE, min(-(-end // KEYS) * KEYS, rows.length)
        shape = (B, end, now.filters is not None)
        if shape not in self._recorded:
            self._recorded[shape] = self._record(rows.first(B), now, end)
        static, run = self._recorded[shape]
        static.position_B.fill_(rows.length - 1)
        for target, value in zip(_tensors(static), _tensors(now), strict=True):
            target[:count].copy_(value)
        token_B, logp_B = run()
        return token_B[:count], logp_B[:count]

    def _record(self, rows: KVCache, like: DecodeInputs, end: int) -> tuple[DecodeInputs, Callable[[], Sampled]]:
        zeros = [value.new_zeros(rows.count) for value in _tensors(like)]
        static = DecodeInputs(*zeros[:4], None if like.filters is None else SamplingFilters(*zeros[4:]))
        static.position_B.fill_(rows.length - 1)
        if self.weights.device.type != "cuda":
            return static, lambda: decode_step(self.weights, rows, static, end)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # warm up: libraries initialise in a first run, which cannot be recorded
            for _ in range(2):
                decode_step(self.weights, rows, static, end)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            sampled = decode_step(self.weights, rows, static, end)

        def run() -> Sampled:
            graph.replay()
            return sampled

        return static, run


def _tensors(step: DecodeInputs) -> list[torch.Tensor]:
    return [*step[:-1], *(step.filters or ())]


TILE_STEP = 16
Span = tuple[int, int, int]  # row, first position, end


class PrefillPass(NamedTuple):
    """N tokens to compute in one pass, and the M cache positions that they fill."""

    ids_N: np.ndarray  # int64
    spans: list[Span]  # of the tokens
    from_M: np.ndarray  # index into N
    row_M: np.ndarray
    position_M: np.ndarray


class PrefillPlan(NamedTuple):
    """Cache copies to make first, as (from row, to row, start, end), then the passes."""

    copies: list[tuple[int, int, int, int]]
    passes: list[PrefillPass]
    last_B: np.ndarray  # index of each prompt's last token among those of all passes; equal prompts share one


def plan_prefill(prompts: Sequence[np.ndarray], kept: Sequence[int], chunk: int) -> PrefillPlan:
    """Plan how to bring prompt n into row n.

    Args:
        prompts: token ids.
        kept: how many leading tokens of each prompt are cached in its row; fewer than all.
        chunk: tokens in one pass, unless a single row has more.
    """
    order = prefix_order(prompts)
    shared_with_previous = [common_prefix_length(prompts[a], prompts[b]) for a, b in itertools.pairwise(order)]
    same = [0, *shared_with_previous]
    have = list(kept)
    copies = _copies(prompts, have, order, same)
    own: list[Span] = []  # tokens to compute
    stored: list[tuple[int, int, np.ndarray]] = []  # row, position of the first, tokens
    last_B = np.zeros(len(prompts), np.int64)
    computed = 0
    path = np.zeros(0, np.int64)  # computed token of each position of the previous prompt; -1 where it was cached
    for i, shared in zip(order, same, strict=True):
        start, end = max(have[i], shared), len(prompts[i])
        new = np.arange(computed, computed + end - start)
        computed += len(new)
        path = np.concatenate([path[:shared], np.full(start - shared, -1), new])
        stored.append((i, have[i], path[have[i] :]))
        if len(new):  # else it equals the previous prompt
            own.append((i, start, end))
        last_B[i] = len(own) - 1
    from_M = np.concatenate([tokens for _, _, tokens in stored])
    row_M = np.repeat([row for row, _, _ in stored], [len(tokens) for _, _, tokens in stored])
    position_M = np.concatenate([np.arange(start, start + len(tokens)) for _, start, tokens in stored])
    passes, done = [], 0
    for spans in _split(own, chunk):
        ids_N = np.concatenate([prompts[i][start:end] for i, start, end in spans]).astype(np.int64)
        in_pass = (from_M >= done) & (from_M < done + len(ids_N))
        passes.append(PrefillPass(ids_N, spans, from_M[in_pass] - done, row_M[in_pass], position_M[in_pass]))
        done += len(ids_N)
    return PrefillPlan(copies, passes, last_B)


def _copies(
    prompts: Sequence[np.ndarray], have: list[int], order: list[int], same: list[int]
) -> list[tuple[int, int, int, int]]:
    """Copy the common prefix from a neighbour that has it cached; update `have`."""
    pairs = list(zip(order, order[1:], same[1:], strict=False))
    copies = []
    for source, target, shared in [(b, a, n) for a, b, n in reversed(pairs)] + pairs:
        end = min(shared, have[source], len(prompts[target]) - 1)  # the last token is always computed
        if end > have[target]:
            copies.append((source, target, have[target], end))
            have[target] = end
    return copies


def _split(own: list[Span], chunk: int) -> Iterator[list[Span]]:
    """Split the new tokens into passes, in order: a shared prefix is computed in the same pass or before."""
    part: list[Span] = []
    size = 0
    for span in own:
        new = span[2] - span[1]
        if part and size + new > chunk:
            yield part
            part, size = [], 0
        part.append(span)
        size += new
    if part:
        yield part


def prefill(weights: LlamaModel, rows: KVCache, part: PrefillPass) -> torch.Tensor:
    """Run the tokens of a pass; return the last layer's output after each prompt, (prompts, width).

    Of all other tokens the last layer computes only keys and values.

    Args:
        rows: the cache, to which keys and values are added.
    """
    tiles, place_N = _tiles(weights, part.spans)
    position_N = np.concatenate([np.arange(start, end) for _, start, end in part.spans])
    row_M, stored_M, from_M, at_N, place_N, ids_N = (
        torch.from_numpy(array).to(weights.device)
        for array in (part.row_M, part.position_M, part.from_M, position_N, place_N, part.ids_N)
    )
    # `index_select` takes a fraction of the time of indexing with a tensor.
    x_N = weights.embed.index_select(0, ids_N)
    cos_N, sin_N = weights.cos.index_select(0, at_N), weights.sin.index_select(0, at_N)
    for layer, (keys, values) in zip(weights.layers, rows.layers, strict=True):
        q, k, v = layer.project(x_N, cos_N, sin_N)
        keys[row_M, :, stored_M] = k.index_select(0, from_M)
        values[row_M, :, stored_M] = v.index_select(0, from_M)
        if layer is weights.layers[-1]:
            row_B, start_B, end_B = np.array(part.spans).T
            last = _Tile(weights, row_B, end_B - 1, np.cumsum(end_B - start_B)[:, None] - 1, int(end_B.max()))
            x_N, mixed = x_N.index_select(0, last.query), last.attend(q, keys, values)
        else:
            mixed = torch.cat([tile.attend(q, keys, values) for tile in tiles]).index_select(0, place_N)
        x_N = layer.finish(x_N, mixed)
    return x_N


def _tiles(weights: LlamaModel, spans: list[Span]) -> tuple[list[_Tile], np.ndarray]:
    """Group rows by how many tokens are new: fewer than `TILE_STEP` apart.

    Returns:
        The tiles, and the index of each of the N tokens among their concatenated queries.
    """
    kinds: dict[int, list[tuple[int, int, int, int]]] = {}
    begin = 0
    for row, start, end in spans:
        kinds.setdefault((end - start - 1) // TILE_STEP, []).append((row, start, end, begin))
        begin += end - start
    place_N = np.zeros(begin, np.int64)
    tiles, laid = [], 0
    for kind in kinds.values():
        wide = max(end - start for _, start, end, _ in kind)
        query_BQ = np.zeros((len(kind), wide), np.int64)
        for b, (_, start, end, begin) in enumerate(kind):
            n = end - start
            query_BQ[b, :n] = np.arange(begin, begin + n)
            place_N[begin : begin + n] = laid + b * wide + np.arange(n)
        row_B, start_B, end_B, _ = np.array(kind).T
        tiles.append(_Tile(weights, row_B, start_B, query_BQ, int(end_B.max())))
        laid += query_BQ.size
    return tiles, place_N


class _Tile:
    """The attention of B rows with similar numbers of new tokens, padded to Q queries.

    Args:
        row_B: in the cache.
        start_B: the position of the first query.
        query_BQ: index into the tokens of the pass; padding repeats one of them.
        end: keys to attend to, from the first.
    """

    def __init__(
        self, weights: LlamaModel, row_B: np.ndarray, start_B: np.ndarray, query_BQ: np.ndarray, end: int
    ) -> None:
        self.row_B = torch.from_numpy(row_B).to(weights.device)
        self.together = bool((np.diff(row_B) == 1).all())  # then keys are read in place
        self.first, self.end = int(row_B[0]), end
        self.query = torch.from_numpy(query_BQ.ravel()).to(weights.device)
        position_BQ = torch.from_numpy(start_B[:, None] + np.arange(query_BQ.shape[1])).to(weights.device)
        self.mask = causal_mask(position_BQ, end, weights.heads // weights.groups, weights.dtype)

    def attend(self, q_N: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Return the attention output of all queries, (B * Q, heads * head)."""
        q = q_N.index_select(0, self.query).unflatten(0, (len(self.row_B), -1))
        return attention(q, self._rows(keys), self._rows(values), self.mask)

    def _rows(self, cached: torch.Tensor) -> torch.Tensor:
        seen = cached[:, :, : self.end]
        return seen[self.first : self.first + len(self.row_B)] if self.together else seen.index_select(0, self.row_B)
