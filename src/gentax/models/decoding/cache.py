"""Keys and values of past tokens, a row for each conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from gentax.core.prefix import common

ROWS, LENGTH = 8, 128  # the cache has a multiple of these


@dataclass(frozen=True, slots=True)
class Rows:
    """Keys and values of B rows: for each layer two tensors (B, groups, length, head)."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]

    @property
    def count(self) -> int:
        return self.layers[0][0].shape[0]

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[2]

    def first(self, count: int) -> Rows:
        """Return the first rows, where they are."""
        return Rows([(keys[:count], values[:count]) for keys, values in self.layers])

    @property
    def bytes(self) -> int:
        return sum(x.numel() * x.itemsize for pair in self.layers for x in pair)

    def resized(self, count: int, length: int, keep: bool) -> Rows:
        """Return `count` rows of `length` tokens, with what is in these if `keep`.

        A layer is given up as soon as it has been copied, so that memory never holds the cache twice: these rows are
        empty afterwards.
        """

        def copy(old: torch.Tensor) -> torch.Tensor:
            # Zeros, not whatever memory holds: a masked key has weight 0, and 0 times NaN is NaN.
            new = old.new_zeros(count, old.shape[1], length, old.shape[3])
            if keep:
                new[: len(old), :, : old.shape[2]] = old[:count]
            return new

        layers = []
        while self.layers:
            keys, values = self.layers.pop(0)
            layers.append((copy(keys), copy(values)))
        return Rows(layers)

    def taken(self, rows: Sequence[int], length: int) -> Rows:
        """Return a copy of some rows, up to `length`."""
        index = torch.tensor(rows, device=self.layers[0][0].device)
        return Rows([tuple(x[:, :, :length].index_select(0, index) for x in pair) for pair in self.layers])

    def put(self, row: int, start: int, end: int, source: Rows, other: int) -> None:
        """Copy the tokens from `start` to `end` of row `other` of `source`."""
        for mine, theirs in zip(self.layers, source.layers, strict=True):
            for to, of in zip(mine, theirs, strict=True):
                to[row, :, start:end] = of[other, :, start:end]


class Cache:
    """Which conversation (slot) has which row, and the tokens whose keys and values are there.

    Args:
        layers: the model's number of layers.
        like: a tensor (0, groups, 0, head), on the model's device and of its type.
        positions: tokens that a row may have at most.
    """

    def __init__(self, layers: int, like: torch.Tensor, positions: int) -> None:
        self.rows = Rows([(like, like)] * layers)
        self.positions = positions
        self._row: dict[int, int] = {}
        self._ids: dict[int, np.ndarray] = {}

    def forget(self) -> None:
        """Drop what is cached: the weights changed.

        Rows are given anew, so that no last bit of what comes depends on what was played before: a continued run plays
        as an unbroken one.
        """
        self._ids.clear()
        self._row.clear()

    def seat(self, slots: Sequence[int], length: int) -> list[int]:
        """Give every slot a row of at least `length` tokens among the first rows; return the rows.

        Attention then reads them where they are.
        """
        for slot in slots:
            self._row.setdefault(slot, len(self._row))
        count, have = -(-len(self._row) // ROWS) * ROWS, self.rows.length
        if count > self.rows.count or length > have:
            length = min(-(-length // LENGTH) * LENGTH, self.positions)
            # No more rows than are in use: many short ones were fine before, and would not be when they are long.
            self.rows = self.rows.resized(count, max(have, length) if self._ids else length, keep=bool(self._ids))
        asked = set(slots)
        idle = {row: slot for slot, row in self._row.items() if slot not in asked and row < len(slots)}
        for slot in slots:
            if (row := self._row[slot]) >= len(slots):
                place, other = idle.popitem()
                self._row[slot], self._row[other] = place, row
                self._ids.pop(other, None)
                self.rows.put(place, 0, len(self._ids.get(slot, ())), self.rows, row)
        return [self._row[slot] for slot in slots]

    def kept(self, slot: int, prompt: np.ndarray) -> int:
        """Return how many tokens at the start of `prompt` are in the slot's row; the last is always computed."""
        have = self._ids.get(slot)
        return 0 if have is None else min(common(have, prompt), len(prompt) - 1)

    def holds(self, slot: int, ids: np.ndarray) -> None:
        """Note that the keys and values of these tokens are in the slot's row."""
        self._ids[slot] = ids
