"""Replay: KL(start || policy) on the text of other domains, added to the loss.

The starting policy plays some train tasks of other domains once, before training; each step then adds to the loss the
KL divergence at the tokens it sampled in a small part of that text. Its success there is never read: behaviour is
preserved, good or bad. Left out: storing the start's probabilities, which for a large vocabulary would take more memory
than computing them again takes time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gentax.core import Outcome, UsageError, stable_seed
from gentax.domains import domains, make, missing_modules
from gentax.domains.registry import parse_domain
from gentax.models.scoring import make_batches, token_kl
from gentax.training.config import TrainConfig
from gentax.training.distributed import in_lockstep
from gentax.training.forgetting import ForgettingMethod, Start
from gentax.training.rollout_worker import TaskPool

REPLAY_TASKS = 32  # train tasks of each domain that the start plays, once, before training
TOKENS_PER_STEP = 2880  # of text in a step, a few hundred sampled ones among them


@dataclass(frozen=True)
class ReplayText:
    """One token sequence, and which of its tokens the start sampled."""

    ids_T: np.ndarray
    sampled_T: np.ndarray  # bool


class ReplayKL(ForgettingMethod):
    """Adds `forgetting.replay` × mean KL(start || policy) over the sampled tokens of a step's part of the text.

    Attributes:
        parts: the text, split up over the steps; alike in all processes. After the last part comes the first.
    """

    keeps_start_model = True
    parts: tuple[tuple[ReplayText, ...], ...]

    def touched_domains(self) -> Iterable[str]:
        return replayed_domains(self.config)

    def before_training(self, start: Start, tasks: Iterable[TaskPool] = ()) -> None:
        """Let the start play `REPLAY_TASKS` train tasks of each domain.

        It plays as in training, but at the domain's own horizon and without wrappers.

        Raises:
            UsageError: a domain or level that does not exist, or no episode to replay.
        """
        config, world = self.config, start.world
        self.start = start
        seed = stable_seed(config.seed, "replay")
        rollout_config = replace(config.rollout, wrap=(), reward="sparse", horizon=None)
        chosen = []
        for name in replayed_domains(config):
            domain, level = parse_domain(name)
            with make(domain, level) as env:
                chosen += env.tasks("train", min(REPLAY_TASKS, env.size("train")))
        episodes = start.rollout(chosen, rollout_config, seed)
        own_texts = [
            [(text.ids_T.tolist(), np.flatnonzero(text.sampled_T).tolist()) for text in episode.sequences()]
            if episode.outcome is not Outcome.ERROR
            else []
            for episode in episodes
        ]
        everyone = world.gather(own_texts)
        by_domain: dict[tuple[str, str], list[ReplayText]] = {(task.domain, task.level): [] for task in chosen}
        for n, task in enumerate(chosen):
            for ids, sampled in everyone[n % world.size][n // world.size]:
                if sampled and sampled[-1] > 0:  # nothing predicts the first token of a sequence
                    text = ReplayText(np.array(ids, np.int32), np.isin(np.arange(len(ids)), sampled))
                    by_domain[task.domain, task.level].append(text)
        texts = [of_domain for of_domain in by_domain.values() if of_domain]
        self.parts = split_by_tokens(texts, TOKENS_PER_STEP, np.random.default_rng(seed))
        if not self.parts:
            raise UsageError("forgetting.replay: the starting policy has played nothing that could be replayed")

    def extra_loss(self, model: Any, step: int) -> dict[str, float]:
        """Accumulate this process's share of the gradient; return {"replay_kl": nats a token}, alike in every one."""
        world = self.start.world
        part = self.parts[(step - 1) % len(self.parts)]
        count = sum(int(text.sampled_T[1:].sum()) for text in part)
        own = part[world.rank :: world.size]
        kl = 0.0
        for batch in in_lockstep(
            model, make_batches(model, [text.ids_T for text in own], [text.sampled_T for text in own]), world
        ):
            kl_U = token_kl(self.start.model, model, batch, self.config.precision)
            total = batch.expand_to_tokens(kl_U).sum()
            (self.config.forgetting.replay * total / count).backward()
            kl += float(total.detach())
        return {"replay_kl": world.sum(kl) / count}


def replayed_domains(config: TrainConfig) -> tuple[str, ...]:
    """Return the domains whose text is replayed, as `domain` or `domain:level`; none where `replay` is 0.

    Raises:
        UsageError: there is none left to replay.
    """
    if not config.forgetting.replay or config.forgetting.replay_domains:
        return config.forgetting.replay_domains
    taken = {parse_domain(name)[0] for name in (*config.trained, *config.sft_mixture, *config.held_out_domains)}
    replayed = tuple(
        name
        for name, record in domains().items()
        if name not in taken and not record.target_only and not missing_modules(record)
    )
    if not replayed:
        raise UsageError(
            "forgetting.replay: every installed domain is trained on, held out or a target only; none is left"
        )
    return replayed


def split_by_tokens(
    texts: Sequence[Sequence[ReplayText]], budget: int, rng: np.random.Generator
) -> tuple[tuple[ReplayText, ...], ...]:
    """Split the texts of several domains into parts of at most `budget` tokens, taking the domains in turn.

    A domain with fewer texts than another begins anew, so that all come up equally often. A longer text is a part by
    itself. The remainder at the end, less than a part, is left out where there is any part before it.
    """
    shuffled = [[of_domain[i] for i in rng.permutation(len(of_domain))] for of_domain in texts]
    rounds = max(map(len, shuffled), default=0)
    parts: list[tuple[ReplayText, ...]] = []
    part: list[ReplayText] = []
    for text in (of_domain[n % len(of_domain)] for n in range(rounds) for of_domain in shuffled):
        if part and sum(len(member.ids_T) for member in part) + len(text.ids_T) > budget:
            parts.append(tuple(part))
            part = []
        part.append(text)
    return tuple(parts) or ((tuple(part),) if part else ())
