"""The last layer, where only some of its outputs are read.

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

from gentax.models.scoring.tree_attention import Tree, tree

# Every shape costs some 300 kB of compiled products, so there are few; see `prefix_tree.py`.
ROUND = 256  # the number of tokens is a multiple of it
QUERIES, KEYS = 16, 256  # of a tile of attention: what counts is few tokens of each sequence


@dataclass(frozen=True, slots=True)
class Last:
    """The W tokens of a batch for which the last layer is run whole, and its attention."""

    at_W: torch.Tensor  # int64 in [0, N): different ones
    tree: Tree

    def to(self, device: Any) -> Last:
        return Last(self.at_W.to(device), self.tree.to(device))


def last_layer(
    paths: Sequence[np.ndarray],
    own: Sequence[np.ndarray],
    state_U: np.ndarray,
    size: int,
    windows: Sequence[int] = (),
) -> Last:
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
    others = np.flatnonzero(~reads_N)[: -int(reads_N.sum()) % ROUND]
    at_W = np.concatenate([np.flatnonzero(reads_N), others])
    asking = [at[reads_N[path[at]]] for path, at in zip(paths, own, strict=True)]
    return Last(torch.from_numpy(at_W), tree(paths, asking, size, QUERIES, KEYS, windows))


@contextmanager
def only(model: Any, last: Last) -> Iterator[None]:
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
