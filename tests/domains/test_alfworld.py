"""ALFWorld: the engine's own words, generated homes, an expert that searches, data of the user's, memory."""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from playing import play_expert

import gentax
from gentax.core import SPLITS, EnvironmentFault, Task, UsageError, split_of
from gentax.domains import domain, missing_modules

if lacking := missing_modules(domain("alfworld")):
    pytest.skip(f"needs {lacking}", allow_module_level=True)

from gentax.domains.alfworld import DEFAULT, KINDS, NAMED, PLANS, parse_level
from gentax.domains.alfworld.engine import NOTHING, Game
from gentax.domains.alfworld.games import FOLDERS, TYPES, draw
from gentax.domains.alfworld.homes import plan_of, plans_for, rules, tables, targets, wording

pytestmark = pytest.mark.slow


@pytest.fixture
def env():
    env = gentax.make("alfworld", split="test", reward="dense")
    yield env
    env.close()


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """Return what makes the package's own environment of a start. Importing alfworld makes a folder: not at home."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALFWORLD_DATA", str(tmp_path_factory.mktemp("data")))
        import textworld
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
        from textworld.envs import PddlEnv

        def make(start):
            env = AlfredDemangler(PddlEnv(textworld.EnvInfos(admissible_commands=True)))
            grammar = wording().replace("UNKNOWN GOAL", start.goal.words)
            env.load({"pddl_domain": rules(), "grammar": grammar, "pddl_problem": start.problem})
            return env, env.reset()

        yield make


def start_of(level: str, split: str, index: int):
    return draw(parse_level(level), split, index, Task("alfworld", level, split, index).seed)


def test_the_expert_s_episodes_on_the_default_level(env):
    lengths = []
    for index in range(60):
        moves, rewards, success = play_expert(env, index)
        assert success, index
        assert sum(rewards) == pytest.approx(1)
        assert min(rewards) >= 0
        assert all(3 < len(move.thought.split()) <= 16 for move in moves)
        lengths.append(len(moves))
    assert max(lengths) <= NAMED[DEFAULT].longest < env.horizon
    assert min(lengths) >= 3
    assert 4 < sum(lengths) / len(lengths) < 7


@pytest.mark.parametrize("level", [*(level for level in NAMED if level != DEFAULT), "place+heat-6", "two-9@FloorPlan3"])
def test_the_expert_wins_the_other_levels(level):
    for split in domain("alfworld").splits:
        env = gentax.make("alfworld", level, split=split)
        for index in range(6 if level == "home" else 2):
            moves, rewards, success = play_expert(env, index)
            assert success, (split, index)
            assert rewards == [0.0] * (len(moves) - 1) + [1.0]
            assert len(moves) <= parse_level(level).longest
        env.close()


def test_the_expert_recovers_from_random_actions():
    env = gentax.make("alfworld", "home", split="test", horizon=150)
    for index in range(12):
        moves, rewards, success = play_expert(env, index, slips=0.3)
        assert success, index
        assert len(moves) == len(rewards)  # it is never without a move
    env.close()


def test_the_text_of_a_task(env):
    observation, info = env.reset(options={"index": 0})
    assert observation.startswith("You are in the middle of a room. Looking quickly around you, you see a ")
    assert info["goal"][0].isupper()
    assert info["goal"].endswith(".")
    move = env.expert()
    assert move.action.startswith("go to ")
    place = move.action.removeprefix("go to ")
    assert place in observation
    assert move.thought.endswith(f"may be in the {place}: go there.")
    assert env.step(f"  {move.action.upper()}\n")[0].startswith(f"You arrive at {place}. ")
    assert env.step("look")[0] == f"You are facing the {place}. Next to it, you see nothing."
    assert env.step("inventory")[0] == "You are not carrying anything."
    assert info["goal"] in env.render()


@pytest.mark.parametrize("level", [DEFAULT, "home", "place+heat-6@FloorPlan3"])
def test_no_goal_is_asked_for_in_one_floor_plan_in_two_splits(level):
    contents = {split: {start_of(level, split, index).content for index in range(300)} for split in SPLITS}
    assert len(set.union(*contents.values())) == sum(map(len, contents.values()))
    assert all(split_of(content) == split for split, found in contents.items() for content in found)


def test_test_tasks_are_in_floor_plans_of_their_own():
    unseen = set(tables().TEST_SCENE_NUMBERS)
    assert len(PLANS) == 120
    assert len(unseen) == 24
    for kind in KINDS:
        train, test = plans_for(kind, False), plans_for(kind, True)
        assert set(test) <= unseen
        assert not set(train) & unseen
        assert plans_for(kind, None) == tuple(sorted(train + test))
    assert len(plans_for("place", None)) == 120
    assert {one.id for one in plan_of(1).receptacles} & {one.id for one in plan_of(7).receptacles} == {
        one.id for one in plan_of(1).receptacles if one.location == f"loc_bar_{one.id}"
    }


def test_tasks_alternate_between_the_kinds_of_a_level():
    for level in ("home", DEFAULT):
        kinds = parse_level(level).kinds
        assert [start_of(level, "train", index).goal.kind for index in range(12)] == list(kinds) * (12 // len(kinds))


def test_the_sought_object_starts_in_a_plausible_place_that_is_not_the_goal():
    for index in range(60):
        start = start_of("home", "train", index)
        lines = dict(line.split(": ", 1) for line in start.description.split("\n")[1:])
        goal = start.goal
        there = [place for place, things in lines.items() if f"{goal.thing} " in f", {things}".replace(", ", " ")]
        assert there
        assert goal.kind == "light" or not any(place.split()[0] == goal.to for place in there)
        assert len(lines) <= parse_level("home").places
    assert "Knife" not in targets(plan_of(1), "heat")


@pytest.mark.parametrize(("level", "count", "steps"), [("small", 3, 12), ("home", 2, 12), ("whole", 1, 6)])
def test_every_text_is_that_of_the_original_package(stock, level, count, steps):
    for index in range(count):
        start = start_of(level, "test", index)
        theirs, state = stock(start)
        game = Game(start.problem)
        rng = random.Random(index)
        assert state.feedback == (
            f"-= Welcome to TextWorld, ALFRED! =-\n\n{game.look()}\n\nYour task is to: {start.goal.words}."
        )
        for step in range(steps):
            assert state["admissible_commands"] == game.commands
            moving = step % 3 == 0
            action = rng.choice([one for one in game.commands if one.startswith("go to") == moving])
            state, _, _ = theirs.step(action)
            assert game.do(action) == state.feedback
            assert game.won == state["won"]
        assert theirs.step("fly")[0].feedback == game.do("fly") == NOTHING
        game.close()


def test_a_dense_reward_is_paid_once_for_each_subgoal():
    env = gentax.make("alfworld", "clean", split="test", reward="dense")
    moves, rewards, _ = play_expert(env, 0)
    verbs = [move.action.split()[0] for move in moves]
    paid = [verb for verb, reward in zip(verbs, rewards, strict=True) if reward]
    assert paid == ["take", "clean", "move"]
    assert [reward for reward in rewards if reward] == pytest.approx([1 / 3] * 3)
    env.reset(options={"index": 0})
    for move in moves[: verbs.index("take") + 1]:
        env.step(move.action)
    back = next(action for action in env.admissible() if action.startswith("move "))
    assert env.step(back)[1] == 0.0
    assert env.step(next(one.action for one in moves if one.action.startswith("take ")))[1] == 0.0
    env.close()


def test_unknown_levels_are_refused():
    for level, said in {
        "smal": "small",
        "place-8@FloorPlan303x": "did you mean 'FloorPlan303'",
        "plaice-8": "did you mean 'place'",
        "place-2": "3 to 60 receptacles, not 2",
        "heat-8@FloorPlan401": "FloorPlan401 of alfworld has nothing for a task of kind 'heat'",
    }.items():
        with pytest.raises(UsageError, match=said) as caught:
            gentax.make("alfworld", level)
        assert "\n" not in str(caught.value)
    assert gentax.make("alfworld", "place-8@FloorPlan303").horizon == parse_level("place-8").horizon


def test_a_closed_environment_can_be_reset_again(env):
    first = env.reset(options={"index": 3})
    env.close()
    assert env.admissible() == []
    assert env.expert() is None
    with pytest.raises(EnvironmentFault, match="reset"):
        env.step("look")
    env.close()
    assert env.reset(options={"index": 3}) == first


def test_nothing_is_printed_and_sys_argv_is_unchanged(tmp_path):
    code = (
        "import os, sys; before = list(sys.argv); import gentax; env = gentax.make('alfworld');"
        "env.reset(options={'index': 0}); env.step('look'); env.step(env.expert().action); env.close();"
        "assert sys.argv == before and 'ALFWORLD_DATA' not in os.environ and 'alfworld' not in sys.modules"
    )
    home = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    told = subprocess.run([sys.executable, "-c", code, "--mine"], capture_output=True, text=True, check=True, env=home)
    assert (told.stdout, told.stderr) == ("", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat(env):
    def resident() -> float:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    def games(first: int, count: int) -> None:
        for index in range(first, first + count):
            env.reset(options={"index": index})
            env.step(env.admissible()[0])

    games(0, 40)
    before = resident()
    games(40, 80)
    assert resident() - before < 2  # megabytes; the package's own environment takes 5 and more


def test_a_missing_package_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr("gentax.domains.registry.missing_modules", lambda record: ("fast_downward",))
    with pytest.raises(UsageError, match=r'domain .alfworld. needs fast_downward: pip install "gentax\[alfworld\]"'):
        gentax.make("alfworld")
    assert "GPL-2" in domain("alfworld").licence
    assert "GPL-3" in domain("alfworld").licence


# The published games: made up here, in their form.


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Return a folder of published games: one of each kind in each split, and three that are left out."""
    folder = tmp_path / "json_2.1.1"
    for split, name in FOLDERS.items():
        for index, kind in enumerate(KINDS):
            # As in the published data, the folder says what is asked for, and where.
            write(folder / name / f"{TYPES[kind]}-{split}-{index}" / "trial_1", start_of("home", split, index))
    asked_in_train = f"{TYPES[KINDS[0]]}-train-0"  # so it is left out of the validation games
    write(folder / "valid_seen" / asked_in_train / "trial_2", start_of("home", "train", 0))
    write(folder / "train" / "pick_and_place_with_movable_recep-1" / "trial_1", start_of("home", "train", 0))
    write(folder / "train" / "pick_and_place_simple-9" / "trial_1", start_of("home", "train", 0), solvable=False)
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    return folder


def write(folder: Path, start, solvable: bool = True) -> None:
    folder.mkdir(parents=True)
    goal = start.goal
    asked = {"object_target": goal.thing.title(), "parent_target": goal.to.title(), "toggle_target": goal.lamp.title()}
    grammar = wording().replace("UNKNOWN GOAL", goal.words)
    game = {"pddl_domain": "", "grammar": grammar, "pddl_problem": start.problem, "solvable": solvable}
    (folder / "game.tw-pddl").write_text(json.dumps({**game, "walkthrough": ["look"]}))
    (folder / "traj_data.json").write_text(json.dumps({"task_type": TYPES[goal.kind], "pddl_params": asked}))


def test_published_games_are_played(data):
    for split in FOLDERS:
        env = gentax.make("alfworld", "official", split=split)
        assert env.size(split) == len(KINDS)
        goals = set()
        for index in range(env.size(split)):
            assert play_expert(env, index)[2]
            goals.add(env.goal)
        assert goals == {f"{words[0].upper()}{words[1:]}." for words in wishes(split)}
        env.close()


def wishes(split: str) -> list[str]:
    return [start_of("home", split, index).goal.words for index in range(len(KINDS))]


def test_incomplete_published_games_are_refused(data, monkeypatch):
    def complaint(step: bool = False) -> str:
        with pytest.raises(UsageError) as caught:
            env = gentax.make("alfworld", "official")
            for index in range(env.size("train") if step else 0):
                env.reset(options={"index": index})
        text = str(caught.value)
        assert "\n" not in text
        assert "alfworld-download" in text
        return text

    games = sorted((data / "train").rglob("game.tw-pddl"))
    from gentax.domains.alfworld import games as games_module

    games[0].write_text("{")
    assert "cannot be read as JSON" in complaint(step=True)
    games[0].unlink()
    games_module._games.cache_clear()
    assert "1 games of" in complaint()
    monkeypatch.setenv("ALFWORLD_DATA", str(data / "train"))
    assert "is missing" in complaint()
    monkeypatch.setenv("ALFWORLD_DATA", str(data / "nowhere"))
    assert "not a folder" in complaint()
    monkeypatch.delenv("ALFWORLD_DATA")
    assert "set ALFWORLD_DATA" in complaint()


def test_a_game_that_the_planner_cannot_read_is_a_fault():
    """Also where its translator would end the process: at a thing that is listed twice."""
    problem = start_of("small", "test", 0).problem
    for broken in ("", "(" * 10_000, problem.replace("agent1 - agent", "agent1 - agent agent1 - agent")):
        with pytest.raises(EnvironmentFault, match=r"^the planner cannot read this game: [^\n]*$"):
            Game(broken)
