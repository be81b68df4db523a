"""A look at tasks that are not trained on, while training."""

from __future__ import annotations

from collections.abc import Iterable

from gentax.core import Outcome
from gentax.policies.protocol import Policy
from gentax.rollouts import EnvPool, RolloutConfig, rollout
from gentax.training.parallel import World
from gentax.training.task_pool import TaskPool


def look(
    policy: Policy,
    grounds: Iterable[TaskPool],
    play: RolloutConfig,
    pool: EnvPool,
    world: World,
    parallel: int | None = None,
) -> dict[str, float]:
    """Return `validation_success`, the mean over the parts, and with several parts `validation_success/PART` of each.

    Episodes that ended in an error are in no mean, and a part without others has none. Every process plays its share.
    """
    grounds = list(grounds)
    mine = [task for ground in grounds for task in ground.look[world.rank :: world.size]]
    found = {ground.name: [0, 0] for ground in grounds}
    part = {task: ground.name for ground in grounds for task in ground.look}
    for episode in rollout(policy, mine, play=play, pool=pool, parallel=parallel):
        if episode.outcome is not Outcome.ERROR:
            found[part[episode.task]][0] += episode.success
            found[part[episode.task]][1] += 1
    everyone = world.everyone(found)
    rates = {}
    for name in found:
        solved, played = (sum(one[name][k] for one in everyone) for k in (0, 1))
        if played:
            rates[name] = solved / played
    row = {"validation_success": sum(rates.values()) / len(rates)} if rates else {}
    return row | ({f"validation_success/{name}": rate for name, rate in rates.items()} if len(found) > 1 else {})
