"""Batches of token sequences for scoring: prefix trees, or rows padded on the right.

`make_batches` decides which one fits a model. Both give exactly what each sequence would give alone.

Prefix tree: each distinct (prefix, token) is computed once, without padding, and tree attention lets it attend to its
own prefix. Episodes share the rules, those of a group the task, and often the first actions: half of a training batch's
tokens or more repeat a prefix. Batches are padded to few sizes, since each new shape is compiled, which costs several
times the computation. The last layer runs in full only for tokens whose output is read, which saves a fifth of the
arithmetic of a four-layer model; other tokens get only keys and values there.

Padded rows: a causal model's output never depends on what follows, so right padding needs no mask. Where positions
depend on the length of the input (long RoPE), sequences on both sides of that length are in separate batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gentax.core.episode import common_prefix_length, prefix_order
from gentax.models.scoring.tree_attention import TreeAttention, build_tree, use_tree_attention, without_attention_mask

MAX_TOKENS = 4224  # of a full batch


@dataclass(frozen=True, slots=True)
class ScoringBatch:
    """Sequences with S tokens to score, which U distinct states predict."""

    ids: torch.Tensor  # int64, with padding: (N,) of a tree, (B, T) of rows
    state_U: torch.Tensor  # int64: flat indices in `ids` of the predicting tokens
    state_index_S: torch.Tensor  # int64 in [0, U): the state that predicts the token
    token_S: torch.Tensor  # int64: the token
    sequences: list[int]  # indices of the sequences, in the order of their tokens in S
    num_tokens: int  # distinct tokens

    # `index_select` sums gradients in a fixed order; indexing by two tensors does not on several threads.

    def expand_to_tokens(self, value_U: torch.Tensor) -> torch.Tensor:
        """Return the value of the state that predicts each token: shape (S, ...)."""
        return value_U.index_select(0, self.state_index_S.to(value_U.device))

    def gather_logprobs(self, value_UV: torch.Tensor) -> torch.Tensor:
        """Return each token's entry in the row of its state: shape (S,)."""
        at_S = self.state_index_S * value_UV.shape[1] + self.token_S
        return value_UV.flatten().index_select(0, at_S.to(value_UV.device))

    @property
    def num_padded_tokens(self) -> int:
        """Tokens that a forward pass computes, padding included."""
        return self.ids.numel()

    def hidden(self, model: Any) -> torch.Tensor:
        """Return the body's last hidden states at `state_U`: shape (U, width)."""
        raise NotImplementedError


def scoring_targets(
    ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray], members: Sequence[int], places: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Return the fields of a batch that say what is scored.

    Args:
        ids: token ids of each sequence.
        wanted: for each, a boolean mask of the tokens to score; the first token cannot be scored.
        members: the sequences of the batch.
        places: for each of these, the indices of its tokens in the batch's `ids`.
    """
    states, tokens = [], []
    for place, i in zip(places, members, strict=True):
        at = np.flatnonzero(wanted[i])
        at = at[at > 0]
        states.append(place[at - 1])  # the state before a token predicts it
        tokens.append(ids[i][at])
    state_U, state_index_S = np.unique(np.concatenate(states), return_inverse=True)
    return {
        "state_U": torch.from_numpy(state_U),
        "state_index_S": torch.from_numpy(state_index_S),
        "token_S": torch.from_numpy(np.concatenate(tokens).astype(np.int64)),
        "sequences": list(members),
    }


MAX_PADDING = 0.1  # share of a batch that may be padding
ROW_MULTIPLE = 8  # lengths are a multiple of it: fewer shapes to compile


@dataclass(frozen=True, slots=True)
class PaddedBatch(ScoringBatch):
    """Right-padded rows: `ids` has shape (B, T)."""

    def hidden(self, model: Any) -> torch.Tensor:
        states_BTW = model.get_decoder()(input_ids=self.ids.to(model.device), use_cache=False).last_hidden_state
        return states_BTW.flatten(0, 1).index_select(0, self.state_U.to(states_BTW.device))


def padded_batches(ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray], longest: int) -> list[ScoringBatch]:
    """Group sequences of similar length into batches of at most `MAX_TOKENS` tokens; a longer one is alone.

    Args:
        ids, wanted: see `scoring_targets`.
        longest: rows are not padded beyond it.
    """
    batches: list[ScoringBatch] = []
    for members in _group_by_length([len(sequence) for sequence in ids]):
        length = len(ids[members[-1]])
        width = max(length, min(-(-length // ROW_MULTIPLE) * ROW_MULTIPLE, longest))
        rows_BT = np.zeros((len(members), width), np.int64)
        for row, i in zip(rows_BT, members, strict=True):
            row[: len(ids[i])] = ids[i]
        places = [b * width + np.arange(len(ids[i])) for b, i in enumerate(members)]
        real = sum(len(ids[i]) for i in members)
        fields = scoring_targets(ids, wanted, members, places)
        batches.append(PaddedBatch(ids=torch.from_numpy(rows_BT), num_tokens=real, **fields))
    return batches


def _group_by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the sequences of each batch, shortest first."""
    members: list[int] = []
    real = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        whole = (len(members) + 1) * lengths[i]
        if members and (whole > MAX_TOKENS or whole - real - lengths[i] > MAX_PADDING * whole):
            yield members
            members, real = [], 0
        members.append(i)
        real += lengths[i]
    if members:
        yield members


TREE_PAD_MULTIPLE = 192  # batch sizes are a multiple of it: 22 shapes, about 3 % of padding


@dataclass(frozen=True, slots=True)
class TreeBatch(ScoringBatch):
    """A prefix tree: `ids` are its N distinct tokens."""

    position_N: torch.Tensor  # int64: position of a token in its sequence
    tree: TreeAttention
    last: LastLayer

    def hidden(self, model: Any) -> torch.Tensor:
        use_tree_attention(model)
        device = model.device
        with narrow_last_layer(model, self.last.to(device)), without_attention_mask():
            states_NW = model.get_decoder()(
                input_ids=self.ids[None].to(device),
                position_ids=self.position_N[None].to(device),
                use_cache=False,
                tree=self.tree.to(device),
            ).last_hidden_state[0]
        return states_NW[self.state_U.to(device)]


def tree_batches(
    ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray], windows: Sequence[int] = ()
) -> list[ScoringBatch]:
    """Group sequences into batches of `MAX_TOKENS` distinct tokens; a longer one is alone.

    Args:
        ids, wanted: see `scoring_targets`.
        windows: the layers' sliding windows (see `build_tree`).
    """
    batches: list[ScoringBatch] = []
    members: list[int] = []
    shared: list[int] = []  # tokens in common with the previous sequence
    real = 0
    for i in prefix_order(ids):
        same = common_prefix_length(ids[members[-1]], ids[i]) if members else 0
        if members and real + len(ids[i]) - same > MAX_TOKENS:
            batches.append(_batch(ids, wanted, members, shared, windows))
            members, shared, real, same = [], [], 0, 0
        members.append(i)
        shared.append(same)
        real += len(ids[i]) - same
    if members:
        batches.append(_batch(ids, wanted, members, shared, windows))
    return batches


def _batch(
    ids: Sequence[np.ndarray],
    wanted: Sequence[np.ndarray],
    members: list[int],
    shared: list[int],
    windows: Sequence[int],
) -> TreeBatch:
    paths: list[np.ndarray] = []  # of each sequence, the indices in N of its tokens
    own: list[np.ndarray] = []  # and the positions of those that no earlier one has
    real = 0
    for i, same in zip(members, shared, strict=True):
        new = np.arange(real, real + len(ids[i]) - same)
        paths.append(np.concatenate([paths[-1][:same], new]) if same else new)
        own.append(np.arange(same, len(ids[i])))
        real += len(new)
    ids_N = np.zeros(-(-real // TREE_PAD_MULTIPLE) * TREE_PAD_MULTIPLE, np.int64)
    position_N = np.zeros(len(ids_N), np.int64)
    for i, path, at in zip(members, paths, own, strict=True):
        ids_N[path[at]] = ids[i][at]
        position_N[path[at]] = at
    fields = scoring_targets(ids, wanted, members, paths)
    return TreeBatch(
        ids=torch.from_numpy(ids_N),
        num_tokens=real,
        position_N=torch.from_numpy(position_N),
        tree=build_tree(paths, own, len(ids_N), windows=windows),
        last=last_layer_for(paths, own, fields["state_U"].numpy(), len(ids_N), windows),
        **fields,
    )


# Every shape costs some 300 kB of compiled code, so there are few.
LAST_LAYER_MULTIPLE = 256  # the number of tokens is a multiple of it
QUERIES, KEYS = 16, 256  # of an attention tile: few tokens of each sequence are scored


@dataclass(frozen=True, slots=True)
class LastLayer:
    """The W tokens for which the last layer runs in full, and its attention."""

    at_W: torch.Tensor  # int64 in [0, N): different ones
    tree: TreeAttention

    def to(self, device: Any) -> LastLayer:
        return LastLayer(self.at_W.to(device), self.tree.to(device))


def last_layer_for(
    paths: Sequence[np.ndarray], own: Sequence[np.ndarray], state_U: np.ndarray, size: int, windows: Sequence[int] = ()
) -> LastLayer:
    """Choose the tokens for which the last layer runs in full, and build its attention.

    Args:
        paths: for each sequence, the indices of its tokens in the batch.
        own: for each, the positions of the tokens that no earlier sequence has.
        state_U: indices of the tokens whose output is read.
        size: N, tokens in the batch with padding.
        windows: see `build_tree`.
    """
    reads_N = np.zeros(size, bool)
    reads_N[state_U if len(state_U) else 0] = True
    padding = np.flatnonzero(~reads_N)[: -int(reads_N.sum()) % LAST_LAYER_MULTIPLE]
    at_W = np.concatenate([np.flatnonzero(reads_N), padding])
    asking = [at[reads_N[path[at]]] for path, at in zip(paths, own, strict=True)]
    return LastLayer(torch.from_numpy(at_W), build_tree(paths, asking, size, QUERIES, KEYS, windows))


@contextmanager
def narrow_last_layer(model: Any, last: LastLayer) -> Iterator[None]:
    """Run the last layer of a causal model in full for the tokens of `last` alone; other outputs are zero.

    Layers that are not built of `self_attn.q_proj`, `self_attn.o_proj` and `mlp` run in full.
    """
    layer = (getattr(model.get_decoder(), "layers", None) or [None])[-1]
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    parts = [getattr(attention, "q_proj", None), getattr(attention, "o_proj", None), mlp]

    def select(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (inputs[0].index_select(1, last.at_W), *inputs[1:])

    def scatter(_: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output.new_zeros(1, size, output.shape[2]).index_copy(1, last.at_W, output)

    def use_last_tree(
        _: Any, inputs: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return inputs, kwargs | {"tree": last.tree}

    size = len(last.tree.place_N)
    with ExitStack() as hooks:
        if None not in parts:
            hooks.enter_context(attention.register_forward_pre_hook(use_last_tree, with_kwargs=True))
            for part in parts:
                hooks.enter_context(part.register_forward_pre_hook(select))
                hooks.enter_context(part.register_forward_hook(scatter))
        yield
