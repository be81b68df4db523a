"""A batch of token sequences as a model reads them, and where in it what is scored stands.

There are two kinds: a tree of prefixes (`prefix_tree.py`) and rows with padding (`padded.py`). `supported.py` decides
which one fits a model. What is computed is in both exactly what every sequence by itself would give.

Rows of sequences of like length, padded on the right: what any causal model of transformers reads.

Nothing that a causal model computes for a token depends on what stands to the right of it: attention does not look
there, and a recurrent state or a convolution has not come there yet. So no mask is needed, and each token gets what its
sequence alone would give it. Where frequencies of positions depend on the length of what is read (long RoPE), sequences
on both sides of that length are never in one batch.

The tree of prefixes: a batch in which a prefix that several sequences share stands once.

Episodes of a domain begin with the same rules, those of a group with the same task, and many go on with the same first
actions: half of the tokens of a training batch, and more, repeat what stands before. Each batch is the tree of its
sequences' prefixes: every distinct (prefix, token) is computed once, without padding, and `tree_attention.py` lets it
see its own prefix.

Batches are padded to one of few sizes: the libraries below PyTorch compile a product for each shape they meet, which
with free shapes costs several times the products themselves.

The last layer, where only some of its outputs are read.

Whatever is not scored, the last layer computes for its keys and values alone. Of a model of four layers that is a fifth
of the arithmetic of learning, where one token in ten is scored. The layer's other products get the tokens that count,
and hand on zeros for the rest; no code of the model is replaced.

Left out: layers that are not built of `self_attn.q_proj`, `self_attn.o_proj` and `mlp`; those run whole.
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
    """Sequences of which S tokens are scored; U distinct states predict them."""

    ids: torch.Tensor  # int64, with padding: (N,) of a tree, (B, T) of rows
    state_U: torch.Tensor  # int64: where in `ids`, flat, the tokens stand whose state predicts something
    state_index_S: torch.Tensor  # int64 in [0, U): the state that predicts the token
    token_S: torch.Tensor  # int64: the token
    sequences: list[int]  # the sequences, in the order in which their tokens stand in S
    num_tokens: int  # distinct tokens

    # Gradients of both are added up in one order, which those of indexing by two tensors are not on several threads.

    def expand_to_tokens(self, value_U: torch.Tensor) -> torch.Tensor:
        """Return what the states have for each token: shape (S, ...)."""
        return value_U.index_select(0, self.state_index_S.to(value_U.device))

    def gather_logprobs(self, value_UV: torch.Tensor) -> torch.Tensor:
        """Return what the states have for the token that follows: shape (S,)."""
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
    state_U, state_index_S = np.unique(np.concatenate(states), return_inverse=True)
    return {
        "state_U": torch.from_numpy(state_U),
        "state_index_S": torch.from_numpy(state_index_S),
        "token_S": torch.from_numpy(np.concatenate(tokens).astype(np.int64)),
        "sequences": list(members),
    }


PADDING = 0.1  # share of a batch that may be padding
ROW_MULTIPLE = 8  # lengths are a multiple of it: fewer shapes to compile


@dataclass(frozen=True, slots=True)
class PaddedBatch(ScoringBatch):
    """Rows of sequences: `ids` has shape (B, T)."""

    def hidden(self, model: Any) -> torch.Tensor:
        states_BTW = model.get_decoder()(input_ids=self.ids.to(model.device), use_cache=False).last_hidden_state
        return states_BTW.flatten(0, 1).index_select(0, self.state_U.to(states_BTW.device))


def padded_batches(ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray], longest: int) -> list[ScoringBatch]:
    """Deal sequences out to batches of at most `MAX_TOKENS` tokens with padding; one that is longer has one to itself.

    Args:
        ids, wanted: see `batch.targets`.
        longest: rows are not padded beyond it.
    """
    made: list[ScoringBatch] = []
    for members in _dealt([len(one) for one in ids]):
        length = len(ids[members[-1]])
        width = max(length, min(-(-length // ROW_MULTIPLE) * ROW_MULTIPLE, longest))
        rows_BT = np.zeros((len(members), width), np.int64)
        for row, i in zip(rows_BT, members, strict=True):
            row[: len(ids[i])] = ids[i]
        places = [b * width + np.arange(len(ids[i])) for b, i in enumerate(members)]
        real = sum(len(ids[i]) for i in members)
        fields = scoring_targets(ids, wanted, members, places)
        made.append(PaddedBatch(ids=torch.from_numpy(rows_BT), num_tokens=real, **fields))
    return made


def _dealt(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the sequences of each batch, shortest first."""
    members: list[int] = []
    real = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        whole = (len(members) + 1) * lengths[i]
        if members and (whole > MAX_TOKENS or whole - real - lengths[i] > PADDING * whole):
            yield members
            members, real = [], 0
        members.append(i)
        real += lengths[i]
    if members:
        yield members


TREE_PAD_MULTIPLE = 192  # what a batch is padded to a multiple of: 22 shapes, and some 3 % of padding


@dataclass(frozen=True, slots=True)
class TreeBatch(ScoringBatch):
    """Sequences as a tree: `ids` are its N distinct tokens."""

    position_N: torch.Tensor  # int64: where a token stands in its sequence
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
    """Deal sequences out to batches of `MAX_TOKENS` distinct tokens; one that is longer has a batch to itself.

    Args:
        ids, wanted: see `batch.targets`.
        windows: of the layers that attend to so many tokens only (see `tree_attention.tree`).
    """
    made: list[ScoringBatch] = []
    members: list[int] = []
    shared: list[int] = []  # tokens that each has in common with the one before it
    real = 0
    for i in prefix_order(ids):
        same = common_prefix_length(ids[members[-1]], ids[i]) if members else 0
        if members and real + len(ids[i]) - same > MAX_TOKENS:
            made.append(_batch(ids, wanted, members, shared, windows))
            members, shared, real, same = [], [], 0, 0
        members.append(i)
        shared.append(same)
        real += len(ids[i]) - same
    if members:
        made.append(_batch(ids, wanted, members, shared, windows))
    return made


def _batch(
    ids: Sequence[np.ndarray],
    wanted: Sequence[np.ndarray],
    members: list[int],
    shared: list[int],
    windows: Sequence[int],
) -> TreeBatch:
    paths: list[np.ndarray] = []  # of each sequence, the indices in N of its tokens
    real = 0
    for i, same in zip(members, shared, strict=True):
        new = np.arange(real, real + len(ids[i]) - same)
        paths.append(np.concatenate([paths[-1][:same], new]) if same else new)
        real += len(new)
    ids_N = np.zeros(-(-real // TREE_PAD_MULTIPLE) * TREE_PAD_MULTIPLE, np.int64)
    position_N = np.zeros(len(ids_N), np.int64)
    own = [np.arange(same, len(path)) for path, same in zip(paths, shared, strict=True)]
    for path, same, i in zip(paths, shared, members, strict=True):
        ids_N[path[same:]] = ids[i][same:]
        position_N[path[same:]] = np.arange(same, len(path))
    fields = scoring_targets(ids, wanted, members, paths)
    return TreeBatch(
        ids=torch.from_numpy(ids_N),
        num_tokens=real,
        position_N=torch.from_numpy(position_N),
        tree=build_tree(paths, own, len(ids_N), windows=windows),
        last=last_layer_for(paths, own, fields["state_U"].numpy(), len(ids_N), windows),
        **fields,
    )


# Every shape costs some 300 kB of compiled products, so there are few; see `prefix_tree.py`.
LAST_LAYER_MULTIPLE = 256  # the number of tokens is a multiple of it
QUERIES, KEYS = 16, 256  # of a tile of attention: what counts is few tokens of each sequence


@dataclass(frozen=True, slots=True)
class LastLayer:
    """The W tokens of a batch for which the last layer is run whole, and its attention."""

    at_W: torch.Tensor  # int64 in [0, N): different ones
    tree: TreeAttention

    def to(self, device: Any) -> LastLayer:
        return LastLayer(self.at_W.to(device), self.tree.to(device))


def last_layer_for(
    paths: Sequence[np.ndarray],
    own: Sequence[np.ndarray],
    state_U: np.ndarray,
    size: int,
    windows: Sequence[int] = (),
) -> LastLayer:
    """Choose the tokens and cut them into tiles.

    Args:
        paths: for each sequence, the indices of its tokens in the batch.
        own: for each, the positions of the tokens that no earlier sequence has.
        state_U: indices of the tokens whose outputs are read.
        size: N, tokens in the batch with padding.
        windows: see `tree_attention.tree`.
    """
    reads_N = np.zeros(size, bool)
    reads_N[state_U if len(state_U) else 0] = True
    others = np.flatnonzero(~reads_N)[: -int(reads_N.sum()) % LAST_LAYER_MULTIPLE]
    at_W = np.concatenate([np.flatnonzero(reads_N), others])
    asking = [at[reads_N[path[at]]] for path, at in zip(paths, own, strict=True)]
    return LastLayer(torch.from_numpy(at_W), build_tree(paths, asking, size, QUERIES, KEYS, windows))


@contextmanager
def narrow_last_layer(model: Any, last: LastLayer) -> Iterator[None]:
    """While this lasts, let the last layer of a causal model run whole for the tokens of `last` alone."""
    layer = (getattr(model.get_decoder(), "layers", None) or [None])[-1]
    attention, mlp = getattr(layer, "self_attn", None), getattr(layer, "mlp", None)
    parts = [getattr(attention, "q_proj", None), getattr(attention, "o_proj", None), mlp]

    def chosen(_: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (given[0].index_select(1, last.at_W), *given[1:])

    def spread(_: Any, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> torch.Tensor:
        return made.new_zeros(1, size, made.shape[2]).index_copy(1, last.at_W, made)

    def its_own_tree(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return given, named | {"tree": last.tree}

    size = len(last.tree.place_N)
    with ExitStack() as hooks:
        if None not in parts:
            hooks.enter_context(_removed(attention.register_forward_pre_hook(its_own_tree, with_kwargs=True)))
            for part in parts:
                hooks.enter_context(_removed(part.register_forward_pre_hook(chosen)))
                hooks.enter_context(_removed(part.register_forward_hook(spread)))
        yield


@contextmanager
def _removed(hook: Any) -> Iterator[None]:
    try:
        yield
    finally:
        hook.remove()
