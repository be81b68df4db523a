"""What `test_parallel.py` runs, alone and under torchrun: updates of a model on given episodes, stopped and continued.

Run as `several.py OUT MODEL KIND…`; the first process prints a line of JSON for each kind.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from gentax.core import Episode, Outcome, Step, Task, Tokens
from gentax.models.scoring import batch as scoring_batch
from gentax.policies.local import load_local_policy
from gentax.rollouts import RolloutConfig
from gentax.training import policy_gradient
from gentax.training.config import LoraConfig, PolicyGradientConfig, TrainConfig
from gentax.training.distributed import World, join
from gentax.training.learner import learner_of
from gentax.training.policy_gradient import update
from gentax.training.rewards import rewards_of
from gentax.training.run_folder import (
    load_optimizer,
    optimizer_state,
    pack,
    read_training_state,
    save_checkpoint,
    unpack,
)

FULL_BATCH = 384  # tokens: little to compute, and still several batches
KINDS = {
    "full": {},
    "lora": {"lora": LoraConfig(4)},
    "shard": {},
    "shard-lora": {"lora": LoraConfig(4)},
}


def episodes_of(step: int) -> list[Episode]:
    """Return groups of two episodes with random tokens. The first process has two batches of them, the second has one
    and in the end nothing."""
    rng = np.random.default_rng(step)
    made = []
    for task in range(3 if step < 2 else 1):
        rules = rng.integers(6, 250, 30).astype(np.int32)
        for sample in range(2):
            said = rng.integers(6, 250, 220 if task == 0 else 40).astype(np.int32)
            tokens = Tokens(False, rules, said, np.full(len(said), -6.0, np.float32))
            outcome = Outcome.SUCCESS if sample else Outcome.FAILURE
            step_ = Step("o", "t", "a", float(sample), True, tokens=tokens)
            made.append(Episode(Task("toy", "three", "train", task), 0, "g", (step_,), outcome))
    return made


def run(out: Path, model: str, kind: str, world: World, config: TrainConfig) -> dict:
    """Take three steps, with a checkpoint and a fresh start after the second; return what came of it."""

    def fresh():
        policy = load_local_policy(model)
        learner = learner_of(policy, config, world, shard="shard" in kind)
        return policy, learner, torch.optim.Adam(learner.parameters, lr=1e-3, fused=True)

    policy, learner, optimizer = fresh()
    reference = load_local_policy(model).model
    rows = []
    for step in range(3):
        mine = [e for e in episodes_of(step) if e.task.seed % world.size == world.rank]
        rewards = rewards_of(mine, config.reward)
        report = update(learner, reference, optimizer, mine, rewards, config, "here", world=world)
        rows.append([report["loss"], report["kl"], report["grad_norm"]])
        learner.publish()
        if step == 1:
            weights, state = learner.weights(), pack(learner=learner.state(), optimizer=optimizer_state(optimizer))
            folder = out / kind / "step-000001"
            if world.first:
                save_checkpoint(out / kind, folder.name, policy, weights, state, {})
            world.barrier()
            policy, learner, optimizer = fresh()
            state = read_training_state(folder)
            learner.load(load_local_policy(folder).model.state_dict(), unpack(state, "learner"))
            load_optimizer(optimizer, unpack(state, "optimizer"))
    held = sum(getattr(p, "_local_tensor", p).numel() for p in learner.model.parameters())
    return {"rows": rows, "weights": sample(learner.weights()), "held": held}


def sample(weights: Mapping[str, torch.Tensor]) -> list[float]:
    """Return about twenty numbers of every tensor."""
    return torch.cat([weight.flatten()[:: max(1, weight.numel() // 20)] for weight in weights.values()]).tolist()


def talk(world: World) -> dict:
    """Say something in each of the ways that processes can."""
    here, nowhere = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3))
    if world.rank == world.size - 1:
        here.grad = torch.ones(2)
    world.sum_gradients([here, nowhere])
    return {
        "total": world.sum(world.rank + 0.5),
        "most": world.max(7 * world.rank),
        "everyone": world.gather({"ü": "x" * world.rank}),
        "gradients": [here.grad.tolist(), nowhere.grad],
    }


def gloo_threads() -> int:
    """Count the threads of process groups that are still there."""
    names = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
    return sum("gloo" in name for name in names)


def main(out: str, model: str, *kinds: str) -> list[dict]:
    """Return, and print in the first process, what each kind came to in each process."""
    found, usual = [], (scoring_batch.MAX_TOKENS, policy_gradient.EPSILON)
    scoring_batch.MAX_TOKENS, policy_gradient.EPSILON = FULL_BATCH, 10.0  # tokens at random are unlikely
    for kind in kinds:
        config = TrainConfig(
            precision="fp32",
            rollout=RolloutConfig(temperature=1.0),
            algorithm=PolicyGradientConfig(beta=0.1),
            **KINDS[kind],
        )
        with join("cpu") as world:
            (Path(out) / kind).mkdir(parents=True, exist_ok=True)
            came = run(Path(out), model, kind, world, config)
            found.append({"kind": kind, "talk": talk(world), "processes": world.gather(came)})
        found[-1]["threads_left"] = gloo_threads()
        if world.first:
            print(json.dumps(found[-1]), flush=True)
    scoring_batch.MAX_TOKENS, policy_gradient.EPSILON = usual
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
