"""Decoders that run a transformers model's own forward pass: with a cache (`HFDecoder`) or without (`UncachedDecoder`).

A conversation keeps its keys, values and recurrent states between calls, shared prefixes are computed once, and
finished rows leave the batch. Rows are aligned on the right (see `hf_cache`), so the model's own masks and positions
hold: sliding windows, soft caps, attention sinks, ALiBi, experts and latent attention need no code here.

Keys and values can be resumed at any token, so rows with fewer new tokens recompute a few known ones instead of being
padded. A recurrent state holds only after its last token: rows of such models are computed together where they have
equally many new tokens, and shared prefixes are kept with their states.
"""

from __future__ import annotations

import inspect
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gentax.core.episode import common_prefix_length, prefix_order
from gentax.models.decoding.hf_cache import GROWTH, BatchCache, CachedSequence, template_layers
from gentax.models.decoding.sampling import ActiveRequest, StopCondition, check_lengths, sample_next
from gentax.models.device import context_length
from gentax.models.options import Sample, SamplingRequest

CHUNK, LARGE_CHUNK = 2048, 8192  # prompt tokens in one pass on a CPU, and on a GPU
SCORES = 2**28  # attention scores in one pass, at most: models without a fused kernel store them all
SPARE = 0.25  # share of a pass that may be recomputed tokens
MAX_PREFIXES = 32  # shared prefixes whose recurrent states are kept, at most


@dataclass(slots=True)
class _Item:
    """Token ids to bring into a row; `source` has the first `kept` of them."""

    ids: np.ndarray
    source: CachedSequence | None = None
    kept: int = 0

    def improve(self, source: CachedSequence | None, kept: int) -> None:
        if source is not None and kept > self.kept:
            self.source, self.kept = source, kept

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
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters wrap the signature
        takes = inspect.signature(inner.forward).parameters
        self._cache_name = "cache" if "cache" in takes else "past_key_values"
        self._takes = {name for name in ("position_ids", "logits_to_keep") if name in takes}
        self._layers = template_layers(model, self._cache_name)
        self.recurrent = bool(BatchCache(self._layers, 0, 0).states)
        self._heads = getattr(model.config.get_text_config(), "num_attention_heads", None) or 1
        self._slots: dict[int, CachedSequence] = {}
        self._prefixes: OrderedDict[bytes, CachedSequence] = OrderedDict()

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
                if (saved := self._slots.get(row.request.slot)) is not None:
                    item.improve(saved, self._usable(saved, item.ids))
        if not self.recurrent:
            _reuse_neighbours(items)
        prefixes, below = shared_prefixes([item.ids for item in items], [item.kept for item in items])
        computed: dict[int, CachedSequence] = {}
        for depth in range(1 + max((prefix.depth for prefix in prefixes), default=-1)):
            level = [n for n, prefix in enumerate(prefixes) if prefix.depth == depth]
            wanted = {n: _Item(prefixes[n].ids) for n in level}
            for n, item in wanted.items():
                if (parent := prefixes[n].parent) is not None:
                    item.improve(computed[parent], len(computed[parent].ids))
            computed |= self._compute_prefixes(wanted, items)
        for item, prefix in zip(items, below, strict=True):
            if prefix is not None:
                item.improve(computed[prefix], len(computed[prefix].ids))
            if self.recurrent:
                self._recall(item)
        return items

    def _compute_prefixes(self, prefixes: dict[int, _Item], items: Sequence[_Item]) -> dict[int, CachedSequence]:
        """Return where shared prefixes are cached, after computing those that are not."""
        cached: dict[int, CachedSequence] = {}
        for n, item in prefixes.items():
            if self.recurrent:
                if (saved := self._prefixes.get(item.ids.tobytes())) is not None:
                    self._prefixes.move_to_end(item.ids.tobytes())
                    cached[n] = saved
                else:
                    self._recall(item)
            else:
                for prompt_item in items:  # what any prompt has of it
                    if prompt_item.source is not None:
                        item.improve(
                            prompt_item.source,
                            min(prompt_item.kept, common_prefix_length(prompt_item.ids, item.ids), len(item.ids) - 1),
                        )
        missing = [n for n in prefixes if n not in cached]
        if missing:
            block, order, _ = self._prefill([prefixes[n] for n in missing])
            end = max(len(prefixes[n].ids) for n in missing)
            for place, m in enumerate(order):
                ids = prefixes[missing[m]].ids
                cached[missing[m]] = CachedSequence(ids, block, place, end, block.states, place)
        if self.recurrent:
            for n in missing:
                self._prefixes[prefixes[n].ids.tobytes()] = cached[n]
            while len(self._prefixes) > MAX_PREFIXES:
                self._prefixes.popitem(last=False)
        return cached

    def _recall(self, item: _Item) -> None:
        """Let an item start from the longest remembered prefix."""
        for saved in self._prefixes.values():
            item.improve(saved, self._usable(saved, item.ids))

    def _usable(self, saved: CachedSequence, ids: np.ndarray) -> int:
        """Return how many tokens of `ids` are cached there; the last is always computed."""
        shared = min(common_prefix_length(saved.ids, ids), len(ids) - 1)
        return shared if not self.recurrent or shared == len(saved.ids) else 0

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
        block = BatchCache.gather(self._layers, [i.source for i in at], [i.kept for i in at], starts, width + GROWTH)
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
                full = (b + 1 - first) * new > chunk
                alike = spare == 0 if self.recurrent else spare <= max(SPARE * (b + 1 - first) * new, chunk // 8)
                if alike and not full:
                    continue
            passes.append((first, b, new))
            first, spare = b, 0
        return passes

    def _chunk(self, width: int) -> int:
        chunk = CHUNK if self.model.device.type == "cpu" else LARGE_CHUNK
        return min(chunk, max(SCORES // (width * self._heads), 64))

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
        extra: dict[str, Any] = {self._cache_name: block.cache}
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


def _reuse_neighbours(items: Sequence[_Item]) -> None:
    """Let every item start from what its neighbour has cached, where that is more than its own."""
    for order in (items, items[::-1]):
        for first, second in itertools.pairwise(order):
            if first.source is not None:
                second.improve(
                    first.source, min(first.kept, common_prefix_length(first.ids, second.ids), len(second.ids) - 1)
                )


MIN_TOKENS_SAVED = 128  # tokens that a shared prefix must save: a forward pass of its own costs time too


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """A prefix of several prompts."""

    ids: np.ndarray
    parent: int | None  # the prefix of this one that is computed before it
    depth: int  # prefixes above it


def shared_prefixes(prompts: Sequence[np.ndarray], kept: Sequence[int]) -> tuple[list[SharedPrefix], list[int | None]]:
    """Find the prefixes of distinct prompts that save enough tokens to be computed first, once.

    Args:
        prompts: distinct token ids, sorted.
        kept: how many leading tokens of each are cached.

    Returns:
        The prefixes, parents first, and the longest prefix of each prompt. It never covers a prompt's last token, which
        must be computed.
    """
    same = [0, *(common_prefix_length(a, b) for a, b in itertools.pairwise(prompts))]
    prefixes: list[SharedPrefix] = []
    below: list[int | None] = [None] * len(prompts)
    open_ranges: list[tuple[int, int, int | None]] = [(0, len(prompts), None)]
    while open_ranges:
        first, last, parent = open_ranges.pop()
        if last - first < 2:
            below[first:last] = [parent] * (last - first)
            continue
        branch = min(same[first + 1 : last])
        shared = min(branch, *(len(prompt) - 1 for prompt in prompts[first:last]))
        depth = 0 if parent is None else len(prefixes[parent].ids)
        each = [max(shared - max(have, depth), 0) for have in kept[first:last]]
        if sum(each) - max(each) >= MIN_TOKENS_SAVED:
            prefixes.append(
                SharedPrefix(prompts[first][:shared], parent, 0 if parent is None else prefixes[parent].depth + 1)
            )
            parent = len(prefixes) - 1
        cuts = [first, *(n for n in range(first + 1, last) if same[n] == branch), last]
        open_ranges += [(a, b, parent) for a, b in itertools.pairwise(cuts)]
    return prefixes, below


class UncachedDecoder:
    """A decoder for models without a usable cache: the whole sequence is computed for every token, which is slow.

    Rows of equal length are computed together.
    """

    reserved_bytes = 0

    def __init__(self, model: Any) -> None:
        self.model = model
        self.max_length = context_length(model.config)
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(inner.forward).parameters else {}

    def cache_bytes(self, tokens: int) -> int:
        """Return 0: nothing is cached."""
        return 0

    def clear_cache(self) -> None:
        """Do nothing: nothing is cached."""

    @torch.inference_mode()
    def sample(self, requests: Sequence[SamplingRequest], stop: StopCondition) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up."""
        check_lengths(requests, self.max_length)
        rows = [ActiveRequest(request) for request in requests]
        while live := [row for row in rows if not row.finished]:
            length = min(row.position for row in live)
            now = [row for row in live if row.position == length]
            ids = np.array([[*row.request.prompt.tolist(), *row.ids] for row in now])
            out = self.model(input_ids=torch.from_numpy(ids).to(self.model.device), use_cache=False, **self._extra)
            sample_next(now, out.logits[:, -1], stop)
        return [row.sample() for row in rows]
