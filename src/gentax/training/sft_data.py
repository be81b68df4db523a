"""The data of supervised fine-tuning: demonstrations of experts, policies or files, batch by batch.

A state-action pair is a prompt and the reply to it. Each name in the mixture gives its share of the pairs, exactly, as
long as its teacher has that many: the expert, the policy that the run starts from, another policy, or a file of
trajectories. Teachers play train tasks only, as training will. Which batch is learned at a step is settled before the
first one, so a continued run learns the same. Left out: replies without an action, which are read and not learned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gentax.core import Episode, Outcome, Task, UsageError, stable_seed
from gentax.core.files import atomic_file
from gentax.models.requests import ModelOptions
from gentax.policies.load import SCRIPTED_BY_NAME, load_policy
from gentax.policies.local import LocalPolicy
from gentax.policies.protocol import Policy
from gentax.rollouts import EnvPool, rollout
from gentax.training.config import TrainConfig
from gentax.training.curriculum import ground
from gentax.training.distributed import World
from gentax.training.learner import with_rates
from gentax.training.sft import SFT, adamw, learn
from gentax.training.trajectories import (
    Conversation,
    Example,
    Exchange,
    examples,
    exchanges,
    holds_trajectories,
    own_examples,
    read_trajectories,
)

PAIRS = 32  # learned at a step, as in arXiv 2601.18217; a conversation with more of them has a step to itself
WAVE = (32, 512)  # tasks that are played at a time, at least and at most
NAMED = (*SCRIPTED_BY_NAME, "base")  # teachers that are policies, whatever files there are

Gathered = tuple[Mapping[str, int], Mapping[str, int], Sequence[Example]]


@dataclass(frozen=True)
class ExpertData:
    """What is imitated, batch by batch."""

    batches: tuple[tuple[Example, ...], ...]
    wanted: Mapping[str, int]  # state-action pairs that each name of the mixture should give
    counts: Mapping[str, int]  # and those that it gives: fewer where its teacher has no more
    settings: SFT

    @classmethod
    def of(
        cls,
        recipe: TrainConfig,
        policy: LocalPolicy,
        kept: Path | None = None,
        world: World | None = None,
        status: Callable[[str], None] = lambda text: None,
    ) -> ExpertData:
        """Gather what `recipe.imitate` asks for.

        Args:
            recipe: `imitate`, `play`, `seed`, `train_tasks` and `phases()` are read here.
            policy: the one the run starts from, with its starting weights: the teacher `start`, and the tokenizer.
            kept: a file in which the examples are kept; one that is there is read, and nothing is played. For teachers
                that would not play the same again, such as a server.
            world: the processes of the run. With `kept`, the first gathers for all.
            status: told what is being gathered, and how much of it there is.

        Raises:
            UsageError: a teacher or a file that does not exist or is malformed; a file that holds episodes of test
                tasks; nothing to imitate.
            PolicyFault: a teacher on a server cannot be reached.
        """
        world = world or World()
        made = None
        if kept is None or (world.first and not kept.is_file()):
            made = _gather(recipe, policy, status)
            if kept is not None:
                _keep(kept, *made)
        world.wait()
        if made is None:
            assert kept is not None
            made = _read(kept)
        wanted, counts, found = made
        recipe = with_rates(recipe, sum(p.numel() for p in policy.model.parameters()))
        assert recipe.imitate is not None
        assert recipe.imitate.lr is not None
        batches = tuple(_dealt(_order(found, recipe.imitate.epochs, recipe.seed)))
        settings = SFT(steps=len(batches), lr=recipe.imitate.lr, precision=recipe.precision)
        return cls(batches, wanted, counts, settings)

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return len(self.batches)

    def optimizer(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of `step`."""
        return adamw(parameters, self.settings)

    def step(
        self,
        step: int,
        learner: Any,
        optimizer: torch.optim.Optimizer,
        world: World | None = None,
        extra: Callable[[], dict[str, float]] | None = None,
    ) -> dict[str, float]:
        """Learn the batch of a step, the first of which is 1.

        With the weights and the optimiser's state of step k - 1, step k does what it would have done in one go.

        Args:
            step: which one.
            learner: its `model` scores, its `parameters` are learned.
            optimizer: of `optimizer`, over the same parameters.
            world: the processes of the run.
            extra: adds the gradient of a loss of its own, such as that of replay.

        Returns:
            loss (nats a token of the agent's), grad_norm, tokens, and what `extra` returned.

        Raises:
            NonFiniteLoss: the message names the step.
        """
        return learn(
            learner.model,
            list(learner.parameters),
            self.batches[step - 1],
            optimizer,
            self.settings,
            (step - 0.5) / self.steps,  # the middle of it: the first step of a short run should not be for nothing
            f"step {step} of imitation",
            world or World(),
            extra,
        )


def wanted_pairs(recipe: TrainConfig) -> dict[str, int]:
    """Return how many state-action pairs each name of the mixture should give: `pairs` in all, rounded by largest
    remainders."""
    assert recipe.imitate is not None
    exact = {name: recipe.imitate.pairs * share for name, share in recipe.imitated.items()}
    whole = {name: math.floor(share + 1e-9) for name, share in exact.items()}
    rest = recipe.imitate.pairs - sum(whole.values())
    for name in sorted(exact, key=lambda name: whole[name] - exact[name])[:rest]:
        whole[name] += 1
    return whole


def _gather(recipe: TrainConfig, policy: LocalPolicy, status: Callable[[str], None]) -> Gathered:
    """Return the wanted and the found numbers of pairs of each name, and the examples."""
    assert recipe.imitate is not None
    wanted = wanted_pairs(recipe)
    found = {name: _examples(name, pairs, recipe, policy, status) if pairs else [] for name, pairs in wanted.items()}
    counts = {name: sum(example.pairs for example in made) for name, made in found.items()}
    if not any(counts.values()):
        why = "no episode of the teachers succeeded; imitate.successes_only: false takes the others too"
        raise UsageError(
            f"nothing to imitate: {why if recipe.imitate.successes_only else 'the episodes have no action'}"
        )
    return wanted, counts, [example for made in found.values() for example in made]


def _examples(
    name: str, wanted: int, recipe: TrainConfig, policy: LocalPolicy, status: Callable[[str], None]
) -> list[Example]:
    """Return examples with `wanted` pairs of one name of the mixture, fewer where its teacher has no more."""
    assert recipe.imitate is not None
    teacher = recipe.imitate.teachers.get(name, "expert")
    tasks = ground(name, recipe).learn
    share = _Share(wanted, recipe, policy, own=teacher == "start")

    def on_pairs(count: int) -> None:
        status(f"  collecting what {teacher} does on {name}: {count}/{wanted} state-action pairs")

    on_pairs(0)
    rng = np.random.default_rng(stable_seed(recipe.seed, "imitate", name))
    if teacher == "start":
        share.play(policy, [tasks[i] for i in rng.permutation(len(tasks))], on_pairs)
    elif teacher not in NAMED and holds_trajectories(teacher):
        found = _learnable(read_trajectories(teacher), teacher, name, tasks)
        for i in rng.permutation(len(found)):
            share.add(found[i])
    else:
        share.play(
            load_policy(teacher, ModelOptions(str(policy.model.device), recipe.dtype)),
            [tasks[i] for i in rng.permutation(len(tasks))],
            on_pairs,
        )
    return share.found


def _learnable(
    found: Sequence[Conversation | Episode], teacher: str, name: str, tasks: Sequence[Task]
) -> list[Conversation | Episode]:
    """Return the conversations, and the episodes on `tasks`."""
    episodes = [item for item in found if isinstance(item, Episode)]
    if any(episode.task.split == "test" for episode in episodes):
        raise UsageError(f"{teacher} holds episodes of test tasks, which are measured on and never learned from")
    known = set(tasks)
    kept = [item for item in found if isinstance(item, Conversation) or item.task in known]
    if not kept:
        raise UsageError(f"{teacher} holds no episode of {name} on a task that the recipe trains on")
    return kept


class _Share:
    """The examples of one name of the mixture, as they come in."""

    def __init__(self, wanted: int, recipe: TrainConfig, policy: LocalPolicy, own: bool) -> None:
        self.left = wanted
        self.found: list[Example] = []
        self._recipe, self._policy, self._own = recipe, policy, own

    def play(self, player: Policy, tasks: Sequence[Task], on_pairs: Callable[[int], None]) -> None:
        """Let `player` play the tasks in waves, until there are enough pairs; `on_pairs` is told how many there are."""
        recipe, wanted, played = self._recipe, self.left, 0
        with EnvPool(recipe.play) as envs:
            while self.left and played < len(tasks):
                # As many as should do, by those played so far.
                expected = math.ceil(self.left * played / max(wanted - self.left, 1))
                wave = min(max(expected, WAVE[0]), WAVE[1])
                now = tasks[played : played + wave]
                seed = stable_seed(recipe.seed, "imitate")
                episodes = rollout(player, now, play=recipe.play, seed=seed, pool=envs, parallel=recipe.parallel)
                for episode in episodes:
                    self.add(episode)
                played += len(now)
                on_pairs(wanted - max(0, self.left))

    def add(self, item: Conversation | Episode) -> None:
        """Take the pairs of an episode or a conversation, as many as are missing."""
        imitate = self._recipe.imitate
        assert imitate is not None
        failed = item.success is False
        broken = isinstance(item, Episode) and item.outcome is Outcome.ERROR
        if not self.left or broken or (failed and imitate.successes_only):
            return
        for example in self._examples(item):
            if example.pairs:
                self.found.append(example)
                self.left -= example.pairs

    def _examples(self, item: Conversation | Episode) -> Iterator[Example]:
        codec = self._policy.codec_for(self._recipe.play.chat)
        if isinstance(item, Conversation):
            told: Iterable[Exchange] = item.exchanges
        elif self._own:
            return own_examples(item, self.left)
        else:
            told = exchanges(item, self._recipe.play, lambda step: bool(step.action), codec.format_reply)
        return examples(told, codec, limit=self._policy.decoder.max_length, most=self.left)


def _order(found: Sequence[Example], epochs: float, seed: int) -> Iterator[Example]:
    """Yield the examples in the order of learning, each epoch shuffled anew; the last one may end early."""
    count = max(1, round(epochs * len(found)))
    orders = (
        np.random.default_rng(stable_seed(seed, "imitate", "epoch", epoch)).permutation(len(found))
        for epoch in range(math.ceil(count / len(found)))
    )
    return islice((found[i] for order in orders for i in order), count)


def _dealt(order: Iterable[Example]) -> Iterator[tuple[Example, ...]]:
    """Yield the examples, in order, in batches of at most `PAIRS` pairs."""
    batch: list[Example] = []
    for example in order:
        if batch and sum(other.pairs for other in batch) + example.pairs > PAIRS:
            yield tuple(batch)
            batch = []
        batch.append(example)
    if batch:
        yield tuple(batch)


def _keep(path: Path, wanted: Mapping[str, int], counts: Mapping[str, int], found: Sequence[Example]) -> None:
    """Write what was gathered to a file."""
    from safetensors.numpy import save_file

    arrays = {
        "ids": np.concatenate([example.ids_T for example in found]),
        "weight": np.concatenate([example.weight_T for example in found]),
        "length": np.array([len(example.ids_T) for example in found]),
        "pairs": np.array([example.pairs for example in found]),
    }
    with atomic_file(path) as aside:
        save_file(arrays, aside, {"wanted": json.dumps(wanted), "counts": json.dumps(counts)})


def _read(path: Path) -> Gathered:
    """Read what `_keep` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        facts = file.metadata()
        ends = np.cumsum(file.get_tensor("length"))[:-1]
        parts = (np.split(file.get_tensor(name), ends) for name in ("ids", "weight"))
        found = [Example(*row) for row in zip(*parts, file.get_tensor("pairs").tolist(), strict=True)]
    return json.loads(facts["wanted"]), json.loads(facts["counts"]), found
