"""In every domain, as in every one somebody adds to the registry, the expert wins test tasks within the horizon."""

from __future__ import annotations

import pytest

import gentax
from conftest import JAVA, by_domain
from gentax.domains import domains, missing_modules
from gentax.policies import ExpertPolicy
from gentax.rollouts import rollout


@pytest.mark.parametrize("name", by_domain(domains()))
def test_the_expert_wins_test_tasks(name):
    if missing_modules(domains()[name]):
        pytest.skip(f"{name} is not installed: {domains()[name].enable}")
    env = gentax.make(name)
    tasks = env.tasks("test", 200)[:: 4 if name in JAVA else 1]  # episodes on Java take longer
    env.close()
    lost = [episode.task.id for episode in rollout(ExpertPolicy(), tasks) if not episode.success]
    assert not lost
