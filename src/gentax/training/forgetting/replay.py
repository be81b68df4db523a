"""Replay: what the start met and said in other domains, on which the policy is held to what the start would say.

The starting policy plays some train tasks of other domains once, before training; each step then adds to the loss
KL(start || policy) at the tokens it wrote in a small part of that text. Whether it did well there is never looked at:
it is its behaviour that is kept, not its success. Left out: keeping the start's probabilities, which for a large
vocabulary would take more memory than computing them again takes time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gentax.core import Outcome, Task, UsageError, stable_seed
from gentax.domains import domains, make, missing_modules
from gentax.domains.registry import parse_domain
from gentax.models.scoring import make_batches, token_kl
from gentax.policies.protocol import Policy
from gentax.rollouts import rollout
from gentax.training.config import TrainConfig
from gentax.training.distributed import World, in_step

ALONE = World()
BUDGET = 2880  # tokens of text in a step, a few hundred of the start's among them


@dataclass(frozen=True)
class Text:
    """One sequence and what the start wrote of it."""

    ids_T: np.ndarray
    sampled_T: np.ndarray  # bool


@dataclass(frozen=True)
class ReplayKL:
    """The text of other domains, dealt out to steps; alike in all processes."""

    parts: tuple[tuple[Text, ...], ...]  # a step's each; after the last comes the first

    @classmethod
    def play(cls, policy: Policy, config: TrainConfig, names: Sequence[str], world: World = ALONE) -> ReplayKL:
        """Let the starting policy play `forgetting.replay_tasks` train tasks of each domain.

        It plays as the recipe does, at the domain's own horizon and without wrappers. Seeded: a continued run plays
        the same episodes again, so `policy` must have its starting weights.

        Args:
            policy: the starting policy, with weights here.
            config: `play`, `forgetting.replay_tasks` and `seed` are read.
            names: `domain` or `domain:level` (see `replayed_domains`).
            world: the processes that share the playing.

        Raises:
            UsageError: a domain or level that does not exist, or nothing at all to replay.
        """
        seed = stable_seed(config.seed, "replay")
        rollout_config = replace(config.rollout, wrap=(), reward="sparse", horizon=None)
        tasks = [task for name in names for task in _tasks(name, config.forgetting.replay_tasks)]
        mine = tasks[world.rank :: world.size]
        played = rollout(policy, mine, config=rollout_config, seed=seed, parallel=config.parallel)
        said = [
            [(text.ids_T.tolist(), np.flatnonzero(text.sampled_T).tolist()) for text in episode.sequences()]
            if episode.outcome is not Outcome.ERROR
            else []
            for episode in played
        ]
        everyone = world.everyone(said)
        texts: dict[tuple[str, str], list[Text]] = {(task.domain, task.level): [] for task in tasks}
        for n, task in enumerate(tasks):
            for ids, sampled in everyone[n % world.size][n // world.size]:
                if sampled and sampled[-1] > 0:  # the first token of all follows nothing
                    text = Text(np.array(ids, np.int32), np.isin(np.arange(len(ids)), sampled))
                    texts[task.domain, task.level].append(text)
        parts = deal([of for of in texts.values() if of], BUDGET, np.random.default_rng(seed))
        if not parts:
            raise UsageError("forgetting.replay: the starting policy has played nothing that could be replayed")
        return cls(parts)

    def backward(
        self, model: Any, start: Any, config: TrainConfig, step: int, world: World = ALONE
    ) -> dict[str, float]:
        """Accumulate the gradient of `forgetting.replay` × mean KL(start || model) over the tokens of a step's part.

        Args:
            model: the policy that learns.
            start: the starting policy's model.
            config: `forgetting.replay` and `precision` are read.
            step: counted from 1; the same step always has the same part.
            world: the processes, each of which does a share of the part; their gradients are to be summed.

        Returns:
            {"replay_kl": nats a token}, the same in every process.
        """
        part = self.parts[(step - 1) % len(self.parts)]
        count = sum(int(text.sampled_T[1:].sum()) for text in part)
        mine = part[world.rank :: world.size]
        nats = 0.0
        made = make_batches(model, [text.ids_T for text in mine], [text.sampled_T for text in mine])
        for batch in in_step(model, made, world):
            kl_U = token_kl(start, model, batch, config.precision)
            total = batch.expand_to_tokens(kl_U).sum()
            (config.forgetting.replay * total / count).backward()
            nats += float(total.detach())
        return {"replay_kl": world.total(nats) / count}


def replayed_domains(config: TrainConfig) -> tuple[str, ...]:
    """Return the domains whose text is replayed, as `domain` or `domain:level`; none where `forgetting.replay` is 0.

    Raises:
        UsageError: there is none left to replay.
    """
    if not config.forgetting.replay or config.forgetting.replay_domains:
        return config.forgetting.replay_domains
    taken = {parse_domain(name)[0] for name in (*config.trained, *config.imitated, *config.held_out_domains)}
    found = tuple(
        name
        for name, record in domains().items()
        if name not in taken and not record.target_only and not missing_modules(record)
    )
    if not found:
        raise UsageError(
            "forgetting.replay: every installed domain is trained on, held out or a target only; none is left"
        )
    return found


def deal(texts: Sequence[Sequence[Text]], budget: int, rng: np.random.Generator) -> tuple[tuple[Text, ...], ...]:
    """Deal the texts of several domains out to parts of at most `budget` tokens, one domain after the other in turn.

    A domain with fewer texts than another begins anew, so that all come up equally often. A longer text is a part by
    itself. What is left over in the end, less than a part, is left out where there is any part before it.
    """
    shuffled = [[of[i] for i in rng.permutation(len(of))] for of in texts]
    rounds = max(map(len, shuffled), default=0)
    parts: list[tuple[Text, ...]] = []
    part: list[Text] = []
    for text in (of[n % len(of)] for n in range(rounds) for of in shuffled):
        if part and sum(len(one.ids_T) for one in part) + len(text.ids_T) > budget:
            parts.append(tuple(part))
            part = []
        part.append(text)
    return tuple(parts) or ((tuple(part),) if part else ())


def _tasks(name: str, count: int) -> list[Task]:
    domain, level = parse_domain(name)
    env = make(domain, level)
    try:
        return env.tasks("train", min(count, env.size("train")))
    finally:
        env.close()
