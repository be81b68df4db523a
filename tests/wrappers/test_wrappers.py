"""Every wrapper, alone and nested: it answers what the environment answers, and the task underneath is the same."""

from __future__ import annotations

import random

import gymnasium
import pytest

import gentax
from gentax.core import TextEnv, UsageError
from gentax.policies.load import ExpertPolicy, RandomPolicy
from gentax.rollouts import EnvPool, RolloutConfig, rollout
from gentax.wrappers import Calls, Horizon, Layout, Menu, Rename, Shaping, TextWrapper, distract

STRANGE = [
    "", " ", "\0", "a\nb", "🔥 up", "\ud800", "up" * 100_000, "do()", "0", "0 ", "٣", "-1", "99", "Box[", "(((", "do(",
]  # fmt: skip
COLOURS = ["red", "green", "blue", "gold"]

ANY = {
    "distract": distract,
    "generic": lambda env: distract(env, kind="generic"),
    "half": lambda env: distract(env, volume=150, probability=0.5),
    "prose": lambda env: Layout(env, "prose"),
    "list": lambda env: Layout(env, "list"),
    "json": lambda env: Layout(env, "json"),
    "calls": Calls,
    "menu": Menu,
    "words in calls": lambda env: Calls(Rename(env, COLOURS)),
    "calls in words": lambda env: Rename(Calls(env), COLOURS),
    "all": lambda env: distract(Layout(Menu(Calls(Rename(distract(env, kind="generic"), COLOURS))), "json")),
    "all, another way": lambda env: Menu(
        Rename(Calls(Layout(distract(distract(env), kind="generic"), "list")), COLOURS)
    ),
}
SOKOBAN = {
    **ANY,
    "rename": Rename,
    "signs": lambda env: Rename(env, seed=3),
}


def play_both(plain, wrapped, index, rng):
    """Play the same actions on both, some of them refused; yield both answers to each."""
    start, told = plain.reset(options={"index": index}), wrapped.reset(options={"index": index})
    assert told[1]["goal"] == wrapped.goal
    assert told[1]["task"] == start[1]["task"] == wrapped.task
    over = False
    while not over:
        listed = plain.admissible()
        choice = rng.randrange(len(listed) + 1)
        actions = [*listed, "nonsense"][choice], [*wrapped.admissible(), "nonsense"][choice]
        answers = plain.step(actions[0]), wrapped.step(actions[1])
        assert wrapped.observation == answers[1][0]
        over = answers[0][2] or answers[0][3]
        yield answers


def expert_wins(env, index):
    env.reset(options={"index": index})
    while True:
        _, _, terminated, truncated, info = env.step(env.expert().action)
        assert info["valid"]
        if terminated or truncated:
            return info["success"]


@pytest.mark.parametrize("name", SOKOBAN)
def test_the_same_actions_do_the_same_in_sokoban(name):
    check_the_same(gentax.make("sokoban"), SOKOBAN[name](gentax.make("sokoban")), 6, lambda env: env.state)


@pytest.mark.parametrize("name", ANY)
def test_the_same_actions_do_the_same_in_the_toy(name, toy):
    check_the_same(toy(), ANY[name](toy()), 12, lambda env: (env.word, env.left))


def check_the_same(plain, wrapped, tasks, state_of):
    rng = random.Random(0)
    for index in range(tasks):
        for answer, seen in play_both(plain, wrapped, index, rng):
            assert seen[1:] == answer[1:]
            assert state_of(wrapped.unwrapped) == state_of(plain)
            assert wrapped.steps == plain.steps
    assert all(expert_wins(wrapped, index) for index in range(tasks))


@pytest.mark.parametrize("name", SOKOBAN)
def test_any_string_is_an_action(name):
    env = SOKOBAN[name](gentax.make("sokoban", horizon=1000))
    env.reset(options={"index": 1})
    before = env.unwrapped.state
    for action in STRANGE:
        _, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated, info["valid"]) == (0, False, False, False)
    assert env.unwrapped.state == before


def test_a_wrapper_answers_whatever_an_environment_answers():
    written_by_domains = {"_reset_task", "_step", "level_horizon"}
    plain = gentax.make("sokoban", split="test", horizon=9)
    wrapped = Calls(gentax.make("sokoban", split="test", horizon=9))
    public = {name for name in (*vars(TextEnv), *vars(plain)) if not name.startswith("_")} - written_by_domains
    own = {"room", "state"}  # of sokoban: reached through `unwrapped`
    for env in (plain, wrapped):
        env.reset(options={"index": 4})
    for name in public - own:
        assert hasattr(wrapped, name), name
    for name in ("level", "split", "reward", "horizon", "task", "goal", "steps", "observation", "render_mode"):
        assert getattr(wrapped, name) == getattr(plain, name), name
    assert wrapped.domain.name == "sokoban"
    assert wrapped.size("test") == plain.size("test")
    assert wrapped.tasks("test", 3) == plain.tasks("test", 3)
    assert wrapped.distance() == plain.distance()
    assert wrapped.render() == plain.render()


def test_closing_and_rendering_reach_the_environment(toy):
    class Door(toy):
        closed = False

        def close(self):
            self.closed = True

    env = distract(Layout(Door(), "list"))
    env.reset(options={"index": 0})
    assert env.render() == env.observation != env.unwrapped.observation
    env.close()
    assert env.unwrapped.closed


def test_other_gymnasium_wrappers_may_stand_between():
    env = distract(gymnasium.wrappers.RecordEpisodeStatistics(Rename(gentax.make("sokoban"))))
    assert expert_wins(env, 3)
    with pytest.raises(UsageError, match="not CartPole"):
        TextWrapper(gymnasium.make("CartPole-v1").unwrapped)


def test_the_spec_makes_it_again():
    env = distract(Rename(gentax.make("sokoban", horizon=7), seed=5), volume=40, probability=0.5)
    again = gymnasium.make(env.spec)
    assert again.get_wrapper_attr("horizon") == 7
    for index in range(3):
        assert again.reset(options={"index": index}) == env.reset(options={"index": index})


@pytest.mark.parametrize("policy", [ExpertPolicy(), RandomPolicy()])
def test_the_engine_plays_wrapped_environments(policy, toy):
    config = RolloutConfig(admissible=True, thinking=True)
    tasks = toy().tasks("train", 12)
    with EnvPool(config, factory=lambda task: ANY["all"](toy(task.level))) as pool:
        episodes = rollout(policy, tasks, config=config, pool=pool)
    assert [episode.task for episode in episodes] == tasks
    assert all(episode.outcome.value == "success" for episode in episodes)
    assert all(step.valid for episode in episodes for step in episode.steps)


# Reward and horizon


def play_random(env, index, rng, gamma=1.0):
    """Return the discounted sum of the rewards, the steps, how it ended and the last state's potential."""
    env.reset(options={"index": index})
    total, factor = 0.0, 1.0
    while True:
        if rng.random() < 0.6 and (move := env.expert()):
            action = move.action
        else:
            action = rng.choice(["up", "down", "left", "right"])
        _, reward, terminated, truncated, _ = env.step(action)
        total += factor * reward
        factor *= gamma
        if terminated or truncated:
            return total, env.steps, terminated


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_shaping_telescopes_so_that_the_best_stays_the_best(gamma):
    plain, shaped = gentax.make("sokoban"), Shaping(gentax.make("sokoban"), gamma)
    ended = set()
    for episode in range(60):
        base, steps, terminated = play_random(plain, episode % 4, random.Random(episode), gamma)
        total, same_steps, _ = play_random(shaped, episode % 4, random.Random(episode), gamma)
        assert steps == same_steps
        end = 0.0 if terminated else shaped.potential()
        assert total - base == pytest.approx(gamma**steps * end + 1.0)
        ended.add(terminated)
    assert ended == {True, False}  # won episodes all gain 1, whatever way they took; the others were cut off


def test_shaping_needs_a_distance(toy):
    with pytest.raises(UsageError, match="reward='dense'"):
        Shaping(toy())


def test_a_shorter_horizon(toy):
    env = Horizon(toy(), 2)
    assert env.horizon == 2
    env.reset(options={"index": 0})
    assert env.step("no")[2:4] == (False, False)
    assert env.step("no")[2:4] == (False, True)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("no")
    for steps in (0, 7):
        with pytest.raises(UsageError, match="horizon"):
            Horizon(toy(), steps)
