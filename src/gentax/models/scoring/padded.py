"""Rows of sequences of like length, padded on the right: what any causal model of transformers reads.

Nothing that a causal model computes for a token depends on what stands to the right of it: attention does not look
there, and a recurrent state or a convolution has not come there yet. So no mask is needed, and each token gets what its
sequence alone would give it. Where frequencies of positions depend on the length of what is read (long RoPE), sequences
on both sides of that length are never in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gentax.models.scoring.batch import TOKENS, Batch, targets

PADDING = 0.1  # share of a batch that may be padding
ROUND = 8  # lengths are a multiple of it: fewer shapes to compile


@dataclass(frozen=True, slots=True)
class PaddedBatch(Batch):
    """Rows of sequences: `ids` has shape (B, T)."""

    def hidden(self, model: Any) -> torch.Tensor:
        states_BTW = model.get_decoder()(input_ids=self.ids.to(model.device), use_cache=False).last_hidden_state
        return states_BTW.flatten(0, 1).index_select(0, self.state_U.to(states_BTW.device))


def padded_batches(ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray], longest: int) -> list[Batch]:
    """Deal sequences out to batches of at most `TOKENS` tokens with padding; one that is longer has one to itself.

    Args:
        ids, wanted: see `batch.targets`.
        longest: rows are not padded beyond it.
    """
    made: list[Batch] = []
    for members in _dealt([len(one) for one in ids]):
        length = len(ids[members[-1]])
        width = max(length, min(-(-length // ROUND) * ROUND, longest))
        rows_BT = np.zeros((len(members), width), np.int64)
        for row, i in zip(rows_BT, members, strict=True):
            row[: len(ids[i])] = ids[i]
        places = [b * width + np.arange(len(ids[i])) for b, i in enumerate(members)]
        real = sum(len(ids[i]) for i in members)
        fields = targets(ids, wanted, members, places)
        made.append(PaddedBatch(ids=torch.from_numpy(rows_BT), real=real, **fields))
    return made


def _dealt(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the sequences of each batch, shortest first."""
    members: list[int] = []
    real = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        whole = (len(members) + 1) * lengths[i]
        if members and (whole > TOKENS or whole - real - lengths[i] > PADDING * whole):
            yield members
            members, real = [], 0
        members.append(i)
        real += lengths[i]
    if members:
        yield members
