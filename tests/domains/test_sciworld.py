"""ScienceWorld as a domain: tasks, expert, rewards, strange actions, threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest
from playing import play_expert

import gentax
from gentax.core import SPLITS, EnvironmentFault, UsageError
from gentax.domains.sciworld import DOMAIN, NAMES, folds, names_of, variations
from gentax.domains.sciworld.env import ACTION_LIMIT, Turn, plain, plan_for, rename, shorten, tidy
from gentax.domains.sciworld.simulator import Simulator, read_folds

pytestmark = pytest.mark.jvm


@pytest.fixture(scope="module", autouse=True)
def jvm():
    """Keep one JVM through the module."""
    interface = Simulator()
    yield
    interface.close()


@pytest.fixture
def env():
    env = gentax.make("sciworld", split="test", reward="dense")
    yield env
    env.close()


def test_folds_agree_with_the_package():
    interface = Simulator()
    read = read_folds(interface)
    (names,) = interface(("getTaskNames",))
    interface.close()
    assert set(names) == set(NAMES)
    assert {name: {s: tuple(r) for s, r in row.items()} for name, row in read.items()} == folds()
    assert sum(stop - start for row in folds().values() for start, stop in row.values()) == 7207


@pytest.mark.parametrize("level", sorted(DOMAIN.levels))
def test_splits_are_disjoint_and_complete(level):
    splits = {split: variations(level, split) for split in SPLITS}
    every = [variation for split in splits.values() for variation in split]
    assert len(every) == len(set(every))
    assert {v.name for v in every} == set(names_of(level))
    assert len(every) == sum(stop - start for name in names_of(level) for start, stop in folds()[name].values())


def test_any_prefix_of_the_tasks_is_balanced_over_task_types():
    for split in SPLITS:
        order = variations("all", split)
        for count in (200, 500, 1000):
            for name in NAMES:
                start, stop = folds()[name][split]
                expected = (stop - start) * count / len(order)
                assert abs(sum(v.name == name for v in order[:count]) - expected) <= 1
        numbers = [v.number for v in order if v.name == "test-conductivity"]
        assert numbers != sorted(numbers)


def test_sizes_and_tasks_need_no_jvm(monkeypatch):
    monkeypatch.setattr("gentax.domains.sciworld.simulator.SciWorldProcess", None)
    env = gentax.make("sciworld", "all")
    assert env.size("train") == 3592
    assert len(env.tasks("test", 5)) == 5
    with pytest.raises(UsageError, match="find-animal"):
        gentax.make("sciworld", "find-animals")


def test_every_task_of_the_default_level_ships_with_a_plan(monkeypatch):
    monkeypatch.setattr("gentax.domains.sciworld.env.kept_plan", lambda variation: ())
    for split in SPLITS:
        plans = [plan_for(variation) for variation in variations(DOMAIN.default_level, split)]
        assert sum(map(bool, plans)) >= 0.99 * len(plans)
        assert all(not action.isdigit() and "in inventory" not in action for plan in plans for action in plan)
        assert max(map(len, plans)) * 2 <= DOMAIN.levels[DOMAIN.default_level].horizon


def test_a_plan_that_is_not_shipped_is_made_and_cached(monkeypatch, tmp_path):
    monkeypatch.setenv("GENTAX_CACHE", str(tmp_path))
    env = gentax.make("sciworld", "chemistry-mix-paint-secondary-color", split="test")
    _, _, success = play_expert(env, 0)
    assert success
    kept = list(tmp_path.rglob("*.json"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    assert plan_for(env.variation)
    assert kept[0].stat().st_mtime_ns == before
    kept[0].write_text('["cut sho')
    assert plan_for(env.variation)  # a broken file is made again
    env.close()


def test_the_expert_returns_to_its_plan_after_other_actions():
    env = gentax.make("sciworld", split="test", horizon=100)
    env.reset(options={"index": 0})
    plan = plan_for(env.variation)
    noise = "look around", "no such thing", "inventory", "teleport to foundry", "teleport to hallway", "pick up air"
    for action in (*noise, "open door"):
        env.step(action)
    assert not env.step(env.expert().action)[4]["valid"]  # taken for the answer to "which door?"
    assert env.expert().action == plan[0]
    for position, action in enumerate(plan[:-1]):
        assert env.expert().action == action
        env.step(action)
        env.step("inventory")
        env.step("teleport to foundry")
        back = env.expert()
        if back.action != plan[position + 1]:
            assert back.action.startswith("teleport to ")
            env.step(back.action)
    assert env.step(env.expert().action)[4]["success"]
    env.close()


def test_the_expert_gives_no_action_after_an_irreversible_change(env):
    env.reset(options={"index": 0})
    assert env.step("put down orange")[4]["valid"]
    assert env.expert() is None


def test_a_wrong_focus_fails_the_episode(env):
    env.reset(
        options={
            "index": next(i for i, v in enumerate(variations(DOMAIN.default_level, "test")) if v.name == "find-animal")
        }
    )
    _, reward, terminated, truncated, info = env.step("focus on air")
    assert (reward, terminated, truncated, info["success"]) == (-1.0, True, False, False)


def test_dense_rewards_sum_to_one_and_sparse_ones_come_at_the_end(env):
    _, dense, _ = play_expert(env, 3)
    assert sum(dense) == pytest.approx(1.0)
    assert sum(reward > 0 for reward in dense) > 1
    with_sparse = gentax.make("sciworld", split="test")
    _, sparse, _ = play_expert(with_sparse, 3)
    assert sparse == [0.0] * (len(sparse) - 1) + [1.0]
    with_sparse.close()


def test_objects_of_the_same_name_are_listed_in_a_fixed_order():
    cups = ["a wood cup (containing red paint)", "a wood cup (containing blue paint)"]
    planes = ["an inclined plane with a steel surface", "an inclined plane with a brick surface"]
    one = tidy("\n".join(["a table", *cups, "a door", *planes, "a brick"]))
    other = tidy("\n".join(["a table", *cups[::-1], "a door", *planes[::-1], "a brick"]))
    assert one == other
    assert one.splitlines()[:2] == ["a table", cups[1]]
    assert tidy("b\na") == "b\na"


def test_actions_are_normalised():
    assert plain("\ud800 look\x00\n around\u2028") == "? look around"
    assert len(plain("word " * 100_000)) <= ACTION_LIMIT
    assert tidy("You see: \n\t\ta  thing. \n\n\tanother") == "You see:\na thing.\nanother"


def test_an_ambiguous_request_is_a_question(env):
    env.reset(options={"index": 1})
    observation, _, _, _, info = env.step("open door")
    assert observation.startswith("Ambiguous request")
    assert info["valid"]
    assert env.step("0")[4]["valid"]
    env.step("open door")
    assert not env.step("look around")[4]["valid"]  # the package takes it for the answer, and cancels
    assert env.step("look around")[4]["valid"]


def test_environments_are_isolated_and_play_in_threads():
    envs = [gentax.make("sciworld", split="test", reward="dense") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda pair: play_expert(pair[1], pair[0]), enumerate(envs)))
    assert all(success for _, _, success in results)
    assert [[move.action for move in moves] for moves, _, _ in results] == [
        list(plan_for(variation)) for variation in variations(DOMAIN.default_level, "test")[:4]
    ]
    looks = []
    for env in envs[:2]:
        env.reset(options={"index": 5})
    envs[0].step("teleport to foundry")
    for env in envs[:2]:
        looks.append(env.step("look around")[0])
    assert "called the foundry" in looks[0]
    assert "called the foundry" not in looks[1]
    for env in envs:
        env.close()


def test_a_task_is_deterministic_whatever_is_played_in_parallel():
    # The package's simulators share a generator: without shards, locks and seeds, several of these fail.
    envs: SimpleQueue = SimpleQueue()
    made = [gentax.make("sciworld", split="test") for _ in range(8)]
    for env in made:
        envs.put(env)

    def play(index: int) -> tuple[str, bool]:
        env = envs.get()
        try:
            return env.reset(options={"index": index})[0], play_expert(env, index)[2]
        finally:
            envs.put(env)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(play, range(60)))
    assert all(success for _, success in results)
    for index in (0, 20, 40):
        assert made[0].reset(options={"index": index})[0] == results[index][0]
    for env in made:
        env.close()


def test_closing_leaves_no_thread_and_a_step_afterwards_is_a_fault(env):
    before = threading.active_count()
    env.reset(options={"index": 0})
    assert threading.active_count() == before
    env.close()
    env.close()
    with pytest.raises(EnvironmentFault):
        env.step("look around")
    observation, _ = env.reset(options={"index": 0})
    assert "called" in observation


def test_plans_are_shortened_by_teleporting_and_use_visible_names():
    path = [
        Turn("open door to outside", "The door is already open."),
        Turn("go to outside", "You move to the outside."),
        Turn("focus on baby baby wolf", "You focus on the baby wolf."),
        Turn("pick up baby baby wolf", "You move the wolf to the inventory."),
        Turn("go to kitchen", "You move to the kitchen."),
        Turn("go to hallway", "You move to the hallway."),
        Turn("move baby baby wolf in inventory to red box", "You move the wolf to the red box."),
    ]
    short = shorten(path)
    assert rename(path, short) == [
        "teleport to outside",
        "look around",
        "focus on baby wolf",
        "pick up baby wolf",
        "teleport to hallway",
        "move baby wolf to red box",
    ]
