"""The training run: play, learn, look, keep. Everything random is seeded by (seed, step), so a run can be continued
from its last checkpoint as if it had not been stopped.

What a run's folder holds: `recipe.json`, `metrics.jsonl` (a row a step), and checkpoints `step-NNNNNN`, each a model
folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from gentax.core import Episode, Outcome, Task, UsageError, stable_seed
from gentax.core.files import whole_file, write_json
from gentax.core.interrupt import deferred_interrupt
from gentax.core.memory import freed_memory_kept
from gentax.core.settings import plain
from gentax.domains import domain, make
from gentax.policies.local import load
from gentax.policies.protocol import Policy
from gentax.rollouts import EnvPool, rollout
from gentax.training.checkpoint import checkpoints, restore, save_checkpoint
from gentax.training.grpo import update
from gentax.training.recipe import Recipe

Row = dict[str, float]
VALIDATION_TEMPERATURE = 0.4  # that of the paper's evaluations


@freed_memory_kept()
def train(recipe: Recipe, out: str | Path, on_row: Callable[[Row], None] = lambda row: None) -> Path:
    """Train a policy by GRPO; return the folder of its last checkpoint.

    A folder that holds a stopped run of the same recipe is continued. On Ctrl-C the step in flight is finished and
    its checkpoint written before KeyboardInterrupt is raised.

    Args:
        recipe: every setting.
        out: the run's folder.
        on_row: told each step's metrics as they come. Keys: step, success, return, length, invalid (share of actions),
            entropy (nats a token), kl (nats a token), loss, grad_norm, spread (share of episodes learned from),
            held_out (success on tasks that are not trained on; not on every step), errors, tokens_per_s, play_s,
            learn_s, elapsed_s, left_s.

    Raises:
        UsageError: an unknown domain, level or model; a domain that is for evaluation only; a folder of another run.
        NonFiniteLoss: the loss stopped being a number; the last checkpoint is intact.
    """
    run = Path(out)
    record = domain(recipe.source)
    if record.target_only:
        raise UsageError(f"{recipe.source} is a target only: it is never trained on")
    pool_tasks, held_out = _tasks(recipe)
    policy = load(recipe.base)
    reference = load(recipe.base).model if recipe.kl else None
    rows = _open(run, recipe)
    optimizer = torch.optim.Adam(policy.model.parameters(), lr=recipe.lr, fused=True)
    done = 0
    if kept := checkpoints(run):
        done, folder = kept[-1]
        restore(folder, policy.model, optimizer)
        rows = [row for row in rows if row["step"] <= done]
    elapsed = rows[-1]["elapsed_s"] if rows else 0.0
    log = run / "metrics.jsonl"
    with whole_file(log) as aside:
        aside.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with EnvPool(recipe.play) as envs, deferred_interrupt() as interrupt:
        for step in range(done + 1, recipe.steps + 1):
            began = time.monotonic()
            row = _step(step, recipe, policy, reference, optimizer, pool_tasks, envs)
            if recipe.validate_every and (step % recipe.validate_every == 0 or step in (1, recipe.steps)):
                play = replace(recipe.play, temperature=VALIDATION_TEMPERATURE)
                row["held_out"] = success_rate(rollout(policy, held_out, play=play, pool=envs))
            elapsed += time.monotonic() - began
            row |= {"elapsed_s": elapsed, "left_s": (recipe.steps - step) * elapsed / step}
            with open(log, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            on_row(row)
            if interrupt.asked or step % recipe.checkpoint_every == 0 or step == recipe.steps:
                save_checkpoint(run, step, policy.model, policy.tokenizer, optimizer)
            interrupt.stop_here()
    return checkpoints(run)[-1][1]


def success_rate(episodes: list[Episode]) -> float:
    """Return the share of successes among the episodes that did not end in an error."""
    played = [episode.success for episode in episodes if episode.outcome is not Outcome.ERROR]
    return float(np.mean(played)) if played else 0.0


def _step(
    step: int,
    recipe: Recipe,
    policy: Policy,
    reference: object,
    optimizer: torch.optim.Optimizer,
    tasks: list[Task],
    envs: EnvPool,
) -> Row:
    """Play one batch of groups and learn from it."""
    began = time.monotonic()
    rng = np.random.default_rng(stable_seed(recipe.seed, "tasks", step))
    chosen = rng.choice(len(tasks), size=min(recipe.tasks_per_step, len(tasks)), replace=False)
    episodes = rollout(
        policy,
        [tasks[i] for i in chosen],
        play=recipe.play,
        samples=recipe.group,
        seed=stable_seed(recipe.seed, "play", step),
        pool=envs,
    )
    played = time.monotonic()
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr * min(step / max(1, recipe.warmup), 1 - (step - 1) / recipe.steps, 1.0)
    learned = update(policy.model, reference, optimizer, episodes, recipe, f"step {step}")
    policy.refresh()
    ended = time.monotonic()
    whole = [episode for episode in episodes if episode.outcome is not Outcome.ERROR]
    lengths = [episode.length for episode in whole]
    tokens = sum(len(sequence) for episode in whole for sequence in episode.sequences())
    return {
        "step": step,
        "success": success_rate(episodes),
        "return": float(np.mean([episode.ret for episode in whole])) if whole else 0.0,
        "length": float(np.mean(lengths)) if whole else 0.0,
        "invalid": sum(episode.invalid for episode in whole) / max(1, sum(lengths)),
        "errors": len(episodes) - len(whole),
        "tokens": tokens,
        "tokens_per_s": tokens / (ended - began),
        "play_s": played - began,
        "learn_s": ended - played,
        **learned,
    }


def _tasks(recipe: Recipe) -> tuple[list[Task], list[Task]]:
    """Return the tasks to train on and those to look at, both of splits that no measurement uses.

    The look is at the `dev` split where a domain has one, else at the far end of the train split.
    """
    env = make(recipe.source, recipe.level)
    try:
        size = env.size("train")
        look = min(recipe.validate_tasks, size // 4)
        if "dev" in env.domain.splits:
            held_out = env.tasks("dev", min(recipe.validate_tasks, env.size("dev")))
            look = 0
        else:
            held_out = [Task(recipe.source, env.level, "train", size - 1 - i) for i in range(look)]
        return env.tasks("train", min(recipe.train_tasks, size - look)), held_out
    finally:
        env.close()


def _open(run: Path, recipe: Recipe) -> list[Row]:
    """Make the run's folder, or check that it is one of the same recipe; return the rows logged so far."""
    mine = json.loads(json.dumps(plain(recipe)))
    record = run / "recipe.json"
    if record.is_file():
        if json.loads(record.read_text()) != mine:
            raise UsageError(f"{run} holds a run of another recipe; give another folder, or delete that one")
    elif run.is_dir() and any(run.iterdir()):
        raise UsageError(f"{run} is not empty and holds no run of gentax")
    else:
        write_json(record, mine)
    log = run / "metrics.jsonl"
    rows = []
    for line in log.read_text().splitlines() if log.is_file() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:  # the line that was being written when the run was killed
            break
    return rows
