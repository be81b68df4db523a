"""A KV cache with room to grow, for a transformers model's own forward pass.

`BatchCache` is a transformers cache of B rows, aligned on the right and padded on the left like batched `generate`, the
layout that every model's masks and windows are made for. Unlike transformers' caches it writes in place, works on some
of its rows at a time, and keeps keys that left a sliding window, so that a conversation can be resumed at any token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import cache_utils
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

GROWTH = 64  # columns that a cache grows by, at least


class UnsupportedCache(ValueError):
    """A model with a kind of cache that `BatchCache` cannot hold."""


@dataclass(slots=True)
class View:
    """What the next forward pass works on: rows `first` to `last`, and columns from `end` on."""

    first: int = 0
    last: int = 0
    end: int = 0


class _Keys(DynamicLayer):
    """An attention layer: keys and values (rows, columns, heads, width)."""

    def __init__(self, like: Any, view: View, window: int | None) -> None:
        super().__init__()
        self.view, self.window, self.is_sliding = view, window, window is not None
        self.is_initialized = True
        self.buffers = [like.keys[:0].transpose(1, 2), like.values[:0].transpose(1, 2)]

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        view, seen = self.view, []
        end = view.end + key_states.shape[-2]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            rows = buffer[view.first : view.last]
            rows[:, view.end : end] = new.transpose(1, 2)
            seen.append(rows[:, self._first() : end].transpose(1, 2))
        return tuple(seen)

    def get_seq_length(self) -> int:
        return self.view.end

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.view.end + query_length - self._first(), self._first()

    def _first(self) -> int:
        return 0 if self.window is None else max(self.view.end - self.window + 1, 0)


# Newer than the oldest supported release.
LinearAttentionLayer: Any = getattr(cache_utils, "LinearAttentionLayer", None)
_HYBRIDS: dict[str, bool] = {  # hybrid layers of transformers -> whether their attention has a window
    "LinearAttentionAndFullAttentionLayer": False,
    "LinearAttentionAndSlidingWindowAttentionLayer": True,
}

if LinearAttentionLayer is not None:

    class _States(LinearAttentionLayer):
        """A recurrent layer: states (rows, …), updated in place."""

        def __init__(self, like: Any, view: View) -> None:
            LinearAttentionLayer.__init__(self, number_of_states=like.number_of_states)
            self._adopt(like)

        def _adopt(self, like: Any) -> None:
            self.kinds = [
                (kind, number)
                for kind in ("conv_states", "recurrent_states")
                for number, state in getattr(like, kind).items()
                if state is not None
            ]
            self.states = [getattr(like, kind)[number][:0] for kind, number in self.kinds]
            self.is_conv_states_initialized = dict(like.is_conv_states_initialized)
            self.is_recurrent_states_initialized = dict(like.is_recurrent_states_initialized)
            self.has_previous_state = dict.fromkeys(like.has_previous_state, True)  # zeros where there is none
            self.conv_kernel_size = dict(like.conv_kernel_size)
            self.device, self.dtype = like.device, like.dtype

        def set_view(self, view: View) -> None:
            """Show the states of the view's rows to the model."""
            for (kind, number), state in zip(self.kinds, self.states, strict=True):
                getattr(self, kind)[number] = state[view.first : view.last]

    class _Both(_States, _Keys):
        """A layer with attention and a recurrent state."""

        def __init__(self, like: Any, view: View, window: int | None) -> None:
            LinearAttentionLayer.__init__(self, number_of_states=like.number_of_states)
            _Keys.__init__(self, like, view, window)
            self._adopt(like)


@dataclass(frozen=True, slots=True)
class CachedSequence:
    """Tokens cached in a row of a `BatchCache`, up to column `end`, and the recurrent states after the last."""

    ids: np.ndarray
    block: BatchCache
    row: int
    end: int
    states: list[torch.Tensor]
    state_row: int


class BatchCache:
    """B rows of all layers.

    Args:
        likes: a filled layer of transformers' cache for each layer of the model, as templates.
        rows: B.
        columns: tokens there is room for.
    """

    def __init__(self, likes: Sequence[Any], rows: int, columns: int) -> None:
        self.likes, self.rows, self.columns = likes, rows, columns
        self.view = View()
        self.cache = Cache(layers=[_layer(like, self.view) for like in likes])
        self._keys = [layer for layer in self.cache.layers if isinstance(layer, _Keys)]
        self._recurrent = [layer for layer in self.cache.layers if hasattr(layer, "states")]

    @classmethod
    def gather(
        cls,
        likes: Sequence[Any],
        sources: Sequence[CachedSequence | None],
        kept: Sequence[int],
        starts: Sequence[int],
        room: int,
    ) -> BatchCache:
        """Return a cache with rows copied from others: the first `kept[b]` tokens of row b, from column `starts[b]`
        on.
        """
        block = cls(likes, len(sources), room)
        by_block: dict[int, list[int]] = {}
        for b, source in enumerate(sources):
            if source is not None and kept[b]:
                by_block.setdefault(id(source.block), []).append(b)
        plans = []
        for members in by_block.values():
            old = sources[members[0]].block
            index = np.zeros((len(members), room), np.int64)
            for m, b in enumerate(members):
                source = sources[b]
                assert source is not None
                begin = source.row * old.columns + source.end - len(source.ids)
                index[m, starts[b] : starts[b] + kept[b]] = np.arange(begin, begin + kept[b])
            plans.append((old, members, index))
        for n, layer in enumerate(block._keys):
            layer.buffers = [
                _gather(
                    buffer,
                    [(old._keys[n].buffers[k], members, index) for old, members, index in plans],
                    block.rows,
                    room,
                )
                for k, buffer in enumerate(layer.buffers)
            ]
        block._take_states([source if kept[b] else None for b, source in enumerate(sources)])
        return block

    def select_rows(self, rows: Sequence[int]) -> BatchCache:
        """Return a copy of some rows, with the same columns."""
        block = BatchCache(self.likes, len(rows), self.columns)
        index = torch.tensor(rows)
        for target, source in zip(block._keys, self._keys, strict=True):
            target.buffers = [buffer.index_select(0, index.to(buffer.device)) for buffer in source.buffers]
        for layer, old in zip(block._recurrent, self._recurrent, strict=True):
            layer.states = [state.index_select(0, index.to(state.device)) for state in old.states]
        return block

    @property
    def states(self) -> list[torch.Tensor]:
        """The states of all recurrent layers, rows first; not copies."""
        return [state for layer in self._recurrent for state in layer.states]

    def row_bytes(self, tokens: int) -> int:
        """Return the bytes of a row of `tokens` tokens in all layers."""
        keys = sum(buffer.shape[2:].numel() * buffer.itemsize for layer in self._keys for buffer in layer.buffers)
        return tokens * keys + sum(state.shape[1:].numel() * state.itemsize for state in self.states)

    def states_of(self, rows: Sequence[int]) -> list[torch.Tensor]:
        """Return a copy of the states of some rows."""
        index = torch.tensor(rows)
        return [state.index_select(0, index.to(state.device)) for state in self.states]

    def set_view(self, first: int, last: int, end: int) -> None:
        """Make the next forward pass work on rows `first` to `last`, behind column `end`."""
        self.view.first, self.view.last, self.view.end = first, last, end
        for layer in self._recurrent:
            layer.set_view(self.view)

    def reserve(self, columns: int) -> None:
        """Make room for as many columns."""
        if columns <= self.columns:
            return
        columns = max(columns, self.columns + max(GROWTH, self.columns // 4))
        for layer in self._keys:
            for k, old in enumerate(layer.buffers):
                new = old.new_zeros(self.rows, columns, *old.shape[2:])
                new[:, : self.columns] = old
                layer.buffers[k] = new
        self.columns = columns

    def _take_states(self, sources: Sequence[CachedSequence | None]) -> None:
        n = 0
        for layer in self._recurrent:
            for k, like in enumerate(layer.states):
                state = like.new_zeros(self.rows, *like.shape[1:])
                by_tensor: dict[int, list[int]] = {}
                for b, source in enumerate(sources):
                    if source is not None:
                        by_tensor.setdefault(id(source.states[n]), []).append(b)
                for members in by_tensor.values():
                    old = sources[members[0]].states[n]
                    index = torch.tensor([sources[b].state_row for b in members], device=old.device)
                    state[torch.tensor(members, device=old.device)] = old.index_select(0, index)
                layer.states[k] = state
                n += 1


def template_layers(model: Any, cache_name: str) -> list[Any]:
    """Run a short forward pass and return the filled layers of its cache.

    Raises:
        UnsupportedCache: a layer of another kind.
    """
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.zeros(1, 5, dtype=torch.long, device=model.device), use_cache=True, **{cache_name: cache})
    for layer in cache.layers:
        _layer(layer, View())
    if not cache.layers:
        raise UnsupportedCache("the model does not fill a cache")
    return list(cache.layers)


def _layer(like: Any, view: View) -> Any:
    kind = type(like)
    if kind is DynamicLayer and like.is_initialized:
        return _Keys(like, view, None)
    if kind is DynamicSlidingWindowLayer and like.is_initialized:
        return _Keys(like, view, like.sliding_window)
    if kind.__name__ == "DummyLayer":
        return kind()
    if LinearAttentionLayer is not None:
        if kind is LinearAttentionLayer and any(like.is_conv_states_initialized.values()):
            return _States(like, view)
        if kind.__name__ in _HYBRIDS and like.keys is not None:
            return _Both(like, view, like.sliding_window if _HYBRIDS[kind.__name__] else None)
    raise UnsupportedCache(f"cannot hold a cache layer of type {kind.__name__}")


def _gather(
    like: torch.Tensor, parts: Sequence[tuple[torch.Tensor, list[int], np.ndarray]], rows: int, columns: int
) -> torch.Tensor:
    """Return (rows, columns, heads, width); the members of each part are read by index from its flattened tensor."""
    shape = like.shape[2:]
    whole = len(parts) == 1 and len(parts[0][1]) == rows
    gathered = None if whole else like.new_zeros(rows, columns, *shape)
    for old, members, index in parts:
        flat = old.view(old.shape[0] * old.shape[1], -1)
        values = flat.index_select(0, torch.from_numpy(index.reshape(-1)).to(old.device)).view(
            len(members), columns, *shape
        )
        if gathered is None:
            return values
        gathered[torch.tensor(members, device=gathered.device)] = values
    assert gathered is not None
    return gathered
