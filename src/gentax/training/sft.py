"""Supervised fine-tuning: demonstrations of experts, policies or files, and the optimizer steps on them.

A state-action pair is a prompt and the reply to it. Each name in the mixture gives its share of the pairs, exactly, as
long as its teacher has that many: the expert, the policy that the run starts from, another policy, or a file of
trajectories. Teachers play train tasks only, as training will. Which batch is learned at a step is settled before the
first one, so a continued run learns the same. Left out: replies without an action, which are read and not learned.

`fine_tune` is the loop over examples without end that makes the base model (`pretrain.py`).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gentax.core import Episode, NonFiniteLoss, Outcome, Task, UsageError, stable_seed
from gentax.core.episode import common_prefix_length
from gentax.core.files import atomic_file
from gentax.core.process import freed_memory_kept
from gentax.core.settings import settings
from gentax.models.scoring import make_batches, token_logprobs
from gentax.policies.load import SCRIPTED_BY_NAME, load_policy
from gentax.policies.local import LocalPolicy
from gentax.rollouts import EnvPool, rollout
from gentax.training.config import TrainConfig
from gentax.training.distributed import World, clip_grad_norm, in_lockstep
from gentax.training.learner import with_learning_rates
from gentax.training.rollout_worker import task_pool
from gentax.training.trajectories import (
    Conversation,
    Example,
    Exchange,
    examples,
    exchanges,
    holds_trajectories,
    read_trajectories,
    sampled_examples,
)

TOKENS = 2880  # distinct tokens of a batch
MAX_EXAMPLES = 128  # of a batch: where many share a prefix they add few distinct tokens


@settings
class SFTSettings:
    """Settings of the optimizer loop."""

    steps: int = 1000
    """Optimizer steps."""
    lr: float = 2e-3
    """Peak learning rate; warmed up linearly, then lowered along a cosine to a twentieth."""
    warmup: float = 0.03
    """Share of the run that warms up."""
    weight_decay: float = 0.05
    """Of AdamW, on matrices."""
    precision: str = "auto"
    """`fp32`, `bf16` (autocast) or `auto`, which is bf16 where the hardware has it."""
    seed: int = 0
    """Order of the examples."""


@freed_memory_kept()
def fine_tune(
    model: Any,
    stream: Callable[[np.random.Generator], Example],
    settings: SFTSettings,
    on_step: Callable[[dict[str, float]], None] = lambda row: None,
) -> None:
    """Train `model` in place on examples sampled from `stream`, which never ends. Raises NonFiniteLoss."""
    rng = np.random.default_rng(settings.seed)
    parameters = list(model.parameters())
    optimizer = adamw(parameters, settings)
    batches = pack_batches(iter(lambda: stream(rng), None))
    tokens = 0
    model.train()
    for step in range(settings.steps):
        done = step / settings.steps
        row = sft_step(model, parameters, next(batches), optimizer, settings, done, f"step {step}")
        tokens += int(row["tokens"])
        on_step(row | {"step": step + 1, "tokens": tokens, "done": done})
    model.eval()


def adamw(parameters: Iterable[torch.nn.Parameter], settings: SFTSettings) -> torch.optim.Optimizer:
    """Return an AdamW that decays matrices and leaves vectors (norms, biases) alone."""
    parameters = list(parameters)
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=settings.lr,
        betas=(0.9, 0.95),
        fused=True,
    )


def sft_step(
    model: Any,
    parameters: Sequence[torch.nn.Parameter],
    batch: Sequence[Example],
    optimizer: torch.optim.Optimizer,
    settings: SFTSettings,
    done: float,
    where: str,
    world: World = World(),  # noqa: B008  (frozen)
    extra_loss: Callable[[], dict[str, float]] | None = None,
) -> dict[str, float]:
    """Take one optimizer step; return the loss (nats a token), the gradient's norm and the tokens of the batch.

    Args:
        model: what scores the tokens.
        parameters: those to learn; all of the model's others must be frozen.
        batch: the same in every process, each of which computes its part.
        done: how much of the run is done, 0 to 1; the learning rate follows from it.
        where: names the step in the error.
        extra_loss: adds the gradient of a loss of its own; its metrics are returned too.

    Raises:
        NonFiniteLoss: the loss or its gradient stopped being a number; the weights are as before this step.
    """
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * cosine_with_warmup(done, settings.warmup)
    total = float(sum(example.weight_T[1:].sum() for example in batch))
    loss = _backward(model, batch[world.rank :: world.size], total, settings.precision, world)
    more = extra_loss() if extra_loss is not None else {}
    world.sum_gradients(parameters)
    norm = clip_grad_norm(parameters, 1.0)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        optimizer.zero_grad(set_to_none=True)
        raise NonFiniteLoss(f"the loss became {loss}, its gradient {norm}, at {where}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": loss, "grad_norm": norm, "tokens": sum(len(example.ids_T) for example in batch), **more}


def cosine_with_warmup(done: float, warmup: float) -> float:
    """Return the share of the peak learning rate when `done` of the run is done: a ramp, times a cosine to 0.05."""
    ramp = min(1.0, done / warmup) if warmup else 1.0
    return max(1e-3, ramp * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))))


def pack_batches(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Yield the examples in order, in batches of at most `TOKENS` distinct tokens and `MAX_EXAMPLES` examples; a longer
    one is a batch of its own."""
    batch: list[Example] = []
    distinct = 0
    for example in examples:
        new = len(example.ids_T) - max(
            (common_prefix_length(member.ids_T, example.ids_T) for member in batch), default=0
        )
        if batch and (distinct + new > TOKENS or len(batch) == MAX_EXAMPLES):
            yield batch
            batch, distinct, new = [], 0, len(example.ids_T)
        batch.append(example)
        distinct += new
    if batch:
        yield batch


def _backward(model: Any, batch: Sequence[Example], total: float, precision: str, world: World) -> float:
    """Accumulate the gradient of the weighted losses of `batch` over `total`; return that loss of all processes."""
    ids, weights = [e.ids_T for e in batch], [e.weight_T for e in batch]
    loss = 0.0
    parts = make_batches(model, ids, [w > 0 for w in weights])
    for part in in_lockstep(model, parts, world):
        weight_S = torch.from_numpy(np.concatenate([weights[i][1:][weights[i][1:] > 0] for i in part.sequences]))
        nll_S = -token_logprobs(model, part, precision).logprob_S
        value = (nll_S * weight_S.to(nll_S.device)).sum() / total
        value.backward()
        loss += float(value.detach())
    return world.sum(loss)


PAIRS_PER_STEP = 32  # learned at a step, as in arXiv 2601.18217; a conversation with more of them has a step to itself
TASKS_AT_ONCE = (32, 512)  # that a teacher plays at a time, at least and at most
ATTEMPTS = 512  # episodes after which a teacher is given up that has shown nothing to learn
POLICY_NAMES = (*SCRIPTED_BY_NAME, "base", "start")  # teachers that are policies, whatever files there are


@dataclass(frozen=True)
class SFTData:
    """The examples to fine-tune on, batch by batch."""

    batches: tuple[tuple[Example, ...], ...]
    counts: Mapping[str, int]  # state-action pairs of each name of the mixture: fewer than wanted if there are no more
    settings: SFTSettings

    @classmethod
    def collect(
        cls,
        config: TrainConfig,
        policy: LocalPolicy,
        cache: Path | None = None,
        world: World = World(),  # noqa: B008  (frozen)
        status: Callable[[str], None] = lambda text: None,
        parallel: int | None = None,
    ) -> SFTData:
        """Collect the demonstrations that `config.sft` asks for.

        Args:
            config: `sft`, `rollout`, `seed` and `phases()` are read here.
            policy: the one the run starts from: the teacher `start`, and the tokenizer.
            cache: a file for the examples; where it exists already it is read, and nothing is played: a teacher such
                as a server would not play the same again.
            world: the processes of the run. With `cache`, the first one collects for all.
            status: called with a line of progress.
            parallel: episodes in flight at once; None for as many as memory holds.

        Raises:
            UsageError: a teacher or a file that does not exist or is malformed; a file that holds episodes of test
                tasks; a teacher that shows nothing to imitate (after `ATTEMPTS` episodes, if it plays).
            PolicyFault: a teacher on a server cannot be reached.
        """
        by_name: dict[str, list[Example]] | None = None
        if cache is None or (world.first and not cache.is_file()):
            by_name = {
                name: _Collector(name, pairs, config, policy, status, parallel).collect() if pairs else []
                for name, pairs in wanted_pairs(config).items()
            }
            if cache is not None:
                _write(cache, by_name)
        world.barrier()
        if by_name is None:
            assert cache is not None
            by_name = _read(cache)
        config = with_learning_rates(config, sum(p.numel() for p in policy.model.parameters()))
        assert config.sft is not None
        assert config.sft.learning_rate is not None
        examples = [example for of_name in by_name.values() for example in of_name]
        batches = tuple(_batches(_order(examples, config.sft.num_train_epochs, config.seed)))
        settings = SFTSettings(steps=len(batches), lr=config.sft.learning_rate, precision=config.precision)
        return cls(batches, {name: sum(e.pairs for e in of_name) for name, of_name in by_name.items()}, settings)

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return len(self.batches)

    def optimizer(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimizer of `step`."""
        return adamw(parameters, self.settings)

    def step(
        self,
        step: int,
        learner: Any,
        optimizer: torch.optim.Optimizer,
        world: World = World(),  # noqa: B008  (frozen)
        extra_loss: Callable[[], dict[str, float]] | None = None,
    ) -> dict[str, float]:
        """Learn the batch of a step, the first of which is 1; return metrics (see `sft_step`).

        With the weights and the optimizer's state of step k - 1, step k does what it would have done in one go.
        """
        return sft_step(
            learner.model,
            list(learner.parameters),
            self.batches[step - 1],
            optimizer,
            self.settings,
            (step - 0.5) / self.steps,  # the middle of it: the first step of a short run should not be for nothing
            f"step {step} of supervised fine-tuning",
            world,
            extra_loss,
        )


def wanted_pairs(config: TrainConfig) -> dict[str, int]:
    """Return how many state-action pairs each name of the mixture should give, rounded by largest remainders."""
    assert config.sft is not None
    exact = {name: config.sft.max_pairs * share for name, share in config.sft_mixture.items()}
    whole = {name: math.floor(share + 1e-9) for name, share in exact.items()}
    rest = config.sft.max_pairs - sum(whole.values())
    for name in sorted(exact, key=lambda name: whole[name] - exact[name])[:rest]:
        whole[name] += 1
    return whole


class _Collector:
    """Collects the examples of one name of the mixture, with `wanted` pairs, or as many as its teacher has."""

    def __init__(
        self,
        name: str,
        wanted: int,
        config: TrainConfig,
        policy: LocalPolicy,
        status: Callable[[str], None],
        parallel: int | None,
    ) -> None:
        assert config.sft is not None
        self.name, self.wanted, self.config, self.sft = name, wanted, config, config.sft
        self.policy, self.status, self.parallel = policy, status, parallel
        self.teacher = config.sft.teachers.get(name, "expert")
        self.left = wanted
        self.examples: list[Example] = []
        self.attempts = self.successes = self.errors = 0  # of the teacher that plays
        self.usable = 0  # episodes and conversations that may be learned, if their replies can be

    def collect(self) -> list[Example]:
        """Return the examples, from the teacher's file or by playing. Raises UsageError where there is none."""
        self._report()
        teacher, tasks = self.teacher, task_pool(self.name, self.config).train
        rng = np.random.default_rng(stable_seed(self.config.seed, "imitate", self.name))
        if teacher not in POLICY_NAMES and holds_trajectories(teacher):
            items = self._learnable(read_trajectories(teacher), tasks)
            for i in rng.permutation(len(items)):
                self._add(items[i])
        else:
            self._play([tasks[i] for i in rng.permutation(len(tasks))])
        if not self.examples:
            raise UsageError(f"nothing to imitate on {self.name}: {self._why_nothing()}")
        return self.examples

    def _learnable(
        self, items: Sequence[Conversation | Episode], tasks: Sequence[Task]
    ) -> list[Conversation | Episode]:
        """Return the conversations, and the episodes on `tasks`."""
        if any(isinstance(item, Episode) and item.task.split == "test" for item in items):
            raise UsageError(
                f"{self.teacher} holds episodes of test tasks, which are measured on and never learned from"
            )
        known = set(tasks)
        learnable = [item for item in items if isinstance(item, Conversation) or item.task in known]
        if not learnable:
            raise UsageError(f"{self.teacher} holds no episode of {self.name} on a task that the recipe trains on")
        return learnable

    def _play(self, tasks: Sequence[Task]) -> None:
        """Let the teacher play tasks until there are enough pairs, or none after `ATTEMPTS`."""
        config, played = self.config, 0
        options = config.options(str(self.policy.model.device))
        player = self.policy if self.teacher == "start" else load_policy(self.teacher, options)

        def on_episode(episode: Episode) -> None:
            self.attempts += 1
            self.successes += episode.success is True
            self.errors += episode.outcome is Outcome.ERROR
            if self.attempts % TASKS_AT_ONCE[0] == 0:
                self._report()

        with EnvPool(config.rollout) as envs:
            while self.left and played < (len(tasks) if self.examples else min(ATTEMPTS, len(tasks))):
                # As many as should suffice, by those played so far.
                expected = math.ceil(self.left * played / max(self.wanted - self.left, 1))
                size = min(max(expected, TASKS_AT_ONCE[0]), TASKS_AT_ONCE[1])
                batch = tasks[played : played + size if self.examples else min(played + size, ATTEMPTS)]
                for episode in rollout(
                    player,
                    batch,
                    config=config.rollout,
                    seed=stable_seed(config.seed, "imitate"),
                    pool=envs,
                    parallel=self.parallel,
                    on_episode=on_episode,
                ):
                    self._add(episode)
                played += len(batch)
                self._report()

    def _add(self, item: Conversation | Episode) -> None:
        """Take the pairs of an episode or a conversation, as many as are missing."""
        failed = item.success is False
        broken = isinstance(item, Episode) and item.outcome is Outcome.ERROR
        if not self.left or broken or (failed and self.sft.successes_only):
            return
        self.usable += 1
        for example in self._examples(item):
            if example.pairs:
                self.examples.append(example)
                self.left -= example.pairs

    def _examples(self, item: Conversation | Episode) -> Iterator[Example]:
        codec = self.policy.codec_for(self.config.rollout.chat)
        if isinstance(item, Conversation):
            turns: Iterable[Exchange] = item.exchanges
        elif self.teacher == "start":
            return sampled_examples(item, self.left)
        else:
            turns = exchanges(item, self.config.rollout, lambda step: bool(step.action), codec.format_reply)
        return examples(turns, codec, limit=self.policy.decoder.max_length, max_pairs=self.left)

    def _report(self) -> None:
        """Say how far it is."""
        done = f"{self.wanted - self.left}/{self.wanted} state-action pairs"
        succeeded = f"; {self.successes} of {self.attempts} episodes succeeded" if self.attempts else ""
        self.status(f"  collecting what {self.teacher} does on {self.name}: {done}{succeeded}")

    def _why_nothing(self) -> str:
        """Say why there is no example, and what to do."""
        if self.usable:
            return f"no reply of {self.teacher} has an action and fits in the model's context"
        if self.attempts:
            broke = f", {self.errors} of which broke" if self.errors else ""
            return (
                f"{self.teacher} succeeded in {self.successes} of {self.attempts} episodes{broke}; name another "
                "teacher under sft.teachers or an easier level under sft.mixture, or take failures too with "
                "sft.successes_only: false"
            )
        return f"no trajectory in {self.teacher} succeeded; sft.successes_only: false takes the others too"


def _order(examples: Sequence[Example], epochs: float, seed: int) -> Iterator[Example]:
    """Yield the examples in the order of learning, each epoch shuffled anew; the last one may end early."""
    left = max(1, round(epochs * len(examples)))
    for epoch in range(math.ceil(left / len(examples))):
        order = np.random.default_rng(stable_seed(seed, "imitate", "epoch", epoch)).permutation(len(examples))
        yield from (examples[i] for i in order[:left])
        left -= len(order)


def _batches(order: Iterable[Example]) -> Iterator[tuple[Example, ...]]:
    """Yield the examples, in order, in batches of at most `PAIRS_PER_STEP` pairs."""
    batch: list[Example] = []
    for example in order:
        if batch and sum(member.pairs for member in batch) + example.pairs > PAIRS_PER_STEP:
            yield tuple(batch)
            batch = []
        batch.append(example)
    if batch:
        yield tuple(batch)


def _write(path: Path, by_name: Mapping[str, Sequence[Example]]) -> None:
    """Write what was collected to a file."""
    from safetensors.numpy import save_file

    examples = [example for of_name in by_name.values() for example in of_name]
    arrays = {
        "ids": np.concatenate([example.ids_T for example in examples]),
        "weight": np.concatenate([example.weight_T for example in examples]),
        "length": np.array([len(example.ids_T) for example in examples]),
        "pairs": np.array([example.pairs for example in examples]),
    }
    with atomic_file(path) as aside:
        save_file(arrays, aside, {"counts": json.dumps({name: len(of_name) for name, of_name in by_name.items()})})


def _read(path: Path) -> dict[str, list[Example]]:
    """Read what `_write` wrote."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        ends = np.cumsum(file.get_tensor("length"))[:-1]
        parts = (np.split(file.get_tensor(name), ends) for name in ("ids", "weight"))
        examples = (Example(*row) for row in zip(*parts, file.get_tensor("pairs").tolist(), strict=True))
        counts = json.loads(file.metadata()["counts"])
        return {name: list(itertools.islice(examples, count)) for name, count in counts.items()}
