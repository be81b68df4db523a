"""The tree of prefixes: a batch in which a prefix that several sequences share stands once.

Episodes of a domain begin with the same rules, those of a group with the same task, and many go on with the same first
actions: half of the tokens of a training batch, and more, repeat what stands before. Each batch is the tree of its
sequences' prefixes: every distinct (prefix, token) is computed once, without padding, and `tree_attention.py` lets it
see its own prefix.

Batches are padded to one of few sizes: the libraries below PyTorch compile a product for each shape they meet, which
with free shapes costs several times the products themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from gentax.core.prefix import common, side_by_side
from gentax.models.scoring.batch import TOKENS, Batch, targets
from gentax.models.scoring.last_layer import Last, last_layer, only
from gentax.models.scoring.tree_attention import Tree, reading_a_tree, tree, use_tree_attention

STEP = 192  # what a batch is padded to a multiple of: 22 shapes, and some 3 % of padding


@dataclass(frozen=True, slots=True)
class TreeBatch(Batch):
    """Sequences as a tree: `ids` are its N distinct tokens."""

    position_N: torch.Tensor  # int64: where a token stands in its sequence
    tree: Tree
    last: Last

    def hidden(self, model: Any) -> torch.Tensor:
        use_tree_attention(model)
        device = model.device
        with only(model, self.last.to(device)), reading_a_tree():
            states_NW = model.get_decoder()(
                input_ids=self.ids[None].to(device),
                position_ids=self.position_N[None].to(device),
                use_cache=False,
                tree=self.tree.to(device),
            ).last_hidden_state[0]
        return states_NW[self.state_U.to(device)]


def tree_batches(ids: Sequence[np.ndarray], wanted: Sequence[np.ndarray], windows: Sequence[int] = ()) -> list[Batch]:
    """Deal sequences out to batches of `TOKENS` distinct tokens; one that is longer has a batch to itself.

    Args:
        ids, wanted: see `batch.targets`.
        windows: of the layers that attend to so many tokens only (see `tree_attention.tree`).
    """
    made: list[Batch] = []
    members: list[int] = []
    shared: list[int] = []  # tokens that each has in common with the one before it
    real = 0
    for i in side_by_side(ids):
        same = common(ids[members[-1]], ids[i]) if members else 0
        if members and real + len(ids[i]) - same > TOKENS:
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
    ids_N = np.zeros(-(-real // STEP) * STEP, np.int64)
    position_N = np.zeros(len(ids_N), np.int64)
    own = [np.arange(same, len(path)) for path, same in zip(paths, shared, strict=True)]
    for path, same, i in zip(paths, shared, members, strict=True):
        ids_N[path[same:]] = ids[i][same:]
        position_N[path[same:]] = np.arange(same, len(path))
    fields = targets(ids, wanted, members, paths)
    return TreeBatch(
        ids=torch.from_numpy(ids_N),
        real=real,
        position_N=torch.from_numpy(position_N),
        tree=tree(paths, own, len(ids_N), windows=windows),
        last=last_layer(paths, own, fields["state_U"].numpy(), len(ids_N), windows),
        **fields,
    )
