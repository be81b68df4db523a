"""Token sequences of many lengths to padded batches of one size, and a causal model's view of them.

Every batch holds the same number of padded tokens, as many rows as fit at one of a few lengths: the libraries below
PyTorch compile a product for each shape they meet, which with free shapes costs several times the products themselves.
Padding stands on the right, so causal attention needs no mask. The vocabulary is only scored where something is
learned: on a small model that is a third of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gentax.training.precision import precision

TOKENS = 2880  # padded tokens in a batch; it has many divisors
LENGTHS = tuple(n for n in range(48, TOKENS + 1) if TOKENS % n == 0)  # of rows: 48, 60, 64, 72, 80, 90, 96, 120, …


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded ids, and where in them the tokens to learn from stand."""

    ids_BT: torch.Tensor  # int64, padded on the right
    at_N: torch.Tensor  # int64, flat positions in (B, T) of the N tokens to score, in row order
    members: list[int]  # which sequences the rows are
    real: int  # tokens that are not padding


def batches(ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> list[Batch]:
    """Group sequences into batches of `TOKENS` padded tokens; one that is longer has a batch to itself.

    Args:
        ids: token ids of each sequence.
        wanted: for each, a boolean mask of the tokens to score. The first token of a sequence cannot be scored.
    """
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]), reverse=True)
    made = []
    while order:
        longest = len(ids[order[0]])
        wide = next((n for n in LENGTHS if n >= longest), longest)
        rows = max(1, TOKENS // wide)
        members, order = order[:rows], order[rows:]
        padded = np.zeros((rows, wide), np.int64)
        where = []
        for row, i in enumerate(members):
            padded[row, : len(ids[i])] = ids[i]
            at = np.flatnonzero(wanted[i])
            where.append(row * wide + at[at > 0])
        real = sum(len(ids[i]) for i in members)
        made.append(Batch(torch.from_numpy(padded), torch.from_numpy(np.concatenate(where)), members, real))
    return made


def score(model: Any, batch: Batch, how: str) -> torch.Tensor:
    """Return the logits with which the model predicts each token of `batch.at_N`: fp32, shape (N, vocabulary).

    Args:
        how: the number format of the body (see `precision`); N varies, so the head is not worth compiling for it.
    """
    ids = batch.ids_BT.to(model.device)
    with precision(how, model.device):
        hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    before = (batch.at_N - 1).to(model.device)  # the state before a token predicts it
    head = model.get_output_embeddings()
    return head(hidden.flatten(0, 1)[before].to(head.weight.dtype)).float()


def targets(batch: Batch, device: Any) -> torch.Tensor:
    """Return the ids of the tokens of `batch.at_N`, shape (N,)."""
    return batch.ids_BT.flatten()[batch.at_N].to(device)
