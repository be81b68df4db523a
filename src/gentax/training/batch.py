"""Token sequences of many lengths to padded batches with little padding, and a causal model's view of them.

Sequences of like length share a batch, padding stands on the right (so causal attention needs no mask), and the
vocabulary is only scored where something is learned: on a small model that is a third of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded ids, and where in them the tokens to learn from stand."""

    ids_BT: torch.Tensor  # int64, padded on the right
    at_N: torch.Tensor  # int64, flat positions in (B, T) of the N tokens to score, in row order
    members: list[int]  # which sequences the rows are
    real: int  # tokens that are not padding


def batches(ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray], budget: int) -> list[Batch]:
    """Group sequences into batches of at most `budget` padded tokens (or one sequence, if that alone is longer).

    Args:
        ids: token ids of each sequence.
        wanted: for each, a boolean mask of the tokens to score. The first token of a sequence cannot be scored.
        budget: padded tokens in a batch.
    """
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]), reverse=True)
    groups: list[list[int]] = []
    for i in order:
        if not groups or len(ids[groups[-1][0]]) * (len(groups[-1]) + 1) > budget:
            groups.append([])
        groups[-1].append(i)
    made = []
    for members in groups:
        wide = len(ids[members[0]])
        padded = np.zeros((len(members), wide), np.int64)
        where = []
        for row, i in enumerate(members):
            padded[row, : len(ids[i])] = ids[i]
            at = np.flatnonzero(wanted[i])
            where.append(row * wide + at[at > 0])
        made.append(
            Batch(
                torch.from_numpy(padded),
                torch.from_numpy(np.concatenate(where)),
                members,
                sum(len(ids[i]) for i in members),
            )
        )
    return made


def score(model: Any, batch: Batch) -> torch.Tensor:
    """Return the logits with which the model predicts each token of `batch.at_N`, shape (N, vocabulary)."""
    ids = batch.ids_BT.to(model.device)
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    before = (batch.at_N - 1).to(model.device)  # the state before a token predicts it
    return model.get_output_embeddings()(hidden.flatten(0, 1)[before])


def targets(batch: Batch, device: Any) -> torch.Tensor:
    """Return the ids of the tokens of `batch.at_N`, shape (N,)."""
    return batch.ids_BT.flatten()[batch.at_N].to(device)
