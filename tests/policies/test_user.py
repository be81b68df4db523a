"""Policies of the user's own, and the expert that errs: what may be given, what is asked, which faults are one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import gentax
from gentax.core import Outcome, PolicyFault, Task, UsageError
from gentax.models.options import ChatOptions, SamplingParams
from gentax.policies import ExpertPolicy, PolicyRequest, load_policy
from gentax.policies.protocol import MAX_PARALLEL, max_parallel_episodes
from gentax.rollouts import RolloutConfig, rollout
from gentax.rollouts.prompt import with_token_budget

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN = '''
from gentax.core import UsageError
from gentax.policies import Reply

SEEN = []


def repeat(messages):
    SEEN.append([(m["role"], m["content"]) for m in messages])
    messages.clear()  # it is a copy
    return f"<action>{SEEN[-1][-1][1].rpartition(' ')[2].rstrip('.')}</action>"


class Counting:
    """The short form, with a memory."""

    def __init__(self):
        self.asked = 0

    def __call__(self, messages):
        self.asked += 1
        return repeat(messages)


class Batched:
    name = "my batches"

    def reply(self, turns):
        return [Reply(f"<action>{turn.env.expert().action}</action>") for turn in turns]

    def max_parallel(self, context_tokens):
        return 3

    def default_max_new_tokens(self, chat):
        return 700


def factory():
    return Batched()


def broken(messages):
    return {}["goal"]


def number(messages):
    return 7


class Short:
    def reply(self, turns):
        return ["<action>x</action>"]


class Nothing:
    def reply(self, turns):
        return None


class Refusing:
    def __init__(self):
        raise OSError("no weights here")


def unwilling(messages):
    raise UsageError("say which model")


CONSTANT = 3
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_policy.py").write_text(OWN)
    (tmp_path / "torn_policy.py").write_text("import os\n\n1 / 0\n")
    (tmp_path / "wrong_policy.py").write_text("def policy(messages)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("own_policy", "torn_policy", "wrong_policy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def line_of(code):
    """The number of the line of the module that begins with `code`."""
    return next(n for n, line in enumerate(OWN.splitlines(), 1) if line.strip().startswith(code))


def tasks(n):
    return [Task("toy", "three", "train", i) for i in range(n)]


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("repeat", "own_policy:repeat"),
        ("Counting", "own_policy:Counting"),
        ("Batched", "my batches"),
        ("factory", "my batches"),
    ],
)
def test_a_function_a_class_a_factory_and_an_object_play(own, toy, name, called):
    policy = load_policy(f"own_policy:{name}")
    assert policy.name == called
    assert all(episode.success for episode in rollout(policy, tasks(5)))


def test_a_function_is_shown_the_conversation_of_its_episode(own, toy):
    rollout(load_policy("own_policy:repeat"), tasks(2))
    seen = sys.modules["own_policy"].SEEN
    assert [len(messages) for messages in seen] == [1, 1, 3, 3, 5, 5]
    assert [role for role, _ in seen[-1]] == ["user", "assistant", "user", "assistant", "user"]
    assert seen[2][:1] == seen[0]
    assert seen[2][1][1].startswith("<action>")
    seen.clear()
    rollout(load_policy("own_policy:repeat"), tasks(1), config=RolloutConfig(context="window(1)"))
    assert [len(messages) for messages in seen] == [1, 1, 1]


def test_a_function_is_shown_the_system_prompt(own):
    turn = PolicyRequest(
        0, "red.", False, None, np.random.default_rng(0), SamplingParams(), ChatOptions(system_prompt="Be brief.")
    )
    load_policy("own_policy:repeat").reply([turn])
    assert sys.modules["own_policy"].SEEN[0] == [("system", "Be brief."), ("user", "red.")]


def test_in_python_a_function_or_a_class_is_enough(toy):
    def repeat(messages):
        return f"<action>{messages[-1]['content'].rpartition(' ')[2].rstrip('.')}</action>"

    result = gentax.evaluate(repeat, ["toy"], tasks=4)
    assert result.policy == "repeat"
    assert result.success()["toy"].value == 100


def test_a_policy_may_set_its_batch_size_and_token_budget(own):
    assert max_parallel_episodes(load_policy("own_policy:Batched"), 1000) == 3
    assert max_parallel_episodes(load_policy("own_policy:repeat"), 1000) == MAX_PARALLEL
    assert with_token_budget(RolloutConfig(), load_policy("own_policy:Batched")).max_new_tokens == 700


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_polcy:repeat", "did you mean 'own_policy'"),
        ("own_policy.sub:repeat", "unknown policy"),
        ("own_policy:repaet", "unknown policy in module own_policy 'repaet'; did you mean 'repeat'"),
        ("own_policy:CONSTANT", "is of type int"),
        (
            "own_policy:Refusing",
            f"cannot be made without arguments: own_policy.py:{line_of('raise OSError')}: OSError: no weights here",
        ),
        ("torn_policy:policy", "cannot be imported: torn_policy.py:3: ZeroDivisionError"),
        ("wrong_policy:policy", "cannot be imported: wrong_policy.py:1: SyntaxError"),
    ],
)
def test_what_is_no_policy_is_said_in_one_line(own, name, said):
    with pytest.raises(UsageError, match=r"^[^\n]+$") as error:
        load_policy(name)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", f"failed: own_policy.py:{line_of('return {}')}: KeyError: 'goal'"),
        ("number", "it replied with a value of type int, not with text"),
        ("Short", "returned 1 replies to 2 turns"),
        ("Nothing", "returned a value of type NoneType, not a list of replies"),
    ],
)
def test_a_fault_of_a_policy_is_neither_an_environments_nor_a_failure(own, toy, name, said):
    with pytest.raises(PolicyFault, match=r"^policy 'own_policy:[^\n]+$") as error:
        rollout(load_policy(f"own_policy:{name}"), tasks(2))
    assert said in str(error.value)


def test_what_a_policy_says_to_its_user_is_passed_on(own, toy):
    with pytest.raises(UsageError, match="say which model"):
        rollout(load_policy("own_policy:unwilling"), tasks(2))


def test_it_may_teach_and_judge(own, toy, tiny):
    from gentax.training import TrainConfig, train
    from gentax.training.check import check
    from gentax.training.config import RewardConfig, SFTConfig

    teach = SFTConfig(mixture={"toy": 1.0}, teachers={"toy": "own_policy:repeat"}, max_pairs=8, num_train_epochs=1.0)
    train(TrainConfig(model=str(tiny), max_steps=0, sft=teach), own / "run")
    assert len(sys.modules["own_policy"].SEEN) >= 8
    check(TrainConfig(source="toy", reward=RewardConfig(judge="own_policy:number")))
    with pytest.raises(UsageError, match="unknown policy in module own_policy 'nmber'; did you mean 'number'"):
        check(TrainConfig(source="toy", reward=RewardConfig(judge="own_policy:nmber")))


def test_the_example_of_ten_lines_plays(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "my_policy", raising=False)
    result = gentax.evaluate("my_policy:explore", ["babyai"], tasks=8, config=RolloutConfig(admissible=True))
    assert all(step.valid for episode in result.episodes["babyai"] for step in episode.steps)
    text = (EXAMPLES / "my_policy.py").read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 10


def test_an_erring_expert_says_what_fits_elsewhere_and_goes_on_after_a_refusal(toy):
    episodes = rollout(ExpertPolicy(noise=0.4), tasks(60))
    steps = [step for episode in episodes for step in episode.steps]
    slips = [step for step in steps if not step.valid]
    assert 0.15 < len(slips) / len(steps) < 0.45  # a slip may happen to be right
    assert {step.action for step in slips} <= {"red", "green", "blue", "gold"}
    assert not any(step.thought for step in slips)
    after = [b for episode in episodes for a, b in zip(episode.steps, episode.steps[1:], strict=False) if not a.valid]
    assert any(step.valid for step in after)
    assert any(episode.outcome is Outcome.SUCCESS and episode.invalid for episode in episodes)


def test_the_same_play_slips_alike(toy):
    one, two = (rollout(ExpertPolicy(noise=0.3), tasks(20), seed=3) for _ in range(2))
    assert [[s.action for s in e.steps] for e in one] == [[s.action for s in e.steps] for e in two]
