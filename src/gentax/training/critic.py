"""The value head of PPO: what a policy's episode is still worth, read off the body's last hidden state.

It is linear and starts at zero. Its gradient does not flow into the body: the policy's features are learned from the
policy's loss alone, so that no weight has to balance the two, and the head can be trained on states that were computed
once, before the update. Left out: a body of its own and clipped values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gentax.core import TokenSequence
from gentax.models.scoring import hidden_states, make_batches
from gentax.training.distributed import World, in_lockstep
from gentax.training.run_folder import load_optimizer, optimizer_state

LEARNING_RATE = 1e-3
PASSES = 8  # steps of Adam over the states of an update; they cost nothing beside the states themselves


def states_before_replies(
    model: Any, sequences: Sequence[tuple[int, TokenSequence]], precision: str, world: World
) -> tuple[list[tuple[int, int]], torch.Tensor]:
    """Return which steps have sampled tokens, as (episode, step), and the hidden state at the last token of the prompt
    of each, fp32, shape (steps, width). Each sequence comes with the number of its episode."""
    first = [np.zeros(len(tokens), bool) for _, tokens in sequences]
    for mask_T, (_, tokens) in zip(first, sequences, strict=True):
        at = np.flatnonzero(tokens.sampled_T)
        mask_T[at[np.unique(tokens.step_T[at], return_index=True)[1]]] = True
    places: list[tuple[int, int]] = []
    parts = [torch.zeros(0, _width(model), device=model.device)]
    with torch.no_grad():
        batches = make_batches(model, [tokens.ids_T for _, tokens in sequences], first)
        for batch in in_lockstep(model, batches, world):
            parts.append(batch.expand_to_tokens(hidden_states(model, batch, precision)).float())
            for i in batch.sequences:
                places += [(sequences[i][0], int(n)) for n in sequences[i][1].step_T[first[i]]]
    return places, torch.cat(parts)


class Critic:
    """A linear value of hidden states, and its own Adam.

    Args:
        model: the policy's, for the width of its states and where they are.
    """

    def __init__(self, model: Any) -> None:
        self.weight = torch.nn.Parameter(torch.zeros(_width(model), device=model.device))
        self.bias = torch.nn.Parameter(torch.zeros((), device=model.device))
        self._optimizer = torch.optim.Adam([self.weight, self.bias], lr=LEARNING_RATE)

    def values(self, state_BW: torch.Tensor) -> torch.Tensor:
        """Return the value of each state, fp32, shape (B,)."""
        # A body's states have entries around 1: scaled to length 1, a learning rate is the same for every width.
        return state_BW.float() @ self.weight / math.sqrt(len(self.weight)) + self.bias

    def learn(self, state_BW: torch.Tensor, return_B: torch.Tensor, world: World) -> float:
        """Move the values towards returns, and return the mean squared error before, over all processes."""
        count = world.sum(len(return_B))
        if not count:
            return 0.0
        first = 0.0
        for turn in range(PASSES):
            loss = (self.values(state_BW) - return_B).square().sum() / count
            loss.backward()
            world.sum_gradients([self.weight, self.bias])
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            first = float(loss.detach()) if turn == 0 else first
        return world.sum(first)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the weights and what Adam remembers, flat."""
        weights = {"weight": self.weight.detach(), "bias": self.bias.detach()}
        return weights | {f"adam.{key}": tensor for key, tensor in optimizer_state(self._optimizer).items()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Put back what `state` returned."""
        with torch.no_grad():
            self.weight.copy_(state["weight"])
            self.bias.copy_(state["bias"])
        adam = {key.removeprefix("adam."): tensor for key, tensor in state.items() if key.startswith("adam.")}
        load_optimizer(self._optimizer, adam)


def _width(model: Any) -> int:
    return model.get_output_embeddings().weight.shape[1]
