"""Token sequences to batches in which a beginning that several of them share stands once, and a causal model's view.

Episodes of a domain begin with the same rules, those of a group with the same task, and many go on with the same first
actions: half of the tokens of a training batch, and more, repeat what stands before. Each batch is the tree of its
sequences' beginnings: every distinct (beginning, token) is computed once, without padding, and `attention.py` lets it
see its own beginning. What is computed is exactly what every sequence by itself would give.

Batches are padded to one of few sizes: the libraries below PyTorch compile a product for each shape they meet, which
with free shapes costs several times the products themselves. The vocabulary is only scored where something
is learned: on a small model that is a third of the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gentax.core.prefix import common, side_by_side
from gentax.models.precision import precision
from gentax.models.scoring.last_layer import Last, last_layer, only
from gentax.models.scoring.tree_attention import Tree, tree, use_tree_attention

TOKENS = 4224  # of a full batch
STEP = 192  # what a batch is padded to a multiple of: 22 shapes, and some 3 % of padding


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences as a tree: N distinct tokens, and the S tokens to score, of which U distinct states predict."""

    ids_N: torch.Tensor  # int64, padded
    position_N: torch.Tensor  # int64: where a token stands in its sequence
    tree: Tree
    last: Last
    state_U: torch.Tensor  # int64 in [0, N): the tokens whose state predicts something
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


def batches(ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> list[Batch]:
    """Deal sequences out to batches of `TOKENS` distinct tokens; one that is longer has a batch to itself.

    Args:
        ids: token ids of each sequence.
        wanted: for each, a boolean mask of the tokens to score. The first token of a sequence cannot be scored.
    """
    made: list[Batch] = []
    members: list[int] = []
    shared: list[int] = []  # tokens that each has in common with the one before it
    real = 0
    for i in side_by_side(ids):
        same = common(ids[members[-1]], ids[i]) if members else 0
        if members and real + len(ids[i]) - same > TOKENS:
            made.append(_batch(ids, wanted, members, shared))
            members, shared, real, same = [], [], 0, 0
        members.append(i)
        shared.append(same)
        real += len(ids[i]) - same
    if members:
        made.append(_batch(ids, wanted, members, shared))
    return made


def _batch(ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray], members: list[int], shared: list[int]) -> Batch:
    paths: list[np.ndarray] = []  # of each sequence, the indices in N of its tokens
    real = 0
    for i, same in zip(members, shared, strict=True):
        new = np.arange(real, real + len(ids[i]) - same)
        paths.append(np.concatenate([paths[-1][:same], new]) if same else new)
        real += len(new)
    ids_N = np.zeros(-(-real // STEP) * STEP, np.int64)
    position_N = np.zeros(len(ids_N), np.int64)
    states, tokens = [], []
    own = [np.arange(same, len(path)) for path, same in zip(paths, shared, strict=True)]
    for path, same, i in zip(paths, shared, members, strict=True):
        ids_N[path[same:]] = ids[i][same:]
        position_N[path[same:]] = np.arange(same, len(path))
        at = np.flatnonzero(wanted[i])
        at = at[at > 0]
        states.append(path[at - 1])  # the state before a token predicts it
        tokens.append(ids[i][at])
    state_U, guess_S = np.unique(np.concatenate(states), return_inverse=True)
    return Batch(
        torch.from_numpy(ids_N),
        torch.from_numpy(position_N),
        tree(paths, own, len(ids_N)),
        last_layer(paths, own, state_U, len(ids_N)),
        torch.from_numpy(state_U),
        torch.from_numpy(guess_S),
        torch.from_numpy(np.concatenate(tokens).astype(np.int64)),
        members,
        real,
    )


def score(model: Any, batch: Batch, how: str) -> torch.Tensor:
    """Return the logits of what follows each state of `batch.state_U`: fp32, shape (U, vocabulary).

    Args:
        model: a causal model of transformers; from now on it attends through `attention.py`.
        how: the number format of the body (see `precision`); U varies, so the head is not worth compiling for it.
    """
    head = model.get_output_embeddings()
    return head(states(model, batch, how).to(head.weight.dtype)).float()


def states(model: Any, batch: Batch, how: str) -> torch.Tensor:
    """Return the body's last hidden states at `batch.state_U`: shape (U, width). Arguments as in `score`."""
    use_tree_attention(model)
    device = model.device
    with precision(how, device), only(model, batch.last.to(device)):
        hidden = model.get_decoder()(
            input_ids=batch.ids_N[None].to(device),
            position_ids=batch.position_N[None].to(device),
            use_cache=False,
            tree=batch.tree.to(device),
        ).last_hidden_state
    return hidden[0, batch.state_U.to(device)]
