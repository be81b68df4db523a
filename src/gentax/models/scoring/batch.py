"""A batch of token sequences as a model reads them, and where in it what is scored stands.

There are two kinds: a tree of prefixes (`prefix_tree.py`) and rows with padding (`padded.py`). `supported.py` decides
which one fits a model. What is computed is in both exactly what every sequence by itself would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

TOKENS = 4224  # of a full batch


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of which S tokens are scored; U distinct states predict them."""

    ids: torch.Tensor  # int64, with padding: (N,) of a tree, (B, T) of rows
    state_U: torch.Tensor  # int64: where in `ids`, flat, the tokens stand whose state predicts something
    guess_S: torch.Tensor  # int64 in [0, U): the state that predicts the token
    token_S: torch.Tensor  # int64: the token
    members: list[int]  # the sequences, in the order in which their tokens stand in S
    real: int  # distinct tokens

    # Gradients of both are added up in one order, which those of indexing by two tensors are not on several threads.

    def each(self, value_U: torch.Tensor) -> torch.Tensor:
        """Return what the states have for each token: shape (S, ...)."""
        return value_U.index_select(0, self.guess_S.to(value_U.device))

    def said(self, value_UV: torch.Tensor) -> torch.Tensor:
        """Return what the states have for the token that follows: shape (S,)."""
        at_S = self.guess_S * value_UV.shape[1] + self.token_S
        return value_UV.flatten().index_select(0, at_S.to(value_UV.device))

    @property
    def computed(self) -> int:
        """Tokens that a forward pass computes, padding included."""
        return self.ids.numel()

    def hidden(self, model: Any) -> torch.Tensor:
        """Return the body's last hidden states at `state_U`: shape (U, width)."""
        raise NotImplementedError


def targets(
    ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray], members: Sequence[int], places: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Return the fields of a batch that say what is scored.

    Args:
        ids: token ids of each sequence.
        wanted: for each, a boolean mask of the tokens to score. The first token of a sequence cannot be scored.
        members: the sequences of the batch.
        places: for each of these, where its tokens stand in the batch's `ids`.
    """
    states, tokens = [], []
    for place, i in zip(places, members, strict=True):
        at = np.flatnonzero(wanted[i])
        at = at[at > 0]
        states.append(place[at - 1])  # the state before a token predicts it
        tokens.append(ids[i][at])
    state_U, guess_S = np.unique(np.concatenate(states), return_inverse=True)
    return {
        "state_U": torch.from_numpy(state_U),
        "guess_S": torch.from_numpy(guess_S),
        "token_S": torch.from_numpy(np.concatenate(tokens).astype(np.int64)),
        "members": list(members),
    }
