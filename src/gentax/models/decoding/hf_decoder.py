"""Decode with a transformers model's own forward pass, over a KV cache that can be resumed at any token.

A conversation keeps its keys, values and recurrent states between calls, shared prefixes are computed once, and
finished rows leave the batch. Rows are aligned on the right and padded on the left like batched `generate`, the layout
that every model's masks and positions are made for: sliding windows, soft caps, attention sinks, ALiBi, experts and
latent attention need no code here. Unlike transformers' caches, `BatchCache` writes in place, works on some of its rows
at a time, and keeps keys that left a sliding window.

Keys and values can be resumed at any token, so rows with fewer new tokens recompute a few known ones instead of being
padded. A recurrent state holds only after its last token: rows of such models are computed together where they have
equally many new tokens, and shared prefixes are kept with their states.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import cache_utils
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from gentax.core.episode import common_prefix_length, prefix_order
from gentax.models.decoding.sampling import ActiveRequest, StopCondition, check_lengths, sample_next
from gentax.models.device import context_length, forward_parameters
from gentax.models.options import Sample, SamplingRequest

CHUNK, LARGE_CHUNK = 2048, 8192  # prompt tokens in one pass on a CPU, and on a GPU
MAX_SCORES = 2**28  # attention scores in one pass, at most: models without a fused kernel store them all
MAX_RECOMPUTED = 0.25  # share of a pass that may be recomputed tokens
MAX_PREFIXES = 32  # shared prefixes whose recurrent states are kept, at most
MIN_GROWTH = 64  # columns that a cache grows by, at least


class UnsupportedCache(ValueError):
    """A model with a kind of cache that `BatchCache` cannot hold."""


class _Keys(DynamicLayer):
    """An attention layer: keys and values (rows, columns, heads, width), of which the model sees the cache's view."""

    def __init__(self, like: Any, cache: BatchCache, window: int | None) -> None:
        super().__init__()
        self.cache, self.window, self.is_sliding = cache, window, window is not None
        self.is_initialized = True
        self.buffers = [like.keys[:0].transpose(1, 2), like.values[:0].transpose(1, 2)]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        cache, seen = self.cache, []
        end = cache.end + key_states.shape[-2]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            rows = buffer[cache.first : cache.last]
            rows[:, cache.end : end] = new.transpose(1, 2)
            seen.append(rows[:, self._first() : end].transpose(1, 2))
        return tuple(seen)

    def get_seq_length(self) -> int:
        return self.cache.end

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.cache.end + query_length - self._first(), self._first()

    def _first(self) -> int:
        return 0 if self.window is None else max(self.cache.end - self.window + 1, 0)


# Newer than the oldest supported release.
LinearAttentionLayer: Any = getattr(cache_utils, "LinearAttentionLayer", None)
_HYBRIDS: dict[str, bool] = {  # hybrid layers of transformers -> whether their attention has a window
    "LinearAttentionAndFullAttentionLayer": False,
    "LinearAttentionAndSlidingWindowAttentionLayer": True,
}

if LinearAttentionLayer is not None:

    class _States(LinearAttentionLayer):
        """A recurrent layer: states (rows, …), updated in place."""

        def __init__(self, like: Any) -> None:
            vars(self).update({k: dict(v) if isinstance(v, dict) else v for k, v in vars(like).items()})
            self.has_previous_state = dict.fromkeys(like.has_previous_state, True)  # zeros where there is none
            self.kinds = [
                (kind, number)
                for kind in ("conv_states", "recurrent_states")
                for number, state in getattr(like, kind).items()
                if state is not None
            ]
            self.states = [getattr(like, kind)[number][:0] for kind, number in self.kinds]

        def show(self, first: int, last: int) -> None:
            """Let the model see the states of some rows."""
            for (kind, number), state in zip(self.kinds, self.states, strict=True):
                getattr(self, kind)[number] = state[first:last]

    class _Both(_States, _Keys):
        """A layer with attention and a recurrent state."""

        def __init__(self, like: Any, cache: BatchCache, window: int | None) -> None:
            _States.__init__(self, like)
            _Keys.__init__(self, like, cache, window)


@dataclass(frozen=True, slots=True)
class CachedSequence:
    """Tokens cached in a row of a `BatchCache`, up to column `end`, and the recurrent states after the last."""

    ids: np.ndarray
    block: BatchCache
    row: int
    end: int
    states: list[torch.Tensor]
    state_row: int


class BatchCache(Cache):
    """B rows of all layers. The next forward pass works on rows `first` to `last`, behind column `end`.

    Args:
        likes: a filled layer of transformers' cache for each layer of the model, as templates.
        rows: B.
        columns: tokens there is room for.

    Raises:
        UnsupportedCache: a layer of another kind.
    """

    def __init__(self, likes: Sequence[Any], rows: int, columns: int) -> None:
        self.likes, self.rows, self.columns = likes, rows, columns
        self.first, self.last, self.end = 0, rows, 0
        super().__init__(layers=[_layer(like, self) for like in likes])
        self._keys = [layer for layer in self.layers if isinstance(layer, _Keys)]
        self._recurrent = [layer for layer in self.layers if hasattr(layer, "states")]

    @classmethod
    def gather(cls, likes: Sequence[Any], items: Sequence[_Item], starts: Sequence[int], room: int) -> BatchCache:
        """Return a cache with what items have cached copied from others: to row b, from column `starts[b]` on."""
        block = cls(likes, len(items), room)
        used = {b: item.source for b, item in enumerate(items) if item.source is not None}
        column_BC, state_row_B = np.zeros((len(items), room), np.int64), np.zeros(len(items), np.int64)
        by_block: dict[int, list[int]] = {}
        by_states: dict[int, list[int]] = {}
        for b, source in used.items():
            begin = source.row * source.block.columns + source.end - len(source.ids)
            column_BC[b, starts[b] : starts[b] + items[b].kept] = np.arange(begin, begin + items[b].kept)
            state_row_B[b] = source.state_row
            by_block.setdefault(id(source.block), []).append(b)
            by_states.setdefault(id(source.states), []).append(b)
        for n, layer in enumerate(block._keys):
            for k, buffer in enumerate(layer.buffers):
                parts = [(used[bs[0]].block._keys[n].buffers[k].flatten(0, 1), bs) for bs in by_block.values()]
                layer.buffers[k] = _gather(buffer.new_zeros(0, room, *buffer.shape[2:]), parts, column_BC)
        for n, (layer, k) in enumerate(block._state_places()):
            parts = [(used[bs[0]].states[n], bs) for bs in by_states.values()]
            layer.states[k] = _gather(layer.states[k], parts, state_row_B)
        return block

    def _state_places(self) -> list[tuple[Any, int]]:
        return [(layer, k) for layer in self._recurrent for k in range(len(layer.states))]

    @property
    def states(self) -> list[torch.Tensor]:
        """The states of all recurrent layers, rows first; not copies."""
        return [layer.states[k] for layer, k in self._state_places()]

    def select_rows(self, rows: Sequence[int]) -> BatchCache:
        """Return a copy of some rows, with the same columns."""
        block = BatchCache(self.likes, len(rows), self.columns)
        index = torch.tensor(rows)
        for target, source in zip(block._keys, self._keys, strict=True):
            target.buffers = [buffer.index_select(0, index.to(buffer.device)) for buffer in source.buffers]
        for (layer, k), state in zip(block._state_places(), self.states_of(rows), strict=True):
            layer.states[k] = state
        return block

    def states_of(self, rows: Sequence[int]) -> list[torch.Tensor]:
        """Return a copy of the states of some rows."""
        index = torch.tensor(rows)
        return [state.index_select(0, index.to(state.device)) for state in self.states]

    def row_bytes(self, tokens: int) -> int:
        """Return the bytes of a row of `tokens` tokens in all layers."""
        keys = sum(buffer.shape[2:].numel() * buffer.itemsize for layer in self._keys for buffer in layer.buffers)
        return tokens * keys + sum(state.shape[1:].numel() * state.itemsize for state in self.states)

    def set_view(self, first: int, last: int, end: int) -> None:
        """Make the next forward pass work on rows `first` to `last`, behind column `end`."""
        self.first, self.last, self.end = first, last, end
        for layer in self._recurrent:
            layer.show(first, last)

    def reserve(self, columns: int) -> None:
        """Make room for as many columns."""
        if columns <= self.columns:
            return
        columns = max(columns, self.columns + max(MIN_GROWTH, self.columns // 4))
        for layer in self._keys:
            for k, old in enumerate(layer.buffers):
                layer.buffers[k] = old.new_zeros(self.rows, columns, *old.shape[2:])
                layer.buffers[k][:, : self.columns] = old
        self.columns = columns


def template_layers(model: Any, cache_name: str) -> list[Any]:
    """Run a short forward pass and return the filled layers of its cache. Raises as `BatchCache`."""
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.zeros(1, 5, dtype=torch.long, device=model.device), use_cache=True, **{cache_name: cache})
    if not cache.layers:
        raise UnsupportedCache("the model does not fill a cache")
    return list(cache.layers)


def _layer(like: Any, cache: BatchCache) -> Any:
    kind = type(like)
    if kind is DynamicLayer and like.is_initialized:
        return _Keys(like, cache, None)
    if kind is DynamicSlidingWindowLayer and like.is_initialized:
        return _Keys(like, cache, like.sliding_window)
    if kind.__name__ == "DummyLayer":
        return kind()
    if LinearAttentionLayer is not None:
        if kind is LinearAttentionLayer and any(like.is_conv_states_initialized.values()):
            return _States(like)
        if kind.__name__ in _HYBRIDS and like.keys is not None:
            return _Both(like, cache, like.sliding_window if _HYBRIDS[kind.__name__] else None)
    raise UnsupportedCache(f"cannot hold a cache layer of type {kind.__name__}")


def _gather(like: torch.Tensor, parts: Sequence[tuple[torch.Tensor, list[int]]], index_B: np.ndarray) -> torch.Tensor:
    """Return rows (B, …) read by index from the first dimension of others; rows in no part are zero.

    Args:
        like: a tensor of the right type and shape, without rows.
        parts: a tensor to read from, and the rows read from it.
        index_B: what is read for each row: (B,), or (B, columns).
    """
    gathered = None
    for old, members in parts:
        index = torch.from_numpy(index_B[members].reshape(-1)).to(old.device)
        values = old.flatten(1).index_select(0, index).view(len(members), *like.shape[1:])
        if len(members) == len(index_B):
            return values
        if gathered is None:
            gathered = like.new_zeros(len(index_B), *like.shape[1:])
        gathered[torch.tensor(members, device=gathered.device)] = values
    return like.new_zeros(len(index_B), *like.shape[1:]) if gathered is None else gathered


@dataclass(slots=True)
class _Item:
    """Token ids to bring into a row; `source` has the first `kept` of them."""

    ids: np.ndarray
    source: CachedSequence | None = None
    kept: int = 0

    @property
    def new(self) -> int:
        return len(self.ids) - self.kept


class HFDecoder:
    """Samples continuations of many prompts at once.

    Args:
        model: a Hugging Face causal model in evaluation mode.

    Raises:
        UnsupportedCache: a model without a cache, or with one of an unknown kind.
    """

    @torch.inference_mode()
    def __init__(self, model: Any) -> None:
        self.model = model
        self.max_length = context_length(model.config)
        takes = forward_parameters(model)
        self._cache_name = "cache" if "cache" in takes else "past_key_values"
        self._takes = {name for name in ("position_ids", "logits_to_keep") if name in takes}
        self._layers = template_layers(model, self._cache_name)
        self.recurrent = bool(BatchCache(self._layers, 0, 0).states)
        self._heads = getattr(model.config.get_text_config(), "num_attention_heads", None) or 1
        self._slots: dict[int, CachedSequence] = {}
        self._prefixes: list[CachedSequence] = []  # of recurrent models

    def cache_bytes(self, tokens: int) -> int:
        """Return the bytes of cache for a row of `tokens` tokens, twice: a call copies rows when it aligns them."""
        return 2 * BatchCache(self._layers, 0, 0).row_bytes(tokens)

    reserved_bytes = 0

    def clear_cache(self) -> None:
        """Forget the cached tokens, since the weights changed."""
        self._slots.clear()
        self._prefixes.clear()

    @torch.inference_mode()
    def sample(self, requests: Sequence[SamplingRequest], stop: StopCondition) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up.

        Raises:
            ValueError: a prompt and its continuation exceed the model's positions.
        """
        check_lengths(requests, self.max_length)
        rows = [ActiveRequest(request) for request in requests]
        alike: dict[bytes, list[ActiveRequest]] = {}
        for row in rows:
            alike.setdefault(row.request.prompt.tobytes(), []).append(row)
        groups = list(alike.values())
        groups = [groups[n] for n in prefix_order([group[0].request.prompt for group in groups])]
        items = self._plan(groups)
        block, order, logits = self._prefill(items)
        if len(rows) > len(groups):
            spread = [place for place, n in enumerate(order) for _ in groups[n]]
            block = block.select_rows(spread)
            logits = logits.index_select(0, torch.tensor(spread, device=logits.device))
        self._decode(block, [row for n in order for row in groups[n]], logits, stop)
        # A conversation that was not asked has ended, in all likelihood, and would hold a whole block of its last call.
        self._slots = {request.slot: self._slots[request.slot] for request in requests}
        return [row.sample() for row in rows]

    def _plan(self, groups: Sequence[Sequence[ActiveRequest]]) -> list[_Item]:
        """Return what to compute for distinct, sorted prompts, after computing the prefixes they share."""
        items = [_Item(group[0].request.prompt) for group in groups]
        for item, group in zip(items, groups, strict=True):
            for row in group:
                self._offer(item, self._slots.get(row.request.slot))
        if not self.recurrent:
            for first, second in (*itertools.pairwise(items), *itertools.pairwise(items[::-1])):
                self._offer(second, first.source)
        known = self._prefixes
        while True:
            for item, saved in itertools.product(items, known):
                self._offer(item, saved)
            prefixes = shared_prefixes([item.ids for item in items], [item.kept for item in items])
            if not prefixes:
                return items
            known = self._compute_prefixes(prefixes, items)

    def _compute_prefixes(self, prefixes: Sequence[np.ndarray], items: Sequence[_Item]) -> list[CachedSequence]:
        """Compute shared prefixes, each from the longest part of it that any prompt has cached."""
        wanted = [_Item(ids) for ids in prefixes]
        for item, prompt_item in itertools.product(wanted, items):
            self._offer(item, prompt_item.source)
        block, order, _ = self._prefill(wanted)
        end, states = max(map(len, prefixes)), block.states
        computed = [CachedSequence(prefixes[n], block, place, end, states, place) for place, n in enumerate(order)]
        if self.recurrent:
            used = {id(item.source) for item in items}
            self._prefixes.sort(key=lambda saved: id(saved) in used)  # the first to go are those not used now
            self._prefixes = [*self._prefixes, *computed][-MAX_PREFIXES:]
        return computed

    def _offer(self, item: _Item, saved: CachedSequence | None) -> None:
        """Let an item start from a cached sequence that has more of it; its last token is always computed."""
        shared = 0 if saved is None else min(common_prefix_length(saved.ids, item.ids), len(item.ids) - 1)
        if saved is not None and shared > item.kept and (not self.recurrent or shared == len(saved.ids)):
            item.source, item.kept = saved, shared

    def _prefill(self, items: Sequence[_Item]) -> tuple[BatchCache, list[int], torch.Tensor]:
        """Prefill items in a cache of their own.

        Returns:
            The cache, in which all rows end at the longest item's length; the item of each row; and the logits after
            the last token of each row, (rows, vocabulary).
        """
        order = sorted(range(len(items)), key=lambda n: -items[n].new)
        at = [items[n] for n in order]
        width = max(len(item.ids) for item in at)
        starts = [width - len(item.ids) for item in at]
        block = BatchCache.gather(self._layers, at, starts, width + MIN_GROWTH)
        ids = np.zeros((len(at), width), np.int64)
        for b, item in enumerate(at):
            ids[b, starts[b] :] = item.ids
        logits = []
        for first, last, new in self._passes(at, width):
            most = max(1, self._chunk(width) // (last - first))
            end = width - new
            while end < width:
                end += (wide := min(most, width - end))
                now = ids[first:last, end - wide : end]
                after = self._forward(block, first, last, now, end - wide, starts[first:last])
            logits.append(after)
        return block, order, torch.cat(logits)

    def _passes(self, at: Sequence[_Item], width: int) -> list[tuple[int, int, int]]:
        """Split items, sorted by new tokens, into passes: (first, last, new tokens of each row)."""
        passes, first, spare = [], 0, 0
        chunk = self._chunk(width)
        for b in range(1, len(at) + 1):
            new = at[first].new
            if b < len(at):
                spare += new - at[b].new
                tokens = (b + 1 - first) * new
                most = 0 if self.recurrent else max(MAX_RECOMPUTED * tokens, chunk // 8)
                if spare <= most and tokens <= chunk:
                    continue
            passes.append((first, b, new))
            first, spare = b, 0
        return passes

    def _chunk(self, width: int) -> int:
        chunk = CHUNK if self.model.device.type == "cpu" else LARGE_CHUNK
        return min(chunk, max(MAX_SCORES // (width * self._heads), 64))

    def _decode(self, block: BatchCache, rows: list[ActiveRequest], logits: torch.Tensor, stop: StopCondition) -> None:
        """Decode row n in row n of the cache. A finished row stays, idle, until half of the rows are finished."""
        end = max(len(row.request.prompt) for row in rows)
        starts = [end - len(row.request.prompt) for row in rows]
        while True:
            going = [not row.finished for row in rows]
            sample_next(rows, logits, stop)
            ended = [b for b, row in enumerate(rows) if row.finished and going[b]]
            live = [b for b, row in enumerate(rows) if not row.finished]
            if ended:
                states = block.states_of(ended) if live else block.states
                for n, b in enumerate(ended):
                    row = rows[b]
                    ids = np.concatenate([row.request.prompt, np.asarray(row.ids[:-1], np.int32)])
                    saved = CachedSequence(ids, block, b, starts[b] + len(ids), states, n if live else b)
                    self._slots[row.request.slot] = saved
            if not live:
                return
            if len(live) <= len(rows) // 2:
                block, rows, starts = block.select_rows(live), [rows[b] for b in live], [starts[b] for b in live]
            block.reserve(end + 1)
            now = np.array([[row.ids[-1]] for row in rows])
            logits = self._forward(block, 0, len(rows), now, end, starts)
            end += 1

    def _forward(
        self, block: BatchCache, first: int, last: int, ids: np.ndarray, end: int, starts: Sequence[int]
    ) -> torch.Tensor:
        """Run tokens (rows, new) of some rows behind column `end`; return the last logits, in float32."""
        device = self.model.device
        start = np.asarray(starts)[:, None]
        columns = np.arange(end + ids.shape[1])
        extra: dict[str, Any] = {self._cache_name: block}
        if start.any():
            extra["attention_mask"] = torch.from_numpy((columns >= start).astype(np.int64)).to(device)
        if "position_ids" in self._takes:
            position = np.minimum(np.maximum(columns[end:] - start, 0), self.max_length - 1)
            extra["position_ids"] = torch.from_numpy(position).to(device)
        if "logits_to_keep" in self._takes:
            extra["logits_to_keep"] = 1
        block.set_view(first, last, end)
        out = self.model(input_ids=torch.from_numpy(ids.astype(np.int64)).to(device), use_cache=True, **extra)
        return out.logits[:, -1].float()


MIN_TOKENS_SAVED = 128  # tokens that a shared prefix must save: a forward pass of its own costs time too


def shared_prefixes(prompts: Sequence[np.ndarray], kept: Sequence[int]) -> list[np.ndarray]:
    """Find the shortest prefixes of distinct prompts that save enough tokens to be computed first, once.

    They never cover a prompt's last token, which must be computed. Longer ones are found once these are cached.

    Args:
        prompts: distinct token ids, sorted.
        kept: how many leading tokens of each are cached.
    """
    same = [0, *(common_prefix_length(a, b) for a, b in itertools.pairwise(prompts))]
    prefixes: list[np.ndarray] = []
    open_ranges = [(0, len(prompts))]
    while open_ranges:
        first, last = open_ranges.pop()
        if last - first < 2:
            continue
        branch = min(same[first + 1 : last])
        shared = min(branch, *(len(prompt) - 1 for prompt in prompts[first:last]))
        saved = [max(shared - have, 0) for have in kept[first:last]]
        if sum(saved) - max(saved) >= MIN_TOKENS_SAVED:
            prefixes.append(prompts[first][:shared])
        else:
            cuts = [first, *(n for n in range(first + 1, last) if same[n] == branch), last]
            open_ranges += itertools.pairwise(cuts)
    return prefixes
