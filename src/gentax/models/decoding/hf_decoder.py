"""Sampling from any causal model of transformers through its own forward pass, at the speed of a cache.

A conversation that continues keeps its keys, values and recurrent states from one call to the next; what several
prompts begin with is computed once; rows that are over leave the batch. Rows of different lengths stand aligned on the
right (see `block`), so that a model's own masks and positions hold: windows, soft caps, sinks, ALiBi, experts and
latent attention need no code here.

Keys and values can be taken up at any token, so rows with fewer new tokens than their neighbours compute some known
ones again instead of padding. Recurrent states only hold after the last token that entered them: rows of such models
are computed together where they have equally many new tokens, and prefixes that prompts share are remembered with
their states. What a row does while it idles in a batch does not reach its states.

Which prefixes several prompts share and are worth computing once, before the prompts themselves.

Sampling from a model that keeps no cache this package can hold: the whole sequence is computed for every token.

Slow, and right for anything that has a forward pass.
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
from gentax.models.memory import context_length
from gentax.models.requests import Sample, SamplingRequest

CHUNK, LARGE_CHUNK = 2048, 8192  # tokens of prompts in one pass on a CPU, and elsewhere
SCORES = 2**28  # attention scores in one pass, at most: models without a fused kernel lay them all out
SPARE = 0.25  # share of a pass that may be tokens computed again to fill it up
MAX_PREFIXES = 32  # shared prefixes whose recurrent states are kept, at most


@dataclass(slots=True)
class _Item:
    """Tokens to bring into a row: all of `ids`, of which a source has the first `kept`."""

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
    """Samples continuations for many rows at once.

    Args:
        model: a Hugging Face causal model in evaluation mode.

    Raises:
        Unsupported: a model that keeps no cache, or one of an unknown kind.
    """

    @torch.inference_mode()
    def __init__(self, model: Any) -> None:
        self.model = model
        self.max_length = context_length(model.config)
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters wrap the signature
        takes = inspect.signature(inner.forward).parameters
        self._cache_name = "cache" if "cache" in takes else "past_key_values"
        self._takes = {name for name in ("position_ids", "logits_to_keep") if name in takes}
        self._likes = template_layers(model, self._cache_name)
        self.recurrent = bool(BatchCache(self._likes, 0, 0).states)
        self._heads = getattr(model.config.get_text_config(), "num_attention_heads", None) or 1
        self._slots: dict[int, CachedSequence] = {}
        self._prefixes: OrderedDict[bytes, CachedSequence] = OrderedDict()

    @property
    def cache_bytes_per_token(self) -> int:
        """Bytes of cache that a token of a row takes; recurrent states, which do not grow, are not counted.

        Rows are in memory twice while a call moves them: where they were, and where they are aligned anew.
        """
        return 2 * BatchCache(self._likes, 0, 0).cache_bytes_per_token

    reserved_bytes = 0

    def clear_cache(self) -> None:
        """Drop what is cached: the weights changed."""
        self._slots.clear()
        self._prefixes.clear()

    @torch.inference_mode()
    def sample(self, requests: Sequence[SamplingRequest], stop: StopCondition) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up.

        Raises:
            ValueError: a prompt that with its continuation is longer than the model's positions.
        """
        check_lengths(requests, self.max_length)
        rows = [ActiveRequest(request) for request in requests]
        alike: dict[bytes, list[ActiveRequest]] = {}
        for row in rows:
            alike.setdefault(row.request.prompt.tobytes(), []).append(row)
        groups = list(alike.values())
        groups = [groups[n] for n in prefix_order([group[0].request.prompt for group in groups])]
        items = self._planned(groups)
        block, order, logits = self._bring(items)
        if len(rows) > len(groups):
            spread = [place for place, n in enumerate(order) for _ in groups[n]]
            block = block.taken(spread)
            logits = logits.index_select(0, torch.tensor(spread, device=logits.device))
        self._write(block, [row for n in order for row in groups[n]], logits, stop)
        # A conversation that was not asked has ended, in all likelihood, and would hold a whole block of its last call.
        self._slots = {request.slot: self._slots[request.slot] for request in requests}
        return [row.sample() for row in rows]

    def _planned(self, groups: Sequence[Sequence[ActiveRequest]]) -> list[_Item]:
        """Return what to compute for prompts that are distinct and sorted, after computing what they share."""
        items = [_Item(group[0].request.prompt) for group in groups]
        for item, group in zip(items, groups, strict=True):
            for row in group:
                if (saved := self._slots.get(row.request.slot)) is not None:
                    item.improve(saved, self._usable(saved, item.ids))
        if not self.recurrent:
            _borrow(items)
        prefixes, below = shared_prefixes([item.ids for item in items], [item.kept for item in items])
        made: dict[int, CachedSequence] = {}
        for depth in range(1 + max((prefix.depth for prefix in prefixes), default=-1)):
            level = [n for n, prefix in enumerate(prefixes) if prefix.depth == depth]
            wanted = {n: _Item(prefixes[n].ids) for n in level}
            for n, item in wanted.items():
                if (parent := prefixes[n].parent) is not None:
                    item.improve(made[parent], len(made[parent].ids))
            made |= self._computed(wanted, items)
        for item, prefix in zip(items, below, strict=True):
            if prefix is not None:
                item.improve(made[prefix], len(made[prefix].ids))
            if self.recurrent:
                self._recall(item)
        return items

    def _computed(self, prefixes: dict[int, _Item], items: Sequence[_Item]) -> dict[int, CachedSequence]:
        """Return where shared prefixes are, after computing those that are nowhere yet."""
        found: dict[int, CachedSequence] = {}
        for n, item in prefixes.items():
            if self.recurrent:
                if (saved := self._prefixes.get(item.ids.tobytes())) is not None:
                    self._prefixes.move_to_end(item.ids.tobytes())
                    found[n] = saved
                else:
                    self._recall(item)
            else:
                for other in items:  # what any prompt has of it
                    if other.source is not None:
                        item.improve(
                            other.source, min(other.kept, common_prefix_length(other.ids, item.ids), len(item.ids) - 1)
                        )
        missing = [n for n in prefixes if n not in found]
        if missing:
            block, order, _ = self._bring([prefixes[n] for n in missing])
            end = max(len(prefixes[n].ids) for n in missing)
            for place, m in enumerate(order):
                ids = prefixes[missing[m]].ids
                found[missing[m]] = CachedSequence(ids, block, place, end, block.states, place)
        if self.recurrent:
            for n in missing:
                self._prefixes[prefixes[n].ids.tobytes()] = found[n]
            while len(self._prefixes) > MAX_PREFIXES:
                self._prefixes.popitem(last=False)
        return found

    def _recall(self, item: _Item) -> None:
        """Let an item start from the longest remembered prefix."""
        for saved in self._prefixes.values():
            item.improve(saved, self._usable(saved, item.ids))

    def _usable(self, saved: CachedSequence, ids: np.ndarray) -> int:
        """Return how many tokens of `ids` need not be computed; the last always is."""
        shared = min(common_prefix_length(saved.ids, ids), len(ids) - 1)
        return shared if not self.recurrent or shared == len(saved.ids) else 0

    def _bring(self, items: Sequence[_Item]) -> tuple[BatchCache, list[int], torch.Tensor]:
        """Compute items in a block of their own.

        Returns:
            The block, in which all end at the longest item's length; the item of each row; and the logits after the
            last token of each row, (rows, vocabulary).
        """
        order = sorted(range(len(items)), key=lambda n: -items[n].new)
        at = [items[n] for n in order]
        width = max(len(item.ids) for item in at)
        starts = [width - len(item.ids) for item in at]
        block = BatchCache.gathered(self._likes, [i.source for i in at], [i.kept for i in at], starts, width + GROWTH)
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
        """Split items, the one with most new tokens first, into passes: (first, last, tokens that each computes)."""
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

    def _write(self, block: BatchCache, rows: list[ActiveRequest], logits: torch.Tensor, stop: StopCondition) -> None:
        """Write replies token by token, row n in row n of the block. One that is over idles until half are."""
        end = max(len(row.request.prompt) for row in rows)
        starts = [end - len(row.request.prompt) for row in rows]
        while True:
            going = [not row.over for row in rows]
            sample_next(rows, logits, stop)
            ended = [b for b, row in enumerate(rows) if row.over and going[b]]
            live = [b for b, row in enumerate(rows) if not row.over]
            if ended:
                states = block.states_of(ended) if live else block.states
                for n, b in enumerate(ended):
                    row = rows[b]
                    held = np.concatenate([row.request.prompt, np.asarray(row.ids[:-1], np.int32)])
                    saved = CachedSequence(held, block, b, starts[b] + len(held), states, n if live else b)
                    self._slots[row.request.slot] = saved
            if not live:
                return
            if len(live) <= len(rows) // 2:
                block, rows, starts = block.taken(live), [rows[b] for b in live], [starts[b] for b in live]
            block.reserve(end + 1)
            now = np.array([[row.ids[-1]] for row in rows])
            logits = self._forward(block, 0, len(rows), now, end, starts)
            end += 1

    def _forward(
        self, block: BatchCache, first: int, last: int, ids: np.ndarray, end: int, starts: Sequence[int]
    ) -> torch.Tensor:
        """Run the model on tokens (rows, new) of some rows behind column `end`; return the last logits, in float32."""
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
        block.look(first, last, end)
        out = self.model(input_ids=torch.from_numpy(ids.astype(np.int64)).to(device), use_cache=True, **extra)
        return out.logits[:, -1].float()


def _borrow(items: Sequence[_Item]) -> None:
    """Let every item start from what a neighbour in the order has, where that is more than its own."""
    for order in (items, items[::-1]):
        for one, other in itertools.pairwise(order):
            if one.source is not None:
                other.improve(one.source, min(one.kept, common_prefix_length(one.ids, other.ids), len(other.ids) - 1))


MIN_TOKENS_SAVED = 128  # tokens that a shared prefix must save: a forward pass of its own costs time too


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """Tokens that several prompts begin with."""

    ids: np.ndarray
    parent: int | None  # the prefix of this one that is computed before it
    depth: int  # prefixes above it


def shared_prefixes(
    prompts: Sequence[np.ndarray], kept: Sequence[int], worth: int = MIN_TOKENS_SAVED
) -> tuple[list[SharedPrefix], list[int | None]]:
    """Find the branching points of distinct prompts where computing what is shared once saves enough.

    Args:
        prompts: distinct token ids, sorted so that those that begin alike are neighbours.
        kept: how many tokens at the start of each are computed already.
        worth: tokens that a prefix must save.

    Returns:
        The prefixes, parents first, and for each prompt the longest that it begins with. The last token of a prompt is
        never part of a prefix: what follows it must be computed.
    """
    same = [0, *(common_prefix_length(a, b) for a, b in itertools.pairwise(prompts))]
    found: list[SharedPrefix] = []
    below: list[int | None] = [None] * len(prompts)
    open_ranges: list[tuple[int, int, int | None]] = [(0, len(prompts), None)]
    while open_ranges:
        first, last, parent = open_ranges.pop()
        if last - first < 2:
            below[first:last] = [parent] * (last - first)
            continue
        branch = min(same[first + 1 : last])
        shared = min(branch, *(len(prompt) - 1 for prompt in prompts[first:last]))
        depth = 0 if parent is None else len(found[parent].ids)
        each = [max(shared - max(have, depth), 0) for have in kept[first:last]]
        if sum(each) - max(each) >= worth:
            found.append(
                SharedPrefix(prompts[first][:shared], parent, 0 if parent is None else found[parent].depth + 1)
            )
            parent = len(found) - 1
        cuts = [first, *(n for n in range(first + 1, last) if same[n] == branch), last]
        open_ranges += [(a, b, parent) for a, b in itertools.pairwise(cuts)]
    return found, below


class UncachedDecoder:
    """The interface of the other decoders over `model(input_ids)`; rows of equal length are computed together."""

    cache_bytes_per_token = reserved_bytes = 0

    def __init__(self, model: Any) -> None:
        self.model = model
        self.max_length = context_length(model.config)
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._extra = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(inner.forward).parameters else {}

    def clear_cache(self) -> None:
        """Nothing is cached between calls."""

    @torch.inference_mode()
    def sample(self, requests: Sequence[SamplingRequest], stop: StopCondition) -> list[Sample]:
        """Continue every prompt until `stop(ids so far)` or until its uniforms are used up."""
        check_lengths(requests, self.max_length)
        rows = [ActiveRequest(request) for request in requests]
        while live := [row for row in rows if not row.over]:
            length = min(row.position for row in live)
            now = [row for row in live if row.position == length]
            ids = np.array([[*row.request.prompt.tolist(), *row.ids] for row in now])
            out = self.model(input_ids=torch.from_numpy(ids).to(self.model.device), use_cache=False, **self._extra)
            sample_next(now, out.logits[:, -1], stop)
        return [row.sample() for row in rows]
